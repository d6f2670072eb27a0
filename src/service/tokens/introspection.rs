//! Token introspection (RFC 7662): what a token is worth at this moment, for the resource server that received it.

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
    /// What it says.
    pub claims: Arc<Claims>,
    /// What of its scope its agents still hold.
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
    let Some(verified) = services.verified(token, now).await? else { return Ok(None) };
    let standing = services.standing(&verified.bearer, now).await?;
    Ok(standing.ok().map(|scope| Active { claims: verified.claims, scope }))
}
