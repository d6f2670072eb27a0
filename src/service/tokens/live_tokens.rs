//! The active access tokens of an agent, and the tokens that descend from them.
//!
//! Issuing a token writes only its audit record. So the audit log says which tokens there are, and the live view which
//! of them are still active.

use std::collections::HashSet;

use serde_json::Value;

use super::verified_tokens::Verified;
use crate::{
    domain::{
        AgentId, ApiKeyId, CapabilitySet, FederatedIdentityId, Limit, Page, PublicKeyId, Result, Timestamp, TokenId,
        audit::{AuditAction, Filter, Record, Resource, Start},
        token::{Credential, DelegatedToken, LIFE_MAX, Link},
    },
    service::{
        Services,
        core::{
            agent,
            caller::{AgentCaller, Caller},
            policy::Action,
        },
    },
    store::{audit, tokens::delegated_tokens},
};

/// Maximum number of tokens that are counted.
pub const COUNT_MAX: usize = 1_000;
/// Maximum number of pages that are read to count tokens: an agent with short-lived tokens may have very many records
/// in a day.
const PAGES_MAX: usize = 4;
/// The audit actions of tokens that an agent got for a credential of its own.
const ISSUED: [AuditAction; 2] = [AuditAction::TokenIssued, AuditAction::TokenGranted];
/// The audit actions of all tokens that an agent got.
const OBTAINED: [AuditAction; 3] = [AuditAction::TokenIssued, AuditAction::TokenGranted, AuditAction::TokenExchanged];

/// A number of active tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The number of tokens found, at most [`COUNT_MAX`].
    pub tokens: usize,
    /// Whether there may be more.
    pub may_be_more: bool,
}

/// An active token.
#[derive(Clone, Debug)]
pub struct LiveToken {
    /// The position of its record in the audit log.
    pub seq: i64,
    /// The token's ID.
    pub jti: TokenId,
    /// The audience.
    pub audience: String,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// The credential that it was issued for.
    pub credential: Credential,
    /// The IP address that it was issued to.
    pub ip: Option<String>,
    /// The agent whose authority it has.
    pub subject: AgentId,
    /// The agents that act for the subject, the current actor last.
    pub actors: Vec<AgentId>,
    /// The active tokens that descend from it, newest first.
    pub descendants: Vec<DelegatedToken>,
}

/// Returns a page of the active tokens of an agent, newest first. A page may have fewer than `limit` tokens although
/// there are more pages, because inactive tokens are left out.
///
/// # Errors
/// [`crate::domain::Error::NotFound`], [`crate::domain::Error::Denied`].
pub async fn list(
    services: &Services,
    caller: &Caller,
    agent: AgentId,
    before: Option<i64>,
    limit: Limit,
) -> Result<Page<LiveToken, i64>> {
    services.permit(caller, Action::ListTokens).await?;
    agent::find(services.store.read().await?.conn(), agent).await?;
    let mut page = page(services, agent, None, before.unwrap_or(i64::MAX), limit, &OBTAINED).await?;
    let delegated = delegated_through(services, agent).await?;
    for token in &mut page.items {
        token.descendants = delegated.iter().filter(|one| descends(one, agent, token.jti)).cloned().collect();
    }
    Ok(page)
}

/// Counts the active tokens of an agent and their active descendants.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn count(services: &Services, caller: &Caller, agent: AgentId) -> Result<Count> {
    services.permit(caller, Action::ListTokens).await?;
    count_active(services, agent).await
}

/// Counts the active tokens of several agents and their active descendants, each once, up to [`COUNT_MAX`].
pub(in crate::service) async fn count_of_all(services: &Services, agents: &[AgentId]) -> Result<Count> {
    let (mut delegated, mut own, mut may_be_more) = (HashSet::new(), 0, false);
    for agent in agents {
        if own + delegated.len() >= COUNT_MAX {
            may_be_more = true;
            break;
        }
        delegated.extend(delegated_through(services, *agent).await?.into_iter().map(|token| token.jti));
        let page = page(services, *agent, None, i64::MAX, Limit::of(Limit::MAX), &ISSUED).await?;
        own += page.items.len();
        may_be_more |= page.next.is_some();
    }
    let tokens = own + delegated.len();
    Ok(Count { tokens: tokens.min(COUNT_MAX), may_be_more: may_be_more || tokens >= COUNT_MAX })
}

pub(in crate::service) async fn count_active(services: &Services, agent: AgentId) -> Result<Count> {
    let (mut tokens, mut before) = (delegated_through(services, agent).await?.len(), Some(i64::MAX));
    for _ in 0..PAGES_MAX {
        let Some(position) = before.filter(|_| tokens < COUNT_MAX) else { break };
        let page = page(services, agent, None, position, Limit::of(Limit::MAX), &ISSUED).await?;
        tokens += page.items.len();
        before = page.next;
    }
    Ok(Count { tokens: tokens.min(COUNT_MAX), may_be_more: tokens >= COUNT_MAX || before.is_some() })
}

/// Counts the active tokens with which `delegate` acts for `agent`, and those that descend from them.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn count_acting(services: &Services, caller: &Caller, agent: AgentId, delegate: AgentId) -> Result<Count> {
    services.permit(caller, Action::ListTokens).await?;
    let through = delegated_through(services, delegate).await?;
    let acts = |token: &&DelegatedToken| {
        token.links.first().is_some_and(|subject| subject.agent == agent)
            && token.links.iter().skip(1).any(|link| link.agent == delegate)
    };
    let may_be_more = through.len() >= COUNT_MAX;
    Ok(Count { tokens: through.iter().filter(acts).count(), may_be_more })
}

/// Counts a token, if it is active, and its active descendants, up to [`COUNT_MAX`]. They all end when the token is
/// revoked.
pub(in crate::service) async fn count_with_descendants(services: &Services, token: &Verified) -> Result<usize> {
    if services.effective_authority(&token.bearer, services.env.now()).await?.is_err() {
        return Ok(0);
    }
    let agent = token.bearer.actor().agent;
    let delegated = delegated_through(services, agent).await?;
    Ok((1 + delegated.iter().filter(|one| descends(one, agent, token.jti)).count()).min(COUNT_MAX))
}

/// Returns true if `token` descends from the token `ancestor`, which `agent` presented or got in an exchange.
fn descends(token: &DelegatedToken, agent: AgentId, ancestor: TokenId) -> bool {
    let refers = |link: &Link| {
        link.agent == agent
            && (link.presented == Some(ancestor) || link.acting.is_some_and(|acting| acting.obtained == ancestor))
    };
    token.jti != ancestor && token.links.iter().any(refers)
}

/// Returns the active delegated tokens that have the agent in their chain.
async fn delegated_through(services: &Services, agent: AgentId) -> Result<Vec<DelegatedToken>> {
    let now = services.env.now();
    let stored = delegated_tokens::through(services.store.read().await?.conn(), agent, now, COUNT_MAX).await?;
    let mut live = Vec::with_capacity(stored.len());
    for token in stored {
        let Some(bearer) = AgentCaller::from_chain(CapabilitySet::default(), token.links.clone()) else { continue };
        if services.effective_authority(&bearer, now).await?.is_ok() {
            live.push(token);
        }
    }
    Ok(live)
}

/// Returns the newest active tokens that were issued for a credential, up to `limit`, and the number of active tokens
/// that end when the credential is revoked: these and all that descend from them.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn of_credential(
    services: &Services,
    caller: &Caller,
    agent: AgentId,
    credential: Credential,
    limit: Limit,
) -> Result<(Vec<LiveToken>, Count)> {
    services.permit(caller, Action::ListTokens).await?;
    let page = page(services, agent, Some(credential), i64::MAX, limit, &ISSUED).await?;
    let through = |token: &DelegatedToken| token.links.iter().any(|link| link.credential == credential);
    let delegated = delegated_through(services, agent).await?;
    let tokens = page.items.len() + delegated.iter().filter(|token| through(token)).count();
    let may_be_more = page.next.is_some() || tokens >= COUNT_MAX;
    Ok((page.items, Count { tokens: tokens.min(COUNT_MAX), may_be_more }))
}

async fn page(
    services: &Services,
    agent: AgentId,
    credential: Option<Credential>,
    before: i64,
    limit: Limit,
    actions: &[AuditAction],
) -> Result<Page<LiveToken, i64>> {
    let now = services.env.now();
    let mut records = Vec::new();
    let mut more = false;
    for action in actions {
        let filter = Filter {
            actor: Some(agent.into()),
            action: Some(action.as_str().to_owned()),
            resource_id: credential.map(|credential| Resource::from(credential).id()),
            from: Some(now.minus(LIFE_MAX)),
            ..Filter::default()
        };
        let found = audit::list(&services.store, &filter, Start::Before(before), limit).await?;
        more |= found.next.is_some();
        records.extend(found.items);
    }
    records.sort_unstable_by_key(|record| std::cmp::Reverse(record.seq));
    let size = usize::from(limit.get());
    more |= records.len() > size;
    records.truncate(size);
    let next = records.last().filter(|_| more).map(|last| last.seq);
    let mut items = Vec::new();
    for record in &records {
        items.extend(live(services, agent, record, now).await?);
    }
    Ok(Page { items, next })
}

/// Returns the token of an audit record, if it is active.
async fn live(services: &Services, agent: AgentId, record: &Record, now: Timestamp) -> Result<Option<LiveToken>> {
    let Some((token, token_epoch)) = recorded(agent, record) else { return Ok(None) };
    if token.expires_at <= now {
        return Ok(None);
    }
    let links = if record.action == AuditAction::TokenExchanged.as_str() {
        delegated_tokens::links(services.store.read().await?.conn(), token.jti).await?
    } else {
        let (credential, presented) = (token.credential, Some(token.jti));
        vec![Link { agent, credential, token_epoch, presented, acting: None }]
    };
    let Some(bearer) = AgentCaller::from_chain(CapabilitySet::default(), links) else { return Ok(None) };
    let is_active = services.effective_authority(&bearer, now).await?.is_ok();
    let actors = bearer.actors.iter().map(|link| link.agent).collect();
    Ok(is_active.then_some(LiveToken { subject: bearer.subject.agent, actors, ..token }))
}

/// Parses the token and its epoch from an audit record.
fn recorded(agent: AgentId, record: &Record) -> Option<(LiveToken, i64)> {
    let details: Value = serde_json::from_str(&record.details).ok()?;
    let text = |name: &str| details.get(name).and_then(Value::as_str);
    let number = |name: &str| details.get(name).and_then(Value::as_i64);
    let id = record.resource_id.as_deref()?;
    let credential = match record.resource_type.as_deref()? {
        "api_key" => Credential::ApiKey(ApiKeyId::parse(id)?),
        "public_key" => Credential::PublicKey(PublicKeyId::parse(id)?),
        _ => Credential::FederatedIdentity(FederatedIdentityId::parse(id)?),
    };
    let token = LiveToken {
        seq: record.seq,
        jti: TokenId::parse(text("jti")?)?,
        audience: text("aud")?.to_owned(),
        issued_at: record.at,
        expires_at: Timestamp::from_secs(number("exp")?),
        credential,
        ip: record.ip.clone(),
        subject: agent,
        actors: Vec::new(),
        descendants: Vec::new(),
    };
    Some((token, number("epoch").unwrap_or_default()))
}
