//! The token endpoint, introspection, revocation, and the authorization endpoint that there is not yet.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    client,
    error::{ErrorBody, NOT_STORED, OAuthFailure},
    parameters::{Parameters, invalid},
};
use crate::{
    domain::token::TokenRefusal,
    service::{
        Origin, Services,
        introspection::{self, Active},
        revocation,
        tokens::{self, Wanted},
    },
    web::guard::bearer_of,
};

type Shared = State<Arc<Services>>;

/// An access token for a client (RFC 6749 §5.1).
#[derive(Serialize, ToSchema)]
#[schema(as = OAuthToken)]
pub struct TokenBody {
    /// The token, a JWT in the profile of RFC 9068.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Life of the token, in seconds.
    expires_in: i64,
    /// The capabilities that the token carries, separated by spaces.
    scope: String,
}

/// What a client sends to the token endpoint.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the form; `Parameters` is what it is read into")]
pub struct TokenForm {
    /// `client_credentials`.
    grant_type: String,
    /// Capabilities, separated by spaces: some of those that the agent holds. All that it may have when left out.
    scope: Option<String>,
    /// The identifier of the protected resource that the token is for (RFC 8707). AIMS itself when left out.
    resource: Option<String>,
    /// Longest life of the token, in seconds.
    #[schema(minimum = 1)]
    expires_in: Option<u64>,
    /// The agent's identifier, where the client does not authenticate by HTTP Basic.
    client_id: Option<String>,
    /// One of the agent's API keys, where the client does not authenticate by HTTP Basic.
    client_secret: Option<String>,
    /// `urn:ietf:params:oauth:client-assertion-type:jwt-bearer`, with an assertion.
    client_assertion_type: Option<String>,
    /// A JWT that the client signed (RFC 7523 section 3), in place of a secret.
    client_assertion: Option<String>,
}

/// Issue an access token to a client
///
/// `client_credentials` (RFC 6749 section 4.4). The client is an agent and its secret one of its API keys, sent by HTTP Basic
/// or in the form; or it signs an assertion with a registered key pair (`private_key_jwt`, RFC 7523): `iss` and `sub` the
/// agent, `aud` the issuer or this endpoint, `exp` at most 5 minutes away, `jti` used once. The token lives no longer than `JWT_EXPIRATION_MINUTES` and never longer than its key.
#[utoipa::path(
    post, path = "/oauth/token", tag = "OAuth", operation_id = "token",
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The access token.", body = TokenBody),
        (status = 400, description = "The request, the scope or the resource is not valid.", body = ErrorBody),
        (status = 401, description = "The client is unknown, its key has ended, or it may not act.", body = ErrorBody),
    )
)]
pub async fn token(
    State(services): Shared,
    origin: Origin,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<impl IntoResponse, OAuthFailure> {
    let client = client::authenticate(&services, &origin, &headers, &parameters).await?;
    if parameters.required("grant_type")? != "client_credentials" {
        return Err(TokenRefusal::UnsupportedGrantType.into());
    }
    let life = parameters.get("expires_in").map(|text| text.parse().ok().filter(|&seconds: &u64| seconds > 0));
    let life = life.map(|seconds| seconds.ok_or_else(|| invalid("expires_in must be a number of seconds".to_owned())));
    let wanted = Wanted {
        scope: parameters.get("scope").map(str::to_owned),
        resource: parameters.get("resource").map(str::to_owned),
        life: life.transpose()?.map(Duration::from_secs),
    };
    let issued = tokens::client_credentials(&services, &origin, &client, &wanted).await?;
    let body = TokenBody {
        access_token: issued.access_token.expose_secret().to_owned(),
        token_type: "Bearer",
        expires_in: issued.expires_in,
        scope: issued.scope.to_scope(),
    };
    Ok((NOT_STORED, Json(body)))
}

/// A token to look at, or to revoke.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the form; `Parameters` is what it is read into")]
pub struct TokenToExamine {
    /// The token.
    token: String,
    /// Ignored: there are only access tokens.
    token_type_hint: Option<String>,
}

/// What a token is worth now (RFC 7662 section 2.2).
#[derive(Serialize, ToSchema)]
#[schema(as = Introspection)]
pub struct IntrospectionBody {
    /// Whether it counts at this moment. When it does not, nothing else is said.
    active: bool,
    #[serde(flatten)]
    #[schema(inline)]
    token: Option<ActiveBody>,
}

/// What an active token says.
#[derive(Serialize, ToSchema)]
struct ActiveBody {
    /// The capabilities that it carries and its agent still holds, separated by spaces.
    scope: String,
    /// The agent.
    client_id: String,
    /// The agent.
    sub: String,
    /// Who the token is for.
    aud: String,
    /// AIMS's public URL.
    iss: String,
    /// Expires at, in seconds since the epoch.
    exp: i64,
    /// Issued at, in seconds since the epoch.
    iat: i64,
    /// Not valid before, in seconds since the epoch.
    nbf: i64,
    /// Identifier of the token.
    jti: String,
    /// Always `Bearer`.
    token_type: &'static str,
}

impl From<Active> for ActiveBody {
    fn from(Active { claims, scope }: Active) -> Self {
        Self {
            scope: scope.to_scope(),
            client_id: claims.client_id,
            sub: claims.sub,
            aud: claims.aud,
            iss: claims.iss,
            exp: claims.exp,
            iat: claims.iat,
            nbf: claims.nbf,
            jti: claims.jti,
            token_type: "Bearer",
        }
    }
}

/// Ask whether an access token is active
///
/// RFC 7662, as of this moment: a token is not active once its agent is suspended or revoked, its key has ended, or it was
/// revoked itself. Asks for `tokens:introspect`, of a bearer or of a client that authenticates as at the token endpoint.
#[utoipa::path(
    post, path = "/oauth/introspect", tag = "OAuth", operation_id = "introspect",
    request_body(content = TokenToExamine, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "What the token is worth.", body = IntrospectionBody),
        (status = 400, description = "The request is not valid.", body = ErrorBody),
        (status = 401, description = "The caller is unknown.", body = ErrorBody),
        (status = 403, description = "The caller lacks `tokens:introspect`.", body = ErrorBody),
    )
)]
pub async fn introspect(
    State(services): Shared,
    origin: Origin,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<impl IntoResponse, OAuthFailure> {
    let caller = match bearer_of(&headers) {
        Some(token) => tokens::authenticate(&services, origin, token).await?,
        None => client::authenticate(&services, &origin, &headers, &parameters).await?.into_caller(origin),
    };
    let token = parameters.required("token")?;
    let found = introspection::introspect(&services, &caller, token).await?.map(ActiveBody::from);
    Ok((NOT_STORED, Json(IntrospectionBody { active: found.is_some(), token: found })))
}

/// Revoke an access token
///
/// RFC 7009. A client revokes its own tokens; one that is not active any more is no error. All tokens of an agent are
/// revoked with `POST /agents/{id}/revoke-tokens`.
#[utoipa::path(
    post, path = "/oauth/revoke", tag = "OAuth", operation_id = "revoke_token",
    request_body(content = TokenToExamine, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The token is not active any more."),
        (status = 400, description = "The request is not valid, or the token is another client's.", body = ErrorBody),
        (status = 401, description = "The client is unknown, its key has ended, or it may not act.", body = ErrorBody),
    )
)]
pub async fn revoke(
    State(services): Shared,
    origin: Origin,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<impl IntoResponse, OAuthFailure> {
    let client = client::authenticate(&services, &origin, &headers, &parameters).await?;
    revocation::revoke(&services, &origin, &client, parameters.required("token")?).await?;
    Ok((StatusCode::OK, NOT_STORED))
}

/// The authorization endpoint
///
/// There is no interactive grant: every request is refused with `unsupported_response_type` (RFC 6749 section 4.1.2.1), and
/// nobody is sent to any `redirect_uri`.
#[utoipa::path(
    get, path = "/oauth/authorize", tag = "OAuth", operation_id = "authorize",
    responses((status = 400, description = "Always.", body = ErrorBody))
)]
pub async fn authorize() -> Response {
    OAuthFailure::from(TokenRefusal::UnsupportedResponseType).into_response()
}
