//! Access tokens: issuing them to clients, and authenticating requests with them.

pub mod clients;
pub mod delegation;
pub mod dpop;
pub mod introspection;
pub mod live_tokens;
mod new_signing_keys;
pub mod nonces;
pub mod resources;
pub mod revocation;
pub mod signing_keys;
pub mod verified_tokens;

use std::time::Duration;

use futures_util::future;
use serde_json::json;
use tokio::task;

use super::{
    Services,
    core::{
        caller::{Caller, Origin, Principal},
        refusals::{Refused, of_token_refusal},
    },
};
use crate::{
    domain::{
        AgentId, ApiKeyId, AuthFailure, CapabilityName, CapabilitySet, Error, ResourceUri, Result, Timestamp, TokenId,
        audit::{AuditAction, Event},
        credential::api_key::Use,
        token::{Claims, Confirmation, Credential, MayAct, TokenRefusal},
    },
    store::{Tx, capabilities, credentials::api_keys, tokens::resources as registered},
    telemetry::{metrics::labels, traces},
};
use clients::Client;
use dpop::{PresentedProof, VerifiedProof};

/// Maximum number of capabilities in a requested scope, because the response and some audit records repeat them.
const SCOPE_MAX: usize = 100;

/// An access token that was just issued.
pub struct IssuedToken {
    /// The token, which is a secret.
    pub access_token: secrecy::SecretString,
    /// The life of the token, in seconds.
    pub expires_in: i64,
    /// The capabilities of the token.
    pub scope: CapabilitySet,
    /// Whether the token is bound to a key and needs a `DPoP` proof.
    pub is_bound: bool,
}

/// The parameters of a token request. Without a parameter, the token gets as much as the client may have.
#[derive(Clone, Debug, Default)]
pub struct TokenRequest {
    /// Requested capabilities (RFC 6749 §3.3).
    pub scope: Option<String>,
    /// The resource that the token is for (RFC 8707 §2). Default: AIMS itself.
    pub resource: Option<String>,
    /// Maximum life.
    pub life: Option<Duration>,
    /// The only agent that may act for the bearer (RFC 8693 §4.4).
    pub may_act: Option<AgentId>,
    /// A proof by the key to bind the token to (RFC 9449 §5).
    pub proof: Option<PresentedProof>,
}

/// An access token that came with a request and is not verified yet.
#[derive(Clone, Debug)]
pub struct PresentedToken<'r> {
    /// The token.
    pub token: &'r str,
    /// The `DPoP` proof; `None` for a bearer token.
    pub proof: Option<PresentedProof>,
}

/// The properties of a token to issue.
pub(super) struct Grant {
    pub(super) scope: CapabilitySet,
    pub(super) audience: String,
    pub(super) life: Duration,
    may_act: Option<AgentId>,
    jkt: Option<String>,
}

/// Exchanges an API key for an access token with all capabilities that the key allows. Returns once the audit record is
/// durable.
///
/// # Errors
/// As [`clients::authenticate`]; [`TokenRefusal::InvalidScope`] if the capabilities do not fit in a token.
pub async fn exchange(services: &Services, origin: &Origin, raw_key: &str) -> Result<IssuedToken> {
    let client = traces::Span::stage("policy").run(clients::authenticate(services, origin, None, raw_key)).await?;
    let refused = Refused::agent(Some(client.id()));
    let scope = require_fit(client.authority()).map_err(Error::from);
    let grant = Grant {
        scope: services.record_if_refused(scope, origin, refused, Some(client.credential)).await?,
        audience: services.settings.issuer.as_str().to_owned(),
        life: services.settings.token_life,
        may_act: None,
        jkt: None,
    };
    let issued = issue(services, origin, &client, grant, AuditAction::TokenIssued).await?;
    services.metrics().tokens_issued.increment(labels::Grant::ApiKey);
    Ok(issued)
}

/// Issues a token to a client (RFC 6749 §4.4). Returns once the audit record is durable.
///
/// # Errors
/// [`TokenRefusal`] for a scope or resource that is not available, which is recorded.
pub async fn client_credentials(
    services: &Services,
    origin: &Origin,
    client: &Client,
    request: &TokenRequest,
) -> Result<IssuedToken> {
    let issued = issue_own(services, origin, client, request).await?;
    services.metrics().tokens_issued.increment(labels::Grant::ClientCredentials);
    Ok(issued)
}

/// Issues a client's own token, for whatever grant.
pub(super) async fn issue_own(
    services: &Services,
    origin: &Origin,
    client: &Client,
    request: &TokenRequest,
) -> Result<IssuedToken> {
    let refused = Refused::agent(Some(client.id()));
    let granted = grant(services, &client.authority(), request).await;
    let grant = services.record_if_refused(granted, origin, refused, Some(client.credential)).await?;
    let issued = issue(services, origin, client, grant, AuditAction::TokenGranted).await?;
    // Without a requested scope, a token has whatever its agent holds, which says nothing about what the agent uses.
    if request.scope.is_some() {
        services.count_uses(client.id(), issued.scope.iter()).await;
    }
    Ok(issued)
}

impl Services {
    /// Records the outcome if it is that the client's key has no uses left.
    pub(super) async fn record_if_used_up<T>(&self, outcome: Result<T>, origin: &Origin, client: &Client) -> Result<T> {
        match outcome {
            Err(Error::Unauthenticated(failure @ AuthFailure::KeyUsedUp)) => {
                self.refuse_key(origin, Some(client.id()), client.key().map(|(key, _)| key), failure).await
            }
            outcome => outcome,
        }
    }

    /// Records the outcome if it is a refusal of a token request.
    pub(super) async fn record_if_refused<T>(
        &self,
        outcome: Result<T>,
        origin: &Origin,
        refused: Refused,
        credential: Option<Credential>,
    ) -> Result<T> {
        // A missing nonce is not recorded: every client begins that way.
        if let Err(Error::Token(refusal)) = &outcome
            && *refusal != TokenRefusal::DpopNonceNeeded
        {
            let details = json!({ "reason": refusal.reason() });
            let counted = (AuditAction::TokenRefused, of_token_refusal(refusal));
            self.record_refusal(counted, origin, refused, credential.map(Into::into), details).await?;
        }
        outcome
    }
}

/// Decides what a token request gets if the client holds `held`. Call it after all other checks, because it marks the
/// request's proof as used.
pub(super) async fn grant(services: &Services, held: &CapabilitySet, request: &TokenRequest) -> Result<Grant> {
    let issuer = &services.settings.issuer;
    let for_aims = || (issuer.as_str().to_owned(), held.clone());
    let (audience, allowed) = match &request.resource {
        Some(identifier) if identifier != issuer.as_str() => {
            const UNKNOWN: TokenRefusal = TokenRefusal::InvalidTarget("The resource is not registered");
            let identifier = ResourceUri::parse(identifier).map_err(|_| UNKNOWN)?;
            let is_aims = issuer.is_equivalent(identifier.as_str());
            match registered::find_by_identifier(services.store.read().await?.conn(), &identifier).await? {
                // Under an earlier version or another PUBLIC_URL, a resource may have got an identifier that is
                // equivalent to the issuer.
                Some(resource) if !is_aims || resource.identifier == identifier => {
                    (resource.identifier.to_string(), held.intersection(&resource.capabilities))
                }
                _ if is_aims => for_aims(),
                _ => return Err(UNKNOWN.into()),
            }
        }
        _ => for_aims(),
    };
    let scope = match &request.scope {
        Some(scope) => parse_scope(services, scope, &allowed).await?,
        None => allowed,
    };
    let scope = require_fit(scope)?;
    let life = request.life.unwrap_or(services.settings.token_life).min(services.settings.token_life);
    let mut jkt = None;
    if let Some(proof) = &request.proof {
        let proof = services.verify_proof(proof, None).map_err(TokenRefusal::from)?;
        services.spend_proof(&proof).await?.map_err(TokenRefusal::from)?;
        jkt = Some(proof.jkt);
    }
    Ok(Grant { scope, audience, life, may_act: request.may_act, jkt })
}

/// Checks that a scope fits in a token. Grants never exceed this, but a database from an earlier version may.
fn require_fit(scope: CapabilitySet) -> Result<CapabilitySet, TokenRefusal> {
    if scope.fits_a_token() {
        return Ok(scope);
    }
    Err(TokenRefusal::InvalidScope("The agent's capabilities do not fit in a token. Request a smaller scope".into()))
}

/// Parses a scope. Its names must be registered and within `allowed`. A wildcard such as `admin:*` covers every name,
/// even one that does not exist.
async fn parse_scope(services: &Services, scope: &str, allowed: &CapabilitySet) -> Result<CapabilitySet> {
    let refusal = |description: String| Error::from(TokenRefusal::InvalidScope(description.into()));
    if scope.split(' ').nth(SCOPE_MAX).is_some() {
        return Err(refusal(format!("A scope can have at most {SCOPE_MAX} capabilities")));
    }
    let parse = |name: &str| CapabilityName::parse(name).map_err(|_| refusal("The scope is malformed".to_owned()));
    let requested: CapabilitySet = scope.split(' ').map(parse).collect::<Result<_>>()?;
    if let Some(lacking) = allowed.lacks(&requested) {
        return Err(refusal(format!("Not available to the client: {lacking}")));
    }
    // A name that `allowed` contains literally is registered. Only the other names need the database.
    if requested.iter().all(|name| allowed.iter().any(|own| own == name)) {
        return Ok(requested);
    }
    let unknown = capabilities::first_unregistered(services.store.read().await?.conn(), &requested).await?;
    unknown.map_or(Ok(requested), |name| Err(refusal(format!("Not registered: {name}"))))
}

impl Grant {
    /// Returns the claims of a token for `subject`, still without a credential and a chain.
    pub(super) fn claims(
        &self,
        services: &Services,
        subject: AgentId,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Claims {
        Claims {
            iss: services.settings.issuer.as_str().to_owned(),
            sub: subject.to_string(),
            aud: self.audience.clone(),
            client_id: subject.to_string(),
            iat: now.as_secs(),
            nbf: None,
            exp: expires_at.as_secs(),
            jti: TokenId(services.env.uuid()).to_string(),
            scope: self.scope.clone(),
            scopes: self.scope.clone(),
            key_id: None,
            public_key_id: None,
            federated_identity_id: None,
            token_epoch: 0,
            act: None,
            may_act: self.may_act.map(|agent| MayAct { sub: agent.to_string() }),
            cnf: self.jkt.clone().map(|jkt| Confirmation { jkt }),
        }
    }
}

/// Signs and records a token. No token outlives its credential.
async fn issue(
    services: &Services,
    origin: &Origin,
    client: &Client,
    grant: Grant,
    action: AuditAction,
) -> Result<IssuedToken> {
    let now = services.env.now();
    let agent = client.id();
    let mut claims = grant.claims(services, agent, now, client.token_expiry(grant.life, now));
    claims.token_epoch = client.principal.token_epoch;
    match client.credential {
        Credential::ApiKey(id) => claims.key_id = Some(id.to_string()),
        Credential::PublicKey(id) => claims.public_key_id = Some(id.to_string()),
        Credential::FederatedIdentity(id) => claims.federated_identity_id = Some(id.to_string()),
    }
    let issued = Event {
        id: services.env.uuid(),
        at: now,
        actor: Some(agent.into()),
        subject: Some(agent),
        action,
        resource: Some(client.credential.into()),
        details: json!({
            "jti": claims.jti, "aud": claims.aud, "exp": claims.exp, "epoch": claims.token_epoch,
        }),
        ip: origin.ip,
        success: true,
        request_id: origin.request_id.clone(),
    };
    let recording = async {
        match client.key() {
            Some((key, true)) => {
                let outcome = services.store.write(move |tx| Box::pin(record_key_use(tx, issued, key, true))).await;
                services.record_if_used_up(outcome, origin, client).await
            }
            key => services.store.record(issued, key.map(|(key, _)| key)).await,
        }
    };
    sign_and_record(services, &claims, grant.scope, recording).await
}

/// Records a token that was issued for an API key, and takes one use from the key if its uses are limited.
pub(super) async fn record_key_use(tx: &mut Tx, issued: Event, key: ApiKeyId, is_limited: bool) -> Result<()> {
    if is_limited && !api_keys::spend_use(tx, key).await? {
        return Err(AuthFailure::KeyUsedUp.into());
    }
    tx.used(key, Use { at: issued.at, ip: issued.ip, times: 1 });
    tx.audit(issued);
    Ok(())
}

/// Signs a token while `recording` makes its audit record durable, and returns the token after both. If signing fails,
/// there is an audit record, and perhaps one use less of a key, without a token.
pub(super) async fn sign_and_record(
    services: &Services,
    claims: &Claims,
    scope: CapabilitySet,
    recording: impl Future<Output = Result<()>>,
) -> Result<IssuedToken> {
    let signing = async {
        // Lets `recording` hand its record to the writer before this task is busy with the signature.
        task::yield_now().await;
        services.keyring.get().sign(claims).map_err(|error| Error::Internal(Box::new(error)))
    };
    let (recorded, access_token) = future::join(recording, signing).await;
    recorded?;
    Ok(IssuedToken {
        access_token: access_token?.into(),
        expires_in: claims.exp - claims.iat,
        scope,
        is_bound: claims.cnf.is_some(),
    })
}

/// Authenticates the bearer of an access token (RFC 6750, RFC 9449 §7).
///
/// Checks the token's signature, type, issuer, audience and expiry and, if the token is bound to a key, the proof of
/// possession. Then checks against the live view that the token is not revoked, and the status, token epoch and
/// credential of every agent in its chain. The caller gets the capabilities that all of these agents still hold.
///
/// # Errors
/// [`AuthFailure::InvalidToken`] for any invalid token; only the audit record has the reason.
/// [`AuthFailure::InvalidDpopProof`] and [`AuthFailure::DpopNonceNeeded`] for the proof.
pub async fn authenticate(services: &Services, origin: Origin, presented: PresentedToken<'_>) -> Result<Caller> {
    let now = services.env.now();
    let verified = services.verify_token(presented.token, now).await?;
    let Some(verified) = verified.filter(|verified| verified.claims.aud == services.settings.issuer.as_str()) else {
        return services.refuse_token(&origin, None, AuthFailure::InvalidToken).await;
    };
    let mut agent = verified.bearer;
    let proof = match check_binding(services, &verified.claims, &presented) {
        Ok(proof) => proof,
        Err(failure) => return services.refuse_proof(&origin, &agent, failure).await,
    };
    match services.effective_authority(&agent, now).await? {
        Ok(authority) => {
            if let Some(proof) = proof
                && let Err(error) = services.spend_proof(&proof).await?
            {
                return services.refuse_proof(&origin, &agent, error.into()).await;
            }
            agent.authority = authority;
            Ok(Caller { principal: Principal::Agent(agent), origin }.identified())
        }
        Err(failure) => services.refuse_token(&origin, Some(&agent), failure).await,
    }
}

/// Checks that the bearer holds the key that the token is bound to. Returns the proof, or `None` for a token that is
/// not bound.
fn check_binding(
    services: &Services,
    claims: &Claims,
    presented: &PresentedToken<'_>,
) -> Result<Option<VerifiedProof>, AuthFailure> {
    match (&claims.cnf, &presented.proof) {
        (None, None) => Ok(None),
        (Some(bound), Some(proof)) => {
            let proof = services.verify_proof(proof, Some(presented.token)).map_err(AuthFailure::from)?;
            if proof.jkt == bound.jkt { Ok(Some(proof)) } else { Err(AuthFailure::WrongBinding("dpop_other_key")) }
        }
        // A bound token is not valid as a bearer token, and vice versa (RFC 9449 §7.1).
        (Some(_), None) => Err(AuthFailure::WrongBinding("dpop_token_as_bearer")),
        (None, Some(_)) => Err(AuthFailure::WrongBinding("dpop_token_not_bound")),
    }
}
