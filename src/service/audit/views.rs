//! Saved filters of the audit log. They are a personal preference that grants and changes nothing, so they are not audited.

use uuid::Uuid;

pub use crate::store::audit::views::View;

use crate::{
    domain::{AdministratorId, AuthFailure, Error, Result},
    service::{
        Services,
        core::{caller::Caller, policy::Action},
    },
    store::audit::views,
};

/// Maximum number of filters that an administrator can save.
const MOST: usize = 20;

fn person(caller: &Caller) -> Result<AdministratorId> {
    caller.administrator().ok_or_else(|| AuthFailure::NoSession.into())
}

/// Returns the caller's saved filters, by name.
///
/// # Errors
/// [`Error::Unauthenticated`] unless the caller is an administrator.
pub async fn list(services: &Services, caller: &Caller) -> Result<Vec<View>> {
    services.permit(caller, Action::ReadAudit).await?;
    views::of(services.store.read().await?.conn(), person(caller)?).await
}

/// Saves a filter, in place of one with the same name.
///
/// # Errors
/// [`Error::Conflict`] if the caller has saved too many.
pub async fn save(services: &Services, caller: &Caller, name: String, query: String) -> Result<()> {
    let person = person(caller)?;
    let view = View { id: services.env.uuid(), name, query };
    services
        .change(caller, Action::ReadAudit, move |act| {
            Box::pin(async move {
                let saved = views::of(act.conn(), person).await?;
                if saved.len() >= MOST && saved.iter().all(|other| other.name != view.name) {
                    return Err(Error::Conflict("You can save 20 views. Delete one that you no longer need".into()));
                }
                let now = act.now;
                views::save(act.conn(), person, &view, now).await
            })
        })
        .await
}

/// Deletes a saved filter of the caller. Returns its name.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn delete(services: &Services, caller: &Caller, id: Uuid) -> Result<String> {
    let person = person(caller)?;
    services
        .change(caller, Action::ReadAudit, move |act| {
            Box::pin(async move { views::delete(act.conn(), person, id).await?.ok_or(Error::NotFound("Saved view")) })
        })
        .await
}
