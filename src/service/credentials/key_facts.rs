//! What is known about the use of one credential. Of an API key, that is its uses per day, addresses, live tokens and
//! events; of others, only what the audit log says.

use crate::{
    domain::{
        AgentId, ApiKeyId, Limit, Page, Result, Timestamp,
        audit::{AuditAction, Filter, Record, Resource, Start},
        token::Credential,
    },
    service::{
        Services,
        core::{caller::Caller, policy::Action},
        tokens::live_tokens::{self, Count, LiveToken},
    },
    store::{audit, credentials::api_keys},
};

/// How many of the latest token requests are read for the addresses.
const REQUESTS: Limit = Limit::of(200);
/// Maximum number of live tokens that are listed.
const TOKENS: Limit = Limit::of(20);

/// An IP address that a key was used from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: String,
    /// The number of the latest token requests that came from it.
    pub uses: usize,
    /// The time of the last one.
    pub last: Timestamp,
}

/// What is known about the use of a key.
pub struct Facts {
    /// The uses on each of the last 90 days, oldest first: the start of the day and the number.
    pub days: Vec<(Timestamp, i64)>,
    /// The addresses of the latest token requests, the last used first.
    pub addresses: Vec<Address>,
    /// Whether there are earlier token requests, whose addresses are not listed.
    pub has_earlier_requests: bool,
    /// The newest active tokens that were issued for the key.
    pub tokens: Vec<LiveToken>,
    /// The number of active tokens that end when the key is revoked.
    pub ends: Count,
}

/// Returns what is known about the use of a key of an agent.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn read(services: &Services, caller: &Caller, agent: AgentId, key: ApiKeyId) -> Result<Facts> {
    services.permit(caller, Action::ListKeys).await?;
    services.permit(caller, Action::ReadAudit).await?;
    let days = api_keys::uses_per_day(services.store.read_usage().await?.conn(), key, services.env.now()).await?;
    let (addresses, has_earlier_requests) = addresses(services, key).await?;
    let (tokens, ends) = live_tokens::of_credential(services, caller, agent, Credential::ApiKey(key), TOKENS).await?;
    Ok(Facts { days, addresses, has_earlier_requests, tokens, ends })
}

/// What revoking a public key or a federated identity ends.
pub struct Ending {
    /// When it was last used, unless the audit log has no record of that.
    pub last_used_at: Option<Timestamp>,
    /// The number of active tokens that end.
    pub tokens: Count,
}

/// Returns what revoking a public key or a federated identity of an agent ends.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn ending(services: &Services, caller: &Caller, agent: AgentId, credential: Credential) -> Result<Ending> {
    services.permit(caller, Action::ListKeys).await?;
    services.permit(caller, Action::ReadAudit).await?;
    let mut last_used_at = None;
    for action in [AuditAction::TokenGranted, AuditAction::TokenExchanged] {
        let filter = Filter { action: Some(action.as_str().to_owned()), ..about(credential.into()) };
        let newest = audit::list(&services.store, &filter, Start::Before(i64::MAX), Limit::of(1)).await?;
        last_used_at = last_used_at.max(newest.items.first().map(|record| record.at));
    }
    let (_, tokens) = live_tokens::of_credential(services, caller, agent, credential, Limit::of(Limit::MAX)).await?;
    Ok(Ending { last_used_at, tokens })
}

async fn addresses(services: &Services, key: ApiKeyId) -> Result<(Vec<Address>, bool)> {
    let mut addresses: Vec<Address> = Vec::new();
    let mut has_more = false;
    for action in [AuditAction::TokenIssued, AuditAction::TokenGranted] {
        let filter = Filter { action: Some(action.as_str().to_owned()), ..about(Resource::ApiKey(key)) };
        let page = audit::list(&services.store, &filter, Start::Before(i64::MAX), REQUESTS).await?;
        has_more |= page.next.is_some();
        for record in page.items {
            let Some(ip) = record.ip else { continue };
            if let Some(known) = addresses.iter_mut().find(|known| known.ip == ip) {
                known.uses += 1;
                known.last = known.last.max(record.at);
            } else {
                addresses.push(Address { ip, uses: 1, last: record.at });
            }
        }
    }
    addresses.sort_by_key(|address| std::cmp::Reverse(address.last));
    Ok((addresses, has_more))
}

fn about(resource: Resource) -> Filter {
    Filter { resource_type: Some(resource.kind().to_owned()), resource_id: Some(resource.id()), ..Filter::default() }
}

/// Returns a page of the audit records that have the key as their target, newest first.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `audit:read`.
pub async fn events(
    services: &Services,
    caller: &Caller,
    key: ApiKeyId,
    before: Option<i64>,
    limit: Limit,
) -> Result<Page<Record, i64>> {
    services.permit(caller, Action::ReadAudit).await?;
    audit::list(&services.store, &about(Resource::ApiKey(key)), Start::Before(before.unwrap_or(i64::MAX)), limit).await
}
