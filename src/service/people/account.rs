//! One's own account: the password.

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

/// Sets the own password, for whoever knows the present one. Every session ends, this one too.
///
/// # Errors
/// [`AuthFailure::WrongCredentials`] when `present` is not the password.
pub async fn change_password(
    services: &Services,
    caller: &Caller,
    present: String,
    password: NewPassword,
) -> Result<sign_in::Proof> {
    let id = caller.administrator().ok_or(AuthFailure::NoSession)?;
    let proof = sign_in::again_with_password(services, caller, present).await?;
    let hash = PasswordHash::of(&services.passwords, &services.env, password).await?;
    let password_set_at = services
        .change(caller, Action::ManageAccount, move |act| {
            Box::pin(async move {
                let person = find(act, id).await?;
                let now = act.now;
                administrators::set_password(act.conn(), id, &hash, now).await?;
                sign_in::end_all(act, id).await?;
                let details = json!({ "username": person.username.as_str() });
                act.audit(AuditAction::PasswordChanged, Resource::Administrator(id), None, details);
                Ok(now)
            })
        })
        .await?;
    Ok(sign_in::Proof { password_set_at: Some(password_set_at), ..proof })
}
