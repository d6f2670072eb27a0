//! Delegated tokens, by which one agent acts on behalf of another, with their chains. Rows are kept until the token
//! expires.

use std::collections::HashMap;

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    domain::{
        AgentId, ApiKeyId, DelegationId, Error, FederatedIdentityId, PublicKeyId, Result, Timestamp, TokenId,
        audit::Resource,
        token::{Acting, Credential, DelegatedToken, Link},
    },
    store::{
        db::{Conn, dispatch, execute},
        stored,
    },
};

#[derive(FromRow)]
struct LinkRow {
    agent_id: Uuid,
    credential_type: String,
    credential_id: Uuid,
    token_epoch: i64,
    presented: Option<Uuid>,
    delegation_id: Option<Uuid>,
    obtained: Option<Uuid>,
}

impl TryFrom<LinkRow> for Link {
    type Error = Error;

    fn try_from(row: LinkRow) -> Result<Self> {
        let credential = match row.credential_type.as_str() {
            "api_key" => Some(Credential::ApiKey(ApiKeyId(row.credential_id))),
            "federated_identity" => Some(Credential::FederatedIdentity(FederatedIdentityId(row.credential_id))),
            "public_key" => Some(Credential::PublicKey(PublicKeyId(row.credential_id))),
            _ => None,
        };
        let acting = row.delegation_id.zip(row.obtained);
        Ok(Self {
            agent: AgentId(row.agent_id),
            credential: stored("type of credential", credential.ok_or(()))?,
            token_epoch: row.token_epoch,
            presented: row.presented.map(TokenId),
            acting: acting.map(|(delegation, obtained)| Acting {
                delegation: DelegationId(delegation),
                obtained: TokenId(obtained),
            }),
        })
    }
}

/// A link of a chain, with its token.
#[derive(FromRow)]
struct LinkOfRow {
    jti: Uuid,
    #[sqlx(flatten)]
    link: LinkRow,
}

#[derive(FromRow)]
struct TokenRow {
    jti: Uuid,
    audience: String,
    issued_at: i64,
    expires_at: i64,
}

/// Inserts a token and its chain.
///
/// # Errors
/// If the database fails.
pub async fn insert(mut conn: Conn<'_>, token: &DelegatedToken) -> Result<()> {
    const TOKEN: &str = "INSERT INTO delegated_tokens (jti, audience, issued_at, expires_at) VALUES ($1, $2, $3, $4)";
    const LINK: &str = "INSERT INTO delegated_token_links (jti, place, agent_id, credential_type, credential_id, \
        token_epoch, presented, delegation_id, obtained) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    execute!(
        &mut conn,
        sqlx::query(TOKEN)
            .bind(token.jti.0)
            .bind(&token.audience)
            .bind(token.issued_at.as_micros())
            .bind(token.expires_at.as_micros())
    )?;
    for (place, link) in (0_i64..).zip(&token.links) {
        let credential = match link.credential {
            Credential::ApiKey(id) => id.0,
            Credential::PublicKey(id) => id.0,
            Credential::FederatedIdentity(id) => id.0,
        };
        execute!(
            &mut conn,
            sqlx::query(LINK)
                .bind(token.jti.0)
                .bind(place)
                .bind(link.agent.0)
                .bind(Resource::from(link.credential).kind())
                .bind(credential)
                .bind(link.token_epoch)
                .bind(link.presented.map(|token| token.0))
                .bind(link.acting.map(|acting| acting.delegation.0))
                .bind(link.acting.map(|acting| acting.obtained.0))
        )?;
    }
    Ok(())
}

/// Returns the chain of a token, the subject first. It is empty if there is no such token.
///
/// # Errors
/// If the database fails.
pub async fn links(conn: Conn<'_>, token: TokenId) -> Result<Vec<Link>> {
    const SQL: &str = "SELECT agent_id, credential_type, credential_id, token_epoch, presented, delegation_id, obtained \
        FROM delegated_token_links WHERE jti = $1 ORDER BY place";
    let rows: Vec<LinkRow> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(token.0).fetch_all(c).await)?;
    rows.into_iter().map(Link::try_from).collect()
}

/// Returns at most `most` unexpired tokens whose chain contains the agent, newest first.
///
/// # Errors
/// If the database fails.
pub async fn through(mut conn: Conn<'_>, agent: AgentId, now: Timestamp, most: usize) -> Result<Vec<DelegatedToken>> {
    const TOKENS: &str = "SELECT t.jti, t.audience, t.issued_at, t.expires_at FROM delegated_token_links m \
        JOIN delegated_tokens t ON t.jti = m.jti WHERE m.agent_id = $1 AND t.expires_at > $2 \
        ORDER BY t.issued_at DESC, t.jti LIMIT +$3";
    const LINKS: &str = "SELECT l.* FROM delegated_token_links l JOIN (SELECT t.jti FROM delegated_token_links m \
        JOIN delegated_tokens t ON t.jti = m.jti WHERE m.agent_id = $1 AND t.expires_at > $2 \
        ORDER BY t.issued_at DESC, t.jti LIMIT +$3) found ON found.jti = l.jti ORDER BY l.jti, l.place";
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let now = now.as_micros();
    let rows: Vec<TokenRow> =
        dispatch!(&mut conn, |c| sqlx::query_as(TOKENS).bind(agent.0).bind(now).bind(most).fetch_all(c).await)?;
    let links: Vec<LinkOfRow> =
        dispatch!(&mut conn, |c| sqlx::query_as(LINKS).bind(agent.0).bind(now).bind(most).fetch_all(c).await)?;
    let mut chains: HashMap<Uuid, Vec<Link>> = HashMap::new();
    for row in links {
        chains.entry(row.jti).or_default().push(row.link.try_into()?);
    }
    Ok(rows
        .into_iter()
        .map(|row| DelegatedToken {
            jti: TokenId(row.jti),
            audience: row.audience,
            issued_at: Timestamp::from_micros(row.issued_at),
            expires_at: Timestamp::from_micros(row.expires_at),
            links: chains.remove(&row.jti).unwrap_or_default(),
        })
        .collect())
}

/// Deletes at most `most` tokens that have expired at `now`. Returns how many were deleted.
///
/// # Errors
/// If the database fails.
pub async fn forget_expired(conn: Conn<'_>, now: Timestamp, most: i64) -> Result<u64> {
    const SQL: &str = "DELETE FROM delegated_tokens WHERE jti IN \
        (SELECT jti FROM delegated_tokens WHERE expires_at <= $1 ORDER BY expires_at LIMIT +$2)";
    Ok(execute!(conn, sqlx::query(SQL).bind(now.as_micros()).bind(most))?)
}
