//! Searching agents for a text: what the index of trigrams (three characters in a row) can say of it.

use std::{cmp::Reverse, mem};

use uuid::Uuid;

use crate::{
    domain::Result,
    store::db::{
        Conn, on,
        sql::{Sql, run},
    },
};

/// Up to this many agents are looked at one by one; a text that more agents hold is found by going through a listing.
pub(super) const FEW: usize = 5_000;
/// Most trigrams that are looked up; what they find is looked at anyway.
const TRIGRAMS: usize = 24;
/// How many are looked up first: each costs about the same, and the most telling mostly say enough.
const FIRST: usize = 3;
/// More agents than this hold these: then all trigrams are looked up.
const FEW_AT_FIRST: usize = 500;

/// Statements that bring SQLite's text index up to date with what was done to agents, once 64 of them wait: to take up one alone
/// costs as much as to take up several, and leaves a piece that has to be merged. PostgreSQL keeps its index by itself.
pub(in crate::store) const INDEX_TEXT: &str = "\
    DELETE FROM agents_text WHERE rowid IN (SELECT number FROM agents_to_index) \
    AND (SELECT COUNT(*) FROM agents_to_index) >= 64; \
    INSERT INTO agents_text (rowid, name, owner, description) SELECT a.number, a.name, a.owner, a.description \
    FROM agents_to_index i CROSS JOIN agents a WHERE a.number = i.number \
    AND (SELECT COUNT(*) FROM agents_to_index) >= 64; \
    DELETE FROM agents_to_index WHERE (SELECT COUNT(*) FROM agents_to_index) >= 64; ";
/// The numbers of the agents that may hold what a full-text query asks for, each once. Those that wait may hold anything.
const MAY_HOLD: &str = "SELECT number FROM agents_to_index UNION ALL SELECT rowid FROM agents_text \
    WHERE rowid NOT IN (SELECT number FROM agents_to_index) AND agents_text MATCH ";

/// Latin letters, the most frequent of English first: what is rare in one fleet is about as rare in another.
const LETTERS: &str = "etaoinsrhldcumfpgwybvkxjqz";

/// PostgreSQL's index is over this, and is used for nothing else.
const POSTGRES_TEXT: &str = "((a.name || E'\\x01' || a.owner || E'\\x01' || a.description) COLLATE \"default\")";

/// Which agents may hold a text, as far as the index can say.
pub(super) enum Candidates {
    /// These few: a JSON array of SQLite's numbers, or PostgreSQL's identifiers with commas between them.
    Few(String),
    /// Too many to look at one by one.
    Many,
    /// The text holds no trigram.
    Unknown,
}

/// Asks the index which agents may hold `text`.
pub(super) async fn candidates(mut conn: Conn<'_>, text: &str) -> Result<Candidates> {
    if !has_trigrams(conn.reborrow(), text).await? {
        return Ok(Candidates::Unknown);
    }
    for (parts, most) in questions(&conn, text) {
        if let Some(few) = holding_all(conn.reborrow(), &parts, most).await? {
            return Ok(Candidates::Few(few));
        }
    }
    Ok(Candidates::Many)
}

/// What to ask the index for until few enough hold all of it, and how many are few enough.
fn questions(conn: &Conn<'_>, text: &str) -> Vec<(Vec<String>, usize)> {
    let (first, all) = match conn {
        Conn::Sqlite(_) => (telling(text, |_| true), trigrams(text)),
        // Trigrams of letters and digits; which others are letters only the database's locale knows.
        Conn::Postgres(_) => (telling(text, char::is_ascii_alphanumeric), vec![text.to_owned()]),
    };
    if first.is_empty() { vec![(all, FEW)] } else { vec![(first, FEW_AT_FIRST), (all, FEW)] }
}

/// The agents that hold all of these texts, as [`Candidates::Few`] names them; `None` when more than `most` do.
async fn holding_all(conn: Conn<'_>, parts: &[String], most: usize) -> Result<Option<String>> {
    let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
    let mut sql = Sql::default();
    if matches!(conn, Conn::Sqlite(_)) {
        sql.push(MAY_HOLD).bind(full_text(parts).as_str()).limit(limit);
        let numbers: Vec<i64> = run!(conn, sqlx::query_scalar, sql, fetch_all);
        return Ok((numbers.len() <= most).then(|| format!("{numbers:?}")));
    }
    sql.push("SELECT a.id FROM agents a WHERE 1 = 1");
    for part in parts {
        sql.push(" AND ").push(POSTGRES_TEXT).push(" ILIKE ").bind(containing(part).as_str());
    }
    sql.limit(limit);
    let ids: Vec<Uuid> = run!(conn, sqlx::query_scalar, sql, fetch_all);
    let few = ids.len() <= most;
    Ok(few.then(|| ids.iter().map(Uuid::to_string).collect::<Vec<_>>().join(",")))
}

async fn has_trigrams(conn: Conn<'_>, text: &str) -> Result<bool> {
    const SQL: &str = "SELECT COALESCE(array_length(show_trgm($1), 1), 0) > 0";
    match conn {
        Conn::Sqlite(_) => Ok(text.chars().nth(2).is_some()),
        // PostgreSQL's are of letters and digits only.
        Conn::Postgres(mut c) => {
            let words = text.split(|c: char| !c.is_alphanumeric());
            let Some(word) = words.filter(|word| word.chars().nth(2).is_some()).max_by_key(|word| word.is_ascii())
            else {
                return Ok(false);
            };
            // What else is a letter depends on the database's locale.
            Ok(word.is_ascii() || sqlx::query_scalar(SQL).bind(word).fetch_one(c.begin()).await?)
        }
    }
}

/// The trigrams of a text, not more than are looked up.
fn trigrams(text: &str) -> Vec<String> {
    let chars: Vec<_> = text.chars().collect();
    let mut trigrams: Vec<String> = chars.windows(3).map(String::from_iter).collect();
    trigrams.dedup();
    trigrams.truncate(TRIGRAMS);
    trigrams
}

/// The few trigrams of usable characters that are likely held by the fewest agents together: each has characters that are rare
/// and in none before it.
fn telling(text: &str, usable: impl Fn(&char) -> bool) -> Vec<String> {
    let mut chars: Vec<_> = text.chars().map(|c| (c, rarity(c))).collect();
    let mut chosen = Vec::new();
    while chosen.len() < FIRST {
        let trigrams = chars.windows(3).enumerate();
        let trigrams = trigrams.filter(|(_, trigram)| trigram.iter().all(|(c, _)| usable(c)));
        let news = trigrams.map(|(at, trigram)| (trigram.iter().map(|(_, rarity)| rarity).sum::<usize>(), Reverse(at)));
        let Some((1.., Reverse(at))) = news.max() else { break };
        let trigram = chars.iter_mut().skip(at).take(3);
        chosen.push(trigram.map(|(c, rarity)| (*c, mem::take(rarity)).0).collect());
    }
    chosen
}

/// A full-text query for documents that hold each of these.
fn full_text(trigrams: &[String]) -> String {
    let quoted: Vec<_> = trigrams.iter().map(|trigram| format!("\"{}\"", trigram.replace('"', "\"\""))).collect();
    quoted.join(" AND ")
}

/// How seldom texts of agents hold a character; those between words, and the most frequent letter, say nothing.
fn rarity(c: char) -> usize {
    match c.to_ascii_lowercase() {
        // Numbers tell agents apart that share every word.
        '0'..='9' => 60,
        c if c.is_ascii_punctuation() || c.is_whitespace() => 0,
        c => LETTERS.find(c).unwrap_or(LETTERS.len()),
    }
}

/// Adds to `sql` the condition that the agent `a` holds `text` in its name, owner or description. With `by_index`,
/// in the form in which PostgreSQL's index is of use.
pub(super) fn holds(sql: &mut Sql, conn: &Conn<'_>, text: &str, by_index: bool) {
    let pattern = containing(text);
    match conn {
        // Without regard to the case of ASCII letters.
        Conn::Sqlite(_) => {
            for (prefix, column) in [(" AND (", "name"), (" OR ", "owner"), (" OR ", "description")] {
                // The sign as in `Sql::limit`.
                sql.push(prefix).push("a.").push(column).push(" LIKE +").bind(pattern.as_str()).push(" ESCAPE '\\'");
            }
            sql.push(")");
        }
        // Without regard to the case of all letters that the database knows. The concatenation is the same condition,
        // and without `|| ''` the planner might prefer the index where a scan in order is wanted.
        Conn::Postgres(_) => {
            sql.push(" AND ").push(POSTGRES_TEXT).push(if by_index { " ILIKE " } else { " || '' ILIKE " });
            sql.bind(pattern.as_str());
        }
    }
}

/// Joins the candidates to the agents `a`, where the database needs to be told them.
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
            sql.push(" FROM (").push(MAY_HOLD).bind(full_text(&trigrams(text)).as_str());
            sql.push(") AS found CROSS JOIN agents a ");
            sql.push("WHERE a.number = found.number")
        }
    };
}

/// A `LIKE` pattern that matches `text` anywhere, and nothing in it as a wildcard.
fn containing(text: &str) -> String {
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
    fn nothing_that_is_searched_for_is_a_wildcard() {
        assert_eq!(containing(r"50%_A\b"), r"%50\%\_A\\b%");
    }

    #[test]
    fn nothing_that_is_searched_for_is_an_operator() {
        assert_eq!(full_text(&trigrams(r#"a"*b"#)), r#""a""*" AND """*b""#);
        assert_eq!(full_text(&trigrams("ab")), "");
    }

    #[test]
    fn the_most_telling_are_asked_for_first() {
        let any = |_: &char| true;
        assert_eq!(telling("mail-quiz-0512345", any), ["051", "234", "345"]);
        assert_eq!(telling("on-quiz", char::is_ascii_alphabetic), ["uiz", "qui"]);
        assert_eq!(telling("aaaaaaaaaa", any), ["aaa", "aaa", "aaa"]);
        assert_eq!(telling("a-b", any), ["a-b"]);
        assert_eq!(telling("--- ee", any), Vec::<String>::new());
        assert_eq!(telling("ab", any), Vec::<String>::new());
    }
}
