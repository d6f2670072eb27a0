//! The overview page of the console: the state of all agents, what happened, what needs attention and which setup steps
//! are left.

mod attention;
mod marks;
mod ranking;
mod steps;

use super::{
    Services,
    backup::{self, Last},
    core::{caller::Caller, policy::Action},
};
use crate::{
    domain::{
        AgentStatus, Limit, Result,
        audit::{self, Bucket, Range},
    },
    store::{
        agents, audit as log,
        credentials::activity::{self, By},
    },
};

pub use crate::store::credentials::activity::Kind;
pub use attention::{COUNT_MAX, MANY_REFUSALS, Named, Need};
pub use marks::{Item, dismiss, restore};
pub use ranking::Ranked;
pub use steps::Steps;

use attention::Found;
use ranking::ranked;

/// Number of agents in each ranking.
const RANKED: usize = 5;

/// The state of all agents.
#[derive(Clone, Debug)]
pub struct Overview {
    /// Number of active agents.
    pub active: i64,
    /// Number of suspended agents.
    pub suspended: i64,
    /// Number of revoked agents.
    pub revoked: i64,
    /// Tokens and refusals in the range, oldest first.
    pub buckets: Vec<Bucket>,
    /// Tokens and refusals in the range by their kind, most frequent first.
    pub kinds: Vec<Kind>,
    /// The agents that got the most tokens in the range.
    pub busiest: Vec<Ranked>,
    /// The agents that were refused the most in the range.
    pub most_refused: Vec<Ranked>,
    /// What needs attention, also if the caller dismissed it.
    pub attention: Vec<Need>,
    /// The latest audit records.
    pub latest: Vec<audit::Record>,
    /// The setup steps; `None` if the caller is no owner, or dismissed them.
    pub steps: Option<Steps>,
    /// True if the caller dismissed the setup steps.
    pub steps_dismissed: bool,
    /// The last backups.
    pub last_backup: Last,
}

/// Returns the overview. Everything but the setup steps, the agents and what needs attention is about the range.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn read(services: &Services, caller: &Caller, range: Range) -> Result<Overview> {
    services.permit(caller, Action::ReadAudit).await?;
    services.permit(caller, Action::ListKeys).await?;
    let now = services.env.now();
    let everything = audit::Filter::default();
    let latest = log::list(&services.store, &everything, audit::Start::Before(i64::MAX), Limit::of(8)).await?;
    let last_backup = backup::last(services).await?;
    let mut read = services.store.read_usage().await?;
    let counts = agents::counts(read.conn()).await?;
    let count = |status| counts.iter().find(|(other, _)| *other == status).map_or(0, |(_, agents)| *agents);
    let marks = marks::of(read.conn(), caller, now).await?;
    let steps_dismissed = marks.contains(&Item::Checklist);
    let steps =
        if steps_dismissed { None } else { steps::read(read.conn(), caller, &marks, &last_backup, now).await? };
    let found = Found { suspended: count(AgentStatus::Suspended), backup: &last_backup };
    let attention = attention::read(read.conn(), caller, &marks, found, now).await?;
    Ok(Overview {
        active: count(AgentStatus::Active),
        suspended: count(AgentStatus::Suspended),
        revoked: count(AgentStatus::Revoked),
        buckets: activity::recent(read.conn(), range, now).await?,
        kinds: activity::kinds(read.conn(), range, now).await?,
        busiest: ranked(read.conn(), By::Issued, range, now, RANKED).await?,
        most_refused: ranked(read.conn(), By::Refused, range, now, RANKED).await?,
        attention,
        latest: latest.items,
        steps,
        steps_dismissed,
        last_backup,
    })
}
