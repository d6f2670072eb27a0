//! Whether the schema of a running service is the one that it knows. On PostgreSQL another node may migrate it.

use sqlx::migrate::Migrator;

use super::{Conn, dispatch, postgres, sqlite};
use crate::domain::Result;

/// Returns what is wrong with the schema; `None` if all migrations of this version of AIMS are applied and no other.
///
/// # Errors
/// When the database fails.
pub async fn schema_problem(mut conn: Conn<'_>) -> Result<Option<String>> {
    const APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
    let known = match &conn {
        Conn::Sqlite(_) => &sqlite::MIGRATIONS,
        Conn::Postgres(_) => &postgres::MIGRATIONS,
    };
    if is_being_migrated(&mut conn).await? {
        return Ok(Some("another node is migrating the database".to_owned()));
    }
    let applied: Vec<i64> = dispatch!(conn, |c| sqlx::query_scalar(APPLIED).fetch_all(c).await)?;
    Ok(difference(known, &applied))
}

fn difference(known: &Migrator, applied: &[i64]) -> Option<String> {
    let mut known: Vec<_> = known.iter().map(|migration| migration.version).collect();
    known.sort_unstable();
    let newer = applied.iter().find(|version| !known.contains(version));
    let missing = known.iter().find(|version| !applied.contains(version));
    let newer =
        newer.map(|version| format!("a newer version of AIMS has applied migration {version}; upgrade this node"));
    newer.or_else(|| missing.map(|version| format!("migration {version} is not applied; restart this node")))
}

/// Returns true if another node holds the lock that it takes to migrate.
async fn is_being_migrated(conn: &mut Conn<'_>) -> Result<bool> {
    // A lock of 64 bits appears as two halves.
    const SQL: &str = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted \
        AND mode = 'ExclusiveLock' \
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
        AND objid = (hashtext('aims_migrations')::BIGINT & 4294967295)::OID)";
    match conn.reborrow() {
        Conn::Sqlite(_) => Ok(false),
        conn @ Conn::Postgres(_) => Ok(dispatch!(conn, |c| sqlx::query_scalar(SQL).fetch_one(c).await)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_differs_if_a_migration_is_missing_or_unknown() {
        for known in [&sqlite::MIGRATIONS, &postgres::MIGRATIONS] {
            let mut applied: Vec<_> = known.iter().map(|migration| migration.version).collect();
            assert_eq!(difference(known, &applied), None);
            applied.push(9_999);
            assert!(difference(known, &applied).unwrap().contains("migration 9999; upgrade this node"));
            applied.pop();
            let last = applied.pop().unwrap();
            assert!(difference(known, &applied).unwrap().contains(&format!("migration {last} is not applied")));
        }
    }
}
