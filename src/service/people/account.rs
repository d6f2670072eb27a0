//! An administrator's own password.

use serde_json::json;

use super::{administrators::find, sign_in};
use crate::{
    crypto::PasswordHash,
    domain::{
        AuthFailure, Result,
        audit::{AuditAction, Resource},
        person::password::NewPassword,
    },
    service::{
        Services,
        core::{caller::Caller, policy::Action},
    },
    store::people::administrators,
};

/// Changes the caller's own password and ends all of the caller's sessions, including this one.
///
/// # Errors
/// [`AuthFailure::WrongCredentials`] if `current` is not the password.
pub async fn change_password(
    services: &Services,
    caller: &Caller,
    current: String,
    password: NewPassword,
) -> Result<sign_in::Proof> {
    let id = caller.administrator().ok_or(AuthFailure::NoSession)?;
    let proof = sign_in::confirm_with_password(services, caller, current).await?;
    let hash = PasswordHash::of(&services.passwords, &services.env, password).await?;
    let password_set_at = services
        .change(caller, Action::ManageAccount, move |act| {
            Box::pin(async move {
                let person = find(act, id).await?;
                let now = act.now;
                administrators::set_password(act.conn(), id, &hash, now).await?;
                sign_in::end_all_sessions(act, id).await?;
                let details = json!({ "username": person.username.as_str() });
                act.audit(AuditAction::PasswordChanged, Resource::Administrator(id), None, details);
                Ok(now)
            })
        })
        .await?;
    Ok(sign_in::Proof { password_set_at: Some(password_set_at), ..proof })
}
