//! At least one active agent that holds `admin:*` can always authenticate. Without one, no agent could grant that
//! capability again.

use std::time::Duration;

use super::act::Act;
use crate::{
    domain::{AgentId, ApiKeyId, Error, Result, Timestamp, token::Credential},
    store::{
        Conn,
        credentials::ways_in::{self, Demand},
    },
};

/// Minimum remaining life of a lasting credential.
const LASTING: Duration = Duration::from_hours(24);

/// Checks that an agent may be suspended, revoked or deleted, or lose `admin:*`. It may not if it is the last active
/// agent that holds `admin:*` and can authenticate.
///
/// # Errors
/// [`Error::Refused`].
pub(in crate::service) async fn require_other_administrator(act: &mut Act<'_>, id: AgentId) -> Result<()> {
    let now = now(act);
    if ways_in::has_one(act.conn(), id, None, now).await? && !ways_in::another_has_one(act.conn(), id, now).await? {
        return Err(Error::Refused("This is the last active agent that holds admin:* and can authenticate"));
    }
    Ok(())
}

/// Checks that a credential may be revoked. It may not if no agent that holds `admin:*` could authenticate without it,
/// or if all that could would have only credentials that end within a day.
///
/// # Errors
/// [`Error::Refused`].
pub(in crate::service) async fn require_other_credential(
    act: &mut Act<'_>,
    id: AgentId,
    credential: Credential,
) -> Result<()> {
    if is_last(act, id, credential, now(act)).await? {
        return Err(Error::Refused(
            "This is the last usable credential of the last active agent that holds admin:*. Create another one first",
        ));
    }
    // A credential with limited uses may be used up at any time.
    let lasting = Demand { at: act.now.plus(LASTING), tokens: i64::MAX };
    if is_last(act, id, credential, lasting).await? {
        return Err(Error::Refused(
            "The other credentials of active agents that hold admin:* may end within a day. Create another one first",
        ));
    }
    Ok(())
}

/// Returns those of these keys whose revocation, one after another, [`require_other_credential`] refuses. `keys` holds
/// keys of agents that hold `admin:*`.
///
/// # Errors
/// If the database fails.
pub(in crate::service) async fn indispensable(
    mut conn: Conn<'_>,
    keys: &[(AgentId, ApiKeyId)],
    now: Timestamp,
) -> Result<Vec<ApiKeyId>> {
    let demands = [Demand { at: now, tokens: 1 }, Demand { at: now.plus(LASTING), tokens: i64::MAX }];
    let all: Vec<_> = keys.iter().map(|(_, key)| *key).collect();
    let (mut indispensable, mut gone) = (Vec::new(), Vec::new());
    for demand in demands {
        if ways_in::any_without(conn.reborrow(), None, &all, demand).await? {
            continue;
        }
        gone.clear();
        for &(agent, key) in keys.iter().filter(|(_, key)| !indispensable.contains(key)).collect::<Vec<_>>() {
            let had_one = ways_in::any_without(conn.reborrow(), Some(agent), &gone, demand).await?;
            gone.push(key);
            if had_one && !ways_in::any_without(conn.reborrow(), None, &gone, demand).await? {
                indispensable.push(key);
                gone.pop();
            }
        }
    }
    Ok(indispensable)
}

const fn now(act: &Act<'_>) -> Demand {
    Demand { at: act.now, tokens: 1 }
}

/// Returns true if no agent that holds `admin:*` could authenticate without this credential of the agent.
async fn is_last(act: &mut Act<'_>, id: AgentId, credential: Credential, demand: Demand) -> Result<bool> {
    Ok(ways_in::has_one(act.conn(), id, None, demand).await?
        && !ways_in::has_one(act.conn(), id, Some(credential), demand).await?
        && !ways_in::another_has_one(act.conn(), id, demand).await?)
}
