//! Somebody who holds `admin:*` can always come in: nobody else could give that capability again.

use std::time::Duration;

use crate::{
    domain::{AgentId, Error, Result, token::Credential},
    service::core::act::Act,
    store::credentials::ways_in::{self, Demand},
};

/// How long a way in must be good for, to count as one that lasts.
const LASTING: Duration = Duration::from_hours(24);

/// Refuses to stop an agent, or to take `admin:*` from it, if it is the last one that holds it and can come in now. Whoever
/// cannot is stopped freely; and that the others' ways in end soon keeps nobody from stopping this one.
pub(in crate::service) async fn keep_an_administrator(act: &mut Act<'_>, id: AgentId) -> Result<()> {
    let now = now(act);
    if ways_in::has_one(act.conn(), id, None, now).await? && !ways_in::another_has_one(act.conn(), id, now).await? {
        return Err(Error::Refused("This is the last active agent that holds admin:* and can authenticate"));
    }
    Ok(())
}

/// Refuses to take a credential away if nobody who holds `admin:*` could come in without it, or only until soon. What lets nobody in,
/// and what is not the agent's, is no such credential.
pub(in crate::service) async fn keep_a_way_in(act: &mut Act<'_>, id: AgentId, credential: Credential) -> Result<()> {
    if is_last(act, id, credential, now(act)).await? {
        return Err(Error::Refused(
            "This is the last usable credential of the last active agent that holds admin:*; create another first",
        ));
    }
    // What gives only so many tokens may be used up at any time.
    let lasting = Demand { at: act.now.plus(LASTING), tokens: i64::MAX };
    if is_last(act, id, credential, lasting).await? {
        return Err(Error::Refused(
            "No other credential of an active agent that holds admin:* is sure to last for a day; create another first",
        ));
    }
    Ok(())
}

const fn now(act: &Act<'_>) -> Demand {
    Demand { at: act.now, tokens: 1 }
}

/// Whether this credential of the agent is the only way in of all who hold `admin:*`.
async fn is_last(act: &mut Act<'_>, id: AgentId, credential: Credential, demand: Demand) -> Result<bool> {
    Ok(ways_in::has_one(act.conn(), id, None, demand).await?
        && !ways_in::has_one(act.conn(), id, Some(credential), demand).await?
        && !ways_in::another_has_one(act.conn(), id, demand).await?)
}
