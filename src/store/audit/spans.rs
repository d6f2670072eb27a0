//! An index of the index of the audit log: which runs hold which terms.
//!
//! A span is [`SPAN`] runs in a row. Once all of them are indexed, it gets a row for each of 4,096 parts of their terms, which
//! says of each term which of the runs hold it: what few records hold is found by a look at each span instead of at each run.
//! Derived, as the index is, and immutable once complete.

use std::{collections::HashMap, ops::Range};

use sqlx::QueryBuilder;

use super::{
    index::{self, BUCKETS},
    terms::Term,
};
use crate::{
    domain::{Error, Result},
    store::{
        Store,
        db::{Conn, on},
        even_chunks,
        sql::{Sql, run},
    },
};

/// Runs in a span.
pub(super) const SPAN: i64 = 32;
/// Parts that the terms of a bucket are divided into, by the four bits after their first byte.
const PARTS: i64 = 16;
/// Places are a part and then a span.
const PART_STRIDE: i64 = 1 << 40;
/// The last part, which is written last.
const LAST_PART: i64 = 4_095;
/// A term and the runs that hold it.
const ENTRY: usize = 12;

/// One bit for each run of a span.
type Runs = u32;

fn part_of(term: Term) -> i64 {
    i64::try_from(term >> 52).unwrap_or(LAST_PART)
}

fn parts_of(bucket: i64) -> Range<i64> {
    bucket * PARTS..(bucket + 1) * PARTS
}

/// How many runs are indexed, and how many of them belong to complete spans, each from the first on without gaps.
pub(super) async fn extent(conn: Conn<'_>) -> Result<(i64, i64)> {
    const SQL: &str = "SELECT (SELECT COALESCE(MAX(run), -1) + 1 FROM audit_runs), \
        (SELECT COALESCE(MAX(place), $1 - 1) - $1 + 1 FROM audit_spans WHERE place >= $1)";
    let first = LAST_PART * PART_STRIDE;
    let (runs, spans): (i64, i64) = on!(conn, |c| sqlx::query_as(SQL).bind(first).fetch_one(c).await?);
    Ok((runs, spans * SPAN))
}

/// The runs from `low` to `high`, all of them in complete spans, that hold one term of each list.
pub(super) async fn holding(conn: Conn<'_>, lists: &[Vec<Term>], low: i64, high: i64) -> Result<Vec<i64>> {
    let mut sql = Sql::default();
    sql.push("SELECT place, holders FROM audit_spans WHERE ");
    for (number, term) in lists.iter().flatten().enumerate() {
        let part = part_of(*term) * PART_STRIDE;
        sql.push(if number == 0 { "(place >= " } else { " OR (place >= " }).bind(part + low / SPAN);
        sql.push(" AND place <= ").bind(part + high / SPAN).push(")");
    }
    let rows: Vec<(i64, Vec<u8>)> = run!(conn, sqlx::query_as, sql, fetch_all);
    let rows: HashMap<i64, Vec<u8>> = rows.into_iter().collect();
    let holders = |span: i64, term: Term| -> Runs {
        rows.get(&(part_of(term) * PART_STRIDE + span)).map_or(0, |holders| find(holders, term))
    };
    let mut runs = Vec::new();
    for span in low / SPAN..=high / SPAN {
        let any = |list: &Vec<Term>| list.iter().fold(0, |runs, term| runs | holders(span, *term));
        let all = lists.iter().fold(Runs::MAX, |runs, list| runs & any(list));
        runs.extend((0..SPAN).filter(|run| all >> run & 1 == 1).map(|run| span * SPAN + run));
    }
    runs.retain(|run| (low..=high).contains(run));
    Ok(runs)
}

/// Which runs hold a term, as a part's entries in the order of their terms say.
fn find(holders: &[u8], wanted: Term) -> Runs {
    let (entries, _) = holders.as_chunks::<ENTRY>();
    let read = |entry: &[u8; ENTRY]| {
        let (term, runs) = entry.split_first_chunk::<8>()?;
        Some((Term::from_be_bytes(*term), Runs::from_be_bytes(*runs.first_chunk()?)))
    };
    let found = entries.binary_search_by_key(&Some(wanted), |entry| Some(read(entry)?.0));
    found.ok().and_then(|place| read(entries.get(place)?)).map_or(0, |(_, runs)| runs)
}

/// Sums up the span that begins with the run `first` if all of its runs are indexed; `false` when they are not.
pub(super) async fn fill(store: &Store, indexed: i64, first: i64) -> Result<bool> {
    if indexed < first + SPAN {
        return Ok(false);
    }
    // Bucket by bucket: all at once would keep other writers waiting.
    for bucket in 0..BUCKETS {
        let bucket = i64::try_from(bucket).unwrap_or(i64::MAX);
        let postings = index::bucket(store.read().await?.conn(), bucket, first, first + SPAN - 1).await?;
        let parts = tokio::task::spawn_blocking(move || sum_up(bucket, first, &postings)).await;
        let parts = parts.map_err(|error| Error::Internal(Box::new(error)))?;
        store.write(move |tx| Box::pin(async move { save(tx.conn(), &parts).await })).await?;
    }
    Ok(true)
}

/// The parts of a bucket with their places; also those that hold nothing, so that the last one is always there.
fn sum_up(bucket: i64, first: i64, postings: &[(i64, Vec<u8>)]) -> Vec<(i64, Vec<u8>)> {
    let mut terms: Vec<(Term, Runs)> = Vec::new();
    for (run, postings) in postings {
        terms.extend(index::entries(postings).map(|(term, _)| (term, 1 << (run - first))));
    }
    terms.sort_unstable();
    let mut made: Vec<_> = parts_of(bucket).map(|part| (part * PART_STRIDE + first / SPAN, Vec::new())).collect();
    for group in terms.chunk_by(|a, b| a.0 == b.0) {
        let Some((term, _)) = group.first() else { continue };
        let part = usize::try_from(part_of(*term) - parts_of(bucket).start).ok();
        if let Some((_, holders)) = part.and_then(|part| made.get_mut(part)) {
            holders.extend_from_slice(&term.to_be_bytes());
            holders.extend_from_slice(&group.iter().fold(0, |runs, (_, run)| runs | run).to_be_bytes());
        }
    }
    made
}

/// Another node may have been quicker; it has written the same.
async fn save(mut conn: Conn<'_>, parts: &[(i64, Vec<u8>)]) -> Result<()> {
    for chunk in even_chunks(parts) {
        on!(&mut conn, |c| {
            let mut query = QueryBuilder::new("INSERT INTO audit_spans (place, holders) ");
            query.push_values(chunk, |mut row, (place, holders)| {
                row.push_bind(place).push_bind(holders.as_slice());
            });
            query.push(" ON CONFLICT DO NOTHING");
            query.build().execute(c).await?;
        });
    }
    Ok(())
}

/// Forgets a bucket of the spans whose runs are all among the first `runs`.
pub(super) async fn forget(mut conn: Conn<'_>, bucket: i64, runs: i64) -> Result<()> {
    const SQL: &str = "DELETE FROM audit_spans WHERE place >= $1 AND place < $2";
    for part in parts_of(bucket) {
        let first = part * PART_STRIDE;
        on!(&mut conn, |c| sqlx::query(SQL).bind(first).bind(first + runs / SPAN).execute(c).await.map(drop))?;
    }
    Ok(())
}
