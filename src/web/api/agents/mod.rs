//! Agents on the wire.

pub mod delegates;

use axum::{
    Json,
    extract::{OriginalUri, Path, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;
use utoipa::{
    IntoParams, ToSchema,
    openapi::{Object, ObjectBuilder, Type, schema::SchemaType},
};

use super::{
    Shared,
    paging::{self, DEFAULT_LIMIT, parse_cursor},
};
use crate::{
    domain::{
        Agent, AgentId, AgentName, AgentStatus, AgentType, Error, Limit, Timestamp,
        agent::{Filter, Position, Sort},
        text,
    },
    service::agents::{self, AgentEdit, NewAgent},
    web::{
        failure::Failure,
        guard::Authorized,
        request::{
            extract::{Body, FromBody, FromQuery, Query},
            fields::Fields,
        },
    },
};

/// An agent.
#[derive(Serialize, ToSchema)]
#[schema(as = Agent)]
pub struct AgentBody {
    /// Identifier.
    #[schema(value_type = String)]
    id: AgentId,
    /// Unique name.
    name: String,
    /// What it is for.
    description: String,
    /// Who answers for it.
    owner: String,
    /// Where it is in its life.
    #[schema(schema_with = agent_status)]
    status: &'static str,
    /// What sort of agent it is.
    #[schema(schema_with = agent_type)]
    agent_type: &'static str,
    /// The registrant's own data: a string that holds JSON.
    metadata_json: String,
    /// When it was registered.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When any of its fields last changed.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// Since when it is suspended, while it is.
    #[schema(value_type = Option<String>, format = DateTime)]
    suspended_at: Option<Timestamp>,
    /// When it was revoked.
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Timestamp>,
}

impl From<Agent> for AgentBody {
    fn from(agent: Agent) -> Self {
        Self {
            id: agent.id,
            name: agent.name.to_string(),
            description: agent.description,
            owner: agent.owner,
            status: agent.status.as_str(),
            agent_type: agent.agent_type.as_str(),
            metadata_json: agent.metadata_json,
            created_at: agent.created_at,
            updated_at: agent.updated_at,
            suspended_at: agent.suspended_at,
            revoked_at: agent.revoked_at,
        }
    }
}

fn agent_status() -> Object {
    words(AgentStatus::ALL.iter().map(|status| status.as_str()))
}

fn agent_type() -> Object {
    words(AgentType::ALL.iter().map(|agent_type| agent_type.as_str()))
}

fn optional_agent_type() -> Object {
    let words = AgentType::ALL.iter().map(|agent_type| Some(agent_type.as_str())).chain([None]);
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .description(Some("What sort of agent it is."))
        .enum_values(Some(words))
        .build()
}

/// A text that is one of these words.
pub(super) fn words(words: impl Iterator<Item = &'static str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build()
}

/// Reads an identifier from a path; what is no identifier names no agent.
pub(super) fn agent_id(text: &str) -> Result<AgentId, Failure> {
    Ok(AgentId::parse(text).ok_or(Error::NotFound("Agent"))?)
}

/// An agent to register.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the body; `NewAgent` is what it is read into")]
pub struct CreateAgent {
    /// Unique name.
    #[schema(min_length = 1, max_length = 128, pattern = "^[a-zA-Z0-9_-]+$")]
    name: String,
    /// Who answers for it.
    #[schema(min_length = 1, max_length = 128, pattern = "{name}")]
    owner: String,
    /// What it is for.
    #[schema(max_length = 10_000, pattern = "{paragraph}", default = "")]
    description: Option<String>,
    /// What sort of agent it is; `custom` when left out.
    #[schema(schema_with = optional_agent_type)]
    agent_type: Option<String>,
    /// Your own data: a string that holds JSON, of at most 64 KiB and 127 levels, each member of an object once.
    #[schema(default = "{}")]
    metadata_json: Option<String>,
}

impl FromBody for NewAgent {
    fn read(fields: &mut Fields) -> Option<Self> {
        let name = fields.required("name", AgentName::parse);
        let owner = fields.required("owner", Agent::parse_owner);
        let description = fields.optional("description", Agent::parse_description);
        let agent_type = fields.optional("agent_type", AgentType::parse);
        let metadata_json = fields.optional("metadata_json", Agent::parse_metadata);
        Some(Self {
            name: name?,
            owner: owner?,
            description: description.unwrap_or_default(),
            agent_type: agent_type.unwrap_or(AgentType::Custom),
            metadata_json: metadata_json.unwrap_or_else(|| "{}".to_owned()),
        })
    }
}

/// Fields to change; what is left out stays. Name and status cannot be changed here.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the body; `AgentEdit` is what it is read into")]
pub struct UpdateAgent {
    /// Who answers for it.
    #[schema(min_length = 1, max_length = 128, pattern = "{name}")]
    owner: Option<String>,
    /// What it is for.
    #[schema(max_length = 10_000, pattern = "{paragraph}")]
    description: Option<String>,
    /// What sort of agent it is.
    #[schema(schema_with = optional_agent_type)]
    agent_type: Option<String>,
    /// Your own data: a string that holds JSON, of at most 64 KiB and 127 levels, each member of an object once.
    metadata_json: Option<String>,
}

impl FromBody for AgentEdit {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            description: fields.optional("description", Agent::parse_description),
            owner: fields.optional("owner", Agent::parse_owner),
            agent_type: fields.optional("agent_type", AgentType::parse),
            metadata_json: fields.optional("metadata_json", Agent::parse_metadata),
            unchanged_since: None,
        })
    }
}

/// Why an agent is stopped.
#[derive(ToSchema)]
#[schema(as = StopReason)]
pub struct Reason {
    /// Kept in the audit record.
    #[schema(max_length = 500, pattern = "{paragraph}")]
    reason: Option<String>,
}

impl FromBody for Reason {
    const MAY_BE_EMPTY: bool = true;

    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self { reason: fields.optional("reason", Agent::parse_reason) })
    }
}

/// Which agents to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query; `Listing` is what it is read into")]
pub struct ListAgents {
    /// Only with this status.
    #[param(schema_with = agent_status)]
    status: Option<String>,
    /// Only of this owner.
    #[param(max_length = 128, pattern = "{line}")]
    owner: Option<String>,
    /// Only of this type.
    #[param(schema_with = agent_type)]
    agent_type: Option<String>,
    /// Only with this text in name, owner or description, in either case of ASCII letters.
    #[param(max_length = 128, pattern = "{line}")]
    q: Option<String>,
    /// Items on a page.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u16>,
    /// Where the page starts: taken from the `Link` of the page before.
    #[param(pattern = r"^([A-Za-z0-9_-]{32}\.[A-Za-z0-9_-]{1,128})?$")]
    cursor: Option<String>,
}

/// A listing as asked for.
pub struct Listing {
    filter: Filter,
    limit: Limit,
    after: Option<Position>,
}

impl FromQuery for Listing {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            filter: Filter {
                status: fields.chosen("status", AgentStatus::parse),
                owner: fields.optional("owner", |owner| text::line(owner, 1, Agent::OWNER_MAX)),
                agent_type: fields.chosen("agent_type", AgentType::parse),
                text: fields.optional("q", |q| text::line(q, 1, 128)),
            },
            limit: fields.chosen("limit", Limit::parse).unwrap_or(DEFAULT_LIMIT),
            after: fields.optional("cursor", parse_cursor),
        })
    }
}

/// Register an agent
///
/// It holds no capability and no key yet.
#[utoipa::path(
    post, path = "/agents", tag = "Agents", operation_id = "create_agent", request_body = CreateAgent,
    responses(
        (status = 201, description = "The agent.", body = AgentBody),
        (status = 409, description = "The name is taken."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn create(
    State(services): Shared,
    caller: Authorized,
    Body(new): Body<NewAgent>,
) -> Result<(StatusCode, Json<AgentBody>), Failure> {
    let agent = agents::create(&services, &caller, new).await?;
    Ok((StatusCode::CREATED, Json(agent.into())))
}

/// List agents
///
/// In the order of registration, page by page: `Link` with `rel="next"` (RFC 8288) leads on.
#[utoipa::path(
    get, path = "/agents", tag = "Agents", operation_id = "list_agents", params(ListAgents),
    responses(
        (status = 200, description = "The agents.", body = [AgentBody]),
        (status = 422, description = "A parameter is not valid."),
    )
)]
pub async fn list(
    State(services): Shared,
    caller: Authorized,
    OriginalUri(uri): OriginalUri,
    Query(listing): Query<Listing>,
) -> Result<Response, Failure> {
    let page = agents::list(&services, &caller, &listing.filter, Sort::Oldest, listing.after, listing.limit).await?;
    Ok(paging::respond(&uri, page, AgentBody::from))
}

/// Read an agent
#[utoipa::path(
    get, path = "/agents/{id}", tag = "Agents", operation_id = "get_agent", params(("id" = String, Path)),
    responses(
        (status = 200, description = "The agent.", body = AgentBody),
        (status = 404, description = "There is no such agent."),
    )
)]
pub async fn get(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
) -> Result<Json<AgentBody>, Failure> {
    Ok(Json(agents::get(&services, &caller, agent_id(&id)?).await?.into()))
}

/// Edit an agent
#[utoipa::path(
    patch, path = "/agents/{id}", tag = "Agents", operation_id = "update_agent", params(("id" = String, Path)),
    request_body = UpdateAgent,
    responses(
        (status = 200, description = "The agent as it is now.", body = AgentBody),
        (status = 404, description = "There is no such agent."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn update(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
    Body(edit): Body<AgentEdit>,
) -> Result<Json<AgentBody>, Failure> {
    Ok(Json(agents::update(&services, &caller, agent_id(&id)?, edit).await?.into()))
}

/// Suspend an agent
///
/// Its keys are refused and its tokens end at once. Reactivation does not revive them.
#[utoipa::path(
    post, path = "/agents/{id}/suspend", tag = "Agents", operation_id = "suspend_agent",
    params(("id" = String, Path)), request_body(content = Option<Reason>),
    responses(
        (status = 200, description = "The agent as it is now.", body = AgentBody),
        (status = 400, description = "It is yourself, revoked, or the last active holder of `admin:*` that can authenticate."),
        (status = 404, description = "There is no such agent."),
        (status = 422, description = "The reason is not valid."),
    )
)]
pub async fn suspend(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Json<AgentBody>, Failure> {
    Ok(Json(agents::suspend(&services, &caller, agent_id(&id)?, reason).await?.into()))
}

/// Reactivate a suspended agent
#[utoipa::path(
    post, path = "/agents/{id}/reactivate", tag = "Agents", operation_id = "reactivate_agent",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The agent as it is now.", body = AgentBody),
        (status = 400, description = "It is not suspended."),
        (status = 404, description = "There is no such agent."),
    )
)]
pub async fn reactivate(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
) -> Result<Json<AgentBody>, Failure> {
    Ok(Json(agents::reactivate(&services, &caller, agent_id(&id)?).await?.into()))
}

/// Revoke an agent for ever
///
/// Every key that has not expired becomes revoked, and its tokens end at once.
#[utoipa::path(
    post, path = "/agents/{id}/revoke", tag = "Agents", operation_id = "revoke_agent",
    params(("id" = String, Path)), request_body(content = Option<Reason>),
    responses(
        (status = 200, description = "The agent as it is now.", body = AgentBody),
        (status = 400, description = "It is yourself, revoked already, or the last active holder of `admin:*` that can authenticate."),
        (status = 404, description = "There is no such agent."),
        (status = 422, description = "The reason is not valid."),
    )
)]
pub async fn revoke(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Json<AgentBody>, Failure> {
    Ok(Json(agents::revoke(&services, &caller, agent_id(&id)?, reason).await?.into()))
}

/// Delete an agent
///
/// Its keys and grants go; audit records stay.
#[utoipa::path(
    delete, path = "/agents/{id}", tag = "Agents", operation_id = "delete_agent", params(("id" = String, Path)),
    responses(
        (status = 204, description = "The agent is gone."),
        (status = 400, description = "It is yourself, or the last active holder of `admin:*` that can authenticate."),
        (status = 404, description = "There is no such agent."),
    )
)]
pub async fn delete(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    agents::delete(&services, &caller, agent_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
