//! Names that a reader may confuse.

use super::db::{Conn, on};
use crate::domain::Result;

/// What has a unique name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Agents.
    Agent,
    /// Capabilities.
    Capability,
    /// Administrators, by their usernames.
    Administrator,
}

/// The shape of a name, which is equal for names that differ only in case or in characters that are easily confused. It covers
/// the ASCII part of the confusables of UTS 39: `0` and `O`; `1`, `I`, `|` and `l`; a backquote and an apostrophe; `m` and `rn`.
/// The indexes of migration 12 hold the same expression, word for word, or they would not be used. Administrators are few and need
/// none.
macro_rules! shape {
    ($name:literal) => {
        concat!(
            "REPLACE(REPLACE(REPLACE(REPLACE(REPLACE(LOWER(REPLACE(",
            $name,
            ", 'I', 'l')), '1', 'l'), '|', 'l'), '0', 'o'), '`', ''''), 'm', 'rn')"
        )
    };
}

/// Two queries instead of one with OR: without statistics of the new indexes PostgreSQL would read the whole table.
macro_rules! similar {
    ($table:literal, $name:literal) => {
        concat!(
            concat!("SELECT ", $name, " FROM ", $table, " WHERE LOWER(", $name, ") = $2 AND ", $name, " <> $1"),
            " UNION ALL ",
            concat!("SELECT ", $name, " FROM ", $table, " WHERE ", shape!($name), " = ", shape!("$1")),
            concat!(" AND ", $name, " <> $1")
        )
    };
}

/// Another name in use that a reader may confuse with `name`: they differ only in case, or have the same shape.
///
/// # Errors
/// When the database fails.
pub async fn similar(conn: Conn<'_>, named: Named, name: &str) -> Result<Option<String>> {
    let sql = match named {
        Named::Agent => similar!("agents", "name"),
        Named::Capability => similar!("capabilities", "name"),
        Named::Administrator => similar!("administrators", "username"),
    };
    let lower = name.to_ascii_lowercase();
    Ok(on!(conn, |c| sqlx::query_scalar(sql).bind(name).bind(lower).fetch_optional(c).await?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_indexes_hold_the_expression_that_is_asked_for() {
        let migrations = [
            include_str!("../../migrations/sqlite/0012_names.sql"),
            include_str!("../../migrations/postgres/0012_names.sql"),
        ];
        for migration in migrations {
            assert_eq!(migration.matches(shape!("name")).count(), 2);
        }
    }
}
