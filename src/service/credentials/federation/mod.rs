//! Workload federation (RFC 7523 §2.1). An agent authenticates with a token of a trusted foreign issuer, such as the
//! cluster or the pipeline that it runs in, and needs no secret of its own.

pub mod fetch;
pub mod foreign_keys;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use crate::{
    crypto::assertion::{ForeignToken, seconds_of},
    domain::{
        AgentId, AuthFailure, CapabilitySet, Denial, Error, FederatedIdentityId, Invalid, KeyLimits, Result, Timestamp,
        audit::{AuditAction, Resource},
        capability::builtin,
        credential::federation::{FederatedIdentity, Trust, is_fetchable},
        token::{CLOCK_SKEW, Credential, TokenRefusal},
    },
    service::{
        Services,
        core::{
            act::Act,
            agent::{self, check_status},
            caller::{Caller, Origin},
            conditions::Once,
            last_administrator::require_other_credential,
            policy::Action,
            power,
            refusals::{KnownPrincipal, Refused},
        },
        tokens::clients::Client,
    },
    store::{capabilities, credentials::federated_identities},
};

/// Maximum time until a foreign token expires.
const LIFE_MAX: Duration = Duration::from_hours(24);
/// Maximum number of identities that are compared with a token without a `client_id`, because anybody can send such
/// tokens.
const CANDIDATES_MAX: i64 = 1_000;
/// Maximum number of key sets that are fetched for one token.
const KEY_SETS_MAX: usize = 8;

/// Adds a federated identity: trusts an issuer to vouch for an agent.
///
/// # Errors
/// [`Error::Denied`] if the agent holds a capability that the caller lacks, or if the identity overlaps one of such an
/// agent; [`Error::NotFound`]; [`Error::Invalid`] for an issuer whose keys cannot be fetched; [`Error::Conflict`]
/// beyond [`FederatedIdentity::MAX_PER_AGENT`]; see [`Once`].
pub async fn add(
    services: &Services,
    caller: &Caller,
    agent: AgentId,
    trust: Trust,
    once: Once<FederatedIdentity>,
) -> Result<FederatedIdentity> {
    let allow_private = services.settings.federation_allow_private;
    let (field, url) = match &trust.jwks_uri {
        Some(uri) => ("jwks_uri", uri),
        None => ("issuer", &trust.issuer),
    };
    if !is_fetchable(url) || !(allow_private || url.starts_with("https://")) {
        let message = "Input should be an https URL. An issuer that is not an https URL needs a jwks_uri";
        return Err(Error::field(&["body", field], Invalid::new("url", message)));
    }
    let id = FederatedIdentityId(services.env.uuid());
    services
        .change(caller, Action::CreateKey, move |act| {
            Box::pin(async move {
                power::require_to_issue(act, agent, None).await?;
                let first = once.begin(act).await?;
                if federated_identities::of_agent(act.conn(), agent).await?.len() >= FederatedIdentity::MAX_PER_AGENT {
                    return Err(Error::Conflict(
                        format!("An agent has at most {} federated identities", FederatedIdentity::MAX_PER_AGENT)
                            .into(),
                    ));
                }
                require_no_overlap(act, agent, &trust).await?;
                let identity = FederatedIdentity { id, agent, trust, created_at: act.now };
                federated_identities::insert(act.tx, &identity).await?;
                record(act, AuditAction::FederatedIdentityAdded, &identity);
                first.finish(act, identity).await
            })
        })
        .await
}

/// Rejects an identity that overlaps one of another agent that the caller has no power over. Otherwise that agent could
/// no longer authenticate without a `client_id`.
async fn require_no_overlap(act: &mut Act<'_>, agent: AgentId, trust: &Trust) -> Result<()> {
    let everything = CapabilitySet::from_iter([builtin::ADMIN.into()]);
    if act.authority.lacks(&everything).is_none() {
        return Ok(());
    }
    let others = federated_identities::overlapping(act.conn(), agent, trust).await?;
    let held = capabilities::held_by_any(act.conn(), &others).await?;
    if let Some(lacking) = act.authority.lacks(&held) {
        return Err(Denial::OverlappingIdentity(lacking.to_owned()).into());
    }
    Ok(())
}

fn record(act: &mut Act<'_>, action: AuditAction, identity: &FederatedIdentity) {
    let trust = &identity.trust;
    let details = json!({
        "target_agent": identity.agent, "issuer": trust.issuer, "jwks_uri": trust.jwks_uri, "audience": trust.audience,
        "claims": trust.claims,
    });
    act.audit(action, Resource::FederatedIdentity(identity.id), Some(identity.agent), details);
}

/// Returns the federated identities of an agent.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Denied`].
pub async fn list(services: &Services, caller: &Caller, agent: AgentId) -> Result<Vec<FederatedIdentity>> {
    services.permit(caller, Action::ListKeys).await?;
    let mut read = services.store.read().await?;
    agent::find(read.conn(), agent).await?;
    federated_identities::of_agent(read.conn(), agent).await
}

/// Removes a federated identity. Tokens that were issued for it end at once.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Denied`], [`Error::ProofNeeded`]; [`Error::Refused`] if no lasting credential of an
/// active agent that holds `admin:*` would be left.
pub async fn remove(services: &Services, caller: &Caller, agent: AgentId, id: FederatedIdentityId) -> Result<()> {
    services
        .change(caller, Action::RevokeKey, move |act| {
            Box::pin(async move {
                power::require_to_revoke(act, agent).await?;
                require_other_credential(act, agent, Credential::FederatedIdentity(id)).await?;
                let removed = federated_identities::delete(act.tx, agent, id).await?;
                let identity = removed.ok_or(Error::NotFound("Federated identity"))?;
                record(act, AuditAction::FederatedIdentityRemoved, &identity);
                Ok(())
            })
        })
        .await
}

/// The client that presents a foreign token.
#[derive(Clone, Copy)]
pub enum Presenter<'r> {
    /// A client that has not authenticated, with the `client_id` of the request, if any.
    Named(Option<&'r str>),
    /// A client that has authenticated.
    Client(&'r Client),
}

/// Authenticates the agent that a foreign token vouches for. A token may be presented more than once, because platforms
/// give workloads tokens that are often valid for an hour.
///
/// # Errors
/// [`TokenRefusal::InvalidGrant`] for any invalid token. It is recorded with its reason.
pub async fn authenticate(
    services: &Services,
    origin: &Origin,
    presenter: Presenter<'_>,
    assertion: &str,
) -> Result<Client> {
    match verify(services, presenter, assertion).await? {
        Ok(client) => {
            origin.identity.note(client.id(), None);
            Ok(client)
        }
        Err((agent, reason)) => {
            let refused = match presenter {
                Presenter::Named(_) => Refused::agent(agent),
                Presenter::Client(client) => {
                    Refused { principal: Some(KnownPrincipal::Agent(client.id())), subject: agent }
                }
            };
            match services.refuse_assertion(origin, refused, AuthFailure::InvalidAssertion(reason)).await {
                Err(Error::Unauthenticated(_)) => Err(TokenRefusal::InvalidGrant(reason).into()),
                outcome => outcome,
            }
        }
    }
}

/// The client, or the agent (if it is known) and the reason of the refusal.
type Verified = Result<Client, (Option<AgentId>, &'static str)>;

async fn verify(services: &Services, presenter: Presenter<'_>, assertion: &str) -> Result<Verified> {
    let now = services.env.now();
    let Some(token) = ForeignToken::read(assertion) else { return Ok(Err((None, "federation_malformed"))) };
    let claims = &token.claims;
    let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
    let mut identities = match Trust::parse_issuer(issuer) {
        Ok(issuer) => candidates(services, &issuer, claims, presenter).await?,
        Err(_) => Vec::new(),
    };
    if identities.is_empty() {
        return Ok(Err((None, "federation_unknown_issuer")));
    }
    if i64::try_from(identities.len()).is_ok_and(|count| count > CANDIDATES_MAX) {
        return Ok(Err((None, "federation_ambiguous")));
    }
    // No keys are fetched for a token whose claims do not match.
    identities.retain(|identity| identity.trust.matches(claims));
    if identities.is_empty() {
        return Ok(Err((None, "federation_no_match")));
    }
    let expires_at = match check_times(claims, now) {
        Ok(expires_at) => expires_at,
        Err(reason) => return Ok(Err((None, reason))),
    };
    let identity = match vouched(services, identities, &token, assertion).await {
        Ok(identity) => identity,
        Err(reason) => return Ok(Err((None, reason))),
    };
    let agent = identity.agent;
    let Some(principal) = services.principals.agent(&services.store, agent, now).await? else {
        return Ok(Err((None, "federation_no_match")));
    };
    let credential = Credential::FederatedIdentity(identity.id);
    if let Err(failure) = check_status(principal.status).and_then(|()| principal.check(credential, now)) {
        return Ok(Err((Some(agent), failure.reason())));
    }
    Ok(Ok(Client { principal, credential, expires_at: Some(expires_at), limits: KeyLimits::default() }))
}

/// Returns the identities that a token of this issuer may be for. A token that matches an identity of the authenticated
/// client is the client's own, even if it matches other agents' identities too.
async fn candidates(
    services: &Services,
    issuer: &str,
    claims: &Map<String, Value>,
    presenter: Presenter<'_>,
) -> Result<Vec<FederatedIdentity>> {
    let mut read = services.store.read().await?;
    let agent = match presenter {
        Presenter::Named(None) => None,
        Presenter::Named(Some(name)) => match AgentId::parse(name) {
            Some(agent) => Some(agent),
            None => return Ok(Vec::new()),
        },
        Presenter::Client(client) => Some(client.id()),
    };
    if let Some(agent) = agent {
        let mut own = federated_identities::of_agent(read.conn(), agent).await?;
        own.retain(|identity| identity.trust.issuer == issuer);
        if matches!(presenter, Presenter::Named(_)) || own.iter().any(|identity| identity.trust.matches(claims)) {
            return Ok(own);
        }
    }
    federated_identities::of_subject(read.conn(), issuer, Trust::subject_of(claims), CANDIDATES_MAX + 1).await
}

/// Returns the oldest of the identities whose key set has the key that signed the token; an error if the token may be
/// for another agent too. The identities may have different key sets, and each set is fetched once.
async fn vouched(
    services: &Services,
    mut identities: Vec<FederatedIdentity>,
    token: &ForeignToken,
    assertion: &str,
) -> Result<FederatedIdentity, &'static str> {
    identities.sort_by_key(|identity| (identity.created_at, identity.id.0));
    let mut key_sets: Vec<Trust> = Vec::new();
    for FederatedIdentity { trust, .. } in &identities {
        if key_sets.len() < KEY_SETS_MAX && !key_sets.iter().any(|known| known.jwks_uri == trust.jwks_uri) {
            key_sets.push(trust.clone());
        }
    }
    let check = |key_set: Trust| async move {
        let keys = services.foreign_keys_of(&key_set, token.kid.as_deref()).await;
        let signature = match keys {
            Ok(keys) if keys.iter().any(|key| key.has_signed(assertion)) => Signature::Valid,
            Ok(_) => Signature::Invalid,
            Err(reason) => Signature::KeysUnknown(reason),
        };
        (key_set.jwks_uri, signature)
    };
    let checked = join_all(key_sets.into_iter().map(check)).await;
    let signature = |identity: &FederatedIdentity| {
        let found = checked.iter().find(|(jwks_uri, _)| *jwks_uri == identity.trust.jwks_uri);
        found.map_or(Signature::Unchecked, |(_, signature)| *signature)
    };
    let Some(chosen) = identities.iter().position(|identity| signature(identity) == Signature::Valid) else {
        // The signature is known to be invalid only if all keys are known.
        let unknown = identities.iter().find_map(|identity| match signature(identity) {
            Signature::KeysUnknown(reason) => Some(reason),
            Signature::Valid | Signature::Invalid | Signature::Unchecked => None,
        });
        return Err(unknown.unwrap_or("federation_signature"));
    };
    let agent = identities.get(chosen).map(|identity| identity.agent);
    let is_rival = |(position, other): (usize, &FederatedIdentity)| {
        Some(other.agent) != agent
            && match signature(other) {
                Signature::Valid | Signature::Unchecked => true,
                // A newer identity must not win only because the keys of an older one cannot be fetched. The other way
                // round, a newer identity with unknown keys does not lock out an older one.
                Signature::KeysUnknown(_) => position < chosen,
                Signature::Invalid => false,
            }
    };
    if identities.iter().enumerate().any(is_rival) {
        return Err("federation_ambiguous");
    }
    Ok(identities.swap_remove(chosen))
}

/// The result of checking a token's signature with a key set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Signature {
    Valid,
    Invalid,
    /// The keys are not known, with the reason for the audit record.
    KeysUnknown(&'static str),
    /// Too many other key sets were checked.
    Unchecked,
}

fn check_times(claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, &'static str> {
    let now = now.as_secs();
    let time = |name: &str| claims.get(name).map(|value| seconds_of(value).ok_or("federation_malformed")).transpose();
    let expires_at = time("exp")?.ok_or("federation_malformed")?;
    if expires_at <= now {
        return Err("federation_expired");
    }
    if expires_at > now.saturating_add(i64::try_from(LIFE_MAX.as_secs()).unwrap_or(i64::MAX) + CLOCK_SKEW) {
        return Err("federation_lives_too_long");
    }
    if time("nbf")?.max(time("iat")?).is_some_and(|from| from > now.saturating_add(CLOCK_SKEW)) {
        return Err("federation_not_yet_valid");
    }
    Ok(Timestamp::from_secs(expires_at))
}
