//! The endpoints for the active access tokens of an agent.

use axum::{
    Json,
    extract::{OriginalUri, Path, State},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{
        AgentId, ApiKeyId, FederatedIdentityId, Limit, PublicKeyId, Timestamp, TokenId,
        token::{Actor, Credential, DelegatedToken},
    },
    service::tokens::{
        live_tokens::{self, LiveToken},
        revocation,
    },
    web::{
        api::{
            Shared,
            agents::agent_id,
            paging::{self, DEFAULT_LIMIT},
        },
        failure::Failure,
        guard::Authorized,
        request::{
            extract::{FromQuery, Query},
            fields::Fields,
            schema::query_parameters,
        },
    },
};

/// Revoke all access tokens of an agent
///
/// Ends the tokens immediately. The agent's credentials remain valid and can be exchanged for new tokens.
#[utoipa::path(
    post, path = "/agents/{id}/revoke-tokens", tag = "Agents", operation_id = "revoke_agent_tokens",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The number of tokens that were revoked.", body = TokensEnded),
        (status = 404, description = "The agent does not exist."),
    )
)]
pub async fn revoke(
    State(services): Shared,
    caller: Authorized,
    Path(id): Path<String>,
) -> Result<Json<TokensEnded>, Failure> {
    let ended = revocation::revoke_all(&services, &caller, agent_id(&id)?).await?;
    Ok(Json(TokensEnded { tokens_ended: ended.tokens }))
}

/// The result of revoking tokens.
#[derive(Serialize, ToSchema)]
pub struct TokensEnded {
    /// Number of active tokens that were revoked, including derived tokens. Only the agent's 2,000 newest tokens and at
    /// most 1,000 derived tokens are counted, so the actual number may be higher.
    pub tokens_ended: usize,
}

/// An active access token of an agent.
#[derive(Serialize, ToSchema)]
#[schema(as = LiveToken)]
pub struct LiveTokenBody {
    /// ID of the token.
    #[schema(value_type = String)]
    jti: TokenId,
    /// The resource that the token is for.
    aud: String,
    /// When the token was issued.
    #[schema(value_type = String, format = DateTime)]
    issued_at: Timestamp,
    /// When the token expires.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// ID of the API key it was issued for. Null for other credentials.
    #[schema(value_type = Option<String>)]
    key_id: Option<ApiKeyId>,
    /// ID of the public key it was issued for. Null for other credentials.
    #[schema(value_type = Option<String>)]
    public_key_id: Option<PublicKeyId>,
    /// ID of the federated identity it was issued for. Null for other credentials.
    #[schema(value_type = Option<String>)]
    federated_identity_id: Option<FederatedIdentityId>,
    /// IP address it was issued to.
    ip_address: Option<String>,
    /// ID of the agent whose authority the token carries.
    #[schema(value_type = String)]
    sub: AgentId,
    /// The agent that acts on behalf of the subject. A nested `act` is an earlier actor (RFC 8693 section 4.1). Null
    /// without delegation.
    #[schema(value_type = Option<Object>)]
    act: Option<Actor>,
    /// Active tokens derived from this one by token exchange, directly or indirectly. At most 1,000.
    descendants: Vec<DescendantBody>,
}

/// A token that was derived from another by token exchange.
#[derive(Serialize, ToSchema)]
#[schema(as = Descendant)]
pub struct DescendantBody {
    /// ID of the token.
    #[schema(value_type = String)]
    jti: TokenId,
    /// The resource that the token is for.
    aud: String,
    /// When the token was issued.
    #[schema(value_type = String, format = DateTime)]
    issued_at: Timestamp,
    /// When the token expires.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// ID of the agent whose authority the token carries.
    #[schema(value_type = Option<String>)]
    sub: Option<AgentId>,
    /// The agent that acts on behalf of the subject. A nested `act` is an earlier actor.
    #[schema(value_type = Option<Object>)]
    act: Option<Actor>,
}

impl From<DelegatedToken> for DescendantBody {
    fn from(token: DelegatedToken) -> Self {
        let mut chain = token.links.iter().map(|link| link.agent);
        Self {
            jti: token.jti,
            aud: token.audience,
            issued_at: token.issued_at,
            expires_at: token.expires_at,
            sub: chain.next(),
            act: Actor::chain(chain),
        }
    }
}

impl From<LiveToken> for LiveTokenBody {
    fn from(token: LiveToken) -> Self {
        let (mut key_id, mut public_key_id, mut federated_identity_id) = (None, None, None);
        match token.credential {
            Credential::ApiKey(id) => key_id = Some(id),
            Credential::PublicKey(id) => public_key_id = Some(id),
            Credential::FederatedIdentity(id) => federated_identity_id = Some(id),
        }
        Self {
            jti: token.jti,
            aud: token.audience,
            issued_at: token.issued_at,
            expires_at: token.expires_at,
            key_id,
            public_key_id,
            federated_identity_id,
            ip_address: token.ip,
            sub: token.subject,
            act: Actor::chain(token.actors),
            descendants: token.descendants.into_iter().map(DescendantBody::from).collect(),
        }
    }
}

query_parameters!(Listing);

/// The query parameters of a listing.
pub struct Listing {
    limit: Limit,
    before: Option<i64>,
}

impl FromQuery for Listing {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self { limit: paging::read_limit(fields, DEFAULT_LIMIT), before: paging::read_cursor(fields) })
    }
}

/// List an agent's active access tokens
///
/// Returns the tokens, newest first, one page at a time. The header `Link` with `rel="next"` (RFC 8288) leads to the
/// next page. A page may have fewer tokens than `limit`, or none, and still have a next page.
#[utoipa::path(
    get, path = "/agents/{id}/tokens", tag = "Agents", operation_id = "list_agent_tokens",
    params(("id" = String, Path), Listing),
    responses(
        (status = 200, description = "The tokens.", body = [LiveTokenBody]),
        (status = 404, description = "The agent does not exist."),
        (status = 422, description = "A query parameter is not valid."),
    )
)]
pub async fn list(
    State(services): Shared,
    caller: Authorized,
    OriginalUri(uri): OriginalUri,
    Path(id): Path<String>,
    Query(Listing { limit, before }): Query<Listing>,
) -> Result<Response, Failure> {
    let page = live_tokens::list(&services, &caller, agent_id(&id)?, before, limit).await?;
    Ok(paging::respond(&uri, page, LiveTokenBody::from))
}
