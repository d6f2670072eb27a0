//! The delegates endpoints.

use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::agent_id;
use crate::{
    domain::{AgentId, Invalid, Timestamp, token::delegation::Delegation},
    service::agents::delegates,
    web::{
        api::{Shared, answer::Answer, conditions::Keyed},
        failure::Failure,
        guard::Authorized,
        request::{
            extract::FromBody,
            fields::Fields,
            schema::{self, body_schemas},
        },
    },
};

/// An agent that may act on behalf of another.
#[derive(Serialize, ToSchema)]
#[schema(as = Delegate)]
pub struct DelegateBody {
    /// ID of the agent that the delegate may act on behalf of.
    #[schema(value_type = String)]
    agent_id: AgentId,
    /// ID of the delegate.
    #[schema(value_type = String)]
    delegate_id: AgentId,
    /// Name of the delegate.
    delegate_name: String,
    /// When the delegate was added.
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

/// The delegate to add.
pub struct NewDelegate(AgentId);

body_schemas! {
    NewDelegate => "AddDelegate", "A new delegate.";
}

impl FromBody for NewDelegate {
    fn read(fields: &mut Fields) -> Option<Self> {
        let parse = |text: &str| {
            AgentId::parse(text).ok_or_else(|| Invalid::new("uuid_parsing", "Input should be the ID of an agent"))
        };
        fields.doc("ID of the delegate.", || schema::format("uuid")).required("delegate_id", parse).map(Self)
    }
}

/// Add a delegate
///
/// Allows another agent to act on behalf of this one: the delegate may exchange this agent's tokens for tokens that
/// carry only capabilities that both agents hold (token exchange, RFC 8693). An agent can have at most 1,000 delegates.
#[utoipa::path(
    post, path = "/agents/{id}/delegates", tag = "Agents", operation_id = "add_delegate",
    params(("id" = String, Path)), request_body = NewDelegate,
    responses(
        (status = 201, description = "The delegate is added.", body = DelegateBody),
        (status = 400, description = "The agent and the delegate are the same."),
        (status = 404, description = "The agent or the delegate does not exist."),
        (status = 409, description = "The agent is already a delegate, or there are already 1,000 delegates."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn add(
    State(services): Shared,
    caller: Authorized,
    Path(agent): Path<String>,
    delegate: Keyed<NewDelegate>,
) -> Result<Response, Failure> {
    let agent = agent_id(&agent)?;
    let added = |added: &Delegation| Answer::new(StatusCode::CREATED, None, &DelegateBody::from(added.clone()));
    let add = |NewDelegate(delegate), once| delegates::add(&services, &caller, agent, delegate, once);
    delegate.once(added, add).await
}

/// List delegates
#[utoipa::path(
    get, path = "/agents/{id}/delegates", tag = "Agents", operation_id = "list_delegates",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The delegates, oldest first.", body = [DelegateBody]),
        (status = 404, description = "The agent does not exist."),
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

/// Remove a delegate
///
/// Ends the tokens with which the delegate acts on behalf of the agent, and all tokens derived from them, immediately.
#[utoipa::path(
    delete, path = "/agents/{id}/delegates/{delegate_id}", tag = "Agents", operation_id = "remove_delegate",
    params(("id" = String, Path), ("delegate_id" = String, Path)),
    responses(
        (status = 204, description = "The delegate is removed."),
        (status = 404, description = "The agent does not exist or does not have this delegate."),
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
