//! Names for audit records: of API keys, and of agents that were deleted.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, QueryBuilder};
use uuid::Uuid;

use super::{
    index::{self, DESCRIBED, RUN},
    terms::{Described, VERSION},
};
use crate::{
    domain::{AgentId, ApiKeyId, Result},
    store::{
        db::{Conn, dispatch},
        even_chunks,
    },
};

/// Records after the last indexed run that are searched for deletions at most.
const SCANNED: i64 = 4 * RUN;

/// The name of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyName {
    /// The agent that the key belongs to.
    pub agent: AgentId,
    /// The first characters of the secret.
    pub prefix: String,
    /// The name.
    pub name: String,
}

impl KeyName {
    /// Returns the name with the characters that the secret begins with.
    #[must_use]
    pub fn label(&self) -> String {
        if self.name.is_empty() { format!("{}…", self.prefix) } else { format!("{} ({}…)", self.name, self.prefix) }
    }
}

/// Returns the names of those of these keys that exist.
///
/// # Errors
/// When the database fails.
pub async fn keys(mut conn: Conn<'_>, ids: &[ApiKeyId]) -> Result<HashMap<ApiKeyId, KeyName>> {
    let mut names = HashMap::with_capacity(ids.len());
    for chunk in even_chunks(ids) {
        let rows: Vec<(Uuid, Uuid, String, String)> = dispatch!(&mut conn, |c| {
            let mut query = QueryBuilder::new("SELECT id, agent_id, key_prefix, name FROM api_keys WHERE id IN (");
            let mut list = query.separated(", ");
            for id in chunk {
                list.push_bind(id.0);
            }
            query.push(")").build_query_as().fetch_all(c).await
        })?;
        let entry = |(id, agent, prefix, name)| (ApiKeyId(id), KeyName { agent: AgentId(agent), prefix, name });
        names.extend(rows.into_iter().map(entry));
    }
    Ok(names)
}

/// Returns the key whose secret begins with these characters.
///
/// # Errors
/// When the database fails.
pub async fn key_by_prefix(conn: Conn<'_>, prefix: &str) -> Result<Option<ApiKeyId>> {
    const SQL: &str = "SELECT id FROM api_keys WHERE key_prefix = $1 ORDER BY id DESC LIMIT 1";
    let found: Option<Uuid> = dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(prefix).fetch_optional(c).await)?;
    Ok(found.map(ApiKeyId))
}

/// Returns the last names of those of these agents that were deleted.
///
/// # Errors
/// When the database fails.
pub async fn deleted(mut conn: Conn<'_>, ids: &[Uuid]) -> Result<HashMap<Uuid, String>> {
    let mut names = HashMap::new();
    for chunk in even_chunks(ids) {
        let rows: Vec<(Uuid, String)> = dispatch!(&mut conn, |c| {
            let mut query = QueryBuilder::new("SELECT id, name FROM audit_names WHERE id IN (");
            let mut list = query.separated(", ");
            for id in chunk {
                list.push_bind(*id);
            }
            query.push(")").build_query_as().fetch_all(c).await
        })?;
        names.extend(rows);
    }
    if ids.iter().any(|id| !names.contains_key(id)) {
        names.extend(recently_deleted(conn).await?);
    }
    Ok(names)
}

/// Returns the names of agents whose deletion is not indexed yet.
async fn recently_deleted(mut conn: Conn<'_>) -> Result<Vec<(Uuid, String)>> {
    let indexed = index::indexed(conn.reborrow(), VERSION).await?;
    let after = (indexed * RUN).max(super::head(conn.reborrow()).await?.seq - SCANNED);
    let sql = format!("{DESCRIBED} WHERE seq > $1 AND action = 'agent.deleted'");
    let records: Vec<Described> =
        dispatch!(conn, |c| sqlx::query_as(AssertSqlSafe(sql)).bind(after).fetch_all(c).await)?;
    Ok(records.iter().filter_map(index::deleted).collect())
}
