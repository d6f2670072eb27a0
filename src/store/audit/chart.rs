//! Counts of records by time, for charts.
//!
//! Records that are not indexed yet are counted by the database. Of the indexed runs, the index tells how many records match
//! a filter, and `audit_runs` when they were written. A run that lies in one bucket of time is thus counted without reading a
//! record. In a run that extends over several buckets, the records at which the next bucket begins are found by bisection:
//! records are in the order of their times, except for imported ones and for a few microseconds between nodes. A few
//! such runs are counted by the database instead, which is exact.
//!
//! What is read is bounded. Beyond that, older records are not counted, and the result says since when it counts.

use std::collections::{BTreeSet, HashMap};

use super::{
    index::{self, RUN},
    listing::add_conditions,
    lookup::{self, Outcomes},
    terms::Wanted,
};
use crate::{
    domain::{
        Result, Timestamp,
        audit::{Buckets, Filter},
    },
    store::{
        Store,
        db::{
            Conn, dispatch,
            sql::{Sql, run},
        },
    },
};

/// Records after the last indexed run that are counted at most.
const SCANNED: i64 = 4 * RUN;
/// Rows of the index that are read at most: those of one term for 33 million records.
const INDEX_ROWS: usize = 4_096;
/// Runs looked up by one statement.
const WIDTH: usize = 512;
/// Runs over several buckets that the database counts. With more of them, bisection is faster.
const FEW: usize = 6;
/// Bucket boundaries that are searched for at most.
const SEARCHES: usize = 512;

/// The number of records in a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Actions that were carried out.
    pub success: i64,
    /// Actions that were rejected.
    pub failure: i64,
}

/// The number of records in each bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// One for each bucket.
    pub buckets: Vec<Count>,
    /// If not all records are counted: the time of the first one that is.
    pub since: Option<Timestamp>,
}

impl Counts {
    fn add(&mut self, bucket: usize, (success, failure): (i64, i64)) {
        if let Some(count) = self.buckets.get_mut(bucket) {
            count.success += success;
            count.failure += failure;
        }
    }
}

/// An indexed run and the earliest and latest time of its records.
#[derive(Clone, Copy)]
struct Span {
    run: i64,
    first_at: Timestamp,
    last_at: Timestamp,
}

/// Counts the records that match a filter, apart from its times, in each bucket.
///
/// # Errors
/// When the database fails.
pub async fn count(store: &Store, filter: &Filter, buckets: &Buckets) -> Result<Counts> {
    let (from, until) = buckets.period();
    let filter = Filter { from: Some(from), until: Some(until), ..filter.clone() };
    let mut counts = Counts { buckets: vec![Count::default(); buckets.count()], since: None };
    let Some(wanted) = Wanted::by(&filter) else { return Ok(counts) };
    let mut read = store.read().await?;
    let mut conn = read.conn();
    let indexed = index::indexed(conn.reborrow(), wanted.version).await?;
    let archived = super::start(conn.reborrow()).await?.seq;
    let head = super::head(conn.reborrow()).await?.seq;
    let after = (indexed * RUN).max(head - SCANNED);
    scan(conn.reborrow(), &filter, buckets, (after, i64::MAX), &mut counts).await?;
    if after > indexed * RUN {
        counts.since = super::find(conn, after + 1).await?.map(|record| record.at);
        return Ok(counts);
    }
    let mut spans = spans(conn.reborrow(), (index::run_of(archived + 1), indexed - 1), (from, until)).await?;
    let most = INDEX_ROWS / lookup::rows_per_run(&wanted);
    if spans.len() > most {
        spans.drain(..spans.len() - most);
        counts.since = spans.first().map(|span| span.first_at);
    }
    let mut divided = Vec::new();
    for group in spans.chunks(WIDTH) {
        let runs: Vec<_> = group.iter().map(|span| span.run).collect();
        let found = lookup::outcomes(conn.reborrow(), &wanted, &runs, archived).await?;
        let times: HashMap<_, _> = group.iter().map(|span| (span.run, *span)).collect();
        for outcomes in found {
            let Some(span) = times.get(&outcomes.run) else { continue };
            match (buckets.bucket_of(span.first_at), buckets.bucket_of(span.last_at)) {
                (Some(first), Some(last)) if first == last => counts.add(first, outcomes.count(0, RUN)),
                _ => divided.push((*span, outcomes)),
            }
        }
    }
    if divided.len() <= FEW {
        for (span, _) in divided {
            let (first, last) = (span.run * RUN + 1, (span.run + 1) * RUN);
            scan(conn.reborrow(), &filter, buckets, (first - 1, last + 1), &mut counts).await?;
        }
        return Ok(counts);
    }
    bisect(conn, &divided, buckets, &mut counts).await?;
    Ok(counts)
}

/// Returns the time of the oldest record.
///
/// # Errors
/// When the database fails.
pub async fn oldest(conn: Conn<'_>) -> Result<Option<Timestamp>> {
    // Imported records, which come first, are in no order, so the first of them may not be the oldest.
    const SQL: &str = "SELECT MIN(at) FROM (SELECT at FROM (SELECT at FROM audit_log ORDER BY seq LIMIT 1) first_record \
        UNION ALL SELECT MIN(first_at) FROM audit_runs WHERE run >= (SELECT seq FROM audit_start WHERE id = 1) / 8192) ends";
    let at: Option<i64> = dispatch!(conn, |c| sqlx::query_scalar(SQL).fetch_one(c).await)?;
    Ok(at.map(Timestamp::from_micros))
}

/// Returns the runs from `low` to `high` with records in a period, in ascending order.
async fn spans(conn: Conn<'_>, (low, high): (i64, i64), (from, until): (Timestamp, Timestamp)) -> Result<Vec<Span>> {
    const SQL: &str = "SELECT run, first_at, last_at FROM audit_runs WHERE run >= $1 AND run <= $2 AND last_at >= $3 \
        AND first_at <= $4 ORDER BY run";
    let rows: Vec<(i64, i64, i64)> = dispatch!(conn, |c| {
        let query = sqlx::query_as(SQL).bind(low).bind(high).bind(from.as_micros()).bind(until.as_micros());
        query.fetch_all(c).await
    })?;
    let span = |(run, first_at, last_at)| Span {
        run,
        first_at: Timestamp::from_micros(first_at),
        last_at: Timestamp::from_micros(last_at),
    };
    Ok(rows.into_iter().map(span).collect())
}

/// Counts the matching records strictly between two positions.
async fn scan(
    conn: Conn<'_>,
    filter: &Filter,
    buckets: &Buckets,
    (after, before): (i64, i64),
    counts: &mut Counts,
) -> Result<()> {
    let (first, width) = buckets.grid();
    let mut sql = Sql::default();
    sql.push("SELECT bucket, success, COUNT(*) FROM (SELECT (at - ").bind(first).push(") / ").bind(width);
    sql.push(" AS bucket, CASE WHEN success <> 0 THEN 1 ELSE 0 END AS success FROM audit_log WHERE 1 = 1");
    add_conditions(&mut sql, filter);
    sql.and("seq >", after).and("seq <", before);
    sql.push(") counted GROUP BY bucket, success");
    let rows: Vec<(i64, i32, i64)> = run!(conn, sqlx::query_as, sql, fetch_all)?;
    for (bucket, success, count) in rows {
        let counted = if success == 0 { (0, count) } else { (count, 0) };
        counts.add(usize::try_from(bucket).unwrap_or(usize::MAX), counted);
    }
    Ok(())
}

/// A search for the first record of a run that is not before a time.
struct Search {
    run: i64,
    at: Timestamp,
    /// The offset is at least `low` and at most `high`.
    low: i64,
    high: i64,
}

/// Counts the records of runs that extend over several buckets.
async fn bisect(
    mut conn: Conn<'_>,
    divided: &[(Span, Outcomes)],
    buckets: &Buckets,
    counts: &mut Counts,
) -> Result<()> {
    // The starts of the buckets, and the end of the last one.
    let (_, until) = buckets.period();
    let mut edges: Vec<_> = (0..buckets.count()).map(|bucket| buckets.bounds(bucket).0).collect();
    edges.push(Timestamp::from_micros(until.as_micros().saturating_add(1)));
    let mut searches: Vec<Search> = Vec::new();
    let mut counted = 0;
    for (span, _) in divided.iter().rev() {
        let inside = edges.iter().filter(|edge| **edge > span.first_at && **edge <= span.last_at);
        let more = inside.map(|edge| Search { run: span.run, at: *edge, low: 0, high: RUN });
        searches.extend(more);
        if searches.len() > SEARCHES {
            counts.since = counts.since.max(Some(span.last_at));
            break;
        }
        counted += 1;
    }
    while searches.iter().any(|search| search.low < search.high) {
        let middle = |search: &Search| search.run * RUN + 1 + i64::midpoint(search.low, search.high);
        let open = searches.iter().filter(|search| search.low < search.high);
        let positions: BTreeSet<_> = open.map(middle).collect();
        let mut sql = Sql::default();
        sql.push("SELECT seq, at FROM audit_log WHERE ").is_one_of(&conn, "seq", &positions).at_once("seq");
        let rows: Vec<(i64, i64)> = run!(conn.reborrow(), sqlx::query_as, sql, fetch_all)?;
        let times: HashMap<_, _> = rows.into_iter().collect();
        for search in searches.iter_mut().filter(|search| search.low < search.high) {
            // A record that is missing was archived, so it is an early one.
            let is_before = times.get(&middle(search)).is_none_or(|at| *at < search.at.as_micros());
            let offset = i64::midpoint(search.low, search.high);
            (search.low, search.high) = if is_before { (offset + 1, search.high) } else { (search.low, offset) };
        }
    }
    let found: HashMap<_, _> = searches.iter().map(|search| ((search.run, search.at), search.low)).collect();
    for (span, outcomes) in divided.iter().rev().take(counted) {
        let offset = |edge: Timestamp| {
            let outside = if edge <= span.first_at { 0 } else { RUN };
            found.get(&(span.run, edge)).copied().unwrap_or(outside)
        };
        for (bucket, pair) in edges.windows(2).enumerate() {
            if let [start, end] = pair {
                counts.add(bucket, outcomes.count(offset(*start), offset(*end)));
            }
        }
    }
    Ok(())
}
