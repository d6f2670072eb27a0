//! The token endpoint, introspection, revocation, and the authorization endpoint that there is not yet.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method};
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    client,
    error::{ErrorBody, NOT_STORED, OAuthFailure},
    metadata::{JWT_BEARER, TOKEN_EXCHANGE},
    parameters::{Parameters, invalid},
};
use crate::{
    domain::{
        AgentId,
        token::{Actor, Confirmation, MayAct, TokenRefusal},
    },
    service::{
        Origin, Services,
        credentials::federation::{self, Presenter},
        tokens::{
            self, Presented, Wanted,
            clients::Client,
            delegation::{self, Exchange},
            introspection::{self, Active},
            revocation,
        },
    },
    web::{api::tokens::live_tokens::TokensEnded, request::dpop},
};

type Shared = State<Arc<Services>>;

/// Types of tokens (RFC 8693 §3).
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// An access token for a client (RFC 6749 §5.1).
#[derive(Serialize, ToSchema)]
#[schema(as = OAuthToken)]
pub struct TokenBody {
    /// The token, a JWT in the profile of RFC 9068.
    access_token: String,
    /// What kind of token it is (RFC 8693 section 2.2.1); only in the answer to an exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_token_type: Option<&'static str>,
    /// `DPoP` for a token that is bound to the key of the proof that came with the request (RFC 9449), else `Bearer`.
    token_type: &'static str,
    /// Life of the token, in seconds.
    expires_in: i64,
    /// The capabilities that the token carries, separated by spaces. Left out when it carries none.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

/// What a client sends to the token endpoint.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the form; `Parameters` is what it is read into")]
pub struct TokenForm {
    /// `client_credentials`, `urn:ietf:params:oauth:grant-type:jwt-bearer`, or `urn:ietf:params:oauth:grant-type:token-exchange`.
    grant_type: String,
    /// Registered capabilities, separated by spaces: some of those that the client may have, at most 100. All of them when left out.
    scope: Option<String>,
    /// The identifier of the protected resource that the token is for (RFC 8707). AIMS itself when left out.
    resource: Option<String>,
    /// The same (RFC 8693 section 2.1).
    audience: Option<String>,
    /// Longest life of the token, in seconds.
    #[schema(minimum = 1)]
    expires_in: Option<u64>,
    /// The identifier of the only agent that may come to act for the bearer (RFC 8693 section 4.4). Whoever policy allows
    /// when left out.
    may_act: Option<String>,
    /// With the grant type `jwt-bearer`: a token of a foreign issuer that vouches for the agent.
    assertion: Option<String>,
    /// In an exchange: the access token of the agent to act for.
    subject_token: Option<String>,
    /// In an exchange: `urn:ietf:params:oauth:token-type:access_token`.
    subject_token_type: Option<String>,
    /// In an exchange: the actor's own access token for AIMS. The client acts when it is left out.
    actor_token: Option<String>,
    /// With an `actor_token`: `urn:ietf:params:oauth:token-type:access_token`.
    actor_token_type: Option<String>,
    /// In an exchange: `urn:ietf:params:oauth:token-type:access_token`, or left out.
    requested_token_type: Option<String>,
    /// The agent's identifier, where the client does not authenticate by HTTP Basic.
    client_id: Option<String>,
    /// One of the agent's API keys, where the client does not authenticate by HTTP Basic.
    client_secret: Option<String>,
    /// `urn:ietf:params:oauth:client-assertion-type:jwt-bearer`, with an assertion.
    client_assertion_type: Option<String>,
    /// A JWT that the client signed (RFC 7523 section 3), in place of a secret.
    client_assertion: Option<String>,
}

/// Issue an access token
///
/// `client_credentials` (RFC 6749 section 4.4). The client is an agent and its secret one of its API keys, sent by HTTP Basic
/// or in the form; or it signs an assertion with a registered key pair (`private_key_jwt`, RFC 7523): `iss` and `sub` the
/// agent, `aud` the issuer or the endpoint, `exp` at most one hour away, `jti` used once. The token lives
/// no longer than `JWT_EXPIRATION_MINUTES` and never longer than its key.
///
/// `jwt-bearer` (RFC 7523 section 2.1): a token of a foreign issuer that is trusted to vouch for the agent
/// (`/agents/{id}/federated-identities`) takes the place of client authentication. `client_id` is needed where it fits several agents,
/// or may: where the keys that one of them trusts cannot be read.
/// The access token lives no longer than the foreign one. What is not acceptable is `invalid_grant`.
/// A client that authenticates all the same (RFC 7521 section 4.1) must be that agent or one of its delegates. A delegate gets a
/// token by which it acts for the agent, as by token exchange.
///
/// Token exchange (RFC 8693): an agent obtains a token by which it acts for the agent of `subject_token`, if it is one of that
/// agent's delegates. The actor is whose `actor_token` it is, or else the client; with an `actor_token`, client authentication may
/// be left out. The token carries no capability that either side lacks, lives no longer than either token, and names the chain of
/// actors in `act`, of which there are at most `DELEGATION_DEPTH_MAX`. It ends at once when any token, credential, agent or
/// permission that it was made with does.
///
/// A request with a proof of possession in the header `DPoP` (RFC 9449; ES256, Ed25519 or RS256) gets a token that is bound to the
/// proof's key, and is refused with `use_dpop_nonce` until the proof carries the nonce of the header `DPoP-Nonce`.
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
    let grant_type = parameters.get("grant_type");
    let exchanges = grant_type == Some(TOKEN_EXCHANGE);
    // These requests carry another proof of who sends them, so that client authentication is optional.
    let proves_itself = grant_type == Some(JWT_BEARER) || (exchanges && parameters.get("actor_token").is_some());
    let proof = dpop::proof(&services, &headers, &Method::POST, "/oauth/token");
    if let Some(proof) = &proof {
        services.require_nonce(proof)?;
    }
    let client = if proves_itself && !client::is_tried(&headers, &parameters) {
        None
    } else {
        Some(client::authenticate(&services, &origin, &headers, &parameters).await?)
    };
    let vouched = match grant_type {
        Some(JWT_BEARER) => Some(vouched_for(&services, &origin, &headers, &parameters, client.as_ref()).await?),
        _ => None,
    };
    let wanted = Wanted { proof, ..wanted(&parameters)? };
    let issued = match (grant_type, &client, &vouched) {
        (Some("client_credentials"), Some(client), _) => {
            tokens::client_credentials(&services, &origin, client, &wanted).await?
        }
        (Some(JWT_BEARER), client, Some(vouched)) => {
            delegation::by_assertion(&services, &origin, client.as_ref(), vouched, &wanted).await?
        }
        (Some(TOKEN_EXCHANGE), client, _) => {
            let exchange = exchange(&parameters)?;
            delegation::exchange(&services, &origin, client.as_ref(), exchange, &wanted).await?
        }
        (None, ..) => return Err(invalid("The parameter grant_type is missing".to_owned())),
        _ => return Err(TokenRefusal::UnsupportedGrantType.into()),
    };
    let body = TokenBody {
        access_token: issued.access_token.expose_secret().to_owned(),
        issued_token_type: exchanges.then_some(ACCESS_TOKEN),
        token_type: if issued.is_bound { "DPoP" } else { "Bearer" },
        expires_in: issued.expires_in,
        scope: issued.scope.to_scope(),
    };
    Ok((NOT_STORED, Json(body)))
}

/// The agent that the issuer of an assertion vouches for.
async fn vouched_for(
    services: &Services,
    origin: &Origin,
    headers: &HeaderMap,
    parameters: &Parameters,
    client: Option<&Client>,
) -> Result<Client, OAuthFailure> {
    let assertion = parameters.required("assertion")?;
    let named = client::named(headers, parameters)?;
    let presenter = client.map_or(Presenter::Named(named.as_deref()), Presenter::Client);
    Ok(federation::authenticate(services, origin, presenter, assertion).await?)
}

fn wanted(parameters: &Parameters) -> Result<Wanted, OAuthFailure> {
    let life = parameters.get("expires_in").map(|text| text.parse().ok().filter(|&seconds: &u64| seconds > 0));
    let life = life.map(|seconds| seconds.ok_or_else(|| invalid("expires_in must be a number of seconds".to_owned())));
    let may_act = parameters.get("may_act").map(AgentId::parse);
    let may_act = may_act.map(|agent| agent.ok_or_else(|| invalid("may_act must be an agent's identifier".to_owned())));
    Ok(Wanted {
        scope: parameters.get("scope").map(str::to_owned),
        resource: parameters.target()?.map(str::to_owned),
        life: life.transpose()?.map(Duration::from_secs),
        may_act: may_act.transpose()?,
        proof: None,
    })
}

/// Reads what an exchange is made of; every token is an access token, which is a JWT.
fn exchange(parameters: &Parameters) -> Result<Exchange<'_>, OAuthFailure> {
    for (name, among) in [
        ("subject_token_type", [ACCESS_TOKEN, JWT].as_slice()),
        ("actor_token_type", [ACCESS_TOKEN, JWT].as_slice()),
        ("requested_token_type", [ACCESS_TOKEN].as_slice()),
    ] {
        if parameters.get(name).is_some_and(|value| !among.contains(&value)) {
            return Err(invalid(format!("The {name} must be {ACCESS_TOKEN}")));
        }
    }
    parameters.required("subject_token_type")?;
    let actor_token = parameters.get("actor_token");
    if actor_token.is_some() != parameters.get("actor_token_type").is_some() {
        return Err(invalid("An actor_token goes with an actor_token_type".to_owned()));
    }
    Ok(Exchange { subject_token: parameters.required("subject_token")?, actor_token })
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
#[derive(Default, Serialize, ToSchema)]
#[schema(as = Introspection)]
pub struct IntrospectionBody {
    /// Whether it counts at this moment. When it does not, nothing else is said.
    active: bool,
    /// The capabilities that it carries and its agent still holds, separated by spaces. Left out when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// The agent that obtained the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    /// The agent whose authority it carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    /// Who acts for it, and within that who did so before (RFC 8693 section 4.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    act: Option<Actor>,
    /// Who alone may come to act for the bearer (RFC 8693 section 4.4).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    may_act: Option<MayAct>,
    /// Who the token is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    /// AIMS's public URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    /// Expires at, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    /// Issued at, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    /// Identifier of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    /// `DPoP` for a token that is bound to a key, else `Bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    /// The key that it is bound to: its thumbprint is `jkt` (RFC 9449 section 6.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    cnf: Option<Confirmation>,
}

impl From<Active> for IntrospectionBody {
    fn from(Active { claims, scope }: Active) -> Self {
        let claims = Arc::unwrap_or_clone(claims);
        Self {
            active: true,
            scope: scope.to_scope(),
            client_id: Some(claims.client_id),
            sub: Some(claims.sub),
            act: claims.act,
            may_act: claims.may_act,
            aud: Some(claims.aud),
            iss: Some(claims.iss),
            exp: Some(claims.exp),
            iat: Some(claims.iat),
            jti: Some(claims.jti),
            token_type: Some(if claims.cnf.is_some() { "DPoP" } else { "Bearer" }),
            cnf: claims.cnf,
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
    let caller = if dpop::is_token(&headers) {
        let presented = dpop::presented(&services, &headers, &Method::POST, "/oauth/introspect");
        let presented = presented.unwrap_or(Presented { token: "", proof: None });
        tokens::authenticate(&services, origin, presented).await?
    } else {
        client::authenticate(&services, &origin, &headers, &parameters).await?.into_caller(origin)
    };
    let token = parameters.required("token")?;
    let found = introspection::introspect(&services, &caller, token).await?;
    Ok((NOT_STORED, Json(found.map(IntrospectionBody::from).unwrap_or_default())))
}

/// Revoke an access token
///
/// RFC 7009. A client revokes its own tokens; one that is not active any more is no error. All tokens of an agent are
/// revoked with `POST /agents/{id}/revoke-tokens`.
#[utoipa::path(
    post, path = "/oauth/revoke", tag = "OAuth", operation_id = "revoke_token",
    request_body(content = TokenToExamine, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The token is not active any more, nor is any that descends from it.", body = TokensEnded),
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
    let tokens_ended = revocation::revoke(&services, &origin, &client, parameters.required("token")?).await?;
    Ok((NOT_STORED, Json(TokensEnded { tokens_ended })))
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
