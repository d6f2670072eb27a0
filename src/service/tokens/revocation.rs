//! Ending access tokens before their time: one (RFC 7009), or all of an agent.

use serde_json::json;

use super::{
    clients::Client,
    live_tokens::{self, Count},
};
use crate::{
    domain::{
        AgentId, Result, Timestamp, TokenId,
        audit::{AuditAction, Event, Resource},
        token::TokenRefusal,
    },
    service::{
        Services, agents,
        core::{
            caller::{Caller, Origin},
            policy::Action,
            power,
            refusals::By,
        },
    },
    store::tokens::revoked_tokens,
};

/// Revokes one of a client's own tokens, and says how many that ended: itself, and those that descend from it. A token that is
/// not active is none to revoke, and no error (RFC 7009 §2.2).
///
/// # Errors
/// [`TokenRefusal::UnauthorizedClient`], on the record, for the token of another client; it stays as it is.
pub async fn revoke(services: &Services, origin: &Origin, client: &Client, token: &str) -> Result<usize> {
    let Some(verified) = services.verified(token, services.env.now()).await? else { return Ok(0) };
    let agent = client.id();
    if verified.bearer.acting().agent != agent {
        let refusal = TokenRefusal::UnauthorizedClient("The token was issued to another client");
        let (by, token) = (By::agent(Some(agent)), Resource::Token(verified.jti));
        let details = json!({ "reason": refusal.reason() });
        services.record_refusal(AuditAction::AuthzDenied, origin, by, Some(token), details).await?;
        return Err(refusal.into());
    }
    let ended = live_tokens::count_from(services, &verified).await?;
    end(services, origin, agent, verified.jti, verified.expires_at(), ended).await?;
    Ok(ended)
}

async fn end(
    services: &Services,
    origin: &Origin,
    agent: AgentId,
    token: TokenId,
    expires_at: Timestamp,
    ended: usize,
) -> Result<()> {
    let event = Event {
        id: services.env.uuid(),
        at: services.env.now(),
        actor: Some(agent.into()),
        subject: Some(agent),
        action: AuditAction::TokenRevoked,
        resource: Some(Resource::Token(token)),
        details: json!({ "ended": ended }),
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

/// Revokes every token that an agent has, with all that descend from them, and leaves its keys as they are. Says how many
/// counted just before.
///
/// # Errors
/// [`crate::domain::Error::NotFound`], [`crate::domain::Error::Denied`].
pub async fn revoke_all(services: &Services, caller: &Caller, id: AgentId) -> Result<Count> {
    services.permit(caller, Action::RevokeTokens).await?;
    let ended = live_tokens::counted(services, id).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "tokens are revoked that could not be counted");
        Count { tokens: 0, may_be_more: true }
    });
    services
        .change(caller, Action::RevokeTokens, move |act| {
            Box::pin(async move {
                let agent = agents::find(act, id).await?;
                power::require(act, id).await?;
                agents::transition(act, agent, |agent| agent.token_epoch += 1).await?;
                act.audit(
                    AuditAction::TokensRevoked,
                    Resource::Agent(id),
                    Some(id),
                    json!({ "ended": ended.tokens, "may_be_more": ended.may_be_more }),
                );
                Ok(())
            })
        })
        .await?;
    Ok(ended)
}
