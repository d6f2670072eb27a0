//! Setup of the first owner, with a link that only the operator of the host gets.

use std::time::Duration;

use serde_json::json;

use super::{
    administrators::{NewAdministrator, add},
    sign_in::Proof,
};
use crate::{
    crypto::{OpaqueSecret, PasswordHash},
    domain::{AdministratorId, Denial, Error, PublicUrl, Result, Role, audit::AuditAction},
    service::{
        Services,
        core::{
            caller::{Caller, Origin},
            policy::Action,
            refusals::Refused,
        },
    },
    store::people::administrators,
    telemetry::metrics::labels::Refusal,
};

/// How long a setup link is valid.
pub const LINK_LIFE: Duration = Duration::from_hours(1);

const GONE: Error = Error::NotFound("Setup link");

/// Creates the token of a setup link, which replaces any earlier one. Returns `None` if there is already an
/// administrator.
///
/// # Errors
/// When the database fails.
pub async fn make_token(services: &Services) -> Result<Option<OpaqueSecret>> {
    let secret = OpaqueSecret::for_url(&services.env);
    let hash = secret.hash();
    let made = services
        .change(&Caller::system(), Action::ManageAdministrators, move |act| {
            Box::pin(async move {
                if administrators::any(act.conn()).await? {
                    return Ok(false);
                }
                let expires_at = act.now.plus(LINK_LIFE);
                administrators::put_setup_token(act.conn(), hash, expires_at).await?;
                act.audit(AuditAction::SetupTokenCreated, None, None, json!({ "expires_at": expires_at }));
                Ok(true)
            })
        })
        .await?;
    Ok(made.then_some(secret))
}

/// The page that a setup link opens.
pub const PATH: &str = "/console/setup";

/// Records where this service is reached, so that `aims setup-token` can print a full link without its settings.
///
/// # Errors
/// When the database fails.
pub async fn record_address(services: &Services) -> Result<()> {
    let url = services.settings.issuer.as_str().to_owned();
    if recorded_address(services).await?.is_some_and(|recorded| recorded.as_str() == url) {
        return Ok(());
    }
    services.store.write(move |tx| Box::pin(async move { administrators::put_public_url(tx.conn(), &url).await })).await
}

/// Returns where the service that used the database last is reached; `None` if none has.
///
/// # Errors
/// When the database fails.
pub async fn recorded_address(services: &Services) -> Result<Option<PublicUrl>> {
    let recorded = administrators::public_url(services.store.read().await?.conn()).await?;
    Ok(recorded.and_then(|url| PublicUrl::parse(&url).ok()))
}

/// Returns true if there is an administrator.
///
/// # Errors
/// When the database fails.
pub async fn is_done(services: &Services) -> Result<bool> {
    administrators::any(services.store.read().await?.conn()).await
}

/// Checks that a setup link is valid. A refusal is recorded.
///
/// # Errors
/// [`Error::Denied`] for an unknown or expired token; [`Error::NotFound`] once setup is complete.
pub async fn check(services: &Services, origin: &Origin, token: &str) -> Result<()> {
    let mut read = services.store.read().await?;
    let found = administrators::setup_token(read.conn(), OpaqueSecret::hash_of(token)).await?;
    match found {
        Some(token) if token.used_at.is_some() => return Err(GONE),
        Some(token) if services.env.now() < token.expires_at => return Ok(()),
        _ if administrators::any(read.conn()).await? => return Err(GONE),
        _ => drop(read),
    }
    let details = json!({ "reason": "invalid_setup_link" });
    let refusal = (AuditAction::AuthFailed, Refusal::InvalidSetupLink);
    services.record_refusal(refusal, origin, Refused::UNKNOWN, None, details).await?;
    Err(Denial::SetupLink.into())
}

/// Creates the first owner. The setup link cannot be used again.
///
/// # Errors
/// As [`check`].
pub async fn complete(services: &Services, origin: Origin, token: &str, new: NewAdministrator) -> Result<Proof> {
    check(services, &origin, token).await?;
    let hash = OpaqueSecret::hash_of(token);
    let password = PasswordHash::of(&services.passwords, &services.env, new.password).await?;
    let id = AdministratorId(services.env.uuid());
    let (username, display_name) = (new.username, new.display_name);
    let password_set_at = services
        .change(&Caller::host(origin), Action::ManageAdministrators, move |act| {
            Box::pin(async move {
                if administrators::any(act.conn()).await? {
                    return Err(GONE);
                }
                let now = act.now;
                let token = administrators::setup_token(act.conn(), hash).await?;
                if token.is_none_or(|token| token.expires_at <= now) {
                    return Err(Denial::SetupLink.into());
                }
                if !administrators::use_setup_token(act.conn(), hash, now).await? {
                    return Err(GONE);
                }
                add(act, id, username, display_name, Role::Owner, &password).await?;
                Ok(now)
            })
        })
        .await?;
    Ok(Proof { administrator: id, method: "setup", password_set_at: Some(password_set_at) })
}
