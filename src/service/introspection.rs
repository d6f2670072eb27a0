//! Token introspection (RFC 7662): what a token is worth at this moment, for the resource server that received it.

use super::{Services, act::standing, caller::Caller, policy::Action, tokens::bearer};
use crate::{
    crypto::Expected,
    domain::{CapabilitySet, Result, token::Claims},
};

/// An active token.
#[derive(Clone, Debug)]
pub struct Active {
    /// What it says.
    pub claims: Claims,
    /// What of its scope its agent still holds.
    pub scope: CapabilitySet,
}

/// Looks at a token as the live view does for AIMS's own API, whatever resource it is for; `None` when it is not active,
/// without saying why.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `tokens:introspect`; when the database fails.
pub async fn introspect(services: &Services, caller: &Caller, token: &str) -> Result<Option<Active>> {
    services.permit(caller, Action::IntrospectToken).await?;
    let now = services.env.now();
    let expected = Expected { issuer: &services.settings.issuer, audience: None };
    let Ok(claims) = services.keyring.get().verify(token, &expected, now) else { return Ok(None) };
    let Some(agent) = bearer(&claims) else { return Ok(None) };
    let Some(principal) = services.principals.agent(&services.store, agent.id, now).await? else { return Ok(None) };
    Ok(standing(&agent, &principal, now).ok().map(|scope| Active { claims, scope }))
}
