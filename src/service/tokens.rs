//! Access tokens: a client is issued one, and one authenticates a request.

use std::time::Duration;

use serde_json::json;

use super::{
    Services,
    act::standing,
    caller::{AgentCaller, Caller, Origin, Principal},
    clients::{self, Client},
    refusals::By,
};
use crate::{
    crypto::Expected,
    domain::{
        AgentId, AgentStatus, AuthFailure, CapabilityName, CapabilitySet, Error, Result, Timestamp, TokenId,
        audit::{AuditAction, Event},
        token::{Claims, Credential, TokenRefusal},
    },
    store::resources,
};

/// A fresh access token.
pub struct IssuedToken {
    /// The token: a secret.
    pub access_token: secrecy::SecretString,
    /// Its life, in seconds.
    pub expires_in: i64,
    /// What it may carry.
    pub scope: CapabilitySet,
}

/// What a client asks of a token. What it leaves out is as much as it may have.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Capabilities (RFC 6749 §3.3).
    pub scope: Option<String>,
    /// What the token is for (RFC 8707 §2); AIMS itself when left out.
    pub resource: Option<String>,
    /// Longest life.
    pub life: Option<Duration>,
}

/// What a token is to be.
struct Grant {
    scope: CapabilitySet,
    audience: String,
    life: Duration,
    recorded_as: AuditAction,
}

/// Exchanges an API key for an access token with all that its agent holds, once the audit record is durable.
///
/// # Errors
/// As [`clients::authenticate`].
pub async fn exchange(services: &Services, origin: &Origin, raw_key: &str) -> Result<IssuedToken> {
    let client = clients::authenticate(services, origin, None, raw_key).await?;
    let grant = Grant {
        scope: client.principal.capabilities.clone(),
        audience: services.settings.issuer.clone(),
        life: services.settings.token_life,
        recorded_as: AuditAction::TokenIssued,
    };
    issue(services, origin, &client, grant).await
}

/// Issues a client the token that it asks for (RFC 6749 §4.4), once the audit record is durable.
///
/// # Errors
/// [`TokenRefusal`] for more than the client or the resource may have; it is recorded.
pub async fn client_credentials(
    services: &Services,
    origin: &Origin,
    client: &Client,
    wanted: &Wanted,
) -> Result<IssuedToken> {
    match grant(services, client, wanted).await {
        Ok(grant) => issue(services, origin, client, grant).await,
        Err(Error::Token(refusal)) => {
            let by = By { actor: Some(client.id().into()), subject: Some(client.id()) };
            let details = json!({ "reason": refusal.code() });
            let credential = Some(client.credential.into());
            services.record_refusal(AuditAction::TokenRefused, origin, by, credential, details).await?;
            Err(refusal.into())
        }
        Err(error) => Err(error),
    }
}

async fn grant(services: &Services, client: &Client, wanted: &Wanted) -> Result<Grant> {
    let issuer = &services.settings.issuer;
    let held = &client.principal.capabilities;
    let (audience, allowed) = match &wanted.resource {
        Some(identifier) if identifier != issuer => {
            let found = resources::find_by_identifier(services.store.read().await?.conn(), identifier).await?;
            let resource = found.ok_or(TokenRefusal::InvalidTarget("The resource is not registered"))?;
            (resource.identifier.to_string(), held.intersection(&resource.capabilities))
        }
        _ => (issuer.clone(), held.clone()),
    };
    let scope = match &wanted.scope {
        Some(scope) => narrowed(scope, &allowed)?,
        None => allowed,
    };
    let life = wanted.life.unwrap_or(services.settings.token_life).min(services.settings.token_life);
    Ok(Grant { scope, audience, life, recorded_as: AuditAction::TokenGranted })
}

/// Reads a scope that must stay within what is allowed.
fn narrowed(scope: &str, allowed: &CapabilitySet) -> Result<CapabilitySet, TokenRefusal> {
    let parse = |name: &str| {
        CapabilityName::parse(name).map_err(|_| TokenRefusal::InvalidScope("The scope is malformed".into()))
    };
    let wanted: CapabilitySet = scope.split(' ').map(parse).collect::<Result<_, _>>()?;
    match allowed.lacks(&wanted) {
        Some(lacking) => Err(TokenRefusal::InvalidScope(format!("Not to be had: {lacking}").into())),
        None => Ok(wanted),
    }
}

/// Signs a token and records it. No token outlives its key.
async fn issue(services: &Services, origin: &Origin, client: &Client, grant: Grant) -> Result<IssuedToken> {
    let now = services.env.now();
    let agent = client.id();
    let (key, public_key) = match client.credential {
        Credential::ApiKey(id) => (Some(id), None),
        Credential::PublicKey(id) => (None, Some(id)),
    };
    let longest = now.plus(grant.life);
    let ends = client.ends_at.map_or(longest, |end| end.min(longest));
    let claims = Claims {
        iss: services.settings.issuer.clone(),
        sub: agent.to_string(),
        aud: grant.audience,
        client_id: agent.to_string(),
        iat: now.as_secs(),
        nbf: now.as_secs(),
        exp: ends.as_secs(),
        jti: TokenId(services.env.uuid()).to_string(),
        scope: grant.scope.to_scope(),
        scopes: grant.scope.iter().map(ToString::to_string).collect(),
        key_id: key.map(|id| id.to_string()),
        public_key_id: public_key.map(|id| id.to_string()),
        token_epoch: client.principal.token_epoch,
    };
    let access_token = services.keyring.get().sign(&claims).map_err(|error| Error::Internal(Box::new(error)))?;
    let issued = Event {
        id: services.env.uuid(),
        at: now,
        actor: Some(agent.into()),
        subject: Some(agent),
        action: grant.recorded_as,
        resource: Some(client.credential.into()),
        details: json!({
            "jti": claims.jti, "aud": claims.aud, "exp": claims.exp, "epoch": claims.token_epoch,
        }),
        ip: origin.ip,
        success: true,
        request_id: origin.request_id.clone(),
    };
    services.store.record(issued, key).await?;
    let expires_in = claims.exp - claims.iat;
    Ok(IssuedToken { access_token: access_token.into(), expires_in, scope: grant.scope })
}

/// Authenticates the bearer of an access token against the live view (RFC 6750): signature, issuer, audience, expiry,
/// type, whether it was revoked, the agent's status and token epoch, the token's credential, and which of its capabilities are
/// still granted.
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
    let issuer = &services.settings.issuer;
    let claims = services.keyring.get().verify(token, &Expected { issuer, audience: Some(issuer) }, now).ok()?;
    Some((bearer(&claims)?, Timestamp::from_secs(claims.exp)))
}

/// Whom a verified token stands for, with all that it says; what of it is still true is for the live view to say.
pub(super) fn bearer(claims: &Claims) -> Option<AgentCaller> {
    Some(AgentCaller {
        id: AgentId::parse(&claims.sub)?,
        authority: claims.capabilities(),
        credential: claims.credential()?,
        token_epoch: claims.token_epoch,
        token: Some(TokenId::parse(&claims.jti)?),
    })
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
