//! Administrators: create, edit, disable and enable. The last owner who can sign in cannot be disabled or given another
//! role.

use std::collections::HashMap;

use serde_json::json;

use super::{sign_in::end_all_sessions, throttle};
use crate::{
    crypto::{OpaqueSecret, PasswordHash},
    domain::{
        Administrator, AdministratorId, Error, Result, Role, Username,
        audit::{AuditAction, Changes, Resource},
        person::password::NewPassword,
    },
    service::{
        Services,
        core::{act::Act, caller::Caller, policy::Action},
    },
    store::{
        names::Named,
        people::{administrators, factors},
    },
};

/// A new administrator.
#[derive(Clone, Debug)]
pub struct NewAdministrator {
    /// The unique username.
    pub username: Username,
    /// The name that the console shows.
    pub display_name: String,
    /// The role.
    pub role: Role,
    /// The password.
    pub password: NewPassword,
}

pub(in crate::service) const NOT_FOUND: Error = Error::NotFound("Administrator");
const LAST_OWNER: Error =
    Error::Refused("This is the last owner who can sign in. Give another administrator the owner role first");

/// Creates an administrator.
///
/// # Errors
/// [`Error::Conflict`] if the username is taken; [`Error::ProofNeeded`].
pub async fn create(services: &Services, caller: &Caller, new: NewAdministrator) -> Result<AdministratorId> {
    services.permit(caller, Action::ManageAdministrators).await?;
    let password = PasswordHash::of(&services.passwords, &services.env, new.password).await?;
    let id = AdministratorId(services.env.uuid());
    let (username, display_name, role) = (new.username, new.display_name, new.role);
    services
        .change(caller, Action::ManageAdministrators, move |act| {
            Box::pin(async move {
                add(act, id, username, display_name, role, &password).await?;
                Ok(id)
            })
        })
        .await
}

pub(in crate::service) async fn add(
    act: &mut Act<'_>,
    id: AdministratorId,
    username: Username,
    display_name: String,
    role: Role,
    password: &PasswordHash,
) -> Result<()> {
    let now = act.now;
    let person = Administrator {
        id,
        username,
        display_name,
        role,
        created_at: now,
        updated_at: now,
        disabled_at: None,
        last_sign_in_at: None,
        password_changed_at: now,
        totp_enabled_at: None,
    };
    if !administrators::insert(act.conn(), &person, password).await? {
        return Err(Error::Conflict("This username is taken".into()));
    }
    act.require_distinct(Named::Administrator, person.username.as_str()).await?;
    let details = json!({ "username": person.username.as_str(), "role": role.as_str() });
    act.audit(AuditAction::AdministratorCreated, Resource::Administrator(id), None, details);
    Ok(())
}

/// Generates a random password.
#[must_use]
pub fn generate_password(services: &Services) -> OpaqueSecret {
    OpaqueSecret::for_people(&services.env)
}

/// Returns all administrators, sorted by username.
///
/// # Errors
/// [`Error::Denied`] unless the caller is an owner.
pub async fn list(services: &Services, caller: &Caller) -> Result<Vec<Administrator>> {
    services.permit(caller, Action::ListAdministrators).await?;
    administrators::list(services.store.read().await?.conn()).await
}

/// Returns the number of passkeys of each administrator who has one.
///
/// # Errors
/// [`Error::Denied`] unless the caller is an owner.
pub async fn passkey_counts(services: &Services, caller: &Caller) -> Result<HashMap<AdministratorId, i64>> {
    services.permit(caller, Action::ListAdministrators).await?;
    factors::passkey_counts(services.store.read().await?.conn()).await
}

/// Returns an administrator.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(services: &Services, caller: &Caller, id: AdministratorId) -> Result<Administrator> {
    services.permit(caller, Action::ListAdministrators).await?;
    administrators::find(services.store.read().await?.conn(), id).await?.ok_or(NOT_FOUND)
}

/// Returns the administrator with this username.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn by_username(services: &Services, caller: &Caller, username: &Username) -> Result<Administrator> {
    services.permit(caller, Action::ListAdministrators).await?;
    let found = administrators::find_by_username(services.store.read().await?.conn(), username).await?;
    found.map(|(person, _)| person).ok_or(NOT_FOUND)
}

/// Returns the ID of the administrator with this username, for readers of the audit log.
///
/// # Errors
/// [`Error::Denied`].
pub async fn id_of(services: &Services, caller: &Caller, username: &Username) -> Result<Option<AdministratorId>> {
    services.permit(caller, Action::ReadAudit).await?;
    let found = administrators::find_by_username(services.store.read().await?.conn(), username).await?;
    Ok(found.map(|(person, _)| person.id))
}

/// Edits an administrator. A new role takes effect on the administrator's next request.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Refused`] for the last owner; [`Error::ProofNeeded`].
pub async fn update(
    services: &Services,
    caller: &Caller,
    id: AdministratorId,
    display_name: String,
    role: Role,
) -> Result<()> {
    services
        .change(caller, Action::ManageAdministrators, move |act| {
            Box::pin(async move {
                let mut person = find(act, id).await?;
                if person.display_name == display_name && person.role == role {
                    return Ok(());
                }
                if role != Role::Owner {
                    require_other_owner(act, &person).await?;
                }
                let changes = Changes::of([
                    ("display_name", person.display_name.as_str(), display_name.as_str()),
                    ("role", person.role.as_str(), role.as_str()),
                ]);
                (person.display_name, person.role, person.updated_at) = (display_name, role, act.now);
                administrators::update(act.conn(), &person).await?;
                let details = json!({ "changes": changes });
                act.audit(AuditAction::AdministratorUpdated, Resource::Administrator(id), None, details);
                Ok(())
            })
        })
        .await
}

/// Disables an administrator and ends their sessions.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Refused`] for the caller and for the last owner; [`Error::ProofNeeded`].
pub async fn disable(services: &Services, caller: &Caller, id: AdministratorId) -> Result<()> {
    services
        .change(caller, Action::ManageAdministrators, move |act| {
            Box::pin(async move {
                if act.caller.administrator() == Some(id) {
                    return Err(Error::Refused("You cannot disable yourself"));
                }
                let mut person = find(act, id).await?;
                if !person.is_enabled() {
                    return Ok(());
                }
                require_other_owner(act, &person).await?;
                (person.disabled_at, person.updated_at) = (Some(act.now), act.now);
                administrators::update(act.conn(), &person).await?;
                end_all_sessions(act, id).await?;
                let details = json!({ "username": person.username.as_str() });
                act.audit(AuditAction::AdministratorDisabled, Resource::Administrator(id), None, details);
                Ok(())
            })
        })
        .await
}

/// Enables a disabled administrator.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::ProofNeeded`].
pub async fn enable(services: &Services, caller: &Caller, id: AdministratorId) -> Result<()> {
    services
        .change(caller, Action::ManageAdministrators, move |act| {
            Box::pin(async move {
                let mut person = find(act, id).await?;
                if person.is_enabled() {
                    return Ok(());
                }
                (person.disabled_at, person.updated_at) = (None, act.now);
                administrators::update(act.conn(), &person).await?;
                let details = json!({ "username": person.username.as_str() });
                act.audit(AuditAction::AdministratorEnabled, Resource::Administrator(id), None, details);
                Ok(())
            })
        })
        .await
}

/// Sets another administrator's password, ends their sessions, and clears their failed sign-in attempts. With
/// `every_factor`, also removes their second factors and passkeys, so that an administrator who lost them can sign in
/// again.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::ProofNeeded`].
pub async fn reset_password(
    services: &Services,
    caller: &Caller,
    id: AdministratorId,
    password: NewPassword,
    every_factor: bool,
) -> Result<()> {
    services.permit(caller, Action::ManageAdministrators).await?;
    let hash = PasswordHash::of(&services.passwords, &services.env, password).await?;
    services
        .change(caller, Action::ManageAdministrators, move |act| {
            Box::pin(async move {
                let mut person = find(act, id).await?;
                let now = act.now;
                administrators::set_password(act.conn(), id, &hash, now).await?;
                throttle::forgive_account(act.tx, &person.username).await?;
                if every_factor {
                    factors::remove_totp(act.conn(), id).await?;
                    factors::remove_passkeys(act.conn(), id).await?;
                    (person.totp_enabled_at, person.updated_at) = (None, now);
                    administrators::update(act.conn(), &person).await?;
                }
                end_all_sessions(act, id).await?;
                let details =
                    json!({ "username": person.username.as_str(), "reset": true, "factors_removed": every_factor });
                act.audit(AuditAction::PasswordChanged, Resource::Administrator(id), None, details);
                Ok(())
            })
        })
        .await
}

pub(in crate::service) async fn find(act: &mut Act<'_>, id: AdministratorId) -> Result<Administrator> {
    administrators::find(act.conn(), id).await?.ok_or(NOT_FOUND)
}

/// Rejects a change that would leave no owner who can sign in, because nobody could manage administrators then.
async fn require_other_owner(act: &mut Act<'_>, person: &Administrator) -> Result<()> {
    let is_owner = person.role == Role::Owner && person.is_enabled();
    if is_owner && !administrators::has_other_owner(act.conn(), person.id).await? {
        return Err(LAST_OWNER);
    }
    Ok(())
}
