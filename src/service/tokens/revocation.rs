//! Revocation of access tokens before they expire: a single one (RFC 7009), or all of an agent.

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
            agent,
            caller::{Caller, Origin},
            policy::Action,
            power,
            refusals::Refused,
        },
    },
    store::tokens::revoked_tokens,
    telemetry::metrics::labels::Refusal,
};

/// Revokes one of a client's own tokens. Returns how many tokens this ended: the token itself and its descendants. A
/// token that is not active is not an error (RFC 7009 §2.2).
///
/// # Errors
/// [`TokenRefusal::UnauthorizedClient`], which is recorded, for a token of another client.
pub async fn revoke(services: &Services, origin: &Origin, client: &Client, token: &str) -> Result<usize> {
    let Some(verified) = services.verify_token(token, services.env.now()).await? else { return Ok(0) };
    let agent = client.id();
    if verified.bearer.actor().agent != agent {
        let refusal = TokenRefusal::UnauthorizedClient("The token was issued to another client");
        let (refused, token) = (Refused::agent(Some(agent)), Resource::Token(verified.jti));
        let details = json!({ "reason": refusal.reason() });
        let counted = (AuditAction::AuthzDenied, Refusal::UnauthorizedClient);
        services.record_refusal(counted, origin, refused, Some(token), details).await?;
        return Err(refusal.into());
    }
    let ended = live_tokens::count_with_descendants(services, &verified).await?;
    revoke_own(services, origin, agent, verified.jti, verified.expires_at(), ended).await?;
    Ok(ended)
}

async fn revoke_own(
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
                if revoked_tokens::insert(tx, agent, token, expires_at).await? {
                    tx.audit(event);
                }
                Ok(())
            })
        })
        .await
}

/// Revokes all tokens of an agent and their descendants. Its credentials stay valid. Returns how many tokens were
/// active.
///
/// # Errors
/// [`crate::domain::Error::NotFound`], [`crate::domain::Error::Denied`].
pub async fn revoke_all(services: &Services, caller: &Caller, id: AgentId) -> Result<Count> {
    services.permit(caller, Action::RevokeTokens).await?;
    let ended = live_tokens::count_active(services, id).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot count the tokens that are being revoked");
        Count { tokens: 0, may_be_more: true }
    });
    services
        .change(caller, Action::RevokeTokens, move |act| {
            Box::pin(async move {
                let agent = agent::find(act.conn(), id).await?;
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
