//! The access tokens of an agent, as far as they count, on the wire.

use axum::{
    Json,
    extract::{OriginalUri, Path, State},
    response::Response,
};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

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
            paging::{self, DEFAULT_LIMIT, parse_cursor},
        },
        failure::Failure,
        guard::Authorized,
        request::{
            extract::{FromQuery, Query},
            fields::Fields,
        },
    },
};

/// Revoke all access tokens of an agent
///
/// They end at once; its keys stay and are exchanged for new ones.
#[utoipa::path(
    post, path = "/agents/{id}/revoke-tokens", tag = "Agents", operation_id = "revoke_agent_tokens",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "How many tokens ended.", body = TokensEnded),
        (status = 404, description = "There is no such agent."),
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

/// What a revocation of tokens did.
#[derive(Serialize, ToSchema)]
pub struct TokensEnded {
    /// How many tokens counted until then, with those that descend from them. There may have been more than 1,000, and more than
    /// are found among the 2,000 that the agent was issued last.
    pub tokens_ended: usize,
}

/// An access token of an agent that counts.
#[derive(Serialize, ToSchema)]
#[schema(as = LiveToken)]
pub struct LiveTokenBody {
    /// Its identifier.
    #[schema(value_type = String)]
    jti: TokenId,
    /// Who it is for.
    aud: String,
    /// When it was issued.
    #[schema(value_type = String, format = DateTime)]
    issued_at: Timestamp,
    /// When it expires.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// The API key that it was issued for.
    #[schema(value_type = Option<String>)]
    key_id: Option<ApiKeyId>,
    /// The public key that it was issued for instead.
    #[schema(value_type = Option<String>)]
    public_key_id: Option<PublicKeyId>,
    /// The federated identity at whose word it was issued instead.
    #[schema(value_type = Option<String>)]
    federated_identity_id: Option<FederatedIdentityId>,
    /// The address that it was issued to.
    ip_address: Option<String>,
    /// The agent whose authority it carries.
    #[schema(value_type = String)]
    sub: AgentId,
    /// Who acts for that agent, and within it who did so before (RFC 8693 section 4.1); null where nobody does.
    #[schema(value_type = Option<Object>)]
    act: Option<Actor>,
    /// The tokens that descend from it and count: made by exchanges of it, or of one that was. At most 1,000.
    descendants: Vec<DescendantBody>,
}

/// A token that was made of another.
#[derive(Serialize, ToSchema)]
#[schema(as = Descendant)]
pub struct DescendantBody {
    /// Its identifier.
    #[schema(value_type = String)]
    jti: TokenId,
    /// Who it is for.
    aud: String,
    /// When it was issued.
    #[schema(value_type = String, format = DateTime)]
    issued_at: Timestamp,
    /// When it expires.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// The agent whose authority it carries.
    #[schema(value_type = Option<String>)]
    sub: Option<AgentId>,
    /// Who acts for that agent, and within it who did so before.
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

/// Which tokens to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query; `Listing` is what it is read into")]
pub struct ListTokens {
    /// Items looked at for a page.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u16>,
    /// Where the page starts: taken from the `Link` of the page before.
    #[param(pattern = "^([1-9][0-9]{0,17})?$")]
    cursor: Option<String>,
}

/// A listing of tokens as asked for.
pub struct Listing {
    limit: Limit,
    before: Option<i64>,
}

impl FromQuery for Listing {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            limit: fields.chosen("limit", Limit::parse).unwrap_or(DEFAULT_LIMIT),
            before: fields.optional("cursor", parse_cursor),
        })
    }
}

/// List the access tokens of an agent that count
///
/// Newest first, page by page: `Link` with `rel="next"` (RFC 8288) leads on, also from a page with few tokens or none.
#[utoipa::path(
    get, path = "/agents/{id}/tokens", tag = "Agents", operation_id = "list_agent_tokens",
    params(("id" = String, Path), ListTokens),
    responses(
        (status = 200, description = "The tokens.", body = [LiveTokenBody]),
        (status = 404, description = "There is no such agent."),
        (status = 422, description = "A parameter is not valid."),
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
