//! What a person dismissed on the overview, or ticked by hand. It changes nothing for others: what one person has dealt
//! with, or need not deal with, must not disappear for the rest. A preference of one's own leaves no audit record, as the
//! theme does not.

use std::time::Duration;

use crate::{
    domain::{AuthFailure, Error, Result, Timestamp},
    service::{
        Services,
        core::{caller::Caller, policy::Action},
    },
    store::{Conn, people::overview},
};

/// How long something that needs attention stays dismissed.
const WEEK: Duration = Duration::from_hours(7 * 24);

/// What can be dismissed or ticked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// Many refused requests.
    Refused,
    /// Agents that are refused repeatedly.
    RefusedAgents,
    /// Owners without a second factor.
    Factors,
    /// Keys without an expiry of agents that hold `admin:*`.
    NeverExpiring,
    /// Keys that expire within 7 days.
    Expiring,
    /// Rotated keys that are still used.
    UsedInGrace,
    /// Keys that have not been used for 90 days.
    Idle,
    /// Suspended agents.
    Suspended,
    /// Scheduled backups that fail or are overdue.
    Backups,
    /// The setup steps.
    Checklist,
    /// The setup step that cannot tick itself.
    Backup,
}

impl Item {
    const ALL: [Self; 11] = [
        Self::Refused,
        Self::RefusedAgents,
        Self::Factors,
        Self::NeverExpiring,
        Self::Expiring,
        Self::UsedInGrace,
        Self::Idle,
        Self::Suspended,
        Self::Backups,
        Self::Checklist,
        Self::Backup,
    ];

    /// Returns the name by which it is stored and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::RefusedAgents => "refused_agents",
            Self::Factors => "factors",
            Self::NeverExpiring => "never_expiring",
            Self::Expiring => "expiring",
            Self::UsedInGrace => "used_in_grace",
            Self::Idle => "idle",
            Self::Suspended => "suspended",
            Self::Backups => "backups",
            Self::Checklist => "checklist",
            Self::Backup => "backup",
        }
    }

    /// Returns the item with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|item| item.as_str() == text)
    }

    /// Returns true if a dismissal of it lasts until it is undone.
    #[must_use]
    pub const fn is_lasting(self) -> bool {
        matches!(self, Self::Checklist | Self::Backup)
    }
}

/// Returns what the caller has dismissed.
pub(super) async fn of(conn: Conn<'_>, caller: &Caller, now: Timestamp) -> Result<Vec<Item>> {
    let Some(person) = caller.administrator() else { return Ok(Vec::new()) };
    let marks = overview::marks(conn, person, now).await?;
    Ok(marks.iter().filter_map(|item| Item::parse(item)).collect())
}

/// Dismisses an item for the caller: for a week, or for good if it is a part of the setup.
///
/// # Errors
/// [`Error::Denied`]; [`AuthFailure::NoSession`] if the caller is no person.
pub async fn dismiss(services: &Services, caller: &Caller, item: Item) -> Result<()> {
    let now = services.env.now();
    let until = if item.is_lasting() { Timestamp::from_micros(i64::MAX) } else { now.plus(WEEK) };
    set(services, caller, item, Some(until)).await
}

/// Shows a dismissed item again.
///
/// # Errors
/// See [`dismiss`].
pub async fn restore(services: &Services, caller: &Caller, item: Item) -> Result<()> {
    set(services, caller, item, None).await
}

async fn set(services: &Services, caller: &Caller, item: Item, until: Option<Timestamp>) -> Result<()> {
    let person = caller.administrator().ok_or(Error::from(AuthFailure::NoSession))?;
    services
        .change(caller, Action::ManageAccount, move |act| {
            Box::pin(async move {
                match until {
                    Some(until) => overview::mark(act.conn(), person, item.as_str(), until).await,
                    None => overview::unmark(act.conn(), person, item.as_str()).await,
                }
            })
        })
        .await
}
