//! Token exchange with delegation (RFC 8693): an agent obtains a token by which it acts for another, and which says so.
//!
//! What a token's chain consists of is kept in the database when it is issued; whether every link still holds is asked of the
//! live view whenever the token is used. So what ends any link ends all that descends from it.

use serde_json::json;

use super::{
    Services,
    act::standing_in,
    caller::{AgentCaller, Origin, Principal},
    clients::Client,
    refusals::By,
    tokens::{self, IssuedToken, Wanted},
    verified_tokens::Verified,
};
use crate::{
    domain::{
        ApiKeyId, AuthFailure, CapabilitySet, Error, Result, Timestamp, TokenId,
        audit::{AuditAction, Event},
        token::{Acting, Actor, Claims, DelegatedToken, Link, TokenRefusal},
    },
    store::delegated_tokens,
};

const SUBJECT: TokenRefusal = refusal("The subject_token is not valid");
const ACTOR: TokenRefusal = refusal("The actor_token is not valid");
const NOT_ALLOWED: TokenRefusal = refusal("The actor may not act for the subject of this token");

const fn refusal(text: &'static str) -> TokenRefusal {
    TokenRefusal::InvalidRequest(std::borrow::Cow::Borrowed(text))
}

/// The tokens that an agent brings to an exchange.
#[derive(Clone, Copy)]
pub struct Exchange<'r> {
    /// A token of the agent, or of the chain, that it wants to act for.
    pub subject_token: &'r str,
    /// Its own; the client itself acts when it is left out.
    pub actor_token: Option<&'r str>,
}

/// One of the two sides of an exchange.
struct Party {
    bearer: AgentCaller,
    /// What it may do now.
    authority: CapabilitySet,
    /// When it ends by itself.
    ends_at: Option<Timestamp>,
    /// The key that its token is bound to.
    jkt: Option<String>,
    /// The key that it authenticated with, if it did, and whether its uses are counted.
    used: Option<(ApiKeyId, bool)>,
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
    let mut by = By { actor: client.map(|client| client.id().into()), subject: None };
    let mut credential = client.map(|client| client.credential);
    let outcome = async {
        let actor = actor(services, origin, client, exchange.actor_token, now).await?;
        by.actor = Some(actor.bearer.subject.agent.into());
        credential = Some(actor.bearer.subject.credential);
        let (subject, said) = party(services, exchange.subject_token, now, SUBJECT).await?;
        by.subject = Some(subject.bearer.subject.agent);
        delegate(services, origin, actor, subject, &said, wanted, now).await
    }
    .await;
    let outcome = services.granted_or_recorded(outcome, origin, by, credential).await;
    match client {
        Some(client) => services.usable_or_recorded(outcome, origin, client).await,
        None => outcome,
    }
}

async fn actor(
    services: &Services,
    origin: &Origin,
    client: Option<&Client>,
    token: Option<&str>,
    now: Timestamp,
) -> Result<Party> {
    let Some(token) = token else {
        let client = client.ok_or(AuthFailure::InvalidClient)?;
        let Principal::Agent(bearer) = client.clone().into_caller(origin.clone()).principal else {
            return Err(Error::internal("a client is no agent"));
        };
        let ends_at = Some(client.end_of(services.settings.token_life, now));
        return Ok(Party { authority: bearer.authority.clone(), bearer, ends_at, jkt: None, used: client.key() });
    };
    let (actor, said) = party(services, token, now, ACTOR).await?;
    // Who received an agent's token as a resource server must not act in its place, nor whoever acts for it.
    let is_its_own = said.claims.aud == services.settings.issuer && actor.bearer.actors.is_empty();
    if !is_its_own || client.is_some_and(|client| client.id() != actor.bearer.subject.agent) {
        return Err(ACTOR.into());
    }
    Ok(actor)
}

async fn party(services: &Services, token: &str, now: Timestamp, refusal: TokenRefusal) -> Result<(Party, Verified)> {
    let Some(verified) = services.verified(token, now).await? else { return Err(refusal.into()) };
    let bearer = verified.bearer.clone();
    let Ok(authority) = services.standing(&bearer, now).await? else { return Err(refusal.into()) };
    let jkt = verified.claims.cnf.as_ref().map(|bound| bound.jkt.clone());
    Ok((Party { bearer, authority, ends_at: Some(verified.expires_at()), jkt, used: None }, verified))
}

async fn delegate(
    services: &Services,
    origin: &Origin,
    actor: Party,
    subject: Party,
    said: &Verified,
    wanted: &Wanted,
    now: Timestamp,
) -> Result<IssuedToken> {
    let (agent, actor_agent) = (subject.bearer.subject.agent, actor.bearer.subject.agent);
    if subject.bearer.links().any(|link| link.agent == actor_agent) {
        return Err(refusal("The actor is part of the subject_token's chain already").into());
    }
    if subject.bearer.actors.len() >= services.settings.delegation_depth {
        return Err(refusal("The subject_token's chain is as long as one may be").into());
    }
    if said.claims.may_act.as_ref().is_some_and(|may_act| may_act.sub != actor_agent.to_string()) {
        return Err(NOT_ALLOWED.into());
    }
    let policy = services.principals.agent(&services.store, agent, now).await?;
    let delegation = policy.and_then(|subject| subject.delegation_to(actor_agent)).ok_or(NOT_ALLOWED)?;
    // Whoever stole a bound token must not get one without bonds for it.
    let holds =
        wanted.proof.as_ref().map(|proof| services.prove(proof, None)).transpose().map_err(TokenRefusal::from)?;
    for (bound, refusal) in [(&subject.jkt, SUBJECT), (&actor.jkt, ACTOR)] {
        if bound.is_some() && bound.as_ref() != holds.as_ref().map(|proven| &proven.jkt) {
            return Err(refusal.into());
        }
    }
    let both = subject.authority.intersection(&actor.authority);
    let grant = tokens::grant(services, &both, wanted).await?;
    let ends_at = [subject.ends_at, actor.ends_at].into_iter().flatten().fold(now.plus(grant.life), Timestamp::min);

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
    let event = event(services, origin, &claims, &links, said.jti, now);
    let ends_at = Timestamp::from_secs(claims.exp);
    let token = DelegatedToken { jti, audience: claims.aud.clone(), issued_at: now, expires_at: ends_at, links };
    tokens::sign_recorded(services, &claims, grant.scope, keep(services, token, event, actor.used)).await
}

fn event(
    services: &Services,
    origin: &Origin,
    claims: &Claims,
    links: &[Link],
    parent: TokenId,
    now: Timestamp,
) -> Event {
    let (subject, actor) = (links.first(), links.last());
    Event {
        id: services.env.uuid(),
        at: now,
        actor: actor.map(|link| link.agent.into()),
        subject: subject.map(|link| link.agent),
        action: AuditAction::TokenExchanged,
        resource: actor.map(|link| link.credential.into()),
        details: json!({
            "jti": claims.jti, "aud": claims.aud, "exp": claims.exp, "scope": claims.scope.as_scope(), "sub": claims.sub, "act": claims.act,
            "subject_jti": parent,
        }),
        ip: origin.ip,
        success: true,
        request_id: origin.request_id.clone(),
    }
}

/// Keeps a token's chain if every link of it still holds, so that none that ended meanwhile gets a descendant.
async fn keep(services: &Services, token: DelegatedToken, event: Event, used: Option<(ApiKeyId, bool)>) -> Result<()> {
    services
        .store
        .write(move |tx| {
            Box::pin(async move {
                let chain = AgentCaller::of_chain(CapabilitySet::default(), token.links.clone()).ok_or(SUBJECT)?;
                if standing_in(tx, &chain, event.at).await?.is_err() {
                    return Err(SUBJECT.into());
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
