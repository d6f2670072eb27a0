//! What an agent did over time.

use crate::{
    domain::{
        AgentId, Result,
        audit::{Bucket, Range},
    },
    service::{
        Services,
        core::{caller::Caller, policy::Action},
    },
    store::credentials::activity,
};

/// Returns how many tokens an agent got and how many of its requests were refused, oldest first. An agent that does not
/// exist has no activity.
///
/// # Errors
/// [`crate::domain::Error::Denied`].
pub async fn read(services: &Services, caller: &Caller, agent: AgentId, range: Range) -> Result<Vec<Bucket>> {
    services.permit(caller, Action::ReadAgent).await?;
    let mut read = services.store.read_usage().await?;
    activity::of_agent(read.conn(), agent, range, services.env.now()).await
}
