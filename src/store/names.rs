//! Names that are easily confused.

use super::db::{Conn, dispatch};
use crate::domain::Result;

/// The kinds of things with unique names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Agents.
    Agent,
    /// Capabilities.
    Capability,
    /// Administrators and their usernames.
    Administrator,
}

/// The skeleton of a name (UTS 39). Names have the same skeleton if they differ only in case or in characters that look
/// alike. It covers the ASCII characters: `0` and `O`; `1`, `I`, `|` and `l`; a backquote and an apostrophe; `m` and
/// `rn`.
///
/// The expression must be the same as in the indexes of migration 12, or the indexes are not used. Administrators are
/// few and need no index.
macro_rules! skeleton {
    ($name:literal) => {
        concat!(
            "REPLACE(REPLACE(REPLACE(REPLACE(REPLACE(LOWER(REPLACE(",
            $name,
            ", 'I', 'l')), '1', 'l'), '|', 'l'), '0', 'o'), '`', ''''), 'm', 'rn')"
        )
    };
}

/// Two queries instead of one with OR, because PostgreSQL would read the whole table until the indexes have statistics.
macro_rules! similar {
    ($table:literal, $name:literal) => {
        concat!(
            concat!("SELECT ", $name, " FROM ", $table, " WHERE LOWER(", $name, ") = $2 AND ", $name, " <> $1"),
            " UNION ALL ",
            concat!("SELECT ", $name, " FROM ", $table, " WHERE ", skeleton!($name), " = ", skeleton!("$1")),
            concat!(" AND ", $name, " <> $1")
        )
    };
}

/// Returns another name in use that is easily confused with `name`: it differs only in case, or has the same skeleton.
///
/// # Errors
/// If the database fails.
pub async fn similar(conn: Conn<'_>, named: Named, name: &str) -> Result<Option<String>> {
    let sql = match named {
        Named::Agent => similar!("agents", "name"),
        Named::Capability => similar!("capabilities", "name"),
        Named::Administrator => similar!("administrators", "username"),
    };
    let lower = name.to_ascii_lowercase();
    Ok(dispatch!(conn, |c| sqlx::query_scalar(sql).bind(name).bind(lower).fetch_optional(c).await)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn indexes_contain_the_expression_of_the_query() {
        let migrations = [
            include_str!("../../migrations/sqlite/0012_names.sql"),
            include_str!("../../migrations/postgres/0012_names.sql"),
        ];
        for migration in migrations {
            assert_eq!(migration.matches(skeleton!("name")).count(), 2);
        }
    }
}
