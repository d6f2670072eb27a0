//! Access tokens: a client is issued one, and one authenticates a request.

pub mod clients;
pub mod delegation;
pub mod dpop;
pub mod introspection;
pub mod live_tokens;
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
        refusals::By,
    },
};
use crate::{
    domain::{
        AgentId, AgentStatus, ApiKeyId, AuthFailure, CapabilityName, CapabilitySet, Error, ResourceUri, Result,
        Timestamp, TokenId,
        audit::{AuditAction, Event},
        credential::api_key::Use,
        token::{Claims, Confirmation, Credential, MayAct, TokenRefusal},
    },
    store::{Tx, capabilities, credentials::api_keys, tokens::resources as registered},
};
use clients::Client;
use dpop::{Offered, Proven};

/// Most capabilities that a request may name: the answer, and some records, repeat them.
const SCOPE_MAX: usize = 100;

/// A fresh access token.
pub struct IssuedToken {
    /// The token: a secret.
    pub access_token: secrecy::SecretString,
    /// Its life, in seconds.
    pub expires_in: i64,
    /// What it may carry.
    pub scope: CapabilitySet,
    /// Whether it is worth nothing without proofs of possession.
    pub is_bound: bool,
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
    /// Who alone may come to act for the bearer (RFC 8693 §4.4).
    pub may_act: Option<AgentId>,
    /// The proof by the key that the token shall be bound to (RFC 9449 §5).
    pub proof: Option<Offered>,
}

/// An access token as it came with a request.
#[derive(Clone, Debug)]
pub struct Presented<'r> {
    /// The token.
    pub token: &'r str,
    /// The proof that came with it; `None` where the token alone was to do.
    pub proof: Option<Offered>,
}

/// What a token is to be.
pub(super) struct Grant {
    pub(super) scope: CapabilitySet,
    pub(super) audience: String,
    pub(super) life: Duration,
    may_act: Option<AgentId>,
    jkt: Option<String>,
}

/// Exchanges an API key for an access token with all that its agent holds, once the audit record is durable.
///
/// # Errors
/// As [`clients::authenticate`]; [`TokenRefusal::InvalidScope`] for more than a token can carry.
pub async fn exchange(services: &Services, origin: &Origin, raw_key: &str) -> Result<IssuedToken> {
    let client = clients::authenticate(services, origin, None, raw_key).await?;
    let by = By::agent(Some(client.id()));
    let scope = fitting(client.authority()).map_err(Error::from);
    let grant = Grant {
        scope: services.granted_or_recorded(scope, origin, by, Some(client.credential)).await?,
        audience: services.settings.issuer.as_str().to_owned(),
        life: services.settings.token_life,
        may_act: None,
        jkt: None,
    };
    issue(services, origin, &client, grant, AuditAction::TokenIssued).await
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
    let by = By::agent(Some(client.id()));
    let granted = grant(services, &client.authority(), wanted).await;
    let grant = services.granted_or_recorded(granted, origin, by, Some(client.credential)).await?;
    issue(services, origin, client, grant, AuditAction::TokenGranted).await
}

impl Services {
    /// Records that a client's key was used up.
    pub(super) async fn usable_or_recorded<T>(
        &self,
        outcome: Result<T>,
        origin: &Origin,
        client: &Client,
    ) -> Result<T> {
        match outcome {
            Err(Error::Unauthenticated(failure @ AuthFailure::KeyUsedUp)) => {
                self.refuse(origin, Some(client.id()), client.key().map(|(key, _)| key), failure).await
            }
            outcome => outcome,
        }
    }

    /// Records why a client does not get the token that it asks for.
    pub(super) async fn granted_or_recorded<T>(
        &self,
        outcome: Result<T>,
        origin: &Origin,
        by: By,
        credential: Option<Credential>,
    ) -> Result<T> {
        // To be told the nonce is how every client begins.
        if let Err(Error::Token(refusal)) = &outcome
            && *refusal != TokenRefusal::DpopNonceNeeded
        {
            let details = json!({ "reason": refusal.reason() });
            self.record_refusal(AuditAction::TokenRefused, origin, by, credential.map(Into::into), details).await?;
        }
        outcome
    }
}

/// What of a wish may be had by whoever holds `held`. To be asked last: a proof that the wish comes with is used up.
pub(super) async fn grant(services: &Services, held: &CapabilitySet, wanted: &Wanted) -> Result<Grant> {
    let issuer = &services.settings.issuer;
    let for_aims = || (issuer.as_str().to_owned(), held.clone());
    let (audience, allowed) = match &wanted.resource {
        Some(identifier) if identifier != issuer.as_str() => {
            const UNKNOWN: TokenRefusal = TokenRefusal::InvalidTarget("The resource is not registered");
            let identifier = ResourceUri::parse(identifier).map_err(|_| UNKNOWN)?;
            let is_aims = issuer.is_equivalent(identifier.as_str());
            match registered::find_by_identifier(services.store.read().await?.conn(), &identifier).await? {
                // An earlier version, or another PUBLIC_URL, may have let a resource have a name that is equivalent to the issuer.
                Some(resource) if !is_aims || resource.identifier == identifier => {
                    (resource.identifier.to_string(), held.intersection(&resource.capabilities))
                }
                _ if is_aims => for_aims(),
                _ => return Err(UNKNOWN.into()),
            }
        }
        _ => for_aims(),
    };
    let scope = match &wanted.scope {
        Some(scope) => narrowed(services, scope, &allowed).await?,
        None => allowed,
    };
    let scope = fitting(scope)?;
    let life = wanted.life.unwrap_or(services.settings.token_life).min(services.settings.token_life);
    let mut jkt = None;
    if let Some(proof) = &wanted.proof {
        let proven = services.prove(proof, None).map_err(TokenRefusal::from)?;
        services.spend_proof(&proven).await?.map_err(TokenRefusal::from)?;
        jkt = Some(proven.jkt);
    }
    Ok(Grant { scope, audience, life, may_act: wanted.may_act, jkt })
}

/// Refuses more than a token can carry. Nobody is granted that much, but a database may hold it from before.
fn fitting(scope: CapabilitySet) -> Result<CapabilitySet, TokenRefusal> {
    if scope.fits_a_token() {
        return Ok(scope);
    }
    Err(TokenRefusal::InvalidScope("The agent holds more than a token can carry; ask for a part of it".into()))
}

/// Parses a scope. Its names must be registered and within `allowed`. A wildcard such as `admin:*` covers every name, even one that
/// does not exist.
async fn narrowed(services: &Services, scope: &str, allowed: &CapabilitySet) -> Result<CapabilitySet> {
    let refusal = |told: String| Error::from(TokenRefusal::InvalidScope(told.into()));
    if scope.split(' ').nth(SCOPE_MAX).is_some() {
        return Err(refusal(format!("A scope names at most {SCOPE_MAX} capabilities")));
    }
    let parse = |name: &str| CapabilityName::parse(name).map_err(|_| refusal("The scope is malformed".to_owned()));
    let wanted: CapabilitySet = scope.split(' ').map(parse).collect::<Result<_>>()?;
    if let Some(lacking) = allowed.lacks(&wanted) {
        return Err(refusal(format!("Not available to the client: {lacking}")));
    }
    // A name that `allowed` contains literally is registered. Only the other names need the database.
    if wanted.iter().all(|name| allowed.iter().any(|own| own == name)) {
        return Ok(wanted);
    }
    let unknown = capabilities::first_unregistered(services.store.read().await?.conn(), &wanted).await?;
    unknown.map_or(Ok(wanted), |name| Err(refusal(format!("Not registered: {name}"))))
}

impl Grant {
    /// The claims of such a token for `subject`, of which nobody yet says what it is issued for.
    pub(super) fn claims(&self, services: &Services, subject: AgentId, now: Timestamp, ends: Timestamp) -> Claims {
        Claims {
            iss: services.settings.issuer.as_str().to_owned(),
            sub: subject.to_string(),
            aud: self.audience.clone(),
            client_id: subject.to_string(),
            iat: now.as_secs(),
            nbf: None,
            exp: ends.as_secs(),
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

/// Signs a token and records it. No token outlives its key.
async fn issue(
    services: &Services,
    origin: &Origin,
    client: &Client,
    grant: Grant,
    recorded_as: AuditAction,
) -> Result<IssuedToken> {
    let now = services.env.now();
    let agent = client.id();
    let mut claims = grant.claims(services, agent, now, client.end_of(grant.life, now));
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
        action: recorded_as,
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
                let spent = services.store.write(move |tx| Box::pin(use_key(tx, issued, key, true))).await;
                services.usable_or_recorded(spent, origin, client).await
            }
            key => services.store.record(issued, key.map(|(key, _)| key)).await,
        }
    };
    sign_recorded(services, &claims, grant.scope, recording).await
}

/// Records what was issued for an API key, which is one of the tokens that it is for if its uses are counted.
pub(super) async fn use_key(tx: &mut Tx, issued: Event, key: ApiKeyId, is_counted: bool) -> Result<()> {
    if is_counted && !api_keys::spend_use(tx.conn(), key).await? {
        return Err(AuthFailure::KeyUsedUp.into());
    }
    tx.used(key, Use { at: issued.at, ip: issued.ip, times: 1 });
    tx.audit(issued);
    Ok(())
}

/// Signs a token while `recording` makes its record durable, before which it must not leave. Where the cryptographic library fails
/// there is a record, and the use of a key, without a token.
pub(super) async fn sign_recorded(
    services: &Services,
    claims: &Claims,
    scope: CapabilitySet,
    recording: impl Future<Output = Result<()>>,
) -> Result<IssuedToken> {
    let signing = async {
        // The writer is to have the record, and the database work, before the processor is kept busy here.
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

/// Authenticates whoever presents an access token against the live view (RFC 6750, RFC 9449 §7): signature, issuer, audience,
/// expiry, type, the proof of possession where the token is bound to a key, whether it was revoked, the status, token epoch and credential of its agent and of all who act for it, and which of its
/// capabilities all of them still hold.
///
/// # Errors
/// [`AuthFailure::InvalidToken`] whatever is wrong with the token, so that a bearer learns nothing; the record says what it was.
/// [`AuthFailure::InvalidDpopProof`] and [`AuthFailure::DpopNonceNeeded`] for the proof.
pub async fn authenticate(services: &Services, origin: Origin, presented: Presented<'_>) -> Result<Caller> {
    let now = services.env.now();
    let verified = services.verified(presented.token, now).await?;
    let Some(verified) = verified.filter(|verified| verified.claims.aud == services.settings.issuer.as_str()) else {
        return services.refuse_token(&origin, None, AuthFailure::InvalidToken).await;
    };
    let mut agent = verified.bearer;
    let proven = match possession(services, &verified.claims, &presented) {
        Ok(proven) => proven,
        Err(failure) => return services.refuse_proof(&origin, &agent, failure).await,
    };
    match services.standing(&agent, now).await? {
        Ok(authority) => {
            if let Some(proven) = proven
                && let Err(problem) = services.spend_proof(&proven).await?
            {
                return services.refuse_proof(&origin, &agent, problem.into()).await;
            }
            agent.authority = authority;
            Ok(Caller { principal: Principal::Agent(agent), origin })
        }
        Err(failure) => services.refuse_token(&origin, Some(&agent), failure).await,
    }
}

/// What shows that whoever presents a token holds the key that it is bound to; nothing, where it is bound to none.
fn possession(services: &Services, claims: &Claims, presented: &Presented<'_>) -> Result<Option<Proven>, AuthFailure> {
    match (&claims.cnf, &presented.proof) {
        (None, None) => Ok(None),
        (Some(bound), Some(proof)) => {
            let proven = services.prove(proof, Some(presented.token)).map_err(AuthFailure::from)?;
            if proven.jkt == bound.jkt { Ok(Some(proven)) } else { Err(AuthFailure::WrongBinding("dpop_other_key")) }
        }
        // A bound token must not do as a bearer token, nor the other way round (RFC 9449 §7.1).
        (Some(_), None) => Err(AuthFailure::WrongBinding("dpop_token_as_bearer")),
        (None, Some(_)) => Err(AuthFailure::WrongBinding("dpop_token_not_bound")),
    }
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
