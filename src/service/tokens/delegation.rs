//! Token exchange with delegation (RFC 8693): an agent obtains a token by which it acts for another, and which says so.
//!
//! What a token's chain consists of is kept in the database when it is issued; whether every link still holds is asked of the
//! live view whenever the token is used. So what ends any link ends all that descends from it.

use std::borrow::Cow;

use serde_json::json;

use super::{IssuedToken, Wanted, clients::Client, verified_tokens::Verified};
use crate::{
    domain::{
        ApiKeyId, AuthFailure, CapabilitySet, Error, Result, Timestamp, TokenId,
        audit::{AuditAction, Event, Resource},
        token::{Acting, Actor, Claims, DelegatedToken, Link, TokenRefusal},
    },
    service::{
        Services,
        core::{
            act::standing_in,
            caller::{AgentCaller, Origin},
            refusals::{By, Known},
        },
        tokens,
    },
    store::tokens::delegated_tokens,
};

/// Why an agent is refused a token to act for another.
#[derive(Clone, Copy)]
enum Fault {
    /// The subject's token is not valid, or the subject's credential has ended.
    Subject,
    /// The actor's token is not valid.
    Actor,
    /// Policy or the subject's token forbids it.
    NotAllowed,
    /// The actor is part of the chain already.
    InChain,
    /// The chain has the longest permitted length.
    TooLong,
}

/// Converts a fault to the refusal that the client gets.
type Refuse = fn(Fault) -> TokenRefusal;

impl Fault {
    /// The refusal of an exchange (RFC 8693 §2.2.2).
    const fn in_exchange(self) -> TokenRefusal {
        TokenRefusal::InvalidRequest(Cow::Borrowed(match self {
            Self::Subject => "The subject_token is not valid",
            Self::Actor => "The actor_token is not valid",
            Self::NotAllowed => "The actor may not act for the subject of this token",
            Self::InChain => "The actor is part of the subject_token's chain already",
            Self::TooLong => "The subject_token's chain has the maximum length",
        }))
    }

    /// The refusal of a client that presents an assertion. It is `invalid_grant` because the grant belongs to another client (RFC 6749
    /// §5.2); `unauthorized_client` would mean that the client may not use the grant type at all.
    const fn beside_assertion(self) -> TokenRefusal {
        TokenRefusal::InvalidGrant(match self {
            Self::NotAllowed => "federation_not_a_delegate",
            Self::TooLong => "federation_delegation_depth",
            Self::Subject | Self::Actor | Self::InChain => "federation_ended",
        })
    }
}

/// The tokens that an agent brings to an exchange.
#[derive(Clone, Copy)]
pub struct Exchange<'r> {
    /// A token of the agent, or of the chain, that it wants to act for.
    pub subject_token: &'r str,
    /// Its own; the client itself acts when it is left out.
    pub actor_token: Option<&'r str>,
}

/// One of the two sides of a delegation.
struct Party {
    bearer: AgentCaller,
    /// What it may do now.
    authority: CapabilitySet,
    /// When it ends by itself.
    ends_at: Timestamp,
    /// The token that it presented; `None` for an agent that authenticated itself.
    token: Option<Verified>,
    /// The key that it authenticated with, if it did, and whether its uses are counted.
    used: Option<(ApiKeyId, bool)>,
}

impl Party {
    fn of_client(services: &Services, client: &Client, now: Timestamp) -> Self {
        let bearer = client.bearer();
        let ends_at = client.end_of(services.settings.token_life, now);
        Self { authority: bearer.authority.clone(), bearer, ends_at, token: None, used: client.key() }
    }

    async fn of_token(services: &Services, token: &str, now: Timestamp, fault: Fault) -> Result<Self> {
        let Some(verified) = services.verified(token, now).await? else { return Err(fault.in_exchange().into()) };
        let bearer = verified.bearer.clone();
        let Ok(authority) = services.standing(&bearer, now).await? else { return Err(fault.in_exchange().into()) };
        Ok(Self { bearer, authority, ends_at: verified.expires_at(), token: Some(verified), used: None })
    }

    /// The key that its token is bound to.
    fn jkt(&self) -> Option<&str> {
        self.token.as_ref()?.claims.cnf.as_ref().map(|bound| bound.jkt.as_str())
    }

    /// The only agent that its token allows to act for it, if the token names one.
    fn may_act(&self) -> Option<&str> {
        self.token.as_ref()?.claims.may_act.as_ref().map(|may_act| may_act.sub.as_str())
    }
}

/// Issues a token by which the actor acts for the subject: with no more than both of them hold, for no longer than both
/// of their tokens live, and in a chain no longer than the operator allows. Returns once its record is durable.
///
/// # Errors
/// [`TokenRefusal`] for tokens that are not valid, an actor whom policy, `may_act` or the chain itself forbids, and for more
/// than may be had; [`AuthFailure::InvalidClient`] with neither client nor actor token. Refusals are recorded.
pub async fn exchange(
    services: &Services,
    origin: &Origin,
    client: Option<&Client>,
    exchange: Exchange<'_>,
    wanted: &Wanted,
) -> Result<IssuedToken> {
    let now = services.env.now();
    let mut by = By { known: client.map(|client| Known::Agent(client.id())), subject: None };
    let mut credential = client.map(|client| client.credential);
    let outcome = async {
        let actor = actor(services, client, exchange.actor_token, now).await?;
        by.known = Some(Known::Agent(actor.bearer.subject.agent));
        credential = Some(actor.bearer.subject.credential);
        let subject = Party::of_token(services, exchange.subject_token, now, Fault::Subject).await?;
        by.subject = Some(subject.bearer.subject.agent);
        delegate(services, origin, actor, subject, wanted, now, Fault::in_exchange).await
    }
    .await;
    let outcome = services.granted_or_recorded(outcome, origin, by, credential).await;
    match client {
        Some(client) => services.usable_or_recorded(outcome, origin, client).await,
        None => outcome,
    }
}

/// Issues a token for an assertion that vouches for an agent (RFC 7523 §2.1). Without client authentication, and for a client that is
/// this agent, it is the agent's own token. A client that is a delegate of the agent gets a token by which it acts for the agent
/// (RFC 7521 §4.1), as in an exchange. Returns once the record is durable.
///
/// # Errors
/// [`TokenRefusal::InvalidGrant`] for any other client; other [`TokenRefusal`]s for a scope or resource that the client may not have.
/// Refusals are recorded.
pub async fn by_assertion(
    services: &Services,
    origin: &Origin,
    client: Option<&Client>,
    vouched: &Client,
    wanted: &Wanted,
) -> Result<IssuedToken> {
    let Some(client) = client.filter(|client| client.id() != vouched.id()) else {
        return tokens::client_credentials(services, origin, vouched, wanted).await;
    };
    let now = services.env.now();
    let (actor, subject) = (Party::of_client(services, client, now), Party::of_client(services, vouched, now));
    let by = By { known: Some(Known::Agent(client.id())), subject: Some(vouched.id()) };
    let outcome = delegate(services, origin, actor, subject, wanted, now, Fault::beside_assertion).await;
    let outcome = services.granted_or_recorded(outcome, origin, by, Some(client.credential)).await;
    services.usable_or_recorded(outcome, origin, client).await
}

async fn actor(services: &Services, client: Option<&Client>, token: Option<&str>, now: Timestamp) -> Result<Party> {
    let Some(token) = token else {
        let client = client.ok_or(AuthFailure::InvalidClient)?;
        return Ok(Party::of_client(services, client, now));
    };
    let actor = Party::of_token(services, token, now, Fault::Actor).await?;
    // Who received an agent's token as a resource server must not act in its place, nor whoever acts for it.
    let is_for_us = actor.token.as_ref().is_some_and(|token| token.claims.aud == services.settings.issuer.as_str());
    let is_its_own = is_for_us && actor.bearer.actors.is_empty();
    if !is_its_own || client.is_some_and(|client| client.id() != actor.bearer.subject.agent) {
        return Err(Fault::Actor.in_exchange().into());
    }
    Ok(actor)
}

async fn delegate(
    services: &Services,
    origin: &Origin,
    actor: Party,
    subject: Party,
    wanted: &Wanted,
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
    if subject.may_act().is_some_and(|alone| alone != actor_agent.to_string()) {
        return Err(refuse(Fault::NotAllowed).into());
    }
    let policy = services.principals.agent(&services.store, agent, now).await?;
    let delegation = policy.and_then(|subject| subject.delegation_to(actor_agent));
    let delegation = delegation.ok_or_else(|| refuse(Fault::NotAllowed))?;
    // Whoever stole a bound token must not get one without bonds for it.
    let holds =
        wanted.proof.as_ref().map(|proof| services.prove(proof, None)).transpose().map_err(TokenRefusal::from)?;
    for (bound, fault) in [(subject.jkt(), Fault::Subject), (actor.jkt(), Fault::Actor)] {
        if bound.is_some() && bound != holds.as_ref().map(|proven| proven.jkt.as_str()) {
            return Err(refuse(fault).into());
        }
    }
    let both = subject.authority.intersection(&actor.authority);
    let grant = tokens::grant(services, &both, wanted).await?;
    let ends_at = now.plus(grant.life).min(subject.ends_at).min(actor.ends_at);

    let mut claims = grant.claims(services, agent, now, ends_at);
    let jti = TokenId::parse(&claims.jti).ok_or_else(|| Error::internal("a token without identifier"))?;
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
    let ends_at = Timestamp::from_secs(claims.exp);
    let token = DelegatedToken { jti, audience: claims.aud.clone(), issued_at: now, expires_at: ends_at, links };
    let keeping = keep(services, token, event, actor.used, refuse(Fault::Subject));
    tokens::sign_recorded(services, &claims, grant.scope, keeping).await
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
        "jti": claims.jti, "aud": claims.aud, "exp": claims.exp, "scope": claims.scope.as_scope(), "sub": claims.sub, "act": claims.act,
    });
    let made_of = match parent {
        Some(token) => Some(("subject_jti", token.to_string())),
        None => subject.map(|link| ("subject_credential", Resource::from(link.credential).id())),
    };
    if let (Some((name, id)), Some(members)) = (made_of, details.as_object_mut()) {
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

/// Keeps a token's chain if every link of it still holds, so that none that ended meanwhile gets a descendant.
async fn keep(
    services: &Services,
    token: DelegatedToken,
    event: Event,
    used: Option<(ApiKeyId, bool)>,
    ended: TokenRefusal,
) -> Result<()> {
    services
        .store
        .write(move |tx| {
            Box::pin(async move {
                let chain = AgentCaller::of_chain(CapabilitySet::default(), token.links.clone());
                let Some(chain) = chain else { return Err(ended.into()) };
                if standing_in(tx, &chain, event.at).await?.is_err() {
                    return Err(ended.into());
                }
                delegated_tokens::insert(tx.conn(), &token).await?;
                match used {
                    Some((key, is_counted)) => return tokens::use_key(tx, event, key, is_counted).await,
                    None => tx.audit(event),
                }
                Ok(())
            })
        })
        .await
}
