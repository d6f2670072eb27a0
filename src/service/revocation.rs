//! Ending access tokens before their time: one (RFC 7009), or all of an agent.

use serde_json::json;

use super::{
    Services, agents,
    caller::{Caller, Origin},
    clients::Client,
    live_tokens,
    policy::Action,
    tokens::bearer,
};
use crate::{
    crypto::Expected,
    domain::{
        AgentId, Result, Timestamp, TokenId,
        audit::{AuditAction, Event, Resource},
        token::TokenRefusal,
    },
    store::revoked_tokens,
};

/// Revokes one of a client's own tokens. A token that is not active is none to revoke, and no error (RFC 7009 §2.2).
///
/// # Errors
/// [`TokenRefusal::UnauthorizedClient`] for the token of another client; it stays as it is.
pub async fn revoke(services: &Services, origin: &Origin, client: &Client, token: &str) -> Result<()> {
    let now = services.env.now();
    let expected = Expected { issuer: &services.settings.issuer, audience: None };
    let Ok(claims) = services.keyring.get().verify(token, &expected, now) else { return Ok(()) };
    let Some((agent, id)) = bearer(&claims).and_then(|bearer| Some((bearer.id, bearer.token?))) else { return Ok(()) };
    if agent != client.id() {
        return Err(TokenRefusal::UnauthorizedClient("The token was issued to another client").into());
    }
    end(services, origin, agent, id, Timestamp::from_secs(claims.exp)).await
}

async fn end(
    services: &Services,
    origin: &Origin,
    agent: AgentId,
    token: TokenId,
    expires_at: Timestamp,
) -> Result<()> {
    let event = Event {
        id: services.env.uuid(),
        at: services.env.now(),
        actor: Some(agent.into()),
        subject: Some(agent),
        action: AuditAction::TokenRevoked,
        resource: Some(Resource::Token(token)),
        details: json!({}),
        ip: origin.ip,
        success: true,
        request_id: origin.request_id.clone(),
    };
    services
        .store
        .write(move |tx| {
            Box::pin(async move {
                if revoked_tokens::insert(tx.conn(), agent, token, expires_at).await? {
                    tx.changed(agent);
                    tx.audit(event);
                }
                Ok(())
            })
        })
        .await
}

/// Revokes every token that an agent has, and leaves its keys as they are. Says how many counted just before, as far as
/// [`live_tokens::COUNTED`].
///
/// # Errors
/// [`crate::domain::Error::NotFound`], [`crate::domain::Error::Denied`].
pub async fn revoke_all(services: &Services, caller: &Caller, id: AgentId) -> Result<usize> {
    services.permit(caller, Action::RevokeTokens).await?;
    let ended = live_tokens::count(services, caller, id).await?;
    services
        .change(caller, Action::RevokeTokens, move |act| {
            Box::pin(async move {
                let agent = agents::find(act, id).await?;
                agents::require_power_over(act, id).await?;
                agents::transition(act, agent, |agent| agent.token_epoch += 1).await?;
                act.audit(AuditAction::TokensRevoked, Resource::Agent(id), Some(id), json!({ "ended": ended }));
                Ok(())
            })
        })
        .await?;
    Ok(ended)
}
