//! Listings of the audit log: a scan of the newest records, and what the index says of those before.

use std::mem;

use super::{
    Row, Tail,
    index::{self, RUN},
    lookup::{self, Candidate, Chosen},
    spans::{self, Extent},
    terms::Wanted,
};
use crate::{
    domain::{
        Limit, Page, Result,
        audit::{Filter, Record, Start},
    },
    store::{
        Store,
        db::{Conn, on},
        sql::{Sql, run},
    },
};

/// Most records of a run that are fetched one by one; where there are more, a scan of the run meets enough of them.
const FEW: u32 = 256;
/// Most records read at a time, however many are to be left out.
const STRIDE: usize = 501;
/// Runs that are looked up first, and at most, at a time.
const WIDTH: (usize, usize) = (16, 512);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    NewestFirst,
    OldestFirst,
}

/// What was found, with how many are still to be left out.
struct Found {
    records: Vec<Record>,
    /// Positions of records that come next and are not read yet: it takes a statement to read any number of them.
    positions: Vec<i64>,
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

    /// How many records to read next.
    fn room(&self) -> usize {
        (self.wanted - self.records.len()).saturating_add(self.skip).min(STRIDE)
    }

    fn take(&mut self, record: Record) {
        if self.skip > 0 {
            self.skip -= 1;
        } else if !self.is_full() {
            self.records.push(record);
        }
    }
}

/// A page of records, newest first; its cursor is the position of its last record.
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
                on!(conn.reborrow(), |c| sqlx::query_scalar(OFFSET).bind(count).fetch_optional(c).await?);
            (first.map_or(i64::MIN, |seq| seq.saturating_add(1)), 0)
        }
        Start::Offset(count) => (i64::MAX, usize::try_from(count).unwrap_or(0)),
    };
    let found = Found::none(skip, usize::from(limit.get()) + 1);
    let records = walk(conn, &store.tail, filter, (i64::MIN, before), Order::NewestFirst, found).await?;
    Ok(Page::cut(records, limit, |record: &Record| record.seq))
}

/// Records that a filter shows beyond a place in the chain, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn after(store: &Store, filter: &Filter, seq: i64, limit: Limit) -> Result<Vec<Record>> {
    let found = Found::none(0, usize::from(limit.get()));
    let mut read = store.read().await?;
    walk(read.conn(), &store.tail, filter, (seq, i64::MAX), Order::OldestFirst, found).await
}

/// Finds records strictly between two positions.
async fn walk(
    mut conn: Conn<'_>,
    tail: &Tail,
    filter: &Filter,
    (after, before): (i64, i64),
    order: Order,
    mut found: Found,
) -> Result<Vec<Record>> {
    let Some(wanted) = Wanted::by(filter) else {
        scan(conn.reborrow(), filter, (after, before), order, &mut found).await?;
        return Ok(found.records);
    };
    // Read once: a run that is indexed meanwhile is still seen as part of the newest records.
    let extent = spans::extent(conn.reborrow()).await?;
    let newest = (after.max(extent.runs * RUN), before.min(extent.end.saturating_add(1)));
    if order == Order::NewestFirst {
        look_through(conn.reborrow(), tail, filter, &wanted, newest, order, &mut found).await?;
    }
    if !found.is_full() {
        let low = index::run_of(after.saturating_add(1).max(1));
        let high = index::run_of(before.saturating_sub(1).max(0)).min(extent.runs - 1);
        if let Some((low, high)) = lookup::within(conn.reborrow(), &wanted, low, high).await? {
            look_up(conn.reborrow(), filter, &wanted, (after, before), (low, high, extent), order, &mut found).await?;
        }
    }
    if order == Order::OldestFirst && !found.is_full() {
        look_through(conn.reborrow(), tail, filter, &wanted, newest, order, &mut found).await?;
    }
    fetch(conn, filter, &mut found).await?;
    Ok(found.records)
}

/// Goes through records that are not indexed: those in the tail by what they are known by, and the others one by one.
async fn look_through(
    mut conn: Conn<'_>,
    tail: &Tail,
    filter: &Filter,
    wanted: &Wanted,
    (after, before): (i64, i64),
    order: Order,
    found: &mut Found,
) -> Result<()> {
    let Some(mut known) = tail.look_up(wanted, (after, before)) else {
        return scan(conn, filter, (after, before), order, found).await;
    };
    let (first, last) = known.bounds;
    let mut rest = [(after, first), (last, before)];
    if order == Order::NewestFirst {
        rest.reverse();
        known.positions.reverse();
    }
    let [sooner, later] = rest;
    scan(conn.reborrow(), filter, sooner, order, found).await?;
    choose(conn.reborrow(), filter, known.positions, found).await?;
    scan(conn, filter, later, order, found).await
}

/// Goes through the runs `low` to `high` by what the index says of them, more at a time the less is found.
async fn look_up(
    mut conn: Conn<'_>,
    filter: &Filter,
    wanted: &Wanted,
    between: (i64, i64),
    (low, high, extent): (i64, i64, Extent),
    order: Order,
    found: &mut Found,
) -> Result<()> {
    let (newer, spanned) = lookup::candidates(conn.reborrow(), wanted, (low, high), extent).await?;
    if order == Order::NewestFirst {
        look_in(conn.reborrow(), filter, wanted, between, &newer, order, found).await?;
    }
    if !found.is_full() {
        let spanned = spanned.candidates(conn.reborrow(), wanted).await?;
        look_in(conn.reborrow(), filter, wanted, between, &spanned, order, found).await?;
    }
    if order == Order::OldestFirst {
        look_in(conn, filter, wanted, between, &newer, order, found).await?;
    }
    Ok(())
}

/// Goes through some runs, which are in order.
async fn look_in(
    mut conn: Conn<'_>,
    filter: &Filter,
    wanted: &Wanted,
    between: (i64, i64),
    mut runs: &[Candidate],
    order: Order,
    found: &mut Found,
) -> Result<()> {
    let (mut width, widest) = WIDTH;
    while !runs.is_empty() && !found.is_full() {
        let group;
        match order {
            Order::NewestFirst => (runs, group) = runs.split_at(runs.len().saturating_sub(width)),
            Order::OldestFirst => (group, runs) = runs.split_at(width.min(runs.len())),
        }
        let chosen = lookup::choose(conn.reborrow(), wanted, group).await?;
        look_at(conn.reborrow(), filter, chosen, between, order, found).await?;
        width = (width * 4).min(widest);
    }
    Ok(())
}

/// Reads what was chosen of some runs.
async fn look_at(
    mut conn: Conn<'_>,
    filter: &Filter,
    mut chosen: Vec<Chosen>,
    (after, before): (i64, i64),
    order: Order,
    found: &mut Found,
) -> Result<()> {
    if order == Order::NewestFirst {
        chosen.reverse();
    }
    for run in &chosen {
        if found.is_full() {
            break;
        }
        if let Some(mut positions) = run.few(FEW) {
            positions.retain(|seq| *seq > after && *seq < before);
            if order == Order::NewestFirst {
                positions.reverse();
            }
            choose(conn.reborrow(), filter, positions, found).await?;
        } else {
            let (first, last) = run.bounds();
            scan(conn.reborrow(), filter, (after.max(first - 1), before.min(last + 1)), order, found).await?;
        }
    }
    Ok(())
}

/// Has the records at some positions read, with those of other positions before them if these are not enough.
async fn choose(conn: Conn<'_>, filter: &Filter, positions: Vec<i64>, found: &mut Found) -> Result<()> {
    found.positions.extend(positions);
    if found.positions.len() < found.room() {
        return Ok(());
    }
    fetch(conn, filter, found).await
}

/// Reads the records at the positions that wait for it, which are in the order of the chain or in the opposite one.
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
        let rows: Vec<Row> = run!(conn.reborrow(), sqlx::query_as, sql, fetch_all);
        let mut records: Vec<_> = rows.into_iter().map(Record::from).collect();
        if !next.is_sorted() {
            records.reverse();
        }
        // The index only says where to look: two terms may share a hash, and a span of time covers more than it should.
        records.into_iter().filter(|record| filter.shows(record)).for_each(|record| found.take(record));
    }
    Ok(())
}

/// Reads through everything strictly between two positions.
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
        let mut sql = matching(filter);
        sql.and("seq >", after).and("seq <", before);
        sql.push(match order {
            Order::NewestFirst => " ORDER BY seq DESC",
            Order::OldestFirst => " ORDER BY seq",
        });
        sql.limit(i64::try_from(room).unwrap_or(i64::MAX));
        let rows: Vec<Row> = run!(&mut conn, sqlx::query_as, sql, fetch_all);
        let (read, last) = (rows.len(), rows.last().map(|row| row.seq));
        rows.into_iter().map(Record::from).for_each(|record| found.take(record));
        let Some(last) = last.filter(|_| read == room) else { break };
        match order {
            Order::NewestFirst => before = last,
            Order::OldestFirst => after = last,
        }
    }
    Ok(())
}

fn matching(filter: &Filter) -> Sql {
    let mut sql = Sql::default();
    sql.push("SELECT * FROM audit_log WHERE 1 = 1");
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
        // Any number but 0 reads as success.
        sql.push(if success { " AND success <> 0" } else { " AND success = 0" });
    }
    if let Some(from) = filter.from {
        sql.and("at >=", from.as_micros());
    }
    if let Some(until) = filter.until {
        sql.and("at <=", until.as_micros());
    }
    sql
}
