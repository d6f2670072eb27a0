//! Access tokens: an API key is exchanged for one, and one authenticates a request.

use serde_json::json;

use super::{
    Services,
    act::standing,
    caller::{AgentCaller, Caller, Origin, Principal},
};
use crate::{
    crypto::{Expected, RawApiKey},
    domain::{
        AgentId, AgentStatus, ApiKeyId, AuthFailure, Error, Result, Timestamp, TokenId,
        api_key::Validity,
        audit::{AuditAction, Event, Resource},
        token::Claims,
    },
    store::principals,
};

/// A fresh access token.
pub struct IssuedToken {
    /// The token: a secret.
    pub access_token: secrecy::SecretString,
    /// Its life, in seconds.
    pub expires_in: i64,
}

/// Exchanges an API key for an access token, once its audit record is durable. No token outlives its key.
///
/// # Errors
/// [`AuthFailure`] for a key that is unknown or has ended, and for an agent that may not act; each is recorded.
pub async fn exchange(services: &Services, origin: &Origin, raw_key: &str) -> Result<IssuedToken> {
    let now = services.env.now();
    let Some(hash) = RawApiKey::parse(raw_key).map(|key| key.hash()) else {
        return services.refuse(origin, None, None, AuthFailure::InvalidKey).await;
    };
    let Some((key, agent)) = services.principals.key_owner(&services.store, &hash).await? else {
        return services.refuse(origin, None, None, AuthFailure::InvalidKey).await;
    };
    let Some(principal) = services.principals.agent(&services.store, agent, now).await? else {
        return services.refuse(origin, None, None, AuthFailure::InvalidKey).await;
    };
    let validity = match principal.key(key) {
        Some(validity) => Some(*validity),
        None => principals::key_validity(services.store.read().await?.conn(), key).await?,
    };
    let usable = validity.ok_or(AuthFailure::InvalidKey).and_then(|validity| {
        validity.check(now)?;
        check_status(principal.status)?;
        Ok(validity)
    });
    let validity = match usable {
        Ok(validity) => validity,
        Err(failure) => return services.refuse(origin, Some(agent), Some(key), failure).await,
    };

    let claims = claims(services, &principal, key, &validity, now);
    let access_token = services.keyring.sign(&claims).map_err(|error| Error::Internal(Box::new(error)))?;
    let issued = Event {
        id: services.env.uuid(),
        at: now,
        actor: Some(agent.into()),
        subject: Some(agent),
        action: AuditAction::TokenIssued,
        resource: Some(Resource::ApiKey(key)),
        details: json!({ "jti": claims.jti }),
        ip: origin.ip,
        success: true,
        request_id: origin.request_id.clone(),
    };
    services.store.record(issued, Some(key)).await?;
    Ok(IssuedToken { access_token: access_token.into(), expires_in: claims.exp - claims.iat })
}

fn claims(
    services: &Services,
    principal: &principals::Principal,
    key: ApiKeyId,
    validity: &Validity,
    now: Timestamp,
) -> Claims {
    let longest = now.plus(services.settings.token_life);
    let ends = validity.ends_at().map_or(longest, |end| end.min(longest));
    let scopes: Vec<String> = principal.capabilities.iter().map(ToString::to_string).collect();
    Claims {
        iss: services.settings.issuer.clone(),
        sub: principal.id.to_string(),
        aud: services.settings.issuer.clone(),
        client_id: principal.id.to_string(),
        iat: now.as_secs(),
        nbf: now.as_secs(),
        exp: ends.as_secs(),
        jti: TokenId(services.env.uuid()).to_string(),
        scope: scopes.join(" "),
        scopes,
        key_id: key.to_string(),
        token_epoch: principal.token_epoch,
    }
}

/// Authenticates the bearer of an access token against the live view (RFC 6750): signature, issuer, audience, expiry,
/// type, the agent's status and token epoch, the token's key, and which of its capabilities are still granted.
///
/// # Errors
/// [`AuthFailure::InvalidToken`] whatever is wrong, so that a bearer learns nothing; the record says what it was.
pub async fn authenticate(services: &Services, origin: Origin, token: &str) -> Result<Caller> {
    let now = services.env.now();
    let bearer = services.verified_tokens.get_or_verify(token, now, || verify(services, token, now));
    let Some(mut agent) = bearer else {
        return services.refuse_token(&origin, None, AuthFailure::InvalidToken).await;
    };
    let principal = services.principals.agent(&services.store, agent.id, now).await?;
    let standing = principal.ok_or(AuthFailure::InvalidToken).and_then(|principal| standing(&agent, &principal, now));
    match standing {
        Ok(authority) => {
            agent.authority = authority;
            Ok(Caller { principal: Principal::Agent(agent), origin })
        }
        Err(failure) => services.refuse_token(&origin, Some(&agent), failure).await,
    }
}

fn verify(services: &Services, token: &str, now: Timestamp) -> Option<(AgentCaller, Timestamp)> {
    let expected = Expected { issuer: &services.settings.issuer, audience: &services.settings.issuer };
    let claims = services.keyring.verify(token, &expected, now).ok()?;
    let bearer = AgentCaller {
        id: AgentId::parse(&claims.sub)?,
        authority: claims.capabilities(),
        key: ApiKeyId::parse(&claims.key_id)?,
        token_epoch: claims.token_epoch,
    };
    Some((bearer, Timestamp::from_secs(claims.exp)))
}

/// Whether an agent in this status may act.
///
/// # Errors
/// Why it may not.
pub(super) const fn check_status(status: AgentStatus) -> Result<(), AuthFailure> {
    match status {
        AgentStatus::Active => Ok(()),
        AgentStatus::Suspended => Err(AuthFailure::AgentSuspended),
        AgentStatus::Revoked => Err(AuthFailure::AgentRevoked),
    }
}
