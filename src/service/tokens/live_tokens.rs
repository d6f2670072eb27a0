//! The access tokens of an agent that count at this moment, and what descends from them. Issuing one writes nothing but its
//! audit record, so the records say which there are, and the live view which of them still count.

use serde_json::Value;

use super::verified_tokens::Verified;
use crate::{
    domain::{
        AgentId, ApiKeyId, CapabilitySet, FederatedIdentityId, Limit, Page, PublicKeyId, Result, Timestamp, TokenId,
        audit::{AuditAction, Filter, Record, Start},
        token::{Credential, DelegatedToken, LIFE_MAX, Link},
    },
    service::{
        Services,
        core::{
            caller::{AgentCaller, Caller},
            policy::Action,
        },
    },
    store::{agents, audit, tokens::delegated_tokens},
};

/// Most tokens that are counted.
pub const COUNTED: usize = 1_000;
/// Most pages of records that are read to count: an agent with short tokens leaves more of them in a day than anybody waits for.
const PAGES: usize = 4;
/// What tells of a token that an agent was issued for a credential of its own.
const ISSUED: [AuditAction; 2] = [AuditAction::TokenIssued, AuditAction::TokenGranted];
/// What tells of any token that it obtained.
const OBTAINED: [AuditAction; 3] = [AuditAction::TokenIssued, AuditAction::TokenGranted, AuditAction::TokenExchanged];

/// How many tokens count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// As many as were met, [`COUNTED`] at most.
    pub tokens: usize,
    /// Whether not all was looked at.
    pub may_be_more: bool,
}

/// A token that counts.
#[derive(Clone, Debug)]
pub struct LiveToken {
    /// The place of its record in the audit log.
    pub seq: i64,
    /// Its identifier.
    pub jti: TokenId,
    /// Who it is for.
    pub audience: String,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// What it was issued for.
    pub credential: Credential,
    /// To which address.
    pub ip: Option<String>,
    /// Whose authority it carries.
    pub subject: AgentId,
    /// Who acts for the subject, the present one last.
    pub actors: Vec<AgentId>,
    /// The tokens that descend from it and count, newest first.
    pub descendants: Vec<DelegatedToken>,
}

/// A page of the tokens of an agent that count, newest first. It may hold fewer than `limit` and lead on: between those that
/// count lie others.
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
    agents::find(services.store.read().await?.conn(), agent).await?.ok_or(crate::service::agents::NOT_FOUND)?;
    let mut page = page(services, agent, before.unwrap_or(i64::MAX), limit, &OBTAINED).await?;
    let delegated = through(services, agent).await?;
    for token in &mut page.items {
        token.descendants = delegated.iter().filter(|one| descends(one, agent, token.jti)).cloned().collect();
    }
    Ok(page)
}

/// How many tokens of an agent count, and of those that descend from them.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn count(services: &Services, caller: &Caller, agent: AgentId) -> Result<Count> {
    services.permit(caller, Action::ListTokens).await?;
    counted(services, agent).await
}

pub(in crate::service) async fn counted(services: &Services, agent: AgentId) -> Result<Count> {
    let (mut tokens, mut before) = (through(services, agent).await?.len(), Some(i64::MAX));
    for _ in 0..PAGES {
        let Some(place) = before.filter(|_| tokens < COUNTED) else { break };
        let page = page(services, agent, place, Limit::of(Limit::MAX), &ISSUED).await?;
        tokens += page.items.len();
        before = page.next;
    }
    Ok(Count { tokens: tokens.min(COUNTED), may_be_more: tokens >= COUNTED || before.is_some() })
}

/// How many tokens end with this one, as far as [`COUNTED`]: itself, if it counts, and what descends from it.
pub(in crate::service) async fn count_from(services: &Services, token: &Verified) -> Result<usize> {
    if services.standing(&token.bearer, services.env.now()).await?.is_err() {
        return Ok(0);
    }
    let agent = token.bearer.acting().agent;
    let delegated = through(services, agent).await?;
    Ok((1 + delegated.iter().filter(|one| descends(one, agent, token.jti)).count()).min(COUNTED))
}

/// Whether a token was made of another, which `agent` presented or obtained.
fn descends(token: &DelegatedToken, agent: AgentId, from: TokenId) -> bool {
    let made_of = |link: &Link| {
        link.agent == agent
            && (link.presented == Some(from) || link.acting.is_some_and(|acting| acting.obtained == from))
    };
    token.jti != from && token.links.iter().any(made_of)
}

/// The delegated tokens that an agent has a link in and that count.
async fn through(services: &Services, agent: AgentId) -> Result<Vec<DelegatedToken>> {
    let now = services.env.now();
    let stored = delegated_tokens::through(services.store.read().await?.conn(), agent, now, COUNTED).await?;
    let mut live = Vec::with_capacity(stored.len());
    for token in stored {
        let Some(bearer) = AgentCaller::of_chain(CapabilitySet::default(), token.links.clone()) else { continue };
        if services.standing(&bearer, now).await?.is_ok() {
            live.push(token);
        }
    }
    Ok(live)
}

async fn page(
    services: &Services,
    agent: AgentId,
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

/// The token that a record tells of, if it counts.
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
    let Some(bearer) = AgentCaller::of_chain(CapabilitySet::default(), links) else { return Ok(None) };
    let counts = services.standing(&bearer, now).await?.is_ok();
    let actors = bearer.actors.iter().map(|link| link.agent).collect();
    Ok(counts.then_some(LiveToken { subject: bearer.subject.agent, actors, ..token }))
}

/// What a record says of a token, and the epoch that it belongs to.
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
