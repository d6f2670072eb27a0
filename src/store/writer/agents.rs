//! Data about agents that is derived once per transaction: the count per status, and the text index.

use std::collections::BTreeMap;

use crate::{
    domain::AgentStatus,
    store::db::{Conn, execute},
};

/// Statements that bring SQLite's text index up to date once 64 changed agents are waiting. Indexing one agent costs as
/// much as indexing several, and leaves a segment that SQLite must merge. PostgreSQL updates its index itself.
pub(super) const INDEX_TEXT: &str = "\
    DELETE FROM agents_text WHERE rowid IN (SELECT number FROM agents_to_index) \
    AND (SELECT COUNT(*) FROM agents_to_index) >= 64; \
    INSERT INTO agents_text (rowid, name, owner, description) SELECT a.number, a.name, a.owner, a.description \
    FROM agents_to_index i CROSS JOIN agents a WHERE a.number = i.number \
    AND (SELECT COUNT(*) FROM agents_to_index) >= 64; \
    DELETE FROM agents_to_index WHERE (SELECT COUNT(*) FROM agents_to_index) >= 64; ";

/// Updates the number of agents per status, so that no page has to count them.
pub(super) async fn save_counts(mut conn: Conn<'_>, counted: &[(AgentStatus, i64)]) -> sqlx::Result<()> {
    const SQL: &str = "UPDATE agent_counts SET agents = agents + $2 WHERE status = $1";
    let mut sums = BTreeMap::new();
    for (status, by) in counted {
        *sums.entry(status.as_str()).or_insert(0) += by;
    }
    for (status, by) in sums {
        execute!(&mut conn, sqlx::query(SQL).bind(status).bind(by))?;
    }
    Ok(())
}
