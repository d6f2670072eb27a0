//! What needs attention.

use super::{
    marks::Item,
    ranking::{Ranked, ranked},
};
use crate::{
    domain::{AdministratorId, Result, Selection, Timestamp, audit::Range},
    service::{
        backup::Last,
        core::{
            caller::Caller,
            policy::{Action, Authority},
        },
    },
    store::{
        Conn,
        credentials::{
            activity::{self, By},
            api_keys,
        },
        people::overview,
    },
};

/// Maximum of the counts.
pub const COUNT_MAX: i64 = 1_000;
/// Minimum number of refusals in a day that need attention.
pub const MANY_REFUSALS: i64 = 10;
/// Maximum number of agents that are counted for their refusals.
const REFUSED_MAX: usize = 50;

/// Something that needs attention.
#[derive(Clone, Debug)]
pub struct Need {
    /// What.
    pub item: Item,
    /// How many. Stops at [`COUNT_MAX`].
    pub count: i64,
    /// Those that are counted, if they are few enough to be named.
    pub named: Vec<Named>,
    /// True if the caller dismissed it.
    pub is_dismissed: bool,
}

/// Somebody who needs attention.
#[derive(Clone, Debug)]
pub enum Named {
    /// An agent.
    Agent(Ranked),
    /// A person, with their name.
    Person(AdministratorId, String),
}

/// What the overview shows anyway.
pub(super) struct Found<'f> {
    /// Number of suspended agents.
    pub(super) suspended: i64,
    pub(super) backup: &'f Last,
}

/// Returns what needs attention, most urgent first.
pub(super) async fn read(
    mut conn: Conn<'_>,
    caller: &Caller,
    marks: &[Item],
    known: Found<'_>,
    now: Timestamp,
) -> Result<Vec<Need>> {
    let mut found: Vec<(Item, i64, Vec<Named>)> = Vec::new();

    let needs_backup = known.backup.is_scheduled && (known.backup.failed_at.is_some() || known.backup.is_overdue);
    found.push((Item::Backups, i64::from(needs_backup), Vec::new()));

    let today = activity::recent(conn.reborrow(), Range::Day, now).await?;
    let refused: i64 = today.iter().map(|bucket| bucket.activity.refused).sum();
    found.push((Item::Refused, if refused >= MANY_REFUSALS { refused } else { 0 }, Vec::new()));

    let mut agents = ranked(conn.reborrow(), By::Refused, Range::Day, now, REFUSED_MAX).await?;
    agents.retain(|agent| agent.activity.refused >= MANY_REFUSALS);
    let count = i64::try_from(agents.len()).unwrap_or_default();
    found.push((Item::RefusedAgents, count, agents.into_iter().map(Named::Agent).collect()));

    // Only those who may see administrators.
    if Authority::of(caller).require(Action::ListAdministrators, now).is_ok() {
        let owners = overview::owners_without_factor(conn.reborrow()).await?;
        let count = i64::try_from(owners.len()).unwrap_or_default();
        found.push((Item::Factors, count, owners.into_iter().map(|(id, name)| Named::Person(id, name)).collect()));
    }

    let counts = [
        (Item::NeverExpiring, overview::count_unending_administrator_keys(conn.reborrow(), COUNT_MAX).await?),
        (Item::Expiring, api_keys::count_fleet(conn.reborrow(), Selection::Expiring, now, COUNT_MAX).await?),
        (Item::UsedInGrace, overview::count_used_in_grace(conn.reborrow(), now, COUNT_MAX).await?),
        (Item::Idle, api_keys::count_fleet(conn, Selection::Idle, now, COUNT_MAX).await?),
        (Item::Suspended, known.suspended),
    ];
    found.extend(counts.map(|(item, count)| (item, count, Vec::new())));

    let need = |(item, count, named)| Need { item, count, named, is_dismissed: marks.contains(&item) };
    Ok(found.into_iter().filter(|(_, count, _)| *count > 0).map(need).collect())
}
