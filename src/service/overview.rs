//! What the console shows first: how the fleet is, what wants attention, and what is still to be set up.

use super::{
    Services,
    core::{caller::Caller, policy::Action},
};
use crate::{
    domain::{AgentStatus, Limit, Result, Selection, audit},
    store::{
        agents, audit as log, capabilities,
        credentials::{
            activity::{self, Hour},
            api_keys,
        },
    },
};

/// Counted no further: what wants attention wants it however many more there are.
pub const MOST: i64 = 1_000;
/// Hours of activity that are shown.
const HOURS: i64 = 24;
/// Refusals in a day that are worth a look.
const MANY_REFUSALS: i64 = 10;

/// How the fleet is.
#[derive(Clone, Debug)]
pub struct Overview {
    /// Agents that may act.
    pub active: i64,
    /// Agents that are suspended.
    pub suspended: i64,
    /// Agents that were revoked.
    pub revoked: i64,
    /// Authentications of the last 24 hours, oldest first.
    pub hours: Vec<Hour>,
    /// What wants attention.
    pub attention: Attention,
    /// The latest events.
    pub latest: Vec<audit::Record>,
    /// What is still to be set up.
    pub steps: Steps,
}

/// What wants attention, each counted no further than [`MOST`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attention {
    /// Keys that expire within 7 days.
    pub expiring: i64,
    /// Keys that were not used for 90 days.
    pub idle: i64,
    /// Rotated keys that still work.
    pub in_grace: i64,
    /// Agents that are suspended.
    pub suspended: i64,
    /// Credentials refused within a day, where they are many.
    pub refused: i64,
}

impl Attention {
    /// Whether anything does.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// What a new installation takes until an agent works with it; each is told from what there is.
#[expect(clippy::struct_excessive_bools, reason = "a checklist")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// An agent was registered besides the one that AIMS makes itself.
    pub agent: bool,
    /// That agent, or another, has a key.
    pub key: bool,
    /// An agent other than the first holds a capability.
    pub grant: bool,
    /// A token was issued.
    pub token: bool,
}

impl Steps {
    /// Whether everything is done.
    #[must_use]
    pub const fn all(&self) -> bool {
        self.agent && self.key && self.grant && self.token
    }
}

/// Reads how the fleet is.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn read(services: &Services, caller: &Caller) -> Result<Overview> {
    services.permit(caller, Action::ReadAudit).await?;
    services.permit(caller, Action::ListKeys).await?;
    let now = services.env.now();
    let everything = audit::Filter::default();
    let latest = log::list(&services.store, &everything, audit::Start::Before(i64::MAX), Limit::of(8)).await?;
    let mut read = services.store.read_usage().await?;
    let counts = agents::counts(read.conn()).await?;
    let count = |wanted| counts.iter().find(|(status, _)| *status == wanted).map_or(0, |(_, agents)| *agents);
    let hours = activity::recent(read.conn(), now, HOURS).await?;
    let refused: i64 = hours.iter().map(|hour| hour.refused).sum();
    let attention = Attention {
        expiring: api_keys::count_fleet(read.conn(), Selection::Expiring, now, MOST).await?,
        idle: api_keys::count_fleet(read.conn(), Selection::Idle, now, MOST).await?,
        in_grace: api_keys::count_fleet(read.conn(), Selection::InGrace, now, MOST).await?,
        suspended: count(AgentStatus::Suspended),
        refused: if refused >= MANY_REFUSALS { refused } else { 0 },
    };
    let steps = Steps {
        agent: counts.iter().map(|(_, agents)| agents).sum::<i64>() > 1,
        key: api_keys::count_fleet(read.conn(), Selection::All, now, 2).await? > 1,
        grant: capabilities::count_holding(read.conn(), 2).await? > 1,
        token: activity::any_issued(read.conn()).await?,
    };
    Ok(Overview {
        active: count(AgentStatus::Active),
        suspended: count(AgentStatus::Suspended),
        revoked: count(AgentStatus::Revoked),
        hours,
        attention,
        latest: latest.items,
        steps,
    })
}
