//! Token introspection (RFC 7662): the current state of a token, for the resource server that received it.

use std::sync::Arc;

use crate::{
    domain::{CapabilitySet, Result, token::Claims},
    service::{
        Services,
        core::{caller::Caller, policy::Action},
    },
};

/// An active token.
#[derive(Clone, Debug)]
pub struct Active {
    /// The claims of the token.
    pub claims: Arc<Claims>,
    /// The part of the token's scope that its agents still hold.
    pub scope: CapabilitySet,
}

/// Checks a token against the live view, as AIMS does for its own API, whatever resource the token is for. Returns
/// `None` if the token is not active.
///
/// # Errors
/// [`crate::domain::Error::Denied`] without `tokens:introspect`; when the database fails.
pub async fn introspect(services: &Services, caller: &Caller, token: &str) -> Result<Option<Active>> {
    services.admit(caller, Action::IntrospectToken).await?;
    let now = services.env.now();
    let Some(verified) = services.verify_token(token, now).await? else { return Ok(None) };
    let authority = services.effective_authority(&verified.bearer, now).await?;
    Ok(authority.ok().map(|scope| Active { claims: verified.claims, scope }))
}
