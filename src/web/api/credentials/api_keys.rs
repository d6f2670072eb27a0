//! The API keys endpoints.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;
use utoipa::{ToSchema, openapi::ObjectBuilder};

use crate::{
    domain::{AgentId, ApiKey, ApiKeyId, ApiKeyStatus, Error, Invalid, KeyLimits, Timestamp},
    service::credentials::api_keys::{self, CreatedApiKey, NewApiKey, Rotation},
    web::{
        api::{Shared, agents::agent_id, answer::Answer, conditions::Keyed},
        failure::Failure,
        guard::Authorized,
        request::{
            extract::FromBody,
            fields::Fields,
            schema::{self, body_schemas},
        },
    },
};

/// An API key without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub struct ApiKeyBody {
    /// ID.
    #[schema(value_type = String)]
    id: ApiKeyId,
    /// ID of the agent that the key belongs to.
    #[schema(value_type = String)]
    agent_id: AgentId,
    /// The first characters of the secret.
    key_prefix: String,
    /// Name of the key.
    name: String,
    #[schema(schema_with = key_status)]
    status: &'static str,
    /// When the key expires. Null if it does not.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When the key was rotated. Null if it was not.
    #[schema(value_type = Option<String>, format = DateTime)]
    rotated_at: Option<Timestamp>,
    /// When the key was revoked. Null if it was not.
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Timestamp>,
    /// When a token was last issued for the key. Null if it was never used.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
    /// Restrictions on the key. Omitted if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<KeyLimitsBody>,
}

/// Restrictions on an API key.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKeyLimits)]
pub struct KeyLimitsBody {
    /// The capabilities that its tokens can carry if the agent holds them, separated by spaces. Null means all.
    scope: Option<String>,
    /// The networks from which the key can be used, in CIDR notation (RFC 4632), separated by spaces. Null means all.
    allowed_networks: Option<String>,
    /// Maximum lifetime of its tokens in seconds. Null means no restriction.
    token_life_seconds: Option<u32>,
    /// Number of tokens that can still be issued for the key. Null means no restriction.
    uses_left: Option<i64>,
}

impl KeyLimitsBody {
    fn of(limits: &KeyLimits) -> Option<Self> {
        let networks: Vec<_> = limits.networks.iter().map(ToString::to_string).collect();
        limits.is_limited().then(|| Self {
            scope: limits.capabilities.as_ref().map(|names| names.as_scope().to_owned()),
            allowed_networks: (!networks.is_empty()).then(|| networks.join(" ")),
            token_life_seconds: limits.token_life,
            uses_left: limits.uses_left,
        })
    }
}

impl From<ApiKey> for ApiKeyBody {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            agent_id: key.agent_id,
            key_prefix: key.key_prefix,
            name: key.name,
            status: key.status.as_str(),
            expires_at: key.expires_at,
            created_at: key.created_at,
            rotated_at: key.rotated_at,
            revoked_at: key.revoked_at,
            last_used_at: key.last_used_at,
            limits: KeyLimitsBody::of(&key.limits),
        }
    }
}

fn key_status() -> ObjectBuilder {
    schema::words(ApiKeyStatus::ALL.iter().map(|status| status.as_str())).description(Some("Status."))
}

/// A new API key with its secret. The secret is returned only once.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedApiKey)]
pub struct CreatedApiKeyBody {
    /// ID.
    #[schema(value_type = String)]
    id: ApiKeyId,
    /// ID of the agent that the key belongs to.
    #[schema(value_type = String)]
    agent_id: AgentId,
    /// The first characters of the secret.
    key_prefix: String,
    /// Name of the key.
    name: String,
    /// The secret. AIMS stores only its hash, so it cannot be retrieved again.
    #[schema(pattern = "^aims_[0-9A-Za-z]{49}$")]
    raw_key: String,
    /// Always `active`.
    status: &'static str,
    /// When the key expires. Null if it does not.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Restrictions on the key. Omitted if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<KeyLimitsBody>,
}

impl From<&CreatedApiKey> for CreatedApiKeyBody {
    fn from(CreatedApiKey { key, raw_key }: &CreatedApiKey) -> Self {
        Self {
            id: key.id,
            agent_id: key.agent_id,
            key_prefix: key.key_prefix.clone(),
            name: key.name.clone(),
            raw_key: raw_key.expose().to_owned(),
            status: key.status.as_str(),
            expires_at: key.expires_at,
            created_at: key.created_at,
            limits: KeyLimitsBody::of(&key.limits),
        }
    }
}

/// The result of rotating a key.
#[derive(Serialize, ToSchema)]
#[schema(as = Rotation)]
pub struct RotationBody {
    /// ID of the replaced key.
    #[schema(value_type = String)]
    old_key_id: ApiKeyId,
    /// The new key.
    new_key: CreatedApiKeyBody,
    /// Hours until the old key stops working.
    grace_period_hours: u64,
}

impl From<&Rotation> for RotationBody {
    fn from(rotation: &Rotation) -> Self {
        Self {
            old_key_id: rotation.old,
            new_key: (&rotation.new).into(),
            grace_period_hours: rotation.grace.as_secs() / 3_600,
        }
    }
}

body_schemas! {
    NewApiKey => "CreateApiKey", "A new API key. Its restrictions cannot be changed, and a rotated key keeps them.";
    Rotate => "RotateApiKey", "Options for rotating a key.";
}

impl FromBody for NewApiKey {
    const MAY_BE_EMPTY: bool = true;

    fn read(fields: &mut Fields) -> Option<Self> {
        const SCOPE: &str = "The capabilities that the key's tokens can carry, separated by spaces. At most 100 \
            names with 4,096 characters in total, all of registered capabilities or wildcards such as `agents:*`. By \
            default all that the agent holds.";
        const NETWORKS: &str = "The networks from which the key can be used: addresses or CIDR notation (RFC 4632), \
            separated by spaces, at most 50. By default all.";
        let name = fields
            .doc("Name of the key.", || schema::name(ApiKey::NAME_MAX).default(Some(DEFAULT_NAME.into())))
            .optional("name", ApiKey::parse_name);
        let expires_at = fields
            .doc("When the key expires: RFC 3339, in the future. By default never.", || schema::format("date-time"))
            .optional("expires_at", |text| Timestamp::parse_rfc3339(text).ok_or_else(not_a_time));
        let limits = KeyLimits {
            capabilities: fields.doc(SCOPE, schema::scope).optional("scope", KeyLimits::parse_capabilities),
            networks: fields
                .doc(NETWORKS, schema::string)
                .optional("allowed_networks", KeyLimits::parse_networks)
                .unwrap_or_default(),
            token_life: fields
                .doc("Maximum lifetime of the key's tokens in seconds.", || schema::integer("int32"))
                .optional_integer("token_life_seconds", KeyLimits::TOKEN_LIFE)
                .and_then(|seconds| u32::try_from(seconds).ok()),
            uses_left: fields
                .doc("Number of tokens that can be issued for the key.", || schema::integer("int64"))
                .optional_integer("max_uses", KeyLimits::USES),
        };
        Some(Self { name: name.unwrap_or_else(|| DEFAULT_NAME.to_owned()), expires_at, limits })
    }
}

/// Name of a key without a given name.
const DEFAULT_NAME: &str = "default";

fn not_a_time() -> Invalid {
    Invalid::new("datetime_parsing", "Input should be a date and time with an offset (RFC 3339)")
}

/// Options for rotating a key.
pub struct Rotate {
    grace_hours: Option<i64>,
}

impl FromBody for Rotate {
    const MAY_BE_EMPTY: bool = true;

    fn read(fields: &mut Fields) -> Option<Self> {
        const GRACE: &str =
            "Hours until the old key stops working. The default is the setting `KEY_ROTATION_GRACE_HOURS`.";
        Some(Self {
            grace_hours: fields.doc(GRACE, || schema::integer("int64")).optional_integer("grace_hours", 0..=720),
        })
    }
}

fn key_id(text: &str) -> Result<ApiKeyId, Failure> {
    Ok(ApiKeyId::parse(text).ok_or(Error::NotFound("API key"))?)
}

/// Create an API key
///
/// The caller must hold all capabilities of the agent, because the key gives access to them.
#[utoipa::path(
    post, path = "/agents/{id}/keys", tag = "API keys", operation_id = "create_api_key",
    params(("id" = String, Path)), request_body(content = Option<NewApiKey>),
    responses(
        (status = 201, description = "The key with its secret.", body = CreatedApiKeyBody),
        (status = 400, description = "The agent is revoked, or is the caller and the caller's own key is restricted."),
        (status = 404, description = "The agent does not exist."),
        (status = 409, description = "The agent already has 1,000 working keys."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn create(
    State(services): Shared,
    caller: Authorized,
    Path(agent): Path<String>,
    new: Keyed<NewApiKey>,
) -> Result<Response, Failure> {
    let agent = agent_id(&agent)?;
    let created = |created: &CreatedApiKey| Answer::new(StatusCode::CREATED, None, &CreatedApiKeyBody::from(created));
    new.once(created, |new, once| api_keys::create(&services, &caller, agent, new, once)).await
}

/// List an agent's API keys
#[utoipa::path(
    get, path = "/agents/{id}/keys", tag = "API keys", operation_id = "list_api_keys",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The keys, oldest first.", body = [ApiKeyBody]),
        (status = 404, description = "The agent does not exist."),
    )
)]
pub async fn list(
    State(services): Shared,
    caller: Authorized,
    Path(agent): Path<String>,
) -> Result<Json<Vec<ApiKeyBody>>, Failure> {
    let keys = api_keys::list(&services, &caller, agent_id(&agent)?).await?;
    Ok(Json(keys.into_iter().map(ApiKeyBody::from).collect()))
}

/// Rotate an API key
///
/// Creates a new key with the same name, expiry and restrictions. The old key works until the end of the grace period.
/// The caller must hold all capabilities of the agent.
#[utoipa::path(
    post, path = "/agents/{id}/keys/{key_id}/rotate", tag = "API keys", operation_id = "rotate_api_key",
    params(("id" = String, Path), ("key_id" = String, Path)), request_body(content = Option<Rotate>),
    responses(
        (status = 200, description = "The new key with its secret.", body = RotationBody),
        (status = 400, description = "The key is not active, or it is another key of the calling agent and the \
            caller's own key is restricted."),
        (status = 404, description = "The agent does not exist or does not have this key."),
        (status = 409, description = "The agent already has 1,000 working keys."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn rotate(
    State(services): Shared,
    caller: Authorized,
    Path((agent, key)): Path<(String, String)>,
    options: Keyed<Rotate>,
) -> Result<Response, Failure> {
    let (agent, key) = (agent_id(&agent)?, key_id(&key)?);
    let rotated = |rotation: &Rotation| Answer::new(StatusCode::OK, None, &RotationBody::from(rotation));
    let rotate = |Rotate { grace_hours }, once| {
        let grace = grace_hours.map(|hours| Duration::from_secs(hours.unsigned_abs() * 3_600));
        api_keys::rotate(&services, &caller, agent, key, grace, once)
    };
    options.once(rotated, rotate).await
}

/// Revoke an API key
///
/// Rejects the key and all tokens issued for it immediately. Agents can always revoke their own keys. To revoke a key
/// of another agent, the caller must hold all capabilities of that agent.
#[utoipa::path(
    delete, path = "/agents/{id}/keys/{key_id}", tag = "API keys", operation_id = "revoke_api_key",
    params(("id" = String, Path), ("key_id" = String, Path)),
    responses(
        (status = 204, description = "The key is revoked."),
        (status = 400, description = "The key is already revoked, or it is the last lasting credential of the last \
            active agent with `admin:*`."),
        (status = 404, description = "The agent does not exist or does not have this key."),
    )
)]
pub async fn revoke(
    State(services): Shared,
    caller: Authorized,
    Path((agent, key)): Path<(String, String)>,
) -> Result<StatusCode, Failure> {
    api_keys::revoke(&services, &caller, agent_id(&agent)?, key_id(&key)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
