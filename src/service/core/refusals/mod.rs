//! Audit records of refusals. In each window of a minute, the first refusals get a record each. The others are only
//! counted, so that refusals cannot fill the disk.
//!
//! `budget` decides which refusals get a record. `suppressed` counts the others, and the counts are recorded when the
//! window ends.

mod budget;
mod reason;
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
    telemetry::metrics::labels::Refusal,
};
use budget::Budget;
pub(in crate::service) use reason::{of_denial, of_failure, of_token_refusal};
use suppressed::{Source, Suppressed};

/// Minimum length of a window.
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

    /// Returns true once the window has lasted long enough, or if the clock was set back.
    fn is_over(&self, now: Timestamp) -> bool {
        u128::from(now.as_micros().abs_diff(self.since.as_micros())) >= WINDOW.as_micros()
    }
}

impl Refusals {
    fn window(&self) -> MutexGuard<'_, Option<Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if a refusal gets a record of its own; counts it otherwise. A window with counts continues until
    /// they are recorded.
    fn admit(&self, known: Option<KnownPrincipal>, ip: Option<IpAddr>, now: Timestamp, bounds: RefusalBounds) -> bool {
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

    /// Returns the number of refusals that are counted and not yet recorded.
    #[must_use]
    pub fn suppressed(&self) -> u64 {
        self.window().as_ref().map_or(0, |window| window.suppressed.total())
    }

    /// Ends the window if it is over or `force` is set. Returns it if it has counts to record.
    fn end(&self, now: Timestamp, force: bool) -> Option<Ended> {
        let window = self.window().take_if(|window| force || window.is_over(now))?;
        (!window.suppressed.is_empty()).then(|| Ended { refusals: self.clone(), window: Some(window) })
    }

    /// Restores a window that could not be recorded, merged with what was counted since.
    fn restore(&self, mut window: Window) {
        let mut current = self.window();
        if let Some(recent) = current.take() {
            window.budget.absorb(recent.budget);
            window.suppressed.absorb(recent.suppressed);
        }
        *current = Some(window);
    }
}

/// A window whose counts are about to be recorded. It is restored if this is dropped before [`Ended::recorded`],
/// because the recording may have failed or been cancelled.
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
            self.refusals.restore(window);
        }
    }
}

/// A principal that AIMS knows. It has a reserve of records that strangers cannot use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::service) enum KnownPrincipal {
    /// An agent, identified by its credential.
    Agent(AgentId),
    /// An administrator, identified by their session.
    Person(AdministratorId),
    /// The account that a sign-in attempt named. Separate from [`KnownPrincipal::Person`], because strangers who guess
    /// a password must not use up the reserve of the account's owner.
    Account(AdministratorId),
}

impl KnownPrincipal {
    fn of(caller: &Caller) -> Option<Self> {
        match &caller.principal {
            Principal::System => None,
            Principal::Agent(agent) => Some(Self::Agent(agent.actor().agent)),
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

/// The principal and the subject of a refused request, if they are known.
#[derive(Clone, Copy)]
pub(in crate::service) struct Refused {
    pub(in crate::service) principal: Option<KnownPrincipal>,
    pub(in crate::service) subject: Option<AgentId>,
}

impl Refused {
    pub(in crate::service) const UNKNOWN: Self = Self { principal: None, subject: None };

    /// An agent that acts for itself, if it is known.
    pub(in crate::service) fn agent(id: Option<AgentId>) -> Self {
        Self { principal: id.map(KnownPrincipal::Agent), subject: id }
    }
}

impl Services {
    /// Records that an API key was refused, and returns `failure`.
    pub(in crate::service) async fn refuse_key<T>(
        &self,
        origin: &Origin,
        agent: Option<AgentId>,
        key: Option<ApiKeyId>,
        failure: AuthFailure,
    ) -> Result<T> {
        let details = json!({ "reason": failure.reason() });
        let refused = Refused::agent(agent);
        let (action, reason) = (AuditAction::AuthFailed, of_failure(failure));
        self.record_refusal((action, reason), origin, refused, key.map(Resource::ApiKey), details).await?;
        Err(failure.into())
    }

    /// Records that an assertion was refused, and returns `failure`.
    pub(in crate::service) async fn refuse_assertion<T>(
        &self,
        origin: &Origin,
        refused: Refused,
        failure: AuthFailure,
    ) -> Result<T> {
        let details = json!({ "reason": failure.reason() });
        let (action, reason) = (AuditAction::AuthFailed, of_failure(failure));
        self.record_refusal((action, reason), origin, refused, None, details).await?;
        Err(failure.into())
    }

    /// Records why an access token was refused, and returns an error that does not tell the bearer.
    pub(in crate::service) async fn refuse_token<T>(
        &self,
        origin: &Origin,
        agent: Option<&AgentCaller>,
        failure: AuthFailure,
    ) -> Result<T> {
        let credential = agent.map(|agent| agent.actor().credential.into());
        let details = json!({ "reason": failure.reason() });
        let refused = Refused {
            principal: agent.map(|agent| KnownPrincipal::Agent(agent.actor().agent)),
            subject: agent.map(|agent| agent.subject.agent),
        };
        let (action, reason) = (AuditAction::AuthFailed, of_failure(failure));
        self.record_refusal((action, reason), origin, refused, credential, details).await?;
        Err(AuthFailure::InvalidToken.into())
    }

    /// Records why a proof of possession was refused. A missing nonce is not recorded: every client begins that way.
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

    /// Records that a caller lacked authority.
    pub(in crate::service) async fn record_denial(
        &self,
        caller: &Caller,
        action: Action,
        denial: &Denial,
    ) -> Result<()> {
        let mut details = json!({ "capability": denial.capability(), "action": action.name() });
        if let (Some(role), Some(members)) = (denial.role(), details.as_object_mut()) {
            members.insert("role".to_owned(), role.as_str().into());
        }
        let refused = Refused { principal: KnownPrincipal::of(caller), subject: caller.subject() };
        let (action, reason) = (AuditAction::AuthzDenied, of_denial(denial));
        self.record_refusal((action, reason), &caller.origin, refused, None, details).await?;
        Ok(())
    }

    /// Counts a refusal, and records it unless there are too many. Returns true if it was recorded.
    pub(in crate::service) async fn record_refusal(
        &self,
        (action, reason): (AuditAction, Refusal),
        origin: &Origin,
        refused: Refused,
        resource: Option<Resource>,
        details: Value,
    ) -> Result<bool> {
        self.metrics().refusals.increment(reason);
        let now = self.env.now();
        if !self.refusals.admit(refused.principal, origin.ip, now, self.settings.refusals) {
            return Ok(false);
        }
        let event = Event {
            id: self.env.uuid(),
            at: now,
            actor: refused.principal.and_then(KnownPrincipal::actor),
            subject: refused.subject,
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

    /// Records the counted refusals if the window is over or `force` is set. For a background task.
    ///
    /// # Errors
    /// When the database fails; the counts are kept.
    pub async fn record_suppressed(&self, force: bool) -> Result<(), Error> {
        let now = self.env.now();
        let Some(ended) = self.refusals.end(now, force) else { return Ok(()) };
        let events = ended.window.as_ref().map_or_else(Vec::new, |window| self.summaries(window, now));
        // A write transaction rather than single records: it is atomic, and it does not run once the caller has given
        // up. So no refusal is counted twice.
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

    /// Returns a record for each of the sources with the most refusals, and one for all others.
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
        let (named, others) = window.suppressed.summary();
        let mut events: Vec<_> = named
            .into_iter()
            .map(|(source, suppressed)| {
                let details = json!({ "suppressed": suppressed, "since": since });
                match source {
                    Source::Known(principal) => Event {
                        actor: principal.actor(),
                        subject: match principal {
                            KnownPrincipal::Agent(id) => Some(id),
                            KnownPrincipal::Person(_) | KnownPrincipal::Account(_) => None,
                        },
                        resource: match principal {
                            KnownPrincipal::Account(id) => Some(Resource::Administrator(id)),
                            KnownPrincipal::Agent(_) | KnownPrincipal::Person(_) => None,
                        },
                        ..summary(details)
                    },
                    Source::Host(ip) => Event { ip: Some(ip), ..summary(details) },
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
