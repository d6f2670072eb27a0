//! Refusals leave records too, but not without end: who is refused all day must not fill the disk.
//!
//! Each network address may have so many refusals recorded in a minute; the rest are counted, and the count is
//! recorded when the minute is over.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    Services,
    caller::{AgentCaller, Caller, Origin},
    policy::Action,
};
use crate::domain::{
    ActorId, AgentId, ApiKeyId, AuthFailure, Denial, Error, Result, Timestamp,
    audit::{AuditAction, Event, Resource},
    network::network,
};

/// How long refusals are counted together.
const WINDOW: Duration = Duration::from_mins(1);
/// Most addresses that are counted apart; all further ones are counted as one.
const ADDRESSES: usize = 10_000;

/// Counts the refusals of each address. All clones count together.
#[derive(Clone, Default)]
pub struct Refusals(Arc<Mutex<HashMap<Option<IpAddr>, Window>>>);

struct Window {
    since: Timestamp,
    recorded: u32,
    suppressed: u64,
}

impl Refusals {
    /// Whether one more refusal of this address is recorded, or only counted.
    fn admit(&self, ip: IpAddr, now: Timestamp, most: u32) -> bool {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let address = Some(network(ip));
        let address = if windows.len() < ADDRESSES || windows.contains_key(&address) { address } else { None };
        let window = windows.entry(address).or_insert(Window { since: now, recorded: 0, suppressed: 0 });
        if window.recorded < most {
            window.recorded += 1;
            return true;
        }
        window.suppressed += 1;
        false
    }

    /// The addresses of which refusals were suppressed in windows that began before `before`. Forgets windows in which none were.
    fn ended(&self, before: Timestamp) -> Vec<Option<IpAddr>> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        windows.retain(|_, window| window.since > before || window.suppressed > 0);
        windows.iter().filter(|(_, window)| window.since <= before).map(|(address, _)| *address).collect()
    }

    /// Ends the window of an address.
    fn end(&self, address: Option<IpAddr>) -> Option<Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&address)
    }

    /// Counts on with a window that could not be recorded, and with what was refused meanwhile.
    fn go_on(&self, address: Option<IpAddr>, window: Window) {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = windows.insert(address, window);
        if let (Some(recent), Some(window)) = (recent, windows.get_mut(&address)) {
            window.suppressed += recent.suppressed;
        }
    }
}

/// A window that is about to be recorded. Dropped before [`Ended::recorded`], it counts on: whoever records may fail, or be given up.
struct Ended {
    refusals: Refusals,
    address: Option<IpAddr>,
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
            self.refusals.go_on(self.address, window);
        }
    }
}

/// Who was refused, as far as is known.
pub(super) struct By {
    pub(super) actor: Option<ActorId>,
    pub(super) subject: Option<AgentId>,
}

impl By {
    pub(super) fn agent(id: Option<AgentId>) -> Self {
        Self { actor: id.map(Into::into), subject: id }
    }
}

impl Services {
    /// Refuses an API key, on the record.
    pub(super) async fn refuse<T>(
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
    pub(super) async fn refuse_assertion<T>(&self, origin: &Origin, by: By, failure: AuthFailure) -> Result<T> {
        let details = json!({ "reason": failure.reason() });
        self.record_refusal(AuditAction::AuthFailed, origin, by, None, details).await?;
        Err(failure.into())
    }

    /// Refuses an access token, on the record. The bearer is not told why.
    pub(super) async fn refuse_token<T>(
        &self,
        origin: &Origin,
        agent: Option<&AgentCaller>,
        failure: AuthFailure,
    ) -> Result<T> {
        let key = agent.map(|agent| agent.acting().credential.into());
        let details = json!({ "reason": failure.reason() });
        let by = By {
            actor: agent.map(|agent| agent.acting().agent.into()),
            subject: agent.map(|agent| agent.subject.agent),
        };
        self.record_refusal(AuditAction::AuthFailed, origin, by, key, details).await?;
        Err(AuthFailure::InvalidToken.into())
    }

    /// Refuses a proof of possession, on the record, except for a client that only begins.
    pub(super) async fn refuse_proof<T>(
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
    pub(super) async fn record_denial(&self, caller: &Caller, action: Action, denial: &Denial) -> Result<()> {
        let mut details = json!({ "capability": denial.capability(), "action": format!("{action:?}") });
        if let (Some(role), Some(members)) = (denial.role(), details.as_object_mut()) {
            members.insert("role".to_owned(), role.as_str().into());
        }
        let by = By { actor: caller.actor(), subject: caller.subject() };
        self.record_refusal(AuditAction::AuthzDenied, &caller.origin, by, None, details).await
    }

    /// Records a refusal, or only counts it when this address has had many.
    pub(super) async fn record_refusal(
        &self,
        action: AuditAction,
        origin: &Origin,
        by: By,
        resource: Option<Resource>,
        details: Value,
    ) -> Result<()> {
        let now = self.env.now();
        if origin.ip.is_some_and(|ip| !self.refusals.admit(ip, now, self.settings.refusals_per_minute)) {
            return Ok(());
        }
        let event = Event {
            id: self.env.uuid(),
            at: now,
            actor: by.actor,
            subject: by.subject,
            action,
            resource,
            details,
            ip: origin.ip,
            success: false,
            request_id: origin.request_id.clone(),
        };
        self.store.record(event, None).await
    }

    /// Records how many refusals were only counted, for every minute that is over. For the background.
    ///
    /// # Errors
    /// When the database fails; what was not recorded counts on.
    pub async fn record_suppressed(&self, everything: bool) -> Result<(), Error> {
        let now = self.env.now();
        let before = if everything { now } else { now.minus(WINDOW) };
        for address in self.refusals.ended(before) {
            let Some(window) = self.refusals.end(address) else { continue };
            let event = Event {
                id: self.env.uuid(),
                at: now,
                actor: None,
                subject: None,
                action: AuditAction::RefusalsSuppressed,
                resource: None,
                details: json!({ "suppressed": window.suppressed, "since": window.since }),
                ip: address,
                success: false,
                request_id: None,
            };
            let ended = Ended { refusals: self.refusals.clone(), address, window: Some(window) };
            // As a change: unlike a record alone, it is not carried out once nobody waits for it, and then counted again.
            let recording = self.store.write(move |tx| {
                tx.audit(event);
                Box::pin(async { Ok(()) })
            });
            recording.await?;
            ended.recorded();
        }
        Ok(())
    }
}
