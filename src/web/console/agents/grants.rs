//! Asks for confirmation before a grant is removed.

use axum::{
    extract::{Path, State},
    response::IntoResponse,
};

use super::{
    confirm::{ConfirmPage, Question, impact::Loss},
    find,
};
use crate::{
    domain::{CapabilityId, Error, Result},
    service::agents::{capabilities, impact},
    web::{
        console::{Shared, guard::Admin, page::frame::Frame},
        failure::Failure,
    },
};

/// Asks for confirmation before a capability is revoked from an agent.
pub(in crate::web::console) async fn remove_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path((id, capability)): Path<(String, String)>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let capability = CapabilityId::parse(&capability).ok_or(Error::NotFound("Capability"))?;
    let capability = capabilities::get(&services, &admin, capability).await?;
    let held = capabilities::held_by(&services, &admin, agent.id).await?;
    if !held.iter().any(|one| one.id == capability.id) {
        return Err(Error::NotFound("Capability grant").into());
    }
    let impact = impact::of_grant(&services, &admin, agent.id, capability.id).await?;
    let name = capability.name.as_str();
    let question = Question {
        button: "Revoke capability",
        verb: "Revoke",
        object: name.to_owned(),
        rest: format!(" from {}", agent.name),
        note: "The agent and its active tokens lose it immediately. You can grant it again.".to_owned(),
        action: format!("grants/{}/remove", capability.id),
        cancel: format!("/console/agents/{}/grants", agent.id),
        asks_reason: false,
        asks_name: false,
    };
    let page = ConfirmPage::of(&services, &admin, frame, &agent, question, &impact, Loss::Grant(name)).await?;
    Ok(page.if_manageable()?)
}
