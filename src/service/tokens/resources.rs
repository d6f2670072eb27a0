//! Protected resources: what tokens can be for, and what they may carry there.

use serde_json::json;

use crate::{
    domain::{
        CapabilitySet, Error, Limit, Page, ProtectedResource, ProtectedResourceId, ResourceUri, Result,
        audit::{AuditAction, Changes, Resource},
        token::protected_resource::Position,
    },
    service::{
        Services,
        core::{act::Act, caller::Caller, policy::Action},
    },
    store::{capabilities, tokens::resources},
};

/// What is needed to register a protected resource.
#[derive(Clone, Debug)]
pub struct NewResource {
    /// What clients name it by.
    pub identifier: ResourceUri,
    /// What people call it.
    pub name: String,
    /// What its tokens may carry.
    pub capabilities: CapabilitySet,
}

/// Fields to edit; the others stay.
#[derive(Clone, Debug, Default)]
pub struct ResourceEdit {
    /// New name.
    pub name: Option<String>,
    /// What its tokens may carry from now on; tokens that were issued keep what they carry.
    pub capabilities: Option<CapabilitySet>,
}

const NOT_FOUND: Error = Error::NotFound("Resource");

/// Registers a protected resource.
///
/// # Errors
/// [`Error::Conflict`] when its identifier is taken; [`Error::NotFound`] for a capability that is not registered.
pub async fn create(services: &Services, caller: &Caller, new: NewResource) -> Result<ProtectedResource> {
    let id = ProtectedResourceId(services.env.uuid());
    if services.settings.issuer.is_equivalent(new.identifier.as_str()) {
        return Err(Error::Conflict("This is AIMS itself, which needs no registration".into()));
    }
    services
        .change(caller, Action::ManageResources, move |act| {
            Box::pin(async move {
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
                Ok(resource)
            })
        })
        .await
}

/// Adds resource data that earlier versions did not store. No visible data changes, so there is no audit record.
///
/// # Errors
/// When the database fails.
pub async fn complete(services: &Services) -> Result<()> {
    services.store.write(|tx| Box::pin(async move { resources::add_normal_forms(tx.conn()).await })).await
}

/// Refuses names of capabilities that are not registered: a slip of the pen must not make what is good for nothing. On purpose also one
/// like `agents:*` that would cover registered ones: it is registered first, or they are named.
///
/// # Errors
/// [`Error::NotFound`].
pub(in crate::service) async fn require_registered(act: &mut Act<'_>, names: &CapabilitySet) -> Result<()> {
    match capabilities::first_unregistered(act.conn(), names).await? {
        Some(_) => Err(Error::NotFound("Capability")),
        None => Ok(()),
    }
}

/// A page of protected resources in the order of registration.
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

/// One protected resource.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(services: &Services, caller: &Caller, id: ProtectedResourceId) -> Result<ProtectedResource> {
    services.permit(caller, Action::ListResources).await?;
    resources::find(services.store.read().await?.conn(), id).await?.ok_or(NOT_FOUND)
}

/// Edits a protected resource. An edit that changes nothing leaves no record.
///
/// # Errors
/// [`Error::NotFound`], also for a capability that is not registered.
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

/// Removes a protected resource: no more tokens are issued for it.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn delete(services: &Services, caller: &Caller, id: ProtectedResourceId) -> Result<()> {
    services
        .change(caller, Action::ManageResources, move |act| {
            Box::pin(async move {
                let resource = resources::find(act.conn(), id).await?.ok_or(NOT_FOUND)?;
                resources::delete(act.conn(), id).await?;
                let details = json!({ "identifier": resource.identifier });
                act.audit(AuditAction::ResourceDeleted, Resource::ProtectedResource(id), None, details);
                Ok(())
            })
        })
        .await
}
