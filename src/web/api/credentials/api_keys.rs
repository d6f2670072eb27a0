//! API keys on the wire.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use serde::Serialize;
use utoipa::{ToSchema, openapi::Object};

use crate::{
    domain::{AgentId, ApiKey, ApiKeyId, ApiKeyStatus, Error, Invalid, KeyLimits, Timestamp},
    service::credentials::api_keys::{self, CreatedApiKey, NewApiKey},
    web::{
        api::{
            Shared,
            agents::{agent_id, words},
        },
        failure::Failure,
        guard::Authorized,
        request::{
            extract::{Body, FromBody},
            fields::Fields,
        },
    },
};

/// An API key without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub struct ApiKeyBody {
    /// Identifier.
    #[schema(value_type = String)]
    id: ApiKeyId,
    /// The agent it belongs to.
    #[schema(value_type = String)]
    agent_id: AgentId,
    /// The first characters of the secret.
    key_prefix: String,
    /// What it is called.
    name: String,
    /// Where it is in its life.
    #[schema(schema_with = key_status)]
    status: &'static str,
    /// When it stops to work by itself.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was rotated.
    #[schema(value_type = Option<String>, format = DateTime)]
    rotated_at: Option<Timestamp>,
    /// When it was revoked.
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Timestamp>,
    /// When a token was last issued for it.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
    /// What it may be used for at most; left out where there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<KeyLimitsBody>,
}

/// What an API key may be used for at most.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKeyLimits)]
pub struct KeyLimitsBody {
    /// The capabilities that its tokens may carry, separated by spaces, as far as the agent holds them; null: all of them.
    scope: Option<String>,
    /// The networks that it works from (CIDR, RFC 4632), separated by spaces; null: everywhere.
    allowed_networks: Option<String>,
    /// Longest life of its tokens.
    token_life_seconds: Option<u32>,
    /// How many more tokens may be issued for it.
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

fn key_status() -> Object {
    words(ApiKeyStatus::ALL.iter().map(|status| status.as_str()))
}

/// A new API key with its secret, which is shown this once.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedApiKey)]
pub struct CreatedApiKeyBody {
    /// Identifier.
    #[schema(value_type = String)]
    id: ApiKeyId,
    /// The agent it belongs to.
    #[schema(value_type = String)]
    agent_id: AgentId,
    /// The first characters of the secret.
    key_prefix: String,
    /// What it is called.
    name: String,
    /// The secret. It is not kept and cannot be shown again.
    #[schema(pattern = "^aims_[0-9A-Za-z]{49}$")]
    raw_key: String,
    /// Always `active`.
    status: &'static str,
    /// When it stops to work by itself.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// What it may be used for at most; left out where there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<KeyLimitsBody>,
}

impl From<CreatedApiKey> for CreatedApiKeyBody {
    fn from(CreatedApiKey { key, raw_key }: CreatedApiKey) -> Self {
        Self {
            id: key.id,
            agent_id: key.agent_id,
            key_prefix: key.key_prefix,
            name: key.name,
            raw_key: raw_key.expose().to_owned(),
            status: key.status.as_str(),
            expires_at: key.expires_at,
            created_at: key.created_at,
            limits: KeyLimitsBody::of(&key.limits),
        }
    }
}

/// What a rotation did.
#[derive(Serialize, ToSchema)]
#[schema(as = Rotation)]
pub struct RotationBody {
    /// The key that was replaced.
    #[schema(value_type = String)]
    old_key_id: ApiKeyId,
    /// Its replacement.
    new_key: CreatedApiKeyBody,
    /// How long the old key still works, in hours.
    grace_period_hours: u64,
}

/// An API key to make. Its limits cannot be changed afterwards; a rotation hands them on.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the body; `NewApiKey` is what it is read into")]
#[schema(as = CreateApiKey)]
pub struct CreateKey {
    /// What it is called.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, pattern = "{name}", default = "default")]
    name: String,
    /// When it stops to work by itself: RFC 3339, in the future.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// The capabilities that its tokens may carry, separated by spaces; at most 100, of 4096 characters together. Each is registered,
    /// also one like `agents:*` that covers others. All that the agent holds when left out.
    #[schema(pattern = "{scope}")]
    scope: Option<String>,
    /// The networks that it works from: CIDR (RFC 4632) or addresses, separated by spaces; at most 50. Everywhere when left out.
    allowed_networks: Option<String>,
    /// Longest life of its tokens, in seconds.
    #[schema(minimum = 1, maximum = 86_400)]
    token_life_seconds: Option<u32>,
    /// How many tokens may be issued for it.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    max_uses: Option<i64>,
}

impl FromBody for NewApiKey {
    const MAY_BE_EMPTY: bool = true;

    fn read(fields: &mut Fields) -> Option<Self> {
        let name = fields.optional("name", ApiKey::parse_name);
        let expires_at = fields.optional("expires_at", |text| Timestamp::parse_rfc3339(text).ok_or_else(not_a_time));
        let limits = KeyLimits {
            capabilities: fields.optional("scope", KeyLimits::parse_capabilities),
            networks: fields.optional("allowed_networks", KeyLimits::parse_networks).unwrap_or_default(),
            token_life: fields
                .optional_integer("token_life_seconds", KeyLimits::TOKEN_LIFE)
                .and_then(|seconds| u32::try_from(seconds).ok()),
            uses_left: fields.optional_integer("max_uses", KeyLimits::USES),
        };
        Some(Self { name: name.unwrap_or_else(|| "default".to_owned()), expires_at, limits })
    }
}

fn not_a_time() -> Invalid {
    Invalid::new("datetime_parsing", "Input should be a date and time with an offset (RFC 3339)")
}

/// How to rotate.
#[derive(ToSchema)]
#[schema(as = RotateApiKey)]
pub struct Rotate {
    /// How long the old key still works, in hours; by default as the setting `KEY_ROTATION_GRACE_HOURS` says.
    #[schema(minimum = 0, maximum = 720)]
    grace_hours: Option<i64>,
}

impl FromBody for Rotate {
    const MAY_BE_EMPTY: bool = true;

    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self { grace_hours: fields.optional_integer("grace_hours", 0..=720) })
    }
}

fn key_id(text: &str) -> Result<ApiKeyId, Failure> {
    Ok(ApiKeyId::parse(text).ok_or(Error::NotFound("API key"))?)
}

/// Make an API key
///
/// Refused when the agent holds authority that you lack: whoever has an agent's key can act as that agent.
#[utoipa::path(
    post, path = "/agents/{id}/keys", tag = "API keys", operation_id = "create_api_key",
    params(("id" = String, Path)), request_body(content = Option<CreateKey>),
    responses(
        (status = 201, description = "The key, with its secret.", body = CreatedApiKeyBody),
        (status = 400, description = "The agent is revoked, or is the caller's own, and the caller's key is limited."),
        (status = 404, description = "There is no such agent."),
        (status = 409, description = "1,000 keys of the agent work already."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn create(
    State(services): Shared,
    caller: Authorized,
    Path(agent): Path<String>,
    Body(new): Body<NewApiKey>,
) -> Result<(StatusCode, Json<CreatedApiKeyBody>), Failure> {
    let created = api_keys::create(&services, &caller, agent_id(&agent)?, new).await?;
    Ok((StatusCode::CREATED, Json(created.into())))
}

/// List an agent's API keys
#[utoipa::path(
    get, path = "/agents/{id}/keys", tag = "API keys", operation_id = "list_api_keys",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The keys, oldest first.", body = [ApiKeyBody]),
        (status = 404, description = "There is no such agent."),
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
/// Makes a new key of the same name and expiry. The old one works until the grace period is over. Refused when the agent holds
/// authority that you lack.
#[utoipa::path(
    post, path = "/agents/{id}/keys/{key_id}/rotate", tag = "API keys", operation_id = "rotate_api_key",
    params(("id" = String, Path), ("key_id" = String, Path)), request_body(content = Option<Rotate>),
    responses(
        (status = 200, description = "What was done, with the new key's secret.", body = RotationBody),
        (status = 400, description = "The key is not active, or is another one of the caller's own agent, and the caller's key is limited."),
        (status = 404, description = "The agent has no such key."),
        (status = 409, description = "1,000 keys of the agent work already."),
        (status = 422, description = "A field is not valid."),
    )
)]
pub async fn rotate(
    State(services): Shared,
    caller: Authorized,
    Path((agent, key)): Path<(String, String)>,
    Body(Rotate { grace_hours }): Body<Rotate>,
) -> Result<Json<RotationBody>, Failure> {
    let grace = grace_hours.map(|hours| Duration::from_secs(hours.unsigned_abs() * 3_600));
    let rotation = api_keys::rotate(&services, &caller, agent_id(&agent)?, key_id(&key)?, grace).await?;
    Ok(Json(RotationBody {
        old_key_id: rotation.old,
        new_key: rotation.new.into(),
        grace_period_hours: rotation.grace.as_secs() / 3_600,
    }))
}

/// Revoke an API key
///
/// The key, and every token issued for it, is refused at once. You may always revoke keys of your own agent; of another agent only
/// if it holds no authority that you lack.
#[utoipa::path(
    delete, path = "/agents/{id}/keys/{key_id}", tag = "API keys", operation_id = "revoke_api_key",
    params(("id" = String, Path), ("key_id" = String, Path)),
    responses(
        (status = 204, description = "The key is revoked."),
        (status = 400, description = "It is revoked already, or without it no active holder of `admin:*` could authenticate, or be sure to for a day."),
        (status = 404, description = "The agent has no such key."),
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
