//! Finds API keys of all agents by what people copy from a page or a log: the identifier, or the start of the key.

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    domain::{AgentId, AgentName, ApiKeyId, ApiKeyStatus, Error, Limit, Result},
    store::{
        db::{Conn, dispatch},
        stored,
    },
};

/// A key that was found, with the name of its agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundKey {
    /// Unique identifier.
    pub id: ApiKeyId,
    /// Agent that the key belongs to.
    pub agent_id: AgentId,
    /// Name of that agent.
    pub agent_name: AgentName,
    /// Name of the key.
    pub name: String,
    /// The first characters of the secret.
    pub key_prefix: String,
    /// Lifecycle status.
    pub status: ApiKeyStatus,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    agent_id: Uuid,
    agent_name: String,
    name: String,
    key_prefix: String,
    status: String,
}

impl TryFrom<Row> for FoundKey {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: ApiKeyId(row.id),
            agent_id: AgentId(row.agent_id),
            agent_name: stored("agent name", AgentName::parse(&row.agent_name))?,
            name: row.name,
            key_prefix: row.key_prefix,
            status: stored("API key status", ApiKeyStatus::parse(&row.status))?,
        })
    }
}

/// Returns the key with this identifier.
///
/// # Errors
/// If the database fails.
pub async fn by_id(conn: Conn<'_>, id: ApiKeyId) -> Result<Option<FoundKey>> {
    const SQL: &str = "SELECT k.id, k.agent_id, a.name AS agent_name, k.name, k.key_prefix, k.status \
        FROM api_keys k JOIN agents a ON a.id = k.agent_id WHERE k.id = $1";
    let row: Option<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(id.0).fetch_optional(c).await)?;
    row.map(FoundKey::try_from).transpose()
}

/// Returns the first keys whose shown part starts with `prefix`, which consists of ASCII letters, digits and `_`.
///
/// # Errors
/// If the database fails.
pub async fn by_prefix(conn: Conn<'_>, prefix: &str, limit: Limit) -> Result<Vec<FoundKey>> {
    // The inner query reads only as much of the index as the page needs.
    const SQL: &str = "SELECT k.id, k.agent_id, a.name AS agent_name, k.name, k.key_prefix, k.status FROM \
        (SELECT id, agent_id, name, key_prefix, status FROM api_keys WHERE key_prefix >= $1 AND key_prefix < $2 \
        ORDER BY key_prefix, id LIMIT +$3) AS k JOIN agents a ON a.id = k.agent_id ORDER BY k.key_prefix, k.id";
    // `~` is after every letter and digit.
    let end = format!("{prefix}~");
    let rows: Vec<Row> = dispatch!(conn, |c| sqlx::query_as(SQL)
        .bind(prefix)
        .bind(&end)
        .bind(i64::from(limit.get()))
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(FoundKey::try_from).collect()
}
