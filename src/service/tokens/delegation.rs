//! Token exchange with delegation (RFC 8693): an agent gets a token with which it acts for another agent.
//!
//! The chain of a token is stored when the token is issued. The live view checks every link whenever the token is used,
//! so whatever ends one link ends all tokens that descend from it.

use std::borrow::Cow;

use serde_json::json;

use super::{IssuedToken, TokenRequest, clients::Client, verified_tokens::Verified};
use crate::{
    domain::{
        ApiKeyId, AuthFailure, CapabilitySet, Error, Result, Timestamp, TokenId,
        audit::{AuditAction, Event, Resource},
        token::{Acting, Actor, Claims, DelegatedToken, Link, TokenRefusal},
    },
    service::{
        Services,
        core::{
            act::effective_authority_in,
            caller::{AgentCaller, Origin},
            refusals::{KnownPrincipal, Refused},
        },
        tokens,
    },
    store::tokens::delegated_tokens,
    telemetry::metrics::labels,
};

/// Why an agent gets no token to act for another.
#[derive(Clone, Copy)]
enum Fault {
    /// The subject's token is not valid, or the subject's credential has ended.
    Subject,
    /// The actor's token is not valid.
    Actor,
    /// The actor is not a delegate, or the subject's token forbids it.
    NotAllowed,
    /// The actor is already part of the chain.
    InChain,
    /// The chain already has the maximum length.
    TooLong,
}

/// Converts a fault to the refusal that the client gets.
type Refuse = fn(Fault) -> TokenRefusal;

impl Fault {
    /// The refusal of an exchange (RFC 8693 §2.2.2).
    const fn of_exchange(self) -> TokenRefusal {
        TokenRefusal::InvalidRequest(Cow::Borrowed(match self {
            Self::Subject => "The subject_token is not valid",
            Self::Actor => "The actor_token is not valid",
            Self::NotAllowed => "The actor may not act for the subject of this token",
            Self::InChain => "The actor is part of the subject_token's chain already",
            Self::TooLong => "The subject_token's chain has the maximum length",
        }))
    }

    /// The refusal of an assertion that a client presents. It is `invalid_grant` because the grant belongs to another
    /// client (RFC 6749 §5.2); `unauthorized_client` would mean that the client may not use the grant type at all.
    const fn of_assertion(self) -> TokenRefusal {
        TokenRefusal::InvalidGrant(match self {
            Self::NotAllowed => "federation_not_a_delegate",
            Self::TooLong => "federation_delegation_depth",
            Self::Subject | Self::Actor | Self::InChain => "federation_ended",
        })
    }
}

/// The tokens of an exchange request.
#[derive(Clone, Copy)]
pub struct Exchange<'r> {
    /// A token of the agent, or of the chain, to act for.
    pub subject_token: &'r str,
    /// A token of the actor; `None` if the client itself is the actor.
    pub actor_token: Option<&'r str>,
}

/// The subject or the actor of a delegation.
struct Party {
    bearer: AgentCaller,
    /// The effective authority.
    authority: CapabilitySet,
    expires_at: Timestamp,
    /// The presented token; `None` for an agent that authenticated as a client.
    token: Option<Verified>,
    /// The API key that the agent authenticated with, if it was one, and true if the uses of the key are limited.
    used_key: Option<(ApiKeyId, bool)>,
}

impl Party {
    fn of_client(services: &Services, client: &Client, now: Timestamp) -> Self {
        let bearer = client.bearer();
        let expires_at = client.token_expiry(services.settings.token_life, now);
        Self { authority: bearer.authority.clone(), bearer, expires_at, token: None, used_key: client.key() }
    }

    async fn of_token(services: &Services, token: &str, now: Timestamp, fault: Fault) -> Result<Self> {
        let Some(verified) = services.verify_token(token, now).await? else { return Err(fault.of_exchange().into()) };
        let bearer = verified.bearer.clone();
        let Ok(authority) = services.effective_authority(&bearer, now).await? else {
            return Err(fault.of_exchange().into());
        };
        Ok(Self { bearer, authority, expires_at: verified.expires_at(), token: Some(verified), used_key: None })
    }

    /// Returns the thumbprint of the key that the token is bound to.
    fn jkt(&self) -> Option<&str> {
        self.token.as_ref()?.claims.cnf.as_ref().map(|bound| bound.jkt.as_str())
    }

    /// Returns the only agent that may act for the token's bearer, if the token names one.
    fn may_act(&self) -> Option<&str> {
        self.token.as_ref()?.claims.may_act.as_ref().map(|may_act| may_act.sub.as_str())
    }
}

/// Issues a token with which the actor acts for the subject. It has no capability that one of them lacks, expires no
/// later than either of their tokens, and its chain is no longer than the operator allows. Returns once the audit
/// record is durable.
///
/// # Errors
/// [`TokenRefusal`] for invalid tokens, for an actor that is not a delegate or that `may_act` or the chain excludes,
/// and for a scope or resource that is not available; [`AuthFailure::InvalidClient`] with neither client nor actor
/// token. Refusals are recorded.
pub async fn exchange(
    services: &Services,
    origin: &Origin,
    client: Option<&Client>,
    exchange: Exchange<'_>,
    request: &TokenRequest,
) -> Result<IssuedToken> {
    let now = services.env.now();
    let mut refused = Refused { principal: client.map(|client| KnownPrincipal::Agent(client.id())), subject: None };
    let mut credential = client.map(|client| client.credential);
    let outcome = async {
        let actor = actor(services, client, exchange.actor_token, now).await?;
        refused.principal = Some(KnownPrincipal::Agent(actor.bearer.subject.agent));
        credential = Some(actor.bearer.subject.credential);
        origin.identity.note(actor.bearer.subject.agent, None);
        let subject = Party::of_token(services, exchange.subject_token, now, Fault::Subject).await?;
        refused.subject = Some(subject.bearer.subject.agent);
        delegate(services, origin, actor, subject, request, now, Fault::of_exchange).await
    }
    .await;
    let outcome = services.record_if_refused(outcome, origin, refused, credential).await;
    let issued = match client {
        Some(client) => services.record_if_used_up(outcome, origin, client).await,
        None => outcome,
    }?;
    services.metrics().tokens_issued.increment(labels::Grant::TokenExchange);
    Ok(issued)
}

/// Issues a token for an assertion that vouches for an agent (RFC 7523 §2.1). Without client authentication, and for a
/// client that is this agent, it is the agent's own token. A client that is a delegate of the agent gets a token with
/// which it acts for the agent (RFC 7521 §4.1), as in an exchange. Returns once the audit record is durable.
///
/// # Errors
/// [`TokenRefusal::InvalidGrant`] for any other client; other [`TokenRefusal`]s for a scope or resource that is not
/// available. Refusals are recorded.
pub async fn by_assertion(
    services: &Services,
    origin: &Origin,
    client: Option<&Client>,
    vouched: &Client,
    request: &TokenRequest,
) -> Result<IssuedToken> {
    let issued = match client.filter(|client| client.id() != vouched.id()) {
        Some(client) => for_vouched(services, origin, client, vouched, request).await,
        None => tokens::issue_own(services, origin, vouched, request).await,
    }?;
    services.metrics().tokens_issued.increment(labels::Grant::JwtBearer);
    Ok(issued)
}

async fn for_vouched(
    services: &Services,
    origin: &Origin,
    client: &Client,
    vouched: &Client,
    request: &TokenRequest,
) -> Result<IssuedToken> {
    let now = services.env.now();
    let (actor, subject) = (Party::of_client(services, client, now), Party::of_client(services, vouched, now));
    let refused = Refused { principal: Some(KnownPrincipal::Agent(client.id())), subject: Some(vouched.id()) };
    let outcome = delegate(services, origin, actor, subject, request, now, Fault::of_assertion).await;
    let outcome = services.record_if_refused(outcome, origin, refused, Some(client.credential)).await;
    services.record_if_used_up(outcome, origin, client).await
}

async fn actor(services: &Services, client: Option<&Client>, token: Option<&str>, now: Timestamp) -> Result<Party> {
    let Some(token) = token else {
        let client = client.ok_or(AuthFailure::InvalidClient)?;
        return Ok(Party::of_client(services, client, now));
    };
    let actor = Party::of_token(services, token, now, Fault::Actor).await?;
    // A resource server that received the agent's token must not act in its place, and neither must a delegate of the
    // agent.
    let is_for_aims = actor.token.as_ref().is_some_and(|token| token.claims.aud == services.settings.issuer.as_str());
    let is_own = is_for_aims && actor.bearer.actors.is_empty();
    if !is_own || client.is_some_and(|client| client.id() != actor.bearer.subject.agent) {
        return Err(Fault::Actor.of_exchange().into());
    }
    Ok(actor)
}

async fn delegate(
    services: &Services,
    origin: &Origin,
    actor: Party,
    subject: Party,
    request: &TokenRequest,
    now: Timestamp,
    refuse: Refuse,
) -> Result<IssuedToken> {
    let (agent, actor_agent) = (subject.bearer.subject.agent, actor.bearer.subject.agent);
    if subject.bearer.links().any(|link| link.agent == actor_agent) {
        return Err(refuse(Fault::InChain).into());
    }
    if subject.bearer.actors.len() >= services.settings.delegation_depth {
        return Err(refuse(Fault::TooLong).into());
    }
    if subject.may_act().is_some_and(|allowed| allowed != actor_agent.to_string()) {
        return Err(refuse(Fault::NotAllowed).into());
    }
    let principal = services.principals.agent(&services.store, agent, now).await?;
    let delegation = principal.and_then(|subject| subject.delegation_to(actor_agent));
    let delegation = delegation.ok_or_else(|| refuse(Fault::NotAllowed))?;
    // A stolen token that is bound to a key must not be exchanged for one that is not.
    let proof = request.proof.as_ref().map(|proof| services.verify_proof(proof, None)).transpose();
    let proof = proof.map_err(TokenRefusal::from)?;
    for (bound, fault) in [(subject.jkt(), Fault::Subject), (actor.jkt(), Fault::Actor)] {
        if bound.is_some() && bound != proof.as_ref().map(|proof| proof.jkt.as_str()) {
            return Err(refuse(fault).into());
        }
    }
    let both = subject.authority.intersection(&actor.authority);
    let grant = tokens::grant(services, &both, request).await?;
    let expires_at = now.plus(grant.life).min(subject.expires_at).min(actor.expires_at);

    let mut claims = grant.claims(services, agent, now, expires_at);
    let jti = TokenId::parse(&claims.jti).ok_or_else(|| Error::internal("a new token has an invalid jti"))?;
    let own = actor.bearer.subject;
    claims.client_id = own.agent.to_string();
    claims.token_epoch = own.token_epoch;
    let links: Vec<_> = subject
        .bearer
        .links()
        .cloned()
        .chain([Link { acting: Some(Acting { delegation, obtained: jti }), ..own }])
        .collect();
    claims.act = Actor::chain(links.iter().skip(1).map(|link| link.agent));
    let event = event(services, origin, &claims, &links, subject.token.map(|token| token.jti), now);
    let expires_at = Timestamp::from_secs(claims.exp);
    let token = DelegatedToken { jti, audience: claims.aud.clone(), issued_at: now, expires_at, links };
    let agents: Vec<_> = token.links.iter().map(|link| link.agent).collect();
    let recording = record(services, token, event, actor.used_key, refuse(Fault::Subject));
    let issued = tokens::sign_and_record(services, &claims, grant.scope, recording).await?;
    if request.scope.is_some() {
        for agent in agents {
            services.count_uses(agent, issued.scope.iter()).await;
        }
    }
    Ok(issued)
}

fn event(
    services: &Services,
    origin: &Origin,
    claims: &Claims,
    links: &[Link],
    parent: Option<TokenId>,
    now: Timestamp,
) -> Event {
    let (subject, actor) = (links.first(), links.last());
    let mut details = json!({
        "jti": claims.jti, "aud": claims.aud, "exp": claims.exp, "scope": claims.scope.as_scope(),
        "sub": claims.sub, "act": claims.act,
    });
    let source = match parent {
        Some(token) => Some(("subject_jti", token.to_string())),
        None => subject.map(|link| ("subject_credential", Resource::from(link.credential).id())),
    };
    if let (Some((name, id)), Some(members)) = (source, details.as_object_mut()) {
        members.insert(name.to_owned(), id.into());
    }
    Event {
        id: services.env.uuid(),
        at: now,
        actor: actor.map(|link| link.agent.into()),
        subject: subject.map(|link| link.agent),
        action: AuditAction::TokenExchanged,
        resource: actor.map(|link| link.credential.into()),
        details,
        ip: origin.ip,
        success: true,
        request_id: origin.request_id.clone(),
    }
}

/// Stores a token's chain and its audit record if every link of the chain is still valid as of the transaction.
async fn record(
    services: &Services,
    token: DelegatedToken,
    event: Event,
    used_key: Option<(ApiKeyId, bool)>,
    ended: TokenRefusal,
) -> Result<()> {
    services
        .store
        .write(move |tx| {
            Box::pin(async move {
                let chain = AgentCaller::from_chain(CapabilitySet::default(), token.links.clone());
                let Some(chain) = chain else { return Err(ended.into()) };
                if effective_authority_in(tx, &chain, event.at).await?.is_err() {
                    return Err(ended.into());
                }
                delegated_tokens::insert(tx.conn(), &token).await?;
                match used_key {
                    Some((key, is_limited)) => return tokens::record_key_use(tx, event, key, is_limited).await,
                    None => tx.audit(event),
                }
                Ok(())
            })
        })
        .await
}
