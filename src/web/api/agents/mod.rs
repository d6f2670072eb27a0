//! The agents endpoints.

pub mod delegates;
pub mod labels;

use axum::{
    extract::{OriginalUri, Path, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;
use utoipa::{ToSchema, openapi::ObjectBuilder};

use super::{
    Shared,
    answer::Answer,
    conditions::{IfMatch, IfNoneMatch, Keyed},
    paging::{self, DEFAULT_LIMIT},
};
use crate::{
    domain::{
        Agent, AgentId, AgentName, AgentStatus, AgentType, Error, Limit, Result, Timestamp,
        agent::{Filter, Position, Sort, labels::Labels, selector::Selector},
        text,
    },
    service::{
        Expected,
        agents::{self, AgentEdit, NewAgent},
        core::conditions::Versioned,
    },
    web::{
        failure::Failure,
        guard::Authorized,
        request::{
            extract::{Body, FromBody, FromQuery, Query},
            fields::Fields,
            schema::{self, body_schemas, query_parameters},
        },
    },
};

/// An agent.
#[derive(Serialize, ToSchema)]
#[schema(as = Agent)]
pub struct AgentBody {
    /// ID.
    #[schema(value_type = String)]
    id: AgentId,
    /// Unique name.
    name: String,
    /// Purpose of the agent.
    description: String,
    /// Person or team responsible for the agent.
    owner: String,
    #[schema(schema_with = agent_status)]
    status: &'static str,
    #[schema(schema_with = agent_type)]
    agent_type: &'static str,
    /// Custom metadata: a string that contains JSON.
    metadata_json: String,
    #[schema(schema_with = labels::described)]
    labels: Labels,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When the agent was last changed.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// When it was suspended. Null if it is not suspended.
    #[schema(value_type = Option<String>, format = DateTime)]
    suspended_at: Option<Timestamp>,
    /// When it was revoked. Null if it is not revoked.
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
            labels: agent.labels,
            created_at: agent.created_at,
            updated_at: agent.updated_at,
            suspended_at: agent.suspended_at,
            revoked_at: agent.revoked_at,
        }
    }
}

fn agent_status() -> ObjectBuilder {
    schema::words(AgentStatus::ALL.iter().map(|status| status.as_str())).description(Some("Status."))
}

fn agent_type() -> ObjectBuilder {
    let words = AgentType::ALL.iter().map(|agent_type| agent_type.as_str());
    schema::words(words).description(Some("Type of agent. Informational only."))
}

/// Parses the ID of an agent in a path.
pub(super) fn agent_id(text: &str) -> Result<AgentId, Failure> {
    Ok(AgentId::parse(text).ok_or(Error::NotFound("Agent"))?)
}

body_schemas! {
    NewAgent => "CreateAgent", "A new agent.";
    AgentEdit => "UpdateAgent", "Changes to an agent. Omitted fields are not changed. The name and the status cannot \
        be changed here.";
    Reason => "StopReason", "The reason for suspending or revoking an agent.";
}
query_parameters!(Listing);

/// Maximum length of a search text, in characters.
const TEXT_MAX: usize = 128;

const OWNER: &str = "Person or team responsible for the agent.";
const DESCRIPTION: &str = "Purpose of the agent.";
const METADATA: &str = "Custom metadata: a string that contains JSON of at most 64 KiB with at most 127 levels of \
    nesting and no duplicate members.";

impl FromBody for NewAgent {
    fn read(fields: &mut Fields) -> Option<Self> {
        let name = || schema::pattern("^[a-zA-Z0-9_-]+$").min_length(Some(1)).max_length(Some(AgentName::MAX_LEN));
        let name = fields.doc("Unique name.", name).required("name", AgentName::parse);
        let owner = fields.doc(OWNER, || schema::name(Agent::OWNER_MAX)).required("owner", Agent::parse_owner);
        let description = fields
            .doc(DESCRIPTION, || schema::paragraph(Agent::DESCRIPTION_MAX).default(Some("".into())))
            .optional("description", Agent::parse_description);
        let agent_type = fields
            .doc("Type of agent. Informational only. The default is `custom`.", agent_type)
            .optional("agent_type", AgentType::parse);
        let metadata_json = fields
            .doc(METADATA, || schema::string().default(Some("{}".into())))
            .optional("metadata_json", Agent::parse_metadata);
        let labels = labels::read(fields, "labels", labels::LABELS);
        Some(Self {
            name: name?,
            owner: owner?,
            description: description.unwrap_or_default(),
            agent_type: agent_type.unwrap_or(AgentType::Custom),
            metadata_json: metadata_json.unwrap_or_else(|| "{}".to_owned()),
            labels: labels.unwrap_or_default(),
        })
    }
}

impl FromBody for AgentEdit {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            description: fields
                .doc(DESCRIPTION, || schema::paragraph(Agent::DESCRIPTION_MAX))
                .optional("description", Agent::parse_description),
            owner: fields.doc(OWNER, || schema::name(Agent::OWNER_MAX)).optional("owner", Agent::parse_owner),
            agent_type: fields
                .doc("Type of agent. Informational only.", agent_type)
                .optional("agent_type", AgentType::parse),
            metadata_json: fields.doc(METADATA, schema::string).optional("metadata_json", Agent::parse_metadata),
            labels: labels::read(fields, "labels", labels::NEW_LABELS),
            expected: Expected::Any,
        })
    }
}

/// The reason for suspending or revoking an agent.
pub struct Reason {
    reason: Option<String>,
}

impl FromBody for Reason {
    const MAY_BE_EMPTY: bool = true;

    fn read(fields: &mut Fields) -> Option<Self> {
        let reason = fields
            .doc("Reason, kept in the audit record.", || schema::paragraph(Agent::REASON_MAX))
            .optional("reason", Agent::parse_reason);
        Some(Self { reason })
    }
}

/// The query parameters of a listing.
pub struct Listing {
    filter: Filter,
    limit: Limit,
    after: Option<Position>,
}

impl FromQuery for Listing {
    fn read(fields: &mut Fields) -> Option<Self> {
        const TEXT: &str =
            "Only agents with this text in their name, owner or description. ASCII letters match in either case.";
        Some(Self {
            filter: Filter {
                status: fields.doc("Only agents with this status.", agent_status).chosen("status", AgentStatus::parse),
                owner: fields
                    .doc("Only agents with this owner.", || schema::optional_line(Agent::OWNER_MAX))
                    .optional("owner", |owner| text::line(owner, 1, Agent::OWNER_MAX)),
                agent_type: fields.doc("Only agents of this type.", agent_type).chosen("agent_type", AgentType::parse),
                text: fields
                    .doc(TEXT, || schema::optional_line(TEXT_MAX))
                    .optional("q", |q| text::line(q, 1, TEXT_MAX)),
                selector: fields.doc(labels::SELECTOR, labels::selector).optional("selector", Selector::parse),
                ..Filter::default()
            },
            limit: paging::read_limit(fields, DEFAULT_LIMIT),
            after: paging::read_cursor(fields),
        })
    }
}

/// Create an agent
///
/// The new agent has no capabilities and no credentials.
#[utoipa::path(
    post, path = "/agents", tag = "Agents", operation_id = "create_agent", request_body = NewAgent,
    responses(
        (status = 201, description = "The agent.", body = AgentBody),
        (status = 409, description = "The name is in use. Names that differ only in case are considered equal."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn create(State(services): Shared, caller: Authorized, new: Keyed<NewAgent>) -> Result<Response, Failure> {
    let created = |agent: &Agent| answer(StatusCode::CREATED, agent);
    new.once(created, |new, once| agents::create(&services, &caller, new, once)).await
}

fn answer(status: StatusCode, agent: &Agent) -> Result<Answer> {
    Answer::new(status, Some(agent.version()), &AgentBody::from(agent.clone()))
}

/// List agents
///
/// Returns agents in the order in which they were created, one page at a time. The header `Link` with `rel="next"` (RFC
/// 8288) leads to the next page.
#[utoipa::path(
    get, path = "/agents", tag = "Agents", operation_id = "list_agents", params(Listing),
    responses(
        (status = 200, description = "The agents.", body = [AgentBody]),
        (status = 422, description = "A query parameter is not valid."),
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

/// Get an agent
#[utoipa::path(
    get, path = "/agents/{id}", tag = "Agents", operation_id = "get_agent", params(("id" = String, Path)),
    responses(
        (status = 200, description = "The agent.", body = AgentBody),
        (status = 404, description = "The agent does not exist."),
    )
)]
pub async fn get(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
    known: IfNoneMatch,
) -> Result<Response, Failure> {
    let agent = agents::get(&services, &caller, agent_id(&id)?).await?;
    known.answer(agent.version(), &AgentBody::from(agent))
}

/// Edit an agent
#[utoipa::path(
    patch, path = "/agents/{id}", tag = "Agents", operation_id = "update_agent", params(("id" = String, Path)),
    request_body = AgentEdit,
    responses(
        (status = 200, description = "The updated agent.", body = AgentBody),
        (status = 404, description = "The agent does not exist."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn update(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
    IfMatch(expected): IfMatch,
    Body(edit): Body<AgentEdit>,
) -> Result<Answer, Failure> {
    let edited = agents::update(&services, &caller, agent_id(&id)?, AgentEdit { expected, ..edit }).await?;
    Ok(answer(StatusCode::OK, &edited)?)
}

/// Suspend an agent
///
/// Rejects the agent's credentials and ends its tokens immediately. Reactivation does not restore the tokens.
#[utoipa::path(
    post, path = "/agents/{id}/suspend", tag = "Agents", operation_id = "suspend_agent",
    params(("id" = String, Path)), request_body(content = Option<Reason>),
    responses(
        (status = 200, description = "The updated agent.", body = AgentBody),
        (status = 400, description = "The agent is the caller, is revoked, or is the last active agent with `admin:*` \
            that can authenticate."),
        (status = 404, description = "The agent does not exist."),
        (status = 422, description = "The reason is not valid."),
    )
)]
pub async fn suspend(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
    IfMatch(expected): IfMatch,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Answer, Failure> {
    let suspended = agents::suspend(&services, &caller, agent_id(&id)?, expected, reason).await?;
    Ok(answer(StatusCode::OK, &suspended)?)
}

/// Reactivate a suspended agent
#[utoipa::path(
    post, path = "/agents/{id}/reactivate", tag = "Agents", operation_id = "reactivate_agent",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The updated agent.", body = AgentBody),
        (status = 400, description = "The agent is not suspended."),
        (status = 404, description = "The agent does not exist."),
    )
)]
pub async fn reactivate(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
    IfMatch(expected): IfMatch,
) -> Result<Answer, Failure> {
    let reactivated = agents::reactivate(&services, &caller, agent_id(&id)?, expected).await?;
    Ok(answer(StatusCode::OK, &reactivated)?)
}

/// Revoke an agent
///
/// Permanently revokes the agent and all its API keys that have not expired, and ends its tokens immediately.
#[utoipa::path(
    post, path = "/agents/{id}/revoke", tag = "Agents", operation_id = "revoke_agent",
    params(("id" = String, Path)), request_body(content = Option<Reason>),
    responses(
        (status = 200, description = "The updated agent.", body = AgentBody),
        (status = 400, description = "The agent is the caller, is already revoked, or is the last active agent with \
            `admin:*` that can authenticate."),
        (status = 404, description = "The agent does not exist."),
        (status = 422, description = "The reason is not valid."),
    )
)]
pub async fn revoke(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
    IfMatch(expected): IfMatch,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Answer, Failure> {
    let revoked = agents::revoke(&services, &caller, agent_id(&id)?, expected, reason).await?;
    Ok(answer(StatusCode::OK, &revoked)?)
}

/// Delete an agent
///
/// Deletes the agent with its credentials and grants. Its audit records are kept.
#[utoipa::path(
    delete, path = "/agents/{id}", tag = "Agents", operation_id = "delete_agent", params(("id" = String, Path)),
    responses(
        (status = 204, description = "The agent is deleted."),
        (status = 400, description = "The agent is the caller or the last active agent with `admin:*` that can \
            authenticate."),
        (status = 404, description = "The agent does not exist."),
    )
)]
pub async fn delete(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Failure> {
    agents::delete(&services, &caller, agent_id(&id)?, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}
