//! Finds API keys of all agents.

use crate::{
    domain::{ApiKeyId, Limit, Result},
    service::{
        Services,
        core::{caller::Caller, policy::Action},
    },
    store::credentials::key_search,
};

pub use crate::store::credentials::key_search::FoundKey;

/// Returns the key with this identifier, if there is one.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn by_id(services: &Services, caller: &Caller, id: ApiKeyId) -> Result<Option<FoundKey>> {
    services.permit(caller, Action::ListKeys).await?;
    key_search::by_id(services.store.read().await?.conn(), id).await
}

/// Returns the first keys whose shown part starts with `prefix`. Any other text than the start of a key finds none.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn by_prefix(services: &Services, caller: &Caller, prefix: &str, limit: Limit) -> Result<Vec<FoundKey>> {
    services.permit(caller, Action::ListKeys).await?;
    if !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(Vec::new());
    }
    key_search::by_prefix(services.store.read().await?.conn(), prefix, limit).await
}
