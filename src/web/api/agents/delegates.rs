//! Who may act for an agent, on the wire.

use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::agent_id;
use crate::{
    domain::{AgentId, Invalid, Timestamp, token::delegation::Delegation},
    service::agents::delegates,
    web::{
        api::Shared,
        failure::Failure,
        guard::Authorized,
        request::{
            extract::{Body, FromBody},
            fields::Fields,
        },
    },
};

/// An agent that may act for another.
#[derive(Serialize, ToSchema)]
#[schema(as = Delegate)]
pub struct DelegateBody {
    /// For whom.
    #[schema(value_type = String)]
    agent_id: AgentId,
    /// Who may.
    #[schema(value_type = String)]
    delegate_id: AgentId,
    /// What it is called.
    delegate_name: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<Delegation> for DelegateBody {
    fn from(delegation: Delegation) -> Self {
        Self {
            agent_id: delegation.agent,
            delegate_id: delegation.delegate,
            delegate_name: delegation.delegate_name,
            created_at: delegation.created_at,
        }
    }
}

/// An agent that is to be a delegate.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the body; `NewDelegate` is what it is read into")]
pub struct AddDelegate {
    /// Its identifier.
    #[schema(format = "uuid")]
    delegate_id: String,
}

/// The agent that a body names.
pub struct NewDelegate(AgentId);

impl FromBody for NewDelegate {
    fn read(fields: &mut Fields) -> Option<Self> {
        let parse = |text: &str| {
            AgentId::parse(text)
                .ok_or_else(|| Invalid::new("uuid_parsing", "Input should be the identifier of an agent"))
        };
        fields.required("delegate_id", parse).map(Self)
    }
}

/// Let another agent act for an agent
///
/// The delegate may exchange the agent's tokens for ones by which it acts for it (token exchange, RFC 8693), with no more than
/// either of them holds. Nobody may unless it is said here. An agent has at most 1,000 delegates.
#[utoipa::path(
    post, path = "/agents/{id}/delegates", tag = "Agents", operation_id = "add_delegate",
    params(("id" = String, Path)), request_body = AddDelegate,
    responses(
        (status = 201, description = "It may from now on.", body = DelegateBody),
        (status = 400, description = "The two are one."),
        (status = 404, description = "There is no such agent."),
        (status = 409, description = "It may already, or there are 1,000 delegates."),
        (status = 422, description = "The body is not valid."),
    )
)]
pub async fn add(
    State(services): Shared,
    caller: Authorized,
    Path(agent): Path<String>,
    Body(NewDelegate(delegate)): Body<NewDelegate>,
) -> Result<(StatusCode, Json<DelegateBody>), Failure> {
    let added = delegates::add(&services, &caller, agent_id(&agent)?, delegate).await?;
    Ok((StatusCode::CREATED, Json(added.into())))
}

/// List who may act for an agent
#[utoipa::path(
    get, path = "/agents/{id}/delegates", tag = "Agents", operation_id = "list_delegates",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "Its delegates, the first allowed first.", body = [DelegateBody]),
        (status = 404, description = "There is no such agent."),
    )
)]
pub async fn list(
    State(services): Shared,
    caller: Authorized,
    Path(agent): Path<String>,
) -> Result<Json<Vec<DelegateBody>>, Failure> {
    let delegates = delegates::list(&services, &caller, agent_id(&agent)?).await?;
    Ok(Json(delegates.into_iter().map(DelegateBody::from).collect()))
}

/// Forbid an agent to act for another
///
/// Tokens by which it does so end at once, and all that descend from them.
#[utoipa::path(
    delete, path = "/agents/{id}/delegates/{delegate_id}", tag = "Agents", operation_id = "remove_delegate",
    params(("id" = String, Path), ("delegate_id" = String, Path)),
    responses(
        (status = 204, description = "It may not any more."),
        (status = 404, description = "There is no such agent, or it has no such delegate."),
    )
)]
pub async fn remove(
    State(services): Shared,
    caller: Authorized,
    Path((agent, delegate)): Path<(String, String)>,
) -> Result<StatusCode, Failure> {
    delegates::remove(&services, &caller, agent_id(&agent)?, agent_id(&delegate)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
