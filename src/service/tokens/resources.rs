//! Protected resources: the audiences of tokens, and the capabilities that tokens for them may have.

use serde_json::json;

use crate::{
    domain::{
        CapabilitySet, Error, Limit, Page, ProtectedResource, ProtectedResourceId, ResourceUri, Result,
        audit::{AuditAction, Changes, Resource},
        token::protected_resource::Position,
    },
    service::{
        Services,
        core::{
            act::Act,
            caller::Caller,
            conditions::{Expected, Once},
            policy::Action,
        },
    },
    store::{capabilities, tokens::resources},
};

/// A new protected resource.
#[derive(Clone, Debug)]
pub struct NewResource {
    /// The URI that clients send as `resource`.
    pub identifier: ResourceUri,
    /// The display name.
    pub name: String,
    /// The capabilities that its tokens may have.
    pub capabilities: CapabilitySet,
}

/// Changes to a protected resource. Fields that are `None` stay unchanged.
#[derive(Clone, Debug, Default)]
pub struct ResourceEdit {
    /// New name.
    pub name: Option<String>,
    /// New capabilities. Tokens that were already issued keep theirs.
    pub capabilities: Option<CapabilitySet>,
    /// The versions of the resource that may be edited.
    pub expected: Expected,
}

const NOT_FOUND: Error = Error::NotFound("Resource");

/// Registers a protected resource.
///
/// # Errors
/// [`Error::Conflict`] if the identifier is taken; [`Error::NotFound`] for a capability that is not registered;
/// see [`Once`].
pub async fn create(
    services: &Services,
    caller: &Caller,
    new: NewResource,
    once: Once<ProtectedResource>,
) -> Result<ProtectedResource> {
    let id = ProtectedResourceId(services.env.uuid());
    if services.settings.issuer.is_equivalent(new.identifier.as_str()) {
        return Err(Error::Conflict(
            "This is the identifier of AIMS itself, which does not need to be registered".into(),
        ));
    }
    services
        .change(caller, Action::ManageResources, move |act| {
            Box::pin(async move {
                let first = once.begin(act).await?;
                require_registered(act, &new.capabilities).await?;
                let resource = ProtectedResource {
                    id,
                    identifier: new.identifier,
                    name: new.name,
                    capabilities: new.capabilities,
                    created_at: act.now,
                    updated_at: act.now,
                };
                if !resources::insert(act.conn(), &resource).await? {
                    return Err(Error::Conflict("Resource identifier already exists".into()));
                }
                let details = json!({
                    "identifier": resource.identifier,
                    "name": resource.name,
                    "scope": resource.capabilities.as_scope(),
                });
                act.audit(AuditAction::ResourceCreated, Resource::ProtectedResource(id), None, details);
                first.finish(act, resource).await
            })
        })
        .await
}

/// Adds data that earlier versions did not store. Nothing visible changes, so there is no audit record.
///
/// # Errors
/// When the database fails.
pub async fn complete(services: &Services) -> Result<()> {
    services.store.write(|tx| Box::pin(async move { resources::add_normal_forms(tx.conn()).await })).await
}

/// Checks that all capabilities are registered, so that a typing error does not go unnoticed. A wildcard such as
/// `agents:*` must be registered too, although it covers registered capabilities.
///
/// # Errors
/// [`Error::NotFound`].
pub(in crate::service) async fn require_registered(act: &mut Act<'_>, names: &CapabilitySet) -> Result<()> {
    match capabilities::first_unregistered(act.conn(), names).await? {
        Some(_) => Err(Error::NotFound("Capability")),
        None => Ok(()),
    }
}

/// Returns a page of protected resources in the order of registration.
///
/// # Errors
/// [`Error::Denied`].
pub async fn list(
    services: &Services,
    caller: &Caller,
    after: Option<Position>,
    limit: Limit,
) -> Result<Page<ProtectedResource, Position>> {
    services.permit(caller, Action::ListResources).await?;
    resources::list(services.store.read().await?.conn(), after, limit).await
}

/// Returns a protected resource.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(services: &Services, caller: &Caller, id: ProtectedResourceId) -> Result<ProtectedResource> {
    services.permit(caller, Action::ListResources).await?;
    resources::find(services.store.read().await?.conn(), id).await?.ok_or(NOT_FOUND)
}

/// Edits a protected resource. An edit that changes nothing is not recorded.
///
/// # Errors
/// [`Error::NotFound`] for an unknown resource, and for a capability that is not registered;
/// [`Error::Stale`].
pub async fn update(
    services: &Services,
    caller: &Caller,
    id: ProtectedResourceId,
    edit: ResourceEdit,
) -> Result<ProtectedResource> {
    services
        .change(caller, Action::ManageResources, move |act| {
            Box::pin(async move {
                let before = resources::find(act.conn(), id).await?.ok_or(NOT_FOUND)?;
                edit.expected.check(&before)?;
                let mut resource = before.clone();
                if let Some(capabilities) = edit.capabilities {
                    require_registered(act, &capabilities).await?;
                    resource.capabilities = capabilities;
                }
                resource.name = edit.name.unwrap_or(resource.name);
                if resource == before {
                    return Ok(before);
                }
                resource.updated_at = act.now;
                resources::update(act.conn(), &resource).await?;
                let changes = Changes::of([
                    ("name", before.name.as_str(), resource.name.as_str()),
                    ("scope", before.capabilities.as_scope(), resource.capabilities.as_scope()),
                ]);
                let details = json!({ "identifier": resource.identifier, "changes": changes });
                act.audit(AuditAction::ResourceUpdated, Resource::ProtectedResource(id), None, details);
                Ok(resource)
            })
        })
        .await
}

/// Deletes a protected resource. No more tokens are issued for it.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Stale`].
pub async fn delete(services: &Services, caller: &Caller, id: ProtectedResourceId, expected: Expected) -> Result<()> {
    services
        .change(caller, Action::ManageResources, move |act| {
            Box::pin(async move {
                let resource = resources::find(act.conn(), id).await?.ok_or(NOT_FOUND)?;
                expected.check(&resource)?;
                resources::delete(act.conn(), id).await?;
                let details = json!({ "identifier": resource.identifier });
                act.audit(AuditAction::ResourceDeleted, Resource::ProtectedResource(id), None, details);
                Ok(())
            })
        })
        .await
}
