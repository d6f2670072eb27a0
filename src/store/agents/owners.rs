//! The owners of agents, for suggestions.

use crate::{
    domain::{Limit, Result},
    store::db::{
        Conn, dispatch,
        sql::{Sql, run},
    },
};

/// Returns at most `limit` owners that start with `prefix`, sorted. Costs one index lookup per owner, however many
/// agents each owns.
///
/// # Errors
/// If the database fails.
pub async fn owners(conn: Conn<'_>, prefix: &str, limit: Limit) -> Result<Vec<String>> {
    const SQL: &str = "WITH RECURSIVE known (owner) AS (\
        SELECT MIN(owner) FROM agents WHERE owner >= $1 UNION ALL \
        SELECT (SELECT MIN(a.owner) FROM agents a WHERE a.owner > known.owner) FROM known \
            WHERE known.owner IS NOT NULL) \
        SELECT owner FROM known WHERE owner IS NOT NULL LIMIT +$2";
    let owners: Vec<String> =
        dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(prefix).bind(i64::from(limit.get())).fetch_all(c).await)?;
    Ok(owners.into_iter().take_while(|owner| owner.starts_with(prefix)).collect())
}

/// Counts the agents of each of these owners, up to `most` for each.
///
/// # Errors
/// If the database fails.
pub async fn count_owned(conn: Conn<'_>, owners: &[String], most: i64) -> Result<Vec<i64>> {
    if owners.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::default();
    for (number, owner) in owners.iter().enumerate() {
        sql.push(if number == 0 { "SELECT agents FROM (" } else { " UNION ALL " }).push("SELECT ");
        sql.bind(i64::try_from(number).unwrap_or(i64::MAX)).push(" AS place, (SELECT COUNT(*) FROM (");
        sql.push("SELECT 1 FROM agents WHERE owner = ").bind(owner.as_str()).limit(most).push(") AS owned) AS agents");
    }
    sql.push(") AS counted ORDER BY place");
    Ok(run!(conn, sqlx::query_scalar, sql, fetch_all)?)
}
