//! The write path. Inside the transaction, every change re-reads the caller's authority and adds its audit record.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::{
    agent::check_status,
    caller::{AgentCaller, Caller, Principal},
    policy::{Action, Authority},
};
use crate::{
    clock::Environment,
    crypto::{AnswerKeys, MasterKeys},
    domain::{
        AgentId, AuthFailure, CapabilitySet, Error, RequestId, Result, Timestamp,
        audit::{AuditAction, Event, Resource},
    },
    service::{
        Services,
        master_key::{CurrentMasterKeys, sealing_key},
    },
    store::{
        Conn, Tx,
        names::{self, Named},
        people::sessions,
        principals,
    },
};

/// A change in progress: the transaction, the caller and the caller's authority as of this transaction.
pub struct Act<'t> {
    /// The transaction.
    pub tx: &'t mut Tx,
    /// The caller that makes the change.
    pub caller: Caller,
    /// The caller's authority as of this transaction.
    pub authority: Authority,
    /// The time of the change.
    pub now: Timestamp,
    env: Environment,
    master_keys: Option<Arc<MasterKeys>>,
}

impl<'t> Act<'t> {
    /// A change that AIMS itself makes, where there is no service: before a restored database is in its place.
    pub(in crate::service) fn by_system(tx: &'t mut Tx, env: Environment) -> Self {
        Self { tx, caller: Caller::system(), authority: Authority::Unlimited, now: env.now(), env, master_keys: None }
    }
}

impl Act<'_> {
    /// Returns the connection for a store function.
    pub fn conn(&mut self) -> Conn<'_> {
        self.tx.conn()
    }

    /// Rejects a name that this transaction just took if readers could confuse it with another name. No other
    /// transaction can take such a name in the meantime: write transactions run one after another, across all nodes.
    ///
    /// # Errors
    /// [`Error::Conflict`], which contains the other name.
    pub(in crate::service) async fn require_distinct(&mut self, named: Named, name: &str) -> Result<()> {
        match names::similar(self.conn(), named, name).await? {
            Some(other) => Err(Error::Conflict(format!("This name is too similar to one in use: {other}").into())),
            None => Ok(()),
        }
    }

    /// Derives the keys of the answer with this ID from a client's secret.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the current master key is unknown, or the database fails.
    pub(in crate::service) async fn answer_keys(&mut self, secret: &[u8], id: &[u8; 32]) -> Result<AnswerKeys> {
        let known = self.master_keys.clone();
        let first = match &known {
            // While the keys change, nodes that know only one of them must be able to open the answer.
            Some(keys) if keys.previous().is_some() => Some(sealing_key(self.conn(), keys).await?),
            _ => None,
        };
        let all = first.iter().chain(known.iter().flat_map(|keys| keys.all()));
        AnswerKeys::derive(all, secret, id).map_err(|error| Error::Internal(Box::new(error)))
    }

    /// Seals an answer.
    ///
    /// # Errors
    /// Never in practice.
    pub(in crate::service) fn seal_answer(&self, keys: &AnswerKeys, answer: &[u8]) -> Result<Vec<u8>> {
        keys.seal(&self.env, answer).map_err(|error| Error::Internal(Box::new(error)))
    }

    /// Adds an audit record. `subject` is the agent that the change affects.
    pub fn audit(
        &mut self,
        action: AuditAction,
        resource: impl Into<Option<Resource>>,
        subject: Option<AgentId>,
        mut details: Value,
    ) {
        if let (Some(agent), Some(members)) = (self.caller.on_behalf_of(), details.as_object_mut()) {
            members.insert("on_behalf_of".to_owned(), agent.to_string().into());
        }
        self.tx.audit(Event {
            id: self.env.uuid(),
            at: self.now,
            actor: self.caller.actor(),
            subject,
            action,
            resource: resource.into(),
            details,
            ip: self.caller.origin.ip,
            success: true,
            request_id: self.caller.origin.request_id.clone(),
        });
    }
}

impl Services {
    /// Runs `change` in a transaction if the caller is allowed to do `action` as of that transaction. Returns once the
    /// change and its audit records are durable. A denial is recorded.
    ///
    /// # Errors
    /// The errors of `change`; [`Error::Unauthenticated`] if the caller's credential has ended since it was checked;
    /// [`Error::Denied`] if the caller lacks authority; [`Error::ProofNeeded`] if an administrator's last proof of
    /// identity is too old for `action`.
    pub(in crate::service) async fn change<T, F>(&self, caller: &Caller, action: Action, change: F) -> Result<T>
    where
        F: for<'a, 't> FnOnce(&'a mut Act<'t>) -> BoxFuture<'a, Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let (current, env) = (caller.clone(), self.env.clone());
        let master_keys = self.master_key.as_ref().map(CurrentMasterKeys::get);
        let outcome = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let now = env.now();
                    let authority = current_authority(tx, &current, now).await?;
                    authority.require(action, now)?;
                    change(&mut Act { tx, caller: current, authority, now, env, master_keys }).await
                })
            })
            .await;
        match (&outcome, &caller.principal) {
            (Err(Error::Denied(denial)), _) => self.record_denial(caller, action, denial).await?,
            (Err(Error::Repeated(earlier)), _) => {
                self.record_repetition(caller, action, earlier.request_id.as_ref()).await?;
            }
            (Err(Error::Unauthenticated(failure)), Principal::Agent(agent)) => {
                return self.refuse_token(&caller.origin, Some(agent), *failure).await;
            }
            _ => {}
        }
        outcome
    }

    /// Records that the answer to an earlier request is returned again: it can contain a secret.
    async fn record_repetition(&self, caller: &Caller, action: Action, first: Option<&RequestId>) -> Result<()> {
        let mut details = json!({ "action": action.name(), "first_request_id": first.map(RequestId::as_str) });
        if let (Some(agent), Some(members)) = (caller.on_behalf_of(), details.as_object_mut()) {
            members.insert("on_behalf_of".to_owned(), agent.to_string().into());
        }
        let event = Event {
            id: self.env.uuid(),
            at: self.env.now(),
            actor: caller.actor(),
            subject: None,
            action: AuditAction::AnswerRepeated,
            resource: None,
            details,
            ip: caller.origin.ip,
            success: true,
            request_id: caller.origin.request_id.clone(),
        };
        self.store.record(event, None).await
    }

    /// Checks that the caller is allowed to do `action`, for operations without a transaction. A denial is recorded.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::ProofNeeded`] if an administrator's last proof of identity is too old.
    pub async fn permit(&self, caller: &Caller, action: Action) -> Result<()> {
        let outcome = Authority::of(caller).require(action, self.env.now());
        if let Err(Error::Denied(denial)) = &outcome {
            self.record_denial(caller, action, denial).await?;
        }
        outcome
    }
}

async fn current_authority(tx: &mut Tx, caller: &Caller, now: Timestamp) -> Result<Authority> {
    match &caller.principal {
        Principal::System => Ok(Authority::Unlimited),
        Principal::Agent(agent) => Ok(Authority::Limited(effective_authority_in(tx, agent, now).await??)),
        Principal::Administrator(person) => {
            let signed_in = sessions::signed_in(tx.conn(), person.session, sessions::Oldest::at(now)).await?;
            let signed_in = signed_in.ok_or(AuthFailure::NoSession)?;
            Ok(Authority::Role { role: signed_in.administrator.role, proved_at: signed_in.session.proved_at })
        }
    }
}

impl Services {
    /// Returns the part of a token's authority that every agent of its chain still holds, according to the live view.
    ///
    /// # Errors
    /// The outer error when the database fails; the inner error says why the token is no longer valid.
    pub(in crate::service) async fn effective_authority(
        &self,
        token: &AgentCaller,
        now: Timestamp,
    ) -> Result<Result<CapabilitySet, AuthFailure>> {
        let mut chain = Vec::with_capacity(1 + token.actors.len());
        for link in token.links() {
            match self.principals.agent(&self.store, link.agent, now).await? {
                Some(principal) => chain.push(principal),
                None => return Ok(Err(AuthFailure::InvalidToken)),
            }
        }
        Ok(evaluate(token, &chain, now))
    }
}

/// Does the same as [`Services::effective_authority`], as of a transaction.
pub(in crate::service) async fn effective_authority_in(
    tx: &mut Tx,
    token: &AgentCaller,
    now: Timestamp,
) -> Result<Result<CapabilitySet, AuthFailure>> {
    let mut chain = Vec::with_capacity(1 + token.actors.len());
    for link in token.links() {
        match tx.principal(link.agent, now).await? {
            Some(principal) => chain.push(principal),
            None => return Ok(Err(AuthFailure::InvalidToken)),
        }
    }
    Ok(evaluate(token, &chain, now))
}

fn evaluate(
    token: &AgentCaller,
    chain: &[Arc<principals::Principal>],
    now: Timestamp,
) -> Result<CapabilitySet, AuthFailure> {
    let subject = chain.first().ok_or(AuthFailure::InvalidToken)?;
    let mut authority = token.authority.clone();
    for (link, principal) in token.links().zip(chain) {
        check_status(principal.status)?;
        let obtained = link.acting.map(|acting| acting.obtained);
        let allowed = link.acting.is_none_or(|acting| subject.delegation_to(link.agent) == Some(acting.delegation));
        let revoked = [link.presented, obtained].into_iter().flatten().any(|token| principal.has_revoked(token));
        if principal.token_epoch != link.token_epoch || revoked || !allowed {
            return Err(AuthFailure::InvalidToken);
        }
        principal.check(link.credential, now)?;
        authority = authority.intersection(&principal.capabilities);
    }
    Ok(authority)
}
