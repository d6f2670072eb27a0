//! Invitations: an owner creates a link, with which one person creates an account of their own.
//!
//! A link works once, for 72 hours, and only as long as the owner who created it is an owner: otherwise an owner whose
//! access was taken away could come back through a link kept for that. Every link that does not work gets the same
//! answer, so that it does not tell whether it once did.

use std::time::Duration;

use serde_json::json;

use super::{
    administrators::{NewAdministrator, add},
    sign_in::Proof,
};
use crate::{
    crypto::{OpaqueSecret, PasswordHash},
    domain::{
        AdministratorId, AuthFailure, Denial, Error, Invitation, InvitationId, Result, Role, Timestamp,
        audit::{AuditAction, Resource},
    },
    service::{
        Services,
        core::{
            act::Act,
            caller::{Caller, Origin},
            policy::Action,
            refusals::Refused,
        },
    },
    store::people::invitations,
    telemetry::metrics::labels::Refusal,
};

pub use crate::store::people::invitations::Invited;

/// How long an invitation link is valid.
pub const LINK_LIFE: Duration = Duration::from_hours(72);

const NOT_FOUND: Error = Error::NotFound("Invitation");

/// The hash of a link's token. It identifies the link without being able to open it.
pub type TokenHash = [u8; 32];

/// Returns the hash of the token in a link.
#[must_use]
pub fn hash_of(token: &str) -> TokenHash {
    OpaqueSecret::hash_of(token)
}

/// Returns the link with this token, for the one response that reveals it.
#[must_use]
pub fn link(services: &Services, token: &OpaqueSecret) -> String {
    format!("{}?token={}", services.settings.issuer.at("/console/invitation"), token.expose())
}

/// Invites a person. Returns the token of the link.
///
/// # Errors
/// [`Error::Conflict`] if there is an invitation for the same recipient; [`Error::ProofNeeded`].
pub async fn create(
    services: &Services,
    caller: &Caller,
    recipient: String,
    role: Role,
) -> Result<(Invitation, OpaqueSecret)> {
    let token = OpaqueSecret::for_url(&services.env);
    let (id, hash) = (InvitationId(services.env.uuid()), token.hash());
    let invitation = services
        .change(caller, Action::ManageAdministrators, move |act| {
            Box::pin(async move {
                let (invited_by, created_at) = (inviter(act)?, act.now);
                let expires_at = created_at.plus(LINK_LIFE);
                let invitation = Invitation { id, recipient, role, invited_by, created_at, expires_at };
                if !invitations::insert(act.conn(), &invitation, hash).await? {
                    let message = "There is already an invitation for this person. Renew or withdraw it instead";
                    return Err(Error::Conflict(message.into()));
                }
                record(act, AuditAction::InvitationCreated, &invitation);
                Ok(invitation)
            })
        })
        .await?;
    Ok((invitation, token))
}

/// Returns all invitations that were neither accepted nor withdrawn, sorted by recipient.
///
/// # Errors
/// [`Error::Denied`] unless the caller is an owner.
pub async fn list(services: &Services, caller: &Caller) -> Result<Vec<Invited>> {
    services.permit(caller, Action::ListAdministrators).await?;
    invitations::list(services.store.read().await?.conn()).await
}

/// Replaces the link of an invitation by a new one from the caller. Returns the token of the new link.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::ProofNeeded`].
pub async fn renew(services: &Services, caller: &Caller, id: InvitationId) -> Result<(Invitation, OpaqueSecret)> {
    let token = OpaqueSecret::for_url(&services.env);
    let hash = token.hash();
    let invitation = services
        .change(caller, Action::ManageAdministrators, move |act| {
            Box::pin(async move {
                let mut invitation = invitations::find(act.conn(), id).await?.ok_or(NOT_FOUND)?.invitation;
                (invitation.invited_by, invitation.created_at) = (inviter(act)?, act.now);
                invitation.expires_at = act.now.plus(LINK_LIFE);
                if !invitations::renew(act.conn(), &invitation, hash).await? {
                    return Err(NOT_FOUND);
                }
                record(act, AuditAction::InvitationRenewed, &invitation);
                Ok(invitation)
            })
        })
        .await?;
    Ok((invitation, token))
}

/// Withdraws an invitation: its link no longer works.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::ProofNeeded`].
pub async fn withdraw(services: &Services, caller: &Caller, id: InvitationId) -> Result<Invitation> {
    services
        .change(caller, Action::ManageAdministrators, move |act| {
            Box::pin(async move {
                let invitation = invitations::find(act.conn(), id).await?.ok_or(NOT_FOUND)?.invitation;
                if !invitations::remove(act.conn(), id).await? {
                    return Err(NOT_FOUND);
                }
                record(act, AuditAction::InvitationWithdrawn, &invitation);
                Ok(invitation)
            })
        })
        .await
}

/// Checks that a link works. A refusal is recorded.
///
/// # Errors
/// [`Denial::InvitationLink`].
pub async fn check(services: &Services, origin: &Origin, token: TokenHash) -> Result<Invited> {
    let found = invitations::find_by_token(services.store.read().await?.conn(), token).await?;
    match usable(found, services.env.now()) {
        Ok(invited) => Ok(invited),
        Err(denial) => {
            let details = json!({ "reason": "invalid_invitation" });
            let refusal = (AuditAction::AuthFailed, Refusal::InvalidInvitation);
            services.record_refusal(refusal, origin, Refused::UNKNOWN, None, details).await?;
            Err(denial.into())
        }
    }
}

/// Creates the account of an invited person. The role is that of the invitation, whatever `new` contains. The link
/// cannot be used again.
///
/// # Errors
/// As [`check`]; [`Error::Conflict`] if the username is taken, which leaves the invitation as it is.
pub async fn accept(services: &Services, origin: Origin, token: TokenHash, new: NewAdministrator) -> Result<Proof> {
    // Hashing a password is expensive, so only a valid link pays for it.
    check(services, &origin, token).await?;
    let password = PasswordHash::of(&services.passwords, &services.env, new.password).await?;
    let id = AdministratorId(services.env.uuid());
    let (username, display_name) = (new.username, new.display_name);
    let password_set_at = services
        .change(&Caller::host(origin), Action::ManageAdministrators, move |act| {
            Box::pin(async move {
                let found = invitations::find_by_token(act.conn(), token).await?;
                let Invited { invitation, inviter, .. } = usable(found, act.now)?;
                if !invitations::remove(act.conn(), invitation.id).await? {
                    return Err(Denial::InvitationLink.into());
                }
                let details = json!({
                    "recipient": invitation.recipient,
                    "username": username.as_str(),
                    "role": invitation.role.as_str(),
                    "invited_by": inviter.as_str(),
                });
                add(act, id, username, display_name, invitation.role, &password).await?;
                act.audit(AuditAction::InvitationAccepted, Resource::Invitation(invitation.id), None, details);
                Ok(act.now)
            })
        })
        .await?;
    Ok(Proof { administrator: id, method: "invitation", password_set_at: Some(password_set_at) })
}

fn usable(found: Option<Invited>, now: Timestamp) -> Result<Invited, Denial> {
    let usable = found.filter(|found| found.inviter_is_owner && now < found.invitation.expires_at);
    usable.ok_or(Denial::InvitationLink)
}

/// Returns the owner who invites. The host creates accounts with `aims admin create` instead.
fn inviter(act: &Act<'_>) -> Result<AdministratorId> {
    act.caller.administrator().ok_or_else(|| AuthFailure::NoSession.into())
}

fn record(act: &mut Act<'_>, action: AuditAction, invitation: &Invitation) {
    let details = json!({
        "recipient": invitation.recipient,
        "role": invitation.role.as_str(),
        "expires_at": invitation.expires_at,
    });
    act.audit(action, Resource::Invitation(invitation.id), None, details);
}
