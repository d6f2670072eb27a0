//! Searching agents for a text with the trigram index (three characters in a row).

use uuid::Uuid;

use crate::{
    domain::Result,
    store::db::{
        Conn, dispatch,
        sql::{Sql, run},
    },
};

/// Up to this many candidates are checked one by one. If there are more, a listing is checked in its order.
const FEW: usize = 5_000;
/// Maximum number of trigrams to look up. Every match is checked against the whole text anyway.
const TRIGRAMS: usize = 24;

/// The numbers of the agents that may match a full-text query of SQLite, each once. Agents that are not indexed yet may
/// always match.
const CANDIDATES: &str = "SELECT number FROM agents_to_index UNION ALL SELECT rowid FROM agents_text \
    WHERE rowid NOT IN (SELECT number FROM agents_to_index) AND agents_text MATCH ";

/// The expression of PostgreSQL's index.
const POSTGRES_TEXT: &str = "((a.name || E'\\x01' || a.owner || E'\\x01' || a.description) COLLATE \"default\")";

/// The agents that may contain a text, according to the index.
pub(super) enum Candidates {
    /// These agents: a JSON array of SQLite's numbers, or PostgreSQL's identifiers separated by commas.
    Few(String),
    /// Too many to check one by one.
    Many,
    /// The text contains no trigram.
    Unknown,
}

/// Looks up the agents that may contain `text`.
pub(super) async fn candidates(mut conn: Conn<'_>, text: &str) -> Result<Candidates> {
    if !has_trigrams(conn.reborrow(), text).await? {
        return Ok(Candidates::Unknown);
    }
    let in_sqlite = matches!(conn, Conn::Sqlite(_));
    few(conn, |sql, _| {
        if in_sqlite {
            sql.push(CANDIDATES).bind(full_text(text).as_str());
        } else {
            sql.push("SELECT a.id FROM agents a WHERE ").push(POSTGRES_TEXT).push(" ILIKE ");
            sql.bind(pattern(text).as_str());
        }
    })
    .await
}

/// Returns the agents that a statement selects, if they are few. The statement gets the name of the column to select,
/// and may select other agents as well: each candidate is checked.
pub(super) async fn few(conn: Conn<'_>, select: impl FnOnce(&mut Sql, &str)) -> Result<Candidates> {
    let limit = i64::try_from(FEW).unwrap_or(i64::MAX).saturating_add(1);
    let mut sql = Sql::default();
    let (count, list) = if matches!(conn, Conn::Sqlite(_)) {
        select(&mut sql, "number");
        sql.limit(limit);
        let numbers: Vec<i64> = run!(conn, sqlx::query_scalar, sql, fetch_all)?;
        (numbers.len(), format!("{numbers:?}"))
    } else {
        select(&mut sql, "id");
        sql.limit(limit);
        let ids: Vec<Uuid> = run!(conn, sqlx::query_scalar, sql, fetch_all)?;
        (ids.len(), ids.iter().map(Uuid::to_string).collect::<Vec<_>>().join(","))
    };
    Ok(if count <= FEW { Candidates::Few(list) } else { Candidates::Many })
}

async fn has_trigrams(conn: Conn<'_>, text: &str) -> Result<bool> {
    const SQL: &str = "SELECT COALESCE(array_length(show_trgm($1), 1), 0) > 0";
    match conn {
        Conn::Sqlite(_) => Ok(text.chars().nth(2).is_some()),
        // PostgreSQL's trigrams consist of letters and digits.
        Conn::Postgres(_) => {
            let words = text.split(|c: char| !c.is_alphanumeric());
            let Some(word) = words.filter(|word| word.chars().nth(2).is_some()).max_by_key(|word| word.is_ascii())
            else {
                return Ok(false);
            };
            // Which other characters are letters depends on the locale of the database.
            Ok(word.is_ascii() || dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(word).fetch_one(c).await)?)
        }
    }
}

/// Returns a full-text query of SQLite for all trigrams of a text.
fn full_text(text: &str) -> String {
    let chars: Vec<_> = text.chars().collect();
    let trigrams = chars.windows(3).take(TRIGRAMS).map(String::from_iter);
    trigrams.map(|trigram| format!("\"{}\"", trigram.replace('"', "\"\""))).collect::<Vec<_>>().join(" AND ")
}

/// Adds the condition that the agent `a` contains `text` in its name, owner or description. With `by_index`, in a form
/// for which PostgreSQL can use its index.
pub(super) fn require_text(sql: &mut Sql, conn: &Conn<'_>, text: &str, by_index: bool) {
    let pattern = pattern(text);
    match conn {
        // Ignores the case of ASCII letters.
        Conn::Sqlite(_) => {
            for (prefix, column) in [(" AND (", "name"), (" OR ", "owner"), (" OR ", "description")] {
                // The plus sign as in `Sql::limit`.
                sql.push(prefix).push("a.").push(column).push(" LIKE +").bind(pattern.as_str()).push(" ESCAPE '\\'");
            }
            sql.push(")");
        }
        // Ignores the case of all letters that the database knows. Appending an empty text keeps the planner from using
        // the index where a scan in the order of the listing is better.
        Conn::Postgres(_) => {
            sql.push(" AND ").push(POSTGRES_TEXT).push(if by_index { " ILIKE " } else { " || '' ILIKE " });
            sql.bind(pattern.as_str());
        }
    }
}

/// Adds the condition that the owner of the agent `a` contains `part`, without an index.
pub(super) fn require_owner(sql: &mut Sql, conn: &Conn<'_>, part: &str) {
    let pattern = pattern(part);
    match conn {
        Conn::Sqlite(_) => sql.push(" AND a.owner LIKE +").bind(pattern.as_str()).push(" ESCAPE '\\'"),
        Conn::Postgres(_) => sql.push(" AND (a.owner || '') COLLATE \"default\" ILIKE ").bind(pattern.as_str()),
    };
}

/// Adds a `FROM` clause for the agents `a` among the candidates.
pub(super) fn from_candidates(sql: &mut Sql, conn: &Conn<'_>, candidates: &Candidates, text: &str) {
    match (conn, candidates) {
        (Conn::Postgres(_), Candidates::Few(ids)) => {
            sql.push(" FROM agents a WHERE a.id = ANY(string_to_array(").bind(ids.as_str()).push(", ',')::uuid[])")
        }
        (Conn::Postgres(_), _) => sql.push(" FROM agents a WHERE 1 = 1"),
        (Conn::Sqlite(_), Candidates::Few(numbers)) => {
            sql.push(" FROM json_each(").bind(numbers.as_str()).push(") AS found CROSS JOIN agents a ");
            sql.push("WHERE a.number = found.value")
        }
        (Conn::Sqlite(_), _) => {
            sql.push(" FROM (").push(CANDIDATES).bind(full_text(text).as_str());
            sql.push(") AS found CROSS JOIN agents a ");
            sql.push("WHERE a.number = found.number")
        }
    };
}

/// Returns a `LIKE` pattern that matches `text` anywhere. Wildcards in `text` are escaped.
fn pattern(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_in_a_search_text_are_escaped() {
        assert_eq!(pattern(r"50%_A\b"), r"%50\%\_A\\b%");
    }

    #[test]
    fn operators_in_a_search_text_are_quoted() {
        assert_eq!(full_text(r#"a"*b"#), r#""a""*" AND """*b""#);
        assert_eq!(full_text("ab"), "");
    }
}
