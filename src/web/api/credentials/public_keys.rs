//! The public keys endpoints.

use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    domain::{Error, PublicKeyId, Timestamp, credential::public_key::PublicKey},
    service::credentials::public_keys,
    web::{
        api::{Shared, agents::agent_id, answer::Answer, conditions::Keyed},
        failure::Failure,
        guard::Authorized,
        request::{extract::FromBody, fields::Fields},
    },
};

/// A public key of an agent.
#[derive(Serialize, ToSchema)]
#[schema(as = PublicKey)]
pub struct PublicKeyBody {
    /// ID.
    #[schema(value_type = String)]
    id: PublicKeyId,
    /// `kid` in the headers of assertions: the key's own, or its thumbprint.
    kid: String,
    /// SHA-256 thumbprint of the key (RFC 7638). Assertions can also use it as `kid`.
    thumbprint: String,
    /// The public key as a JSON Web Key (RFC 7517).
    jwk: Value,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<PublicKey> for PublicKeyBody {
    fn from(key: PublicKey) -> Self {
        Self { id: key.id, kid: key.kid, thumbprint: key.thumbprint, jwk: key.jwk, created_at: key.created_at }
    }
}

/// A JSON Web Key or a JSON Web Key Set (RFC 7517).
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = JsonWebKeys)]
pub enum JsonWebKeysBody {
    /// A JSON Web Key.
    Key(JsonWebKeyBody),
    /// A JSON Web Key Set.
    Set {
        /// The keys.
        #[schema(min_items = 1)]
        keys: Vec<JsonWebKeyBody>,
    },
}

/// A public key as a JSON Web Key (RFC 7517): P-256, Ed25519, or RSA with at least 2048 bits.
#[derive(ToSchema)]
#[schema(as = JsonWebKey)]
#[expect(dead_code, reason = "documents the body; the service parses it as a whole")]
pub struct JsonWebKeyBody {
    /// `EC`, `OKP` or `RSA`.
    #[schema(pattern = "^(EC|OKP|RSA)$")]
    kty: String,
    /// `P-256` or `Ed25519`. Not for RSA.
    #[schema(value_type = String, required = false)]
    crv: Option<String>,
    /// The x coordinate, or the public key for Ed25519, in base64url. Not for RSA.
    #[schema(value_type = String, required = false)]
    x: Option<String>,
    /// The y coordinate in base64url. Only for P-256.
    #[schema(value_type = String, required = false)]
    y: Option<String>,
    /// The modulus in base64url. Only for RSA.
    #[schema(value_type = String, required = false)]
    n: Option<String>,
    /// The exponent in base64url. Only for RSA.
    #[schema(value_type = String, required = false)]
    e: Option<String>,
    /// Key ID, which assertions carry in their header. The default is the thumbprint of the key.
    #[schema(value_type = String, required = false, pattern = "^[!-~]{1,128}$")]
    kid: Option<String>,
}

/// A JSON Web Key or a JSON Web Key Set as it was sent.
pub struct JsonWebKeys(Value);

impl FromBody for JsonWebKeys {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self(fields.take_all()))
    }
}

/// Register public keys
///
/// Registers a JSON Web Key or all keys of a JSON Web Key Set (RFC 7517) for the algorithms ES256, Ed25519 (`alg` may
/// also be `EdDSA`) or RS256 with at least 2048 bits. Private keys are rejected. An agent can have at most 20 public
/// keys.
///
/// The agent can then authenticate with assertions that it signs with the private key (`private_key_jwt`, RFC 7523) and
/// needs no API key.
#[utoipa::path(
    post, path = "/agents/{id}/public-keys", tag = "API keys", operation_id = "register_public_keys",
    params(("id" = String, Path)), request_body = JsonWebKeysBody,
    responses(
        (status = 201, description = "The registered keys.", body = [PublicKeyBody]),
        (status = 400, description = "The agent is revoked, or is the caller and the caller's own key is restricted."),
        (status = 404, description = "The agent does not exist."),
        (status = 409, description = "The agent already has one of the keys, or would have more than 20."),
        (status = 422, description = "A key is private, too weak or malformed."),
    )
)]
pub async fn register(
    State(services): Shared,
    caller: Authorized,
    Path(agent): Path<String>,
    keys: Keyed<JsonWebKeys>,
) -> Result<Response, Failure> {
    let agent = agent_id(&agent)?;
    let registered = |keys: &Vec<PublicKey>| {
        let bodies: Vec<_> = keys.iter().cloned().map(PublicKeyBody::from).collect();
        Answer::new(StatusCode::CREATED, None, &bodies)
    };
    let (services, caller) = (&services, &caller);
    let register = |JsonWebKeys(value), once| async move {
        public_keys::register(services, caller, agent, public_keys::parse(&value)?, once).await
    };
    keys.once(registered, register).await
}

/// List an agent's public keys
#[utoipa::path(
    get, path = "/agents/{id}/public-keys", tag = "API keys", operation_id = "list_public_keys",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The keys, oldest first.", body = [PublicKeyBody]),
        (status = 404, description = "The agent does not exist."),
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

/// Revoke a public key
///
/// Ends the tokens that were issued for it immediately. Agents can always revoke their own public keys. To revoke a key
/// of another agent, the caller must hold all capabilities of that agent.
#[utoipa::path(
    delete, path = "/agents/{id}/public-keys/{key_id}", tag = "API keys", operation_id = "remove_public_key",
    params(("id" = String, Path), ("key_id" = String, Path)),
    responses(
        (status = 204, description = "The public key is revoked."),
        (status = 400, description = "It is the last lasting credential of the last active agent with `admin:*`."),
        (status = 404, description = "The agent does not exist or does not have this key."),
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
