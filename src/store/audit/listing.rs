//! Pages of the audit log: the newest records are scanned, older ones are found with the index.

use std::mem;

use serde_json::Value;

use super::{
    Row,
    index::{self, RUN},
    lookup::{self, Matches},
    terms::Wanted,
};
use crate::{
    domain::{
        Limit, Page, Result,
        audit::{Filter, Record, Start},
    },
    store::{
        Store,
        db::{
            Conn, dispatch,
            sql::{Sql, run},
        },
    },
};

/// Records of a run that are read by their positions at most. With more of them, a scan of the run fills the page sooner.
const FEW: u32 = 256;
/// Records read by one statement at most.
const STRIDE: usize = 501;
/// Runs looked up by the first statement, and by a later one at most.
const WIDTH: (usize, usize) = (16, 512);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    NewestFirst,
    OldestFirst,
}

/// The records found so far.
struct Found {
    records: Vec<Record>,
    /// Positions of the records that follow and are not read yet.
    positions: Vec<i64>,
    /// Matching records still to be skipped.
    skip: usize,
    wanted: usize,
}

impl Found {
    const fn none(skip: usize, wanted: usize) -> Self {
        Self { records: Vec::new(), positions: Vec::new(), skip, wanted }
    }

    const fn is_full(&self) -> bool {
        self.records.len() >= self.wanted
    }

    /// Returns how many records to read next.
    fn room(&self) -> usize {
        (self.wanted - self.records.len()).saturating_add(self.skip).min(STRIDE)
    }

    fn add(&mut self, record: Record) {
        if self.skip > 0 {
            self.skip -= 1;
        } else if !self.is_full() {
            self.records.push(record);
        }
    }
}

/// Returns a page of records, newest first. Its cursor is the position of its last record.
///
/// # Errors
/// When the database fails.
pub async fn list(store: &Store, filter: &Filter, start: Start, limit: Limit) -> Result<Page<Record, i64>> {
    const OFFSET: &str = "SELECT seq FROM audit_log ORDER BY seq DESC LIMIT 1 OFFSET $1";
    let mut read = store.read().await?;
    let mut conn = read.conn();
    let (before, skip) = match start {
        Start::Before(seq) => (seq, 0),
        Start::Offset(0) => (i64::MAX, 0),
        Start::Offset(count) if Wanted::by(filter).is_none() => {
            let first: Option<i64> =
                dispatch!(conn.reborrow(), |c| sqlx::query_scalar(OFFSET).bind(count).fetch_optional(c).await)?;
            (first.map_or(i64::MIN, |seq| seq.saturating_add(1)), 0)
        }
        Start::Offset(count) => (i64::MAX, usize::try_from(count).unwrap_or(0)),
    };
    let found = Found::none(skip, usize::from(limit.get()) + 1);
    let records = walk(conn, filter, (i64::MIN, before), Order::NewestFirst, found).await?;
    Ok(Page::cut(records, limit, |record: &Record| record.seq))
}

/// Returns the first records after position `seq` that match the filter, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn after(store: &Store, filter: &Filter, seq: i64, limit: Limit) -> Result<Vec<Record>> {
    let found = Found::none(0, usize::from(limit.get()));
    let mut read = store.read().await?;
    walk(read.conn(), filter, (seq, i64::MAX), Order::OldestFirst, found).await
}

/// Finds records strictly between two positions.
async fn walk(
    mut conn: Conn<'_>,
    filter: &Filter,
    (after, before): (i64, i64),
    order: Order,
    mut found: Found,
) -> Result<Vec<Record>> {
    let Some(wanted) = Wanted::by(filter) else {
        scan(conn.reborrow(), filter, (after, before), order, &mut found).await?;
        return Ok(found.records);
    };
    // Read once: a run that is indexed during the walk is still scanned.
    let indexed = index::indexed(conn.reborrow(), wanted.version).await?;
    let newest = (after.max(indexed * RUN), before);
    if order == Order::NewestFirst {
        scan(conn.reborrow(), filter, newest, order, &mut found).await?;
    }
    if !found.is_full() {
        let low = index::run_of(after.saturating_add(1).max(1));
        let high = index::run_of(before.saturating_sub(1).max(0)).min(indexed - 1);
        look_up(conn.reborrow(), filter, &wanted, (after, before), (low, high), order, &mut found).await?;
    }
    if order == Order::OldestFirst {
        scan(conn.reborrow(), filter, newest, order, &mut found).await?;
    }
    fetch(conn, filter, &mut found).await?;
    Ok(found.records)
}

/// Searches the runs from `low` to `high` with the index. The groups of runs that are looked up together grow as long as the page
/// is not full.
async fn look_up(
    mut conn: Conn<'_>,
    filter: &Filter,
    wanted: &Wanted,
    between: (i64, i64),
    (low, high): (i64, i64),
    order: Order,
    found: &mut Found,
) -> Result<()> {
    let runs = lookup::runs(conn.reborrow(), wanted, (low, high)).await?;
    let mut runs = runs.as_slice();
    let (mut width, widest) = WIDTH;
    while !runs.is_empty() && !found.is_full() {
        let group;
        match order {
            Order::NewestFirst => (runs, group) = runs.split_at(runs.len().saturating_sub(width)),
            Order::OldestFirst => (group, runs) = runs.split_at(width.min(runs.len())),
        }
        let mut matches = lookup::matches(conn.reborrow(), wanted, group).await?;
        if order == Order::NewestFirst {
            matches.reverse();
        }
        for run in &matches {
            if found.is_full() {
                break;
            }
            read_run(conn.reborrow(), filter, run, between, order, found).await?;
        }
        width = (width * 4).min(widest);
    }
    Ok(())
}

/// Reads the records of a run that may match.
async fn read_run(
    conn: Conn<'_>,
    filter: &Filter,
    run: &Matches,
    (after, before): (i64, i64),
    order: Order,
    found: &mut Found,
) -> Result<()> {
    let Some(mut positions) = run.positions(FEW) else {
        let (first, last) = run.bounds();
        return scan(conn, filter, (after.max(first - 1), before.min(last + 1)), order, found).await;
    };
    positions.retain(|seq| *seq > after && *seq < before);
    if order == Order::NewestFirst {
        positions.reverse();
    }
    found.positions.extend(positions);
    // Positions of several runs are read together, because each read is a round trip.
    if found.positions.len() < found.room() { Ok(()) } else { fetch(conn, filter, found).await }
}

/// Reads the records at `found.positions`, which are in ascending or descending order.
async fn fetch(mut conn: Conn<'_>, filter: &Filter, found: &mut Found) -> Result<()> {
    let positions = mem::take(&mut found.positions);
    let mut rest = positions.as_slice();
    while !rest.is_empty() && !found.is_full() {
        let next;
        (next, rest) = rest.split_at(found.room().min(rest.len()));
        let mut sql = Sql::default();
        sql.push("SELECT * FROM audit_log WHERE ")
            .is_one_of(&conn, "seq", &next.iter().copied().collect())
            .at_once("seq");
        let rows: Vec<Row> = run!(conn.reborrow(), sqlx::query_as, sql, fetch_all)?;
        let mut records: Vec<_> = rows.into_iter().map(Record::from).collect();
        if !next.is_sorted() {
            records.reverse();
        }
        // Different values can have the same hash, and a run can begin before the time range and end after it.
        records.into_iter().filter(|record| filter.shows(record)).for_each(|record| found.add(record));
    }
    Ok(())
}

/// Reads every matching record strictly between two positions, until the page is full.
async fn scan(
    mut conn: Conn<'_>,
    filter: &Filter,
    (mut after, mut before): (i64, i64),
    order: Order,
    found: &mut Found,
) -> Result<()> {
    if after.saturating_add(1) >= before {
        return Ok(());
    }
    fetch(conn.reborrow(), filter, found).await?;
    while !found.is_full() && after.saturating_add(1) < before {
        let room = found.room();
        let mut sql = Sql::default();
        sql.push("SELECT * FROM audit_log WHERE 1 = 1");
        add_conditions(&mut sql, filter);
        sql.and("seq >", after).and("seq <", before);
        sql.push(match order {
            Order::NewestFirst => " ORDER BY seq DESC",
            Order::OldestFirst => " ORDER BY seq",
        });
        sql.limit(i64::try_from(room).unwrap_or(i64::MAX));
        let rows: Vec<Row> = run!(&mut conn, sqlx::query_as, sql, fetch_all)?;
        let (read, last) = (rows.len(), rows.last().map(|row| row.seq));
        rows.into_iter().map(Record::from).for_each(|record| found.add(record));
        let Some(last) = last.filter(|_| read == room) else { break };
        match order {
            Order::NewestFirst => before = last,
            Order::OldestFirst => after = last,
        }
    }
    Ok(())
}

/// Adds the conditions of a filter to a statement whose text ends with another condition.
pub(super) fn add_conditions(sql: &mut Sql, filter: &Filter) {
    if let Some(actor) = filter.actor {
        sql.and("actor =", actor.0);
    }
    if let Some(agent) = filter.involving {
        sql.and("(actor =", agent.0).push(" OR subject = ").bind(agent.0).push(")");
    }
    if let Some(action) = &filter.action {
        sql.and("action =", action.as_str());
    }
    if let Some(resource_type) = &filter.resource_type {
        sql.and("resource_type =", resource_type.as_str());
    }
    if let Some(resource_id) = &filter.resource_id {
        sql.and("resource_id =", resource_id.as_str());
    }
    if let Some(success) = filter.success {
        // Every number except 0 reads as success.
        sql.push(if success { " AND success <> 0" } else { " AND success = 0" });
    }
    if let Some(request) = &filter.request {
        sql.and("request_id =", request.as_str());
    }
    if let Some(reason) = &filter.reason {
        // The member as it is stored. Unlike LIKE, this takes letter case and wildcards literally on both databases.
        let member = format!("\"reason\":{}", Value::from(reason.as_str()));
        sql.push(" AND success = 0").and("details <> REPLACE(details,", member.as_str()).push(", '')");
    }
    if let Some(ip) = &filter.ip {
        sql.and("ip =", ip.as_str());
    }
    if let Some(from) = filter.from {
        sql.and("at >=", from.as_micros());
    }
    if let Some(until) = filter.until {
        sql.and("at <=", until.as_micros());
    }
}
