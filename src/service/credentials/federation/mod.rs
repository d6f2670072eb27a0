//! Workload federation (RFC 7523 §2.1): an agent proves itself with a token of an issuer that is trusted to vouch for it, such as the
//! cluster or the pipeline that it runs in, and needs no secret at all.

pub mod fetch;
pub mod foreign_keys;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use super::ways_in::keep_a_way_in;
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
        Services, agents,
        core::{
            act::Act,
            caller::{Caller, Origin},
            policy::Action,
            power,
            refusals::{By, Known},
        },
        tokens::{check_status, clients::Client},
    },
    store::{capabilities, credentials::federated_identities},
};

/// Longest time that a foreign token may still be valid.
const LIFE_MAX: Duration = Duration::from_hours(24);
/// Most identities that are looked at for a token that does not come with its agent's identifier. Anybody can have them looked at.
const LOOKED_AT: i64 = 1_000;
/// Most places that are asked for keys because of one token.
const PLACES: usize = 8;

/// Trusts an issuer to vouch for an agent.
///
/// # Errors
/// [`Error::Denied`] when the agent holds authority that the caller lacks, or another agent does whose identity this one would
/// overlap; [`Error::NotFound`]; [`Error::Invalid`] for an issuer whose keys cannot be asked for; [`Error::Conflict`] beyond
/// [`FederatedIdentity::MAX_PER_AGENT`].
pub async fn add(services: &Services, caller: &Caller, agent: AgentId, trust: Trust) -> Result<FederatedIdentity> {
    let allow_private = services.settings.federation_allow_private;
    let (field, asked) = match &trust.jwks_uri {
        Some(uri) => ("jwks_uri", uri),
        None => ("issuer", &trust.issuer),
    };
    if !is_fetchable(asked) || !(allow_private || asked.starts_with("https://")) {
        let told = "Input should be an https URL; an issuer that is none needs a jwks_uri";
        return Err(Error::field(&["body", field], Invalid::new("url", told)));
    }
    let id = FederatedIdentityId(services.env.uuid());
    services
        .change(caller, Action::CreateKey, move |act| {
            Box::pin(async move {
                power::require_to_issue(act, agent, None).await?;
                if federated_identities::of_agent(act.conn(), agent).await?.len() >= FederatedIdentity::MAX_PER_AGENT {
                    return Err(Error::Conflict(
                        format!("An agent has at most {} federated identities", FederatedIdentity::MAX_PER_AGENT)
                            .into(),
                    ));
                }
                require_no_overlap(act, agent, &trust).await?;
                let identity = FederatedIdentity { id, agent, trust, created_at: act.now };
                federated_identities::insert(act.conn(), &identity).await?;
                act.tx.changed(agent);
                record(act, AuditAction::FederatedIdentityAdded, &identity);
                Ok(identity)
            })
        })
        .await
}

/// Refuses an identity that overlaps an identity of another agent that the caller has no power over. Otherwise that agent could no
/// longer sign in without naming itself.
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

/// The issuers that are trusted to vouch for an agent.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Denied`].
pub async fn list(services: &Services, caller: &Caller, agent: AgentId) -> Result<Vec<FederatedIdentity>> {
    services.permit(caller, Action::ListKeys).await?;
    let mut read = services.store.read().await?;
    crate::store::agents::find(read.conn(), agent).await?.ok_or(agents::NOT_FOUND)?;
    federated_identities::of_agent(read.conn(), agent).await
}

/// Trusts an issuer no more; tokens that were issued at its word end at once.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Denied`], [`Error::ProofNeeded`]; [`Error::Refused`] for the last credential, and for the last
/// that lasts, by which an active agent that holds `admin:*` can come in.
pub async fn remove(services: &Services, caller: &Caller, agent: AgentId, id: FederatedIdentityId) -> Result<()> {
    services
        .change(caller, Action::RevokeKey, move |act| {
            Box::pin(async move {
                power::require_to_withdraw(act, agent).await?;
                keep_a_way_in(act, agent, Credential::FederatedIdentity(id)).await?;
                let removed = federated_identities::delete(act.conn(), agent, id).await?;
                let identity = removed.ok_or(Error::NotFound("Federated identity"))?;
                act.tx.changed(agent);
                record(act, AuditAction::FederatedIdentityRemoved, &identity);
                Ok(())
            })
        })
        .await
}

/// The client that presents a foreign issuer's token.
#[derive(Clone, Copy)]
pub enum Presenter<'r> {
    /// A client that did not authenticate, with its `client_id` if it sent one.
    Named(Option<&'r str>),
    /// A client that authenticated itself.
    Client(&'r Client),
}

/// Authenticates the agent that a foreign issuer's token vouches for. Such a token may come again: what a platform hands to a workload is
/// often good for an hour, and read from a file whenever it is needed.
///
/// # Errors
/// [`TokenRefusal::InvalidGrant`] whatever is wrong; it is recorded with its reason.
pub async fn authenticate(
    services: &Services,
    origin: &Origin,
    presenter: Presenter<'_>,
    assertion: &str,
) -> Result<Client> {
    match vouched(services, presenter, assertion).await? {
        Ok(client) => Ok(client),
        Err((agent, reason)) => {
            let by = match presenter {
                Presenter::Named(_) => By::agent(agent),
                Presenter::Client(client) => By { known: Some(Known::Agent(client.id())), subject: agent },
            };
            match services.refuse_assertion(origin, by, AuthFailure::InvalidAssertion(reason)).await {
                Err(Error::Unauthenticated(_)) => Err(TokenRefusal::InvalidGrant(reason).into()),
                refused => refused,
            }
        }
    }
}

type Vouched = Result<Client, (Option<AgentId>, &'static str)>;

async fn vouched(services: &Services, presenter: Presenter<'_>, assertion: &str) -> Result<Vouched> {
    let now = services.env.now();
    let Some(token) = ForeignToken::read(assertion) else { return Ok(Err((None, "federation_malformed"))) };
    let claims = &token.claims;
    let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
    let mut trusting = match Trust::parse_issuer(issuer) {
        Ok(issuer) => candidates(services, &issuer, claims, presenter).await?,
        Err(_) => Vec::new(),
    };
    if trusting.is_empty() {
        return Ok(Err((None, "federation_unknown_issuer")));
    }
    if i64::try_from(trusting.len()).is_ok_and(|count| count > LOOKED_AT) {
        return Ok(Err((None, "federation_ambiguous")));
    }
    // Nobody is asked for keys because of a token that would be refused with the right signature.
    trusting.retain(|one| one.trust.matches(claims));
    if trusting.is_empty() {
        return Ok(Err((None, "federation_no_match")));
    }
    let expires_at = match check_times(claims, now) {
        Ok(expires_at) => expires_at,
        Err(reason) => return Ok(Err((None, reason))),
    };
    let identity = match believed(services, trusting, &token, assertion).await {
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
    Ok(Ok(Client { principal, credential, ends_at: Some(expires_at), limits: KeyLimits::default() }))
}

/// The identities that a token of this issuer may be meant for. A token that matches an identity of the authenticated client is taken
/// as the client's own, even if it matches other agents' identities as well.
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
        own.retain(|one| one.trust.issuer == issuer);
        if matches!(presenter, Presenter::Named(_)) || own.iter().any(|one| one.trust.matches(claims)) {
            return Ok(own);
        }
    }
    federated_identities::of_subject(read.conn(), issuer, Trust::subject_of(claims), LOOKED_AT + 1).await
}

/// The oldest of the identities whose keys of their issuer signed the token; an error where it may just as well be meant for another
/// agent. They may look for the keys in different places, and each is asked once.
async fn believed(
    services: &Services,
    mut trusting: Vec<FederatedIdentity>,
    token: &ForeignToken,
    assertion: &str,
) -> Result<FederatedIdentity, &'static str> {
    trusting.sort_by_key(|one| (one.created_at, one.id.0));
    let mut places: Vec<Trust> = Vec::new();
    for FederatedIdentity { trust, .. } in &trusting {
        if places.len() < PLACES && !places.iter().any(|known| known.jwks_uri == trust.jwks_uri) {
            places.push(trust.clone());
        }
    }
    let judge = |place: Trust| async move {
        let keys = services.foreign_keys_of(&place, token.kid.as_deref()).await;
        let word = match keys {
            Ok(keys) if keys.iter().any(|key| key.has_signed(assertion)) => Word::Given,
            Ok(_) => Word::Withheld,
            Err(reason) => Word::Unheard(reason),
        };
        (place.jwks_uri, word)
    };
    let words = join_all(places.into_iter().map(judge)).await;
    let word = |one: &FederatedIdentity| {
        words.iter().find(|(jwks_uri, _)| *jwks_uri == one.trust.jwks_uri).map_or(Word::Unasked, |(_, word)| *word)
    };
    let Some(at) = trusting.iter().position(|one| word(one) == Word::Given) else {
        // The signature is known to be wrong only where all keys are known.
        let unheard = trusting.iter().find_map(|one| match word(one) {
            Word::Unheard(reason) => Some(reason),
            Word::Given | Word::Withheld | Word::Unasked => None,
        });
        return Err(unheard.unwrap_or("federation_signature"));
    };
    let agent = trusting.get(at).map(|identity| identity.agent);
    let is_rival = |(place, other): (usize, &FederatedIdentity)| {
        Some(other.agent) != agent
            && match word(other) {
                Word::Given | Word::Unasked => true,
                // Nobody comes to act as who was there before, only because those cannot be asked. Whoever came later keeps
                // nobody out in that way.
                Word::Unheard(_) => place < at,
                Word::Withheld => false,
            }
    };
    if trusting.iter().enumerate().any(is_rival) {
        return Err("federation_ambiguous");
    }
    Ok(trusting.swap_remove(at))
}

/// What the keys at a place say of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    /// One of them signed it.
    Given,
    /// None of them did.
    Withheld,
    /// They are not known, for this reason.
    Unheard(&'static str),
    /// Too many other places were asked.
    Unasked,
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
