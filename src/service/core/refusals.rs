//! Audit records of refusals. The first ones get a record each; the rest are counted, so that refusals cannot fill the disk.
//!
//! Refusals are counted in windows of a minute. `budget` decides which are recorded one by one; `suppressed` counts the
//! others, and the counts are recorded when the window ends.

mod budget;
mod suppressed;
#[cfg(test)]
mod tests;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    caller::{AgentCaller, Caller, Origin, Principal},
    policy::Action,
};
use crate::{
    domain::{
        ActorId, AdministratorId, AgentId, ApiKeyId, AuthFailure, Denial, Error, Result, Timestamp,
        audit::{AuditAction, Event, RefusalBounds, Resource},
    },
    service::Services,
};
use budget::Budget;
use suppressed::{Source, Suppressed};

/// How long refusals are counted together, at least.
const WINDOW: Duration = Duration::from_mins(1);

/// Counts refusals. All clones share the counts.
#[derive(Clone, Default)]
pub struct Refusals(Arc<Mutex<Option<Window>>>);

struct Window {
    since: Timestamp,
    budget: Budget,
    suppressed: Suppressed,
}

impl Window {
    fn new(since: Timestamp) -> Self {
        Self { since, budget: Budget::default(), suppressed: Suppressed::default() }
    }

    /// Returns true once the window has lasted its time, by whichever direction the clock moved.
    fn is_over(&self, now: Timestamp) -> bool {
        u128::from(now.as_micros().abs_diff(self.since.as_micros())) >= WINDOW.as_micros()
    }
}

impl Refusals {
    fn window(&self) -> MutexGuard<'_, Option<Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if a refusal should be recorded; counts it otherwise. A window with counts continues until they are recorded.
    fn admit(&self, known: Option<Known>, ip: Option<IpAddr>, now: Timestamp, bounds: RefusalBounds) -> bool {
        let mut window = self.window();
        let window = match &mut *window {
            Some(window) if !window.is_over(now) || !window.suppressed.is_empty() => window,
            ended => ended.insert(Window::new(now)),
        };
        let admitted = window.budget.admit(known, ip, bounds);
        if !admitted {
            window.suppressed.add(known, ip);
        }
        admitted
    }

    /// How many refusals are counted and not yet recorded.
    #[must_use]
    pub fn suppressed(&self) -> u64 {
        self.window().as_ref().map_or(0, |window| window.suppressed.total())
    }

    /// Ends the window if it is over or `in_any_case` is set. Returns it if it has counts to record.
    fn end(&self, now: Timestamp, in_any_case: bool) -> Option<Ended> {
        let window = self.window().take_if(|window| in_any_case || window.is_over(now))?;
        (!window.suppressed.is_empty()).then(|| Ended { refusals: self.clone(), window: Some(window) })
    }

    /// Continues with a window that could not be recorded, and with what was counted since.
    fn go_on(&self, mut window: Window) {
        let mut current = self.window();
        if let Some(recent) = current.take() {
            window.budget.absorb(recent.budget);
            window.suppressed.absorb(recent.suppressed);
        }
        *current = Some(window);
    }
}

/// A window whose counts are about to be recorded. If dropped before [`Ended::recorded`], it continues, because the recording may
/// have failed or been cancelled.
struct Ended {
    refusals: Refusals,
    window: Option<Window>,
}

impl Ended {
    fn recorded(mut self) {
        self.window = None;
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(window) = self.window.take() {
            self.refusals.go_on(window);
        }
    }
}

/// A principal that a refusal concerns beyond doubt: it has reserves that strangers cannot use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::service) enum Known {
    /// An agent, by its credential.
    Agent(AgentId),
    /// An administrator, by their session.
    Person(AdministratorId),
    /// The account of an administrator that a sign-in named. Separate from [`Known::Person`], because guessing a password must not
    /// use up the reserve for the owner's acts.
    Account(AdministratorId),
}

impl Known {
    fn of(caller: &Caller) -> Option<Self> {
        match &caller.principal {
            Principal::System => None,
            Principal::Agent(agent) => Some(Self::Agent(agent.acting().agent)),
            Principal::Administrator(person) => Some(Self::Person(person.id)),
        }
    }

    fn actor(self) -> Option<ActorId> {
        match self {
            Self::Agent(id) => Some(id.into()),
            Self::Person(id) => Some(id.into()),
            Self::Account(_) => None,
        }
    }
}

/// Who was refused, as far as is known.
#[derive(Clone, Copy)]
pub(in crate::service) struct By {
    pub(in crate::service) known: Option<Known>,
    pub(in crate::service) subject: Option<AgentId>,
}

impl By {
    pub(in crate::service) const NOBODY: Self = Self { known: None, subject: None };

    /// The agent that acts for itself, if one is known.
    pub(in crate::service) fn agent(id: Option<AgentId>) -> Self {
        Self { known: id.map(Known::Agent), subject: id }
    }
}

impl Services {
    /// Refuses an API key, on the record.
    pub(in crate::service) async fn refuse<T>(
        &self,
        origin: &Origin,
        agent: Option<AgentId>,
        key: Option<ApiKeyId>,
        failure: AuthFailure,
    ) -> Result<T> {
        let details = json!({ "reason": failure.reason() });
        let by = By::agent(agent);
        self.record_refusal(AuditAction::AuthFailed, origin, by, key.map(Resource::ApiKey), details).await?;
        Err(failure.into())
    }

    /// Refuses an assertion, on the record.
    pub(in crate::service) async fn refuse_assertion<T>(
        &self,
        origin: &Origin,
        by: By,
        failure: AuthFailure,
    ) -> Result<T> {
        let details = json!({ "reason": failure.reason() });
        self.record_refusal(AuditAction::AuthFailed, origin, by, None, details).await?;
        Err(failure.into())
    }

    /// Refuses an access token, on the record. The bearer is not told why.
    pub(in crate::service) async fn refuse_token<T>(
        &self,
        origin: &Origin,
        agent: Option<&AgentCaller>,
        failure: AuthFailure,
    ) -> Result<T> {
        let key = agent.map(|agent| agent.acting().credential.into());
        let details = json!({ "reason": failure.reason() });
        let by = By {
            known: agent.map(|agent| Known::Agent(agent.acting().agent)),
            subject: agent.map(|agent| agent.subject.agent),
        };
        self.record_refusal(AuditAction::AuthFailed, origin, by, key, details).await?;
        Err(AuthFailure::InvalidToken.into())
    }

    /// Refuses a proof of possession, on the record, except for a client that only begins.
    pub(in crate::service) async fn refuse_proof<T>(
        &self,
        origin: &Origin,
        agent: &AgentCaller,
        failure: AuthFailure,
    ) -> Result<T> {
        if failure == AuthFailure::DpopNonceNeeded {
            return Err(failure.into());
        }
        match self.refuse_token(origin, Some(agent), failure).await {
            Err(Error::Unauthenticated(_)) if matches!(failure, AuthFailure::InvalidDpopProof(_)) => {
                Err(failure.into())
            }
            refused => refused,
        }
    }

    /// Records that a known caller lacked authority.
    pub(in crate::service) async fn record_denial(
        &self,
        caller: &Caller,
        action: Action,
        denial: &Denial,
    ) -> Result<()> {
        let mut details = json!({ "capability": denial.capability(), "action": format!("{action:?}") });
        if let (Some(role), Some(members)) = (denial.role(), details.as_object_mut()) {
            members.insert("role".to_owned(), role.as_str().into());
        }
        let by = By { known: Known::of(caller), subject: caller.subject() };
        self.record_refusal(AuditAction::AuthzDenied, &caller.origin, by, None, details).await?;
        Ok(())
    }

    /// Records a refusal, or only counts it when there are too many. Returns true if it was recorded.
    pub(in crate::service) async fn record_refusal(
        &self,
        action: AuditAction,
        origin: &Origin,
        by: By,
        resource: Option<Resource>,
        details: Value,
    ) -> Result<bool> {
        let now = self.env.now();
        if !self.refusals.admit(by.known, origin.ip, now, self.settings.refusals) {
            return Ok(false);
        }
        let event = Event {
            id: self.env.uuid(),
            at: now,
            actor: by.known.and_then(Known::actor),
            subject: by.subject,
            action,
            resource,
            details,
            ip: origin.ip,
            success: false,
            request_id: origin.request_id.clone(),
        };
        self.store.record(event, None).await?;
        Ok(true)
    }

    /// Records the counted refusals once the minute is over, or in any case. Runs in the background.
    ///
    /// # Errors
    /// When the database fails; what was not recorded counts on.
    pub async fn record_suppressed(&self, in_any_case: bool) -> Result<(), Error> {
        let now = self.env.now();
        let Some(ended) = self.refusals.end(now, in_any_case) else { return Ok(()) };
        let events = ended.window.as_ref().map_or_else(Vec::new, |window| self.summaries(window, now));
        // A change rather than plain records: it is atomic, and is not carried out once the caller gives up, so the refusals are
        // not counted twice.
        let recording = self.store.write(move |tx| {
            for event in events {
                tx.audit(event);
            }
            Box::pin(async { Ok(()) })
        });
        recording.await?;
        ended.recorded();
        Ok(())
    }

    /// A record for each of the sources that were counted most, and one for all the others.
    fn summaries(&self, window: &Window, now: Timestamp) -> Vec<Event> {
        let since = window.since;
        let summary = |details| Event {
            id: self.env.uuid(),
            at: now,
            actor: None,
            subject: None,
            action: AuditAction::RefusalsSuppressed,
            resource: None,
            details,
            ip: None,
            success: false,
            request_id: None,
        };
        let (named, others) = window.suppressed.most();
        let mut events: Vec<_> = named
            .into_iter()
            .map(|(source, suppressed)| {
                let details = json!({ "suppressed": suppressed, "since": since });
                match source {
                    Source::Known(known) => Event {
                        actor: known.actor(),
                        subject: if let Known::Agent(id) = known { Some(id) } else { None },
                        resource: if let Known::Account(id) = known { Some(Resource::Administrator(id)) } else { None },
                        ..summary(details)
                    },
                    Source::One(ip) => Event { ip: Some(ip), ..summary(details) },
                    Source::Network(network) => {
                        summary(json!({ "suppressed": suppressed, "since": since, "network": network.to_string() }))
                    }
                }
            })
            .collect();
        if others > 0 {
            let details = json!({ "suppressed": others, "since": since, "others": true });
            events.push(summary(details));
        }
        events
    }
}
