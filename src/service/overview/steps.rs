//! The setup steps of a new installation.

use super::marks::Item;
use crate::{
    domain::{AgentId, Result, Timestamp},
    service::{
        backup::Last,
        bootstrap::ADMIN_NAME,
        core::{
            caller::Caller,
            policy::{Action, Authority},
        },
    },
    store::{
        Conn,
        people::overview,
        people::{administrators, factors},
    },
};

/// The setup steps, and which of them are done.
#[expect(clippy::struct_excessive_bools, reason = "a checklist")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// The newest agent besides `admin`; `None` if there is none yet.
    pub agent: Option<(AgentId, String)>,
    /// An agent other than `admin` got a token.
    pub exchange: bool,
    /// Another owner can sign in.
    pub owner: bool,
    /// The caller has a passkey.
    pub passkey: bool,
    /// Backups are scheduled, one was made, or the caller said that they are planned.
    pub backup: bool,
    /// Backups are scheduled or one was made, so nobody needs to say that they are planned.
    pub backup_is_known: bool,
}

impl Steps {
    /// Returns true if all steps are done.
    #[must_use]
    pub const fn all(&self) -> bool {
        self.agent.is_some() && self.exchange && self.owner && self.passkey && self.backup
    }
}

/// Returns the steps; `None` if the caller is no owner, because the steps are an owner's to do, or if all are done.
pub(super) async fn read(
    mut conn: Conn<'_>,
    caller: &Caller,
    marks: &[Item],
    last: &Last,
    now: Timestamp,
) -> Result<Option<Steps>> {
    let Some(person) = caller.administrator() else { return Ok(None) };
    if Authority::of(caller).require(Action::ListAdministrators, now).is_err() {
        return Ok(None);
    }
    let backup_is_known = last.is_scheduled || last.made_at.is_some();
    let steps = Steps {
        agent: overview::newest_agent(conn.reborrow(), ADMIN_NAME).await?,
        exchange: overview::any_used(conn.reborrow(), ADMIN_NAME).await?,
        owner: administrators::has_other_owner(conn.reborrow(), person).await?,
        passkey: !factors::passkeys(conn, person).await?.is_empty(),
        backup: backup_is_known || marks.contains(&Item::Backup),
        backup_is_known,
    };
    Ok(Some(steps).filter(|steps| !steps.all()))
}
