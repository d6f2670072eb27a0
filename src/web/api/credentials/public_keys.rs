//! Agents' public keys on the wire.

use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    domain::{Error, PublicKeyId, Timestamp, credential::public_key::PublicKey},
    service::credentials::public_keys,
    web::{
        api::{Shared, agents::agent_id},
        failure::Failure,
        guard::Authorized,
        request::{
            extract::{Body, FromBody},
            fields::Fields,
        },
    },
};

/// A public key of an agent.
#[derive(Serialize, ToSchema)]
#[schema(as = PublicKey)]
pub struct PublicKeyBody {
    /// Identifier of the record.
    #[schema(value_type = String)]
    id: PublicKeyId,
    /// What assertions name it by: its own `kid`, or its thumbprint.
    kid: String,
    /// Its SHA-256 thumbprint (RFC 7638), which assertions may name too.
    thumbprint: String,
    /// The key (RFC 7517).
    jwk: Value,
    /// When it was registered.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<PublicKey> for PublicKeyBody {
    fn from(key: PublicKey) -> Self {
        Self { id: key.id, kid: key.kid, thumbprint: key.thumbprint, jwk: key.jwk, created_at: key.created_at }
    }
}

/// A JSON Web Key (RFC 7517), or a set of them.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = JsonWebKeys)]
pub enum JsonWebKeysBody {
    /// A key.
    Key(JsonWebKeyBody),
    /// A set of keys.
    Set {
        /// The keys.
        #[schema(min_items = 1)]
        keys: Vec<JsonWebKeyBody>,
    },
}

/// A public key (RFC 7517): P-256, Ed25519, or RSA from 2048 bits.
#[derive(ToSchema)]
#[schema(as = JsonWebKey)]
#[expect(dead_code, reason = "describes the body; `AssertionKey` is what it is read into")]
pub struct JsonWebKeyBody {
    /// `EC`, `OKP` or `RSA`.
    #[schema(pattern = "^(EC|OKP|RSA)$")]
    kty: String,
    /// `P-256` or `Ed25519`; not for RSA.
    #[schema(value_type = String, required = false)]
    crv: Option<String>,
    /// The point, or its first coordinate, in base64url; not for RSA.
    #[schema(value_type = String, required = false)]
    x: Option<String>,
    /// The second coordinate, in base64url; only for P-256.
    #[schema(value_type = String, required = false)]
    y: Option<String>,
    /// The modulus, in base64url; only for RSA.
    #[schema(value_type = String, required = false)]
    n: Option<String>,
    /// The exponent, in base64url; only for RSA.
    #[schema(value_type = String, required = false)]
    e: Option<String>,
    /// What assertions name it by; its thumbprint when left out.
    #[schema(value_type = String, required = false, pattern = "^[!-~]{1,128}$")]
    kid: Option<String>,
}

/// A JSON Web Key, or a set of them under `keys`.
pub struct JsonWebKeys(Value);

impl FromBody for JsonWebKeys {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self(fields.take_all()))
    }
}

/// Register public keys of an agent
///
/// A JSON Web Key or a set of them (RFC 7517): ES256, Ed25519 (`alg` may also be `EdDSA`), or RS256 from 2048 bits, at most 20
/// for an agent, all or none.
/// The agent then authenticates with assertions that it signs (`private_key_jwt`, RFC 7523), and needs no API key at all.
/// Nothing private is accepted.
#[utoipa::path(
    post, path = "/agents/{id}/public-keys", tag = "API keys", operation_id = "register_public_keys",
    params(("id" = String, Path)), request_body = JsonWebKeysBody,
    responses(
        (status = 201, description = "The keys as registered.", body = [PublicKeyBody]),
        (status = 400, description = "The agent is revoked, or is the caller's own, and the caller's key is limited."),
        (status = 404, description = "There is no such agent."),
        (status = 409, description = "The agent has one of the keys already, or would have more than 20."),
        (status = 422, description = "A key is private, weak or malformed."),
    )
)]
pub async fn register(
    State(services): Shared,
    caller: Authorized,
    Path(agent): Path<String>,
    Body(JsonWebKeys(value)): Body<JsonWebKeys>,
) -> Result<(StatusCode, Json<Vec<PublicKeyBody>>), Failure> {
    let agent = agent_id(&agent)?;
    let keys = public_keys::parse(&value)?;
    let registered = public_keys::register(&services, &caller, agent, keys).await?;
    Ok((StatusCode::CREATED, Json(registered.into_iter().map(PublicKeyBody::from).collect())))
}

/// List the public keys of an agent
#[utoipa::path(
    get, path = "/agents/{id}/public-keys", tag = "API keys", operation_id = "list_public_keys",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The keys, oldest first.", body = [PublicKeyBody]),
        (status = 404, description = "There is no such agent."),
    )
)]
pub async fn list(
    State(services): Shared,
    caller: Authorized,
    Path(agent): Path<String>,
) -> Result<Json<Vec<PublicKeyBody>>, Failure> {
    let keys = public_keys::list(&services, &caller, agent_id(&agent)?).await?;
    Ok(Json(keys.into_iter().map(PublicKeyBody::from).collect()))
}

/// Remove a public key of an agent
///
/// Tokens that were issued for it end at once. You may always remove keys of your own agent; of another agent only if it holds no
/// authority that you lack.
#[utoipa::path(
    delete, path = "/agents/{id}/public-keys/{key_id}", tag = "API keys", operation_id = "remove_public_key",
    params(("id" = String, Path), ("key_id" = String, Path)),
    responses(
        (status = 204, description = "It is gone."),
        (status = 400, description = "Without it no active holder of `admin:*` could authenticate, or be sure to for a day."),
        (status = 404, description = "There is no such agent, or it has no such key."),
    )
)]
pub async fn remove(
    State(services): Shared,
    caller: Authorized,
    Path((agent, id)): Path<(String, String)>,
) -> Result<StatusCode, Failure> {
    let id = PublicKeyId::parse(&id).ok_or(Error::NotFound("Public key"))?;
    public_keys::remove(&services, &caller, agent_id(&agent)?, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
