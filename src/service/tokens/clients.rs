//! OAuth client authentication. Every agent is a client. It authenticates with one of its API keys as the client secret
//! (RFC 6749 §2.3), or with an assertion that it signs with one of its key pairs (RFC 7523).

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    crypto::{AssertionKey, RawApiKey, UnverifiedAssertion, assertion::AssertionClaims, public_key},
    domain::{
        AgentId, ApiKeyId, AuthFailure, CapabilitySet, KeyLimits, PublicKeyId, Result, Timestamp,
        audit::AuditAction,
        token::{ASSERTION_LIFE, CLOCK_SKEW, Credential, Link},
    },
    service::{
        Services,
        core::{
            agent::check_status,
            caller::{AgentCaller, Caller, Origin, Principal},
            refusals::Refused,
        },
    },
    store::{credentials::public_keys, principals},
    telemetry::metrics::labels::Refusal,
};

/// The supported signature algorithms of assertions.
pub const ALGORITHMS: [&str; 4] = public_key::ALGORITHMS;
/// Maximum length of an assertion's `jti`, in bytes.
const JTI_MAX: usize = 256;

/// A client that has authenticated.
#[derive(Clone, Debug)]
pub struct Client {
    pub(in crate::service) principal: Arc<principals::Principal>,
    pub(in crate::service) credential: Credential,
    /// When the credential expires.
    pub(in crate::service) expires_at: Option<Timestamp>,
    pub(in crate::service) limits: KeyLimits,
}

/// Authenticates an agent by one of its API keys. If the request has a `client_id`, it must be the agent's ID.
///
/// # Errors
/// [`AuthFailure`] for a key that is unknown, expired or revoked, and for an agent that is not active. Each is
/// recorded.
pub async fn authenticate(
    services: &Services,
    origin: &Origin,
    client_id: Option<&str>,
    secret: &str,
) -> Result<Client> {
    let now = services.env.now();
    let Some(hash) = RawApiKey::parse(secret).map(|key| key.hash()) else {
        return services.refuse_key(origin, None, None, AuthFailure::InvalidKey).await;
    };
    let Some((key, principal)) = services.principals.by_key(&services.store, &hash, now).await? else {
        return services.refuse_key(origin, None, None, AuthFailure::InvalidKey).await;
    };
    let agent = principal.id;
    if client_id.is_some_and(|id| AgentId::parse(id) != Some(agent)) {
        return services.refuse_key(origin, Some(agent), Some(key), AuthFailure::InvalidKey).await;
    }
    let known = match principal.key(key) {
        Some(known) => Some(known.clone()),
        None => principals::key(services.store.read().await?.conn(), key).await?,
    };
    let usable = known.ok_or(AuthFailure::InvalidKey).and_then(|known| {
        known.validity.check(now)?;
        check_status(principal.status)?;
        if known.limits.admits(origin.ip) { Ok(known) } else { Err(AuthFailure::KeyNotFromHere) }
    });
    match usable {
        Ok(known) => {
            origin.identity.note(agent, None);
            Ok(Client {
                principal,
                credential: Credential::ApiKey(key),
                expires_at: known.validity.ends_at(),
                limits: known.limits,
            })
        }
        Err(failure) => services.refuse_key(origin, Some(agent), Some(key), failure).await,
    }
}

/// Authenticates an agent by an assertion that it signed with one of its key pairs (RFC 7523 §2.2 and §3). An assertion
/// is valid once, across all nodes. Without a `client_id`, the client is the assertion's subject.
///
/// # Errors
/// [`AuthFailure::AssertionLivesTooLong`]; [`AuthFailure::InvalidAssertion`] for any other invalid assertion;
/// [`AuthFailure`] for an agent that is not active. Each is recorded with its reason.
pub async fn authenticate_assertion(
    services: &Services,
    origin: &Origin,
    client_id: Option<&str>,
    assertion: &str,
) -> Result<Client> {
    let now = services.env.now();
    let refuse =
        |agent, reason| services.refuse_assertion(origin, Refused::agent(agent), AuthFailure::InvalidAssertion(reason));
    let Some(unverified) = UnverifiedAssertion::parse(assertion) else {
        return refuse(None, "assertion_malformed").await;
    };
    let claims = &unverified.claims;
    let Some(agent) = AgentId::parse(&claims.sub) else { return refuse(None, "assertion_unknown_client").await };
    let Some(principal) = services.principals.agent(&services.store, agent, now).await? else {
        return refuse(None, "assertion_unknown_client").await;
    };
    let Some(key) = signer(services, agent, &unverified, assertion).await? else {
        return refuse(None, "assertion_signature").await;
    };
    // From here on, the assertion is known to be the agent's.
    let checked = check(services, claims, agent, client_id, now).and_then(|()| check_status(principal.status));
    if let Err(failure) = checked {
        return services.refuse_assertion(origin, Refused::agent(Some(agent)), failure).await;
    }
    let hash = Sha256::digest([agent.0.as_bytes().as_slice(), claims.jti.as_bytes()].concat()).into();
    // The time until which `check` accepts the assertion. The sweep keeps it a little longer, for nodes whose clocks
    // are behind.
    let until = Timestamp::from_secs(claims.exp.saturating_add(CLOCK_SKEW));
    let is_first = services
        .store
        .write(move |tx| Box::pin(async move { public_keys::spend(tx.conn(), hash, until).await }))
        .await?;
    if !is_first {
        return refuse(Some(agent), "assertion_replayed").await;
    }
    origin.identity.note(agent, None);
    Ok(Client { principal, credential: Credential::PublicKey(key), expires_at: None, limits: KeyLimits::default() })
}

/// Records a request that was refused because its client credentials were missing, malformed or ambiguous.
///
/// # Errors
/// When the record cannot be written.
pub async fn record_invalid_client(services: &Services, origin: &Origin) -> Result<()> {
    let details = json!({ "reason": AuthFailure::InvalidClient.reason() });
    let refusal = (AuditAction::AuthFailed, Refusal::InvalidClient);
    services.record_refusal(refusal, origin, Refused::UNKNOWN, None, details).await?;
    Ok(())
}

/// Returns the agent's key that signed the assertion. If the assertion has a `kid`, only keys with that ID or
/// thumbprint are tried.
async fn signer(
    services: &Services,
    agent: AgentId,
    unverified: &UnverifiedAssertion,
    assertion: &str,
) -> Result<Option<PublicKeyId>> {
    let keys = public_keys::of_agent(services.store.read().await?.conn(), agent).await?;
    let candidates =
        keys.iter().filter(|key| unverified.kid.as_ref().is_none_or(|kid| key.kid == *kid || key.thumbprint == *kid));
    for key in candidates {
        let invalid = |invalid| crate::domain::Error::internal(format!("a stored key is not valid: {invalid:?}"));
        if AssertionKey::from_jwk(&key.jwk).map_err(invalid)?.has_signed(assertion) {
            return Ok(Some(key.id));
        }
    }
    Ok(None)
}

fn check(
    services: &Services,
    claims: &AssertionClaims,
    agent: AgentId,
    client_id: Option<&str>,
    now: Timestamp,
) -> Result<(), AuthFailure> {
    let invalid = |reason| Err(AuthFailure::InvalidAssertion(reason));
    if claims.iss != claims.sub || client_id.is_some_and(|id| AgentId::parse(id) != Some(agent)) {
        return invalid("assertion_other_client");
    }
    if !is_own_audience(services, &claims.aud) {
        return invalid("assertion_audience");
    }
    let now = now.as_secs();
    if claims.exp <= now.saturating_sub(CLOCK_SKEW) {
        return invalid("assertion_expired");
    }
    if claims.exp > now.saturating_add(secs(ASSERTION_LIFE) + CLOCK_SKEW) {
        return Err(AuthFailure::AssertionLivesTooLong);
    }
    if claims.nbf.max(claims.iat).is_some_and(|from| from > now.saturating_add(CLOCK_SKEW)) {
        return invalid("assertion_not_yet_valid");
    }
    if claims.jti.is_empty() || claims.jti.len() > JTI_MAX {
        return invalid("assertion_without_identifier");
    }
    Ok(())
}

/// Returns true if the audience consists only of this issuer and its endpoints. With other recipients, one of them
/// could pass the assertion on. An assertion is valid once across all endpoints, so it may name any of them.
fn is_own_audience(services: &Services, audience: &Value) -> bool {
    let issuer = &services.settings.issuer;
    let is_ours = |audience: &Value| {
        let audience = audience.as_str().unwrap_or_default();
        let endpoint = audience.strip_prefix(issuer.without_slash());
        issuer.is_audience(audience) || matches!(endpoint, Some("/oauth/token" | "/oauth/introspect" | "/oauth/revoke"))
    };
    match audience {
        Value::Array(several) => !several.is_empty() && several.iter().all(is_ours),
        one => is_ours(one),
    }
}

fn secs(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

impl Client {
    /// Returns the agent's ID, which is also the `client_id`.
    #[must_use]
    pub fn id(&self) -> AgentId {
        self.principal.id
    }

    /// Returns the API key that the client authenticated with, if it was one, and true if the uses of the key are
    /// limited.
    pub(in crate::service) const fn key(&self) -> Option<(ApiKeyId, bool)> {
        match self.credential {
            Credential::ApiKey(id) => Some((id, self.limits.uses_left.is_some())),
            Credential::PublicKey(_) | Credential::FederatedIdentity(_) => None,
        }
    }

    /// Returns the capabilities that the client's tokens may have.
    pub(in crate::service) fn authority(&self) -> CapabilitySet {
        self.limits.narrow(&self.principal.capabilities)
    }

    /// Returns the expiry of a token with this life. No token outlives its credential.
    pub(in crate::service) fn token_expiry(&self, life: Duration, now: Timestamp) -> Timestamp {
        let expiry = now.plus(self.limits.shorten(life));
        self.expires_at.map_or(expiry, |end| end.min(expiry))
    }

    /// Returns the client as a bearer of everything that its credential allows.
    pub(in crate::service) fn bearer(&self) -> AgentCaller {
        AgentCaller {
            authority: self.authority(),
            subject: Link {
                agent: self.principal.id,
                credential: self.credential,
                token_epoch: self.principal.token_epoch,
                presented: None,
                acting: None,
            },
            actors: Arc::default(),
        }
    }

    /// Converts the client to a caller with everything that its credential allows.
    #[must_use]
    pub fn into_caller(self, origin: Origin) -> Caller {
        Caller { principal: Principal::Agent(self.bearer()), origin }
    }
}
