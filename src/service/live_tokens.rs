//! The access tokens of an agent that count at this moment. Issuing one writes nothing but its audit record, so the records
//! say which there are, and the live view which of them still count.

use serde_json::Value;

use super::{
    Services,
    act::standing,
    caller::{AgentCaller, Caller},
    policy::Action,
    signing_keys::LONGEST_TOKEN_LIFE,
};
use crate::{
    domain::{
        AgentId, ApiKeyId, CapabilitySet, Limit, Page, PublicKeyId, Result, Timestamp, TokenId,
        audit::{AuditAction, Filter, Record, Start},
        token::Credential,
    },
    store::{agents, audit, principals::Principal},
};

/// Most tokens that are counted.
pub const COUNTED: usize = 1_000;

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
    agents::find(services.store.read().await?.conn(), agent).await?.ok_or(super::agents::NOT_FOUND)?;
    page(services, agent, before.unwrap_or(i64::MAX), limit).await
}

/// How many tokens of an agent count, as far as [`COUNTED`].
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn count(services: &Services, caller: &Caller, agent: AgentId) -> Result<usize> {
    services.permit(caller, Action::ListTokens).await?;
    let (mut counted, mut before) = (0, Some(i64::MAX));
    while let Some(place) = before.filter(|_| counted < COUNTED) {
        let page = page(services, agent, place, Limit::of(Limit::MAX)).await?;
        counted += page.items.len();
        before = page.next;
    }
    Ok(counted.min(COUNTED))
}

async fn page(services: &Services, agent: AgentId, before: i64, limit: Limit) -> Result<Page<LiveToken, i64>> {
    let now = services.env.now();
    let Some(principal) = services.principals.agent(&services.store, agent, now).await? else {
        return Ok(Page { items: Vec::new(), next: None });
    };
    let mut records = Vec::new();
    let mut more = false;
    for action in [AuditAction::TokenIssued, AuditAction::TokenGranted] {
        let filter = Filter {
            actor: Some(agent.into()),
            action: Some(action.as_str().to_owned()),
            from: Some(now.minus(LONGEST_TOKEN_LIFE)),
            ..Filter::default()
        };
        let found = audit::list(services.store.read().await?.conn(), &filter, Start::Before(before), limit).await?;
        more |= found.next.is_some();
        records.extend(found.items);
    }
    records.sort_unstable_by_key(|record| std::cmp::Reverse(record.seq));
    let size = usize::from(limit.get());
    more |= records.len() > size;
    records.truncate(size);
    let next = records.last().filter(|_| more).map(|last| last.seq);
    let items = records.iter().filter_map(|record| live(record, &principal, now)).collect();
    Ok(Page { items, next })
}

/// The token that a record tells of, if it counts.
fn live(record: &Record, principal: &Principal, now: Timestamp) -> Option<LiveToken> {
    let details: Value = serde_json::from_str(&record.details).ok()?;
    let text = |name: &str| details.get(name).and_then(Value::as_str);
    let number = |name: &str| details.get(name).and_then(Value::as_i64);
    let id = record.resource_id.as_deref()?;
    let credential = match record.resource_type.as_deref()? {
        "api_key" => Credential::ApiKey(ApiKeyId::parse(id)?),
        _ => Credential::PublicKey(PublicKeyId::parse(id)?),
    };
    let token = LiveToken {
        seq: record.seq,
        jti: TokenId::parse(text("jti")?)?,
        audience: text("aud")?.to_owned(),
        issued_at: record.at,
        expires_at: Timestamp::from_secs(number("exp")?),
        credential,
        ip: record.ip.clone(),
    };
    let bearer = AgentCaller {
        id: principal.id,
        authority: CapabilitySet::default(),
        credential,
        token_epoch: number("epoch")?,
        token: Some(token.jti),
    };
    (now < token.expires_at && standing(&bearer, principal, now).is_ok()).then_some(token)
}
