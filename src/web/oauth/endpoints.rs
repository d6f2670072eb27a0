//! The token, introspection, revocation and authorization endpoints.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    client::{ClientCredentials, ClientForm},
    error::{ErrorBody, NO_STORE, OAuthFailure},
    metadata::{JWT_BEARER, TOKEN_EXCHANGE},
    parameters::{Form, invalid, required},
};
use crate::{
    domain::{
        AgentId,
        text::uri,
        token::{Actor, Confirmation, MayAct, TokenRefusal},
    },
    service::{
        Origin, Services,
        credentials::federation::{self, Presenter},
        tokens::{
            self, PresentedToken, TokenRequest,
            delegation::{self, Exchange},
            introspection::{self, Active},
            revocation,
        },
    },
    telemetry::traces,
    web::{
        api::tokens::live_tokens::TokensEnded,
        request::{authorization::Authorization, dpop},
    },
};

type Shared = State<Arc<Services>>;

/// Token types (RFC 8693 §3).
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// An access token (RFC 6749 section 5.1).
#[derive(Serialize, ToSchema)]
#[schema(as = OAuthToken)]
pub struct TokenBody {
    /// The access token, a JWT in the profile of RFC 9068.
    access_token: String,
    /// Always `urn:ietf:params:oauth:token-type:access_token`. Only in the response to a token exchange (RFC 8693
    /// section 2.2.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_token_type: Option<&'static str>,
    /// `DPoP` if the token is bound to the key of the request's DPoP proof (RFC 9449), otherwise `Bearer`.
    token_type: &'static str,
    /// Lifetime of the token in seconds.
    expires_in: i64,
    /// The capabilities in the token, separated by spaces. Omitted if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

/// A request for an access token.
#[derive(Deserialize, ToSchema)]
pub struct TokenForm {
    /// `client_credentials`, `urn:ietf:params:oauth:grant-type:jwt-bearer` or
    /// `urn:ietf:params:oauth:grant-type:token-exchange`.
    #[schema(value_type = String, required)]
    grant_type: Option<String>,
    /// The requested capabilities, separated by spaces, at most 100. Each must be registered and available to the
    /// client. By default the token carries all that are available.
    scope: Option<String>,
    /// Identifier of the protected resource that the token is for (RFC 8707). The default is AIMS itself.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    resource: Vec<String>,
    /// Same as `resource` (RFC 8693 section 2.1). If both are present, they must name the same resource.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    audience: Vec<String>,
    /// Maximum lifetime of the token in seconds.
    #[schema(value_type = Option<u64>, minimum = 1)]
    expires_in: Option<String>,
    /// ID of the only agent that may act on behalf of the token's subject (RFC 8693 section 4.4). By default every
    /// delegate may.
    may_act: Option<String>,
    /// For `jwt-bearer`: a token in which a trusted issuer identifies the agent.
    assertion: Option<String>,
    /// For a token exchange: an access token of the agent to act on behalf of.
    subject_token: Option<String>,
    /// For a token exchange: `urn:ietf:params:oauth:token-type:access_token`.
    subject_token_type: Option<String>,
    /// For a token exchange: an access token for AIMS that identifies the actor. The default actor is the client.
    actor_token: Option<String>,
    /// Together with an `actor_token`: `urn:ietf:params:oauth:token-type:access_token`.
    actor_token_type: Option<String>,
    /// For a token exchange: `urn:ietf:params:oauth:token-type:access_token`, which is also the default.
    requested_token_type: Option<String>,
    #[serde(flatten)]
    client: ClientForm,
}

/// Issue an access token
///
/// **Client credentials** (`client_credentials`, RFC 6749 section 4.4). The client is an agent. It authenticates with
/// one of its API keys as the client secret, sent by HTTP Basic or in the form, or with an assertion signed by a
/// registered key (`private_key_jwt`, RFC 7523): `iss` and `sub` are the agent's ID, `aud` is the issuer or the URL of
/// this endpoint, `exp` is at most one hour away, and each `jti` can be used once. The token's lifetime is limited by
/// the setting `JWT_EXPIRATION_MINUTES` and by the expiry of the key.
///
/// **JWT bearer** (`urn:ietf:params:oauth:grant-type:jwt-bearer`, RFC 7523 section 2.1). The assertion is a token of an
/// issuer that is trusted to identify the agent (see `/agents/{id}/federated-identities`). It replaces client
/// authentication. Send `client_id` if the assertion could identify several agents, which includes agents whose
/// issuer's keys cannot be fetched. The access token does not outlive the assertion. An assertion that is not accepted
/// yields `invalid_grant`. A client that authenticates anyway (RFC 7521 section 4.1) must be that agent or one of its
/// delegates; a delegate receives a token to act on behalf of the agent, as in a token exchange.
///
/// **Token exchange** (`urn:ietf:params:oauth:grant-type:token-exchange`, RFC 8693). A delegate of the agent in
/// `subject_token` receives a token to act on behalf of that agent. The actor is the agent in `actor_token`, or the
/// client without one; client authentication is optional with an `actor_token`. The new token carries only capabilities
/// that both agents hold, does not outlive either token, and lists the actors in `act`, at most `DELEGATION_DEPTH_MAX`
/// of them. It ends as soon as one of the tokens, credentials, agents or delegations it depends on does.
///
/// **DPoP** (RFC 9449). If the request has a proof in the header `DPoP` (ES256, Ed25519 or RS256), the token is bound
/// to the proof's key. A proof without the nonce from the header `DPoP-Nonce` is rejected with `use_dpop_nonce`.
#[utoipa::path(
    post, path = "/oauth/token", tag = "OAuth", operation_id = "token",
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The access token.", body = TokenBody),
        (status = 400, description = "A parameter, the scope, the resource or the grant is not valid.", body = ErrorBody),
        (status = 401, description = "Client authentication failed.", body = ErrorBody),
    )
)]
pub async fn token(
    State(services): Shared,
    origin: Origin,
    headers: HeaderMap,
    Form(form): Form<TokenForm>,
) -> Result<impl IntoResponse, OAuthFailure> {
    let grant_type = form.grant_type.as_deref();
    let is_exchange = grant_type == Some(TOKEN_EXCHANGE);
    // The token in these requests identifies the caller, so client authentication is optional.
    let is_client_optional = grant_type == Some(JWT_BEARER) || (is_exchange && form.actor_token.is_some());
    let proof =
        headers.contains_key(dpop::PROOF).then(|| dpop::proof(&services, &headers, &Method::POST, "/oauth/token"));
    if let Some(proof) = &proof {
        services.require_nonce(proof)?;
    }
    let credentials = ClientCredentials::new(Authorization::of(&headers), &form.client);
    let client = if is_client_optional && !credentials.attempt_authentication() {
        None
    } else {
        Some(traces::Span::stage("policy").run(credentials.authenticate(&services, &origin)).await?)
    };
    let identified = if grant_type == Some(JWT_BEARER) {
        let assertion = required("assertion", form.assertion.as_deref())?;
        let client_id = credentials.client_id()?;
        let presenter = client.as_ref().map_or(Presenter::Named(client_id), Presenter::Client);
        let authenticating = federation::authenticate(&services, &origin, presenter, assertion);
        Some(traces::Span::stage("policy").run(authenticating).await?)
    } else {
        None
    };
    let wanted = TokenRequest { proof, ..form.wanted()? };
    let issued = match (grant_type, &client, &identified) {
        (Some("client_credentials"), Some(client), _) => {
            tokens::client_credentials(&services, &origin, client, &wanted).await?
        }
        (Some(JWT_BEARER), client, Some(identified)) => {
            delegation::by_assertion(&services, &origin, client.as_ref(), identified, &wanted).await?
        }
        (Some(TOKEN_EXCHANGE), client, _) => {
            delegation::exchange(&services, &origin, client.as_ref(), form.exchange()?, &wanted).await?
        }
        (None, ..) => return Err(invalid("The parameter grant_type is missing".to_owned())),
        _ => return Err(TokenRefusal::UnsupportedGrantType.into()),
    };
    let body = TokenBody {
        access_token: issued.access_token.expose_secret().to_owned(),
        issued_token_type: is_exchange.then_some(ACCESS_TOKEN),
        token_type: if issued.is_bound { "DPoP" } else { "Bearer" },
        expires_in: issued.expires_in,
        scope: issued.scope.to_scope(),
    };
    Ok((NO_STORE, Json(body)))
}

impl TokenForm {
    fn wanted(&self) -> Result<TokenRequest, OAuthFailure> {
        let life = self.expires_in.as_ref().map(|text| {
            let seconds = text.parse().ok().filter(|&seconds: &u64| seconds > 0);
            seconds.ok_or_else(|| invalid("expires_in must be a positive number of seconds".to_owned()))
        });
        let may_act = self
            .may_act
            .as_ref()
            .map(|text| AgentId::parse(text).ok_or_else(|| invalid("may_act must be the ID of an agent".to_owned())));
        Ok(TokenRequest {
            scope: self.scope.clone(),
            resource: self.target()?.map(str::to_owned),
            life: life.transpose()?.map(Duration::from_secs),
            may_act: may_act.transpose()?,
            proof: None,
        })
    }

    /// Returns the resource that the token is for. All values must be equivalent, because a token for several resources
    /// would be valid at each of them.
    fn target(&self) -> Result<Option<&str>, OAuthFailure> {
        let mut targets = self.resource.iter().chain(&self.audience).map(String::as_str);
        let first = targets.next();
        if targets.all(|other| first.is_some_and(|first| uri::are_equivalent(first, other))) {
            Ok(first)
        } else {
            Err(TokenRefusal::InvalidTarget("A token can be for only one resource").into())
        }
    }

    /// Returns the tokens to exchange. Each is an access token, and access tokens are JWTs.
    fn exchange(&self) -> Result<Exchange<'_>, OAuthFailure> {
        for (name, value, allowed) in [
            ("subject_token_type", &self.subject_token_type, [ACCESS_TOKEN, JWT].as_slice()),
            ("actor_token_type", &self.actor_token_type, [ACCESS_TOKEN, JWT].as_slice()),
            ("requested_token_type", &self.requested_token_type, [ACCESS_TOKEN].as_slice()),
        ] {
            if value.as_deref().is_some_and(|value| !allowed.contains(&value)) {
                return Err(invalid(format!("The {name} must be {ACCESS_TOKEN}")));
            }
        }
        required("subject_token_type", self.subject_token_type.as_deref())?;
        if self.actor_token.is_some() != self.actor_token_type.is_some() {
            return Err(invalid("An actor_token requires an actor_token_type and vice versa".to_owned()));
        }
        let subject_token = required("subject_token", self.subject_token.as_deref())?;
        Ok(Exchange { subject_token, actor_token: self.actor_token.as_deref() })
    }
}

/// A request about an access token.
#[derive(Deserialize, ToSchema)]
#[schema(as = AccessTokenForm)]
pub struct AccessTokenForm {
    /// The access token.
    #[schema(value_type = String, required)]
    token: Option<String>,
    /// Ignored, because all tokens are access tokens.
    #[serde(rename = "token_type_hint")]
    _token_type_hint: Option<String>,
    #[serde(flatten)]
    client: ClientForm,
}

/// The state of an access token (RFC 7662 section 2.2).
#[derive(Default, Serialize, ToSchema)]
#[schema(as = Introspection)]
pub struct IntrospectionBody {
    /// True if the token is valid now. If it is not, all other members are omitted.
    active: bool,
    /// The capabilities in the token that its agents still hold, separated by spaces. Omitted if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// ID of the agent that obtained the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    /// ID of the agent whose authority the token carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    /// The agent that acts on behalf of the subject. A nested `act` is an earlier actor (RFC 8693 section 4.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    act: Option<Actor>,
    /// The only agent that may act on behalf of the subject (RFC 8693 section 4.4).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    may_act: Option<MayAct>,
    /// The resource that the token is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    /// The public URL of AIMS.
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    /// When the token expires, in seconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    /// When the token was issued, in seconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    /// ID of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    /// `DPoP` if the token is bound to a key, otherwise `Bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    /// The key that the token is bound to: `jkt` is its thumbprint (RFC 9449 section 6.1).
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

/// Introspect an access token
///
/// Returns the current state of the token (RFC 7662). A token is inactive once it has expired or been revoked, and as
/// soon as its agent is suspended or revoked or its credential ends. The caller needs `tokens:introspect` and sends an
/// access token or authenticates as a client, as at the token endpoint.
#[utoipa::path(
    post, path = "/oauth/introspect", tag = "OAuth", operation_id = "introspect",
    request_body(content = AccessTokenForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The state of the token.", body = IntrospectionBody),
        (status = 400, description = "The request is not valid.", body = ErrorBody),
        (status = 401, description = "Authentication failed.", body = ErrorBody),
        (status = 403, description = "The caller lacks the capability `tokens:introspect`.", body = ErrorBody),
    )
)]
pub async fn introspect(
    State(services): Shared,
    origin: Origin,
    headers: HeaderMap,
    Form(form): Form<AccessTokenForm>,
) -> Result<impl IntoResponse, OAuthFailure> {
    let authorization = Authorization::of(&headers);
    let caller = if authorization.is_token() {
        let presented = authorization.token(&services, &headers, &Method::POST, "/oauth/introspect");
        let presented = presented.unwrap_or(PresentedToken { token: "", proof: None });
        tokens::authenticate(&services, origin, presented).await?
    } else {
        let client = ClientCredentials::new(authorization, &form.client).authenticate(&services, &origin).await?;
        client.into_caller(origin)
    };
    let found = introspection::introspect(&services, &caller, required("token", form.token.as_deref())?).await?;
    Ok((NO_STORE, Json(found.map(IntrospectionBody::from).unwrap_or_default())))
}

/// Revoke an access token
///
/// Revokes one of the client's own tokens and all tokens derived from it (RFC 7009). Revoking a token that is no longer
/// active succeeds. To revoke all tokens of an agent, use `POST /agents/{id}/revoke-tokens`.
#[utoipa::path(
    post, path = "/oauth/revoke", tag = "OAuth", operation_id = "revoke_token",
    request_body(content = AccessTokenForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The token and all tokens derived from it are inactive.", body = TokensEnded),
        (status = 400, description = "The request is not valid, or the token belongs to another client.", body = ErrorBody),
        (status = 401, description = "Client authentication failed.", body = ErrorBody),
    )
)]
pub async fn revoke(
    State(services): Shared,
    origin: Origin,
    headers: HeaderMap,
    Form(form): Form<AccessTokenForm>,
) -> Result<impl IntoResponse, OAuthFailure> {
    let credentials = ClientCredentials::new(Authorization::of(&headers), &form.client);
    let client = credentials.authenticate(&services, &origin).await?;
    let token = required("token", form.token.as_deref())?;
    let tokens_ended = revocation::revoke(&services, &origin, &client, token).await?;
    Ok((NO_STORE, Json(TokensEnded { tokens_ended })))
}

/// Request authorization (not supported)
///
/// AIMS has no interactive grants yet. Every request is rejected with `unsupported_response_type` (RFC 6749 section
/// 4.1.2.1) and never redirected to a `redirect_uri`.
#[utoipa::path(
    get, path = "/oauth/authorize", tag = "OAuth", operation_id = "authorize",
    responses((status = 400, description = "The response type is not supported.", body = ErrorBody))
)]
pub async fn authorize() -> Response {
    OAuthFailure::from(TokenRefusal::UnsupportedResponseType).into_response()
}
