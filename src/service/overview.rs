//! The overview page of the console: the state of all agents, what needs attention and which setup steps are left.

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

/// Maximum of the counts in [`Attention`].
pub const COUNT_MAX: i64 = 1_000;
/// Hours of activity that are shown.
const HOURS: i64 = 24;
/// Minimum number of refusals in a day that need attention.
const MANY_REFUSALS: i64 = 10;

/// The state of all agents.
#[derive(Clone, Debug)]
pub struct Overview {
    /// Number of active agents.
    pub active: i64,
    /// Number of suspended agents.
    pub suspended: i64,
    /// Number of revoked agents.
    pub revoked: i64,
    /// Authentications in the last 24 hours, oldest first.
    pub hours: Vec<Hour>,
    /// What needs attention.
    pub attention: Attention,
    /// The latest audit records.
    pub latest: Vec<audit::Record>,
    /// The setup steps.
    pub steps: Steps,
}

/// What needs attention. Counts stop at [`COUNT_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attention {
    /// Keys that expire within 7 days.
    pub expiring: i64,
    /// Keys that have not been used for 90 days.
    pub idle: i64,
    /// Rotated keys that still work.
    pub in_grace: i64,
    /// Suspended agents.
    pub suspended: i64,
    /// Refused credentials within a day; 0 if there are only few.
    pub refused: i64,
}

impl Attention {
    /// Returns true if anything needs attention.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// The setup steps of a new installation, and which of them are done.
#[expect(clippy::struct_excessive_bools, reason = "a checklist")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// An agent was registered, besides `admin`.
    pub agent: bool,
    /// An API key was created, besides that of `admin`.
    pub key: bool,
    /// An agent other than `admin` holds a capability.
    pub grant: bool,
    /// A token was issued.
    pub token: bool,
}

impl Steps {
    /// Returns true if all steps are done.
    #[must_use]
    pub const fn all(&self) -> bool {
        self.agent && self.key && self.grant && self.token
    }
}

/// Returns the overview.
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
    let count = |status| counts.iter().find(|(other, _)| *other == status).map_or(0, |(_, agents)| *agents);
    let hours = activity::recent(read.conn(), now, HOURS).await?;
    let refused: i64 = hours.iter().map(|hour| hour.refused).sum();
    let attention = Attention {
        expiring: api_keys::count_fleet(read.conn(), Selection::Expiring, now, COUNT_MAX).await?,
        idle: api_keys::count_fleet(read.conn(), Selection::Idle, now, COUNT_MAX).await?,
        in_grace: api_keys::count_fleet(read.conn(), Selection::InGrace, now, COUNT_MAX).await?,
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
