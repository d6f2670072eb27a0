//! Listings of the keys of all agents. Each page costs about the same, for every filter, sort order and position.
//!
//! 1. Each condition of a filter that an index can look up is a source of candidates. If one of them has few, they are
//!    all checked against the whole filter and sorted.
//! 2. Otherwise the keys are checked in the order of the listing, in windows of growing size.
//!
//! A filter of which each condition selects many keys, but all together only few, can end a page early. The page then
//! contains the matches of the windows, possibly none, and the position where the next page starts.

use sqlx::FromRow;
use uuid::Uuid;

use super::{
    api_keys,
    key_sql::{self, Branch, Order},
};
use crate::{
    domain::{
        AgentStatus, ApiKeyId, Error, Limit, Page, Result, Selection, Timestamp,
        capability::builtin,
        credential::{
            api_key::Position,
            key_filter::{Filter, ListedKey, Sort},
        },
    },
    store::{
        db::{
            Conn, dispatch,
            sql::{Sql, run},
        },
        even_chunks, stored,
    },
};

/// Up to this many candidates are all checked.
const FEW: i64 = 5_000;
/// The sizes of the windows to check.
const WINDOWS: [i64; 3] = [1_000, 4_000, 16_000];

#[derive(FromRow)]
struct Row {
    #[sqlx(flatten)]
    key: api_keys::Row,
    agent_name: String,
    agent_status: String,
    /// The value that the listing is sorted by.
    at: i64,
}

impl TryFrom<Row> for ListedKey {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            key: row.key.try_into()?,
            agent_name: row.agent_name,
            agent_status: stored("agent status", AgentStatus::parse(&row.agent_status))?,
        })
    }
}

/// The part of a listing after one position, up to and including another.
#[derive(Clone, Copy, Default)]
struct Span {
    after: Option<Position>,
    until: Option<Position>,
}

impl Span {
    fn narrow(&self, sql: &mut Sql, order: &Order) {
        let (beyond, within) = if order.is_ascending { (">", "<=") } else { ("<", ">=") };
        for (position, comparison) in [(self.after, beyond), (self.until, within)] {
            let Some((at, id)) = position else { continue };
            sql.push(" AND (").push(order.column).push(", k.id) ").push(comparison).push(" (");
            sql.bind(at.as_micros()).push(", ").bind(id.0).push(")");
        }
    }
}

/// Returns the ID of `admin:*`.
async fn admin(conn: Conn<'_>) -> Result<Option<Uuid>> {
    const SQL: &str = "SELECT id FROM capabilities WHERE name = $1";
    Ok(dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(builtin::ADMIN).fetch_optional(c).await)?)
}

/// What a listing selects.
struct Listing<'f> {
    filter: &'f Filter,
    order: Order,
    now: Timestamp,
}

impl Listing<'_> {
    /// Selects identifiers and sort values of the keys of a branch that match the filter.
    fn matching(&self, sql: &mut Sql, conn: &Conn<'_>, branch: &Branch, span: &Span) {
        sql.push("SELECT k.id AS id, ").push(self.order.column).push(" AS at FROM ");
        branch.push(sql, conn, key_sql::reads_agents(self.filter));
        key_sql::narrow(sql, conn, self.filter, self.now);
        span.narrow(sql, &self.order);
    }

    /// Selects the matches of all branches, each once.
    fn of_branches(&self, sql: &mut Sql, conn: &Conn<'_>, branches: &[Branch], span: &Span) {
        for (number, branch) in branches.iter().enumerate() {
            sql.push(if number == 0 { "" } else { " UNION " });
            self.matching(sql, conn, branch, span);
        }
    }

    /// Returns the first source of candidates that has few.
    async fn few(&self, mut conn: Conn<'_>) -> Result<Option<Vec<Branch>>> {
        let admin = if self.filter.administrators { admin(conn.reborrow()).await? } else { None };
        for source in key_sql::sources(self.filter, self.now, admin) {
            let mut sql = Sql::default();
            sql.push("SELECT COUNT(*) FROM (");
            for (number, branch) in source.iter().enumerate() {
                sql.push(if number == 0 { "SELECT k.id FROM " } else { " UNION ALL SELECT k.id FROM " });
                branch.push(&mut sql, &conn, false);
            }
            sql.limit(FEW + 1).push(") AS counted");
            let count: i64 = run!(conn.reborrow(), sqlx::query_scalar, sql, fetch_one)?;
            if count <= FEW {
                return Ok(Some(source));
            }
        }
        Ok(None)
    }

    /// Returns the position of the `number`th key of a span, whether it matches or not. `None` if the span is shorter.
    async fn nth(&self, conn: Conn<'_>, walk: &Branch, span: &Span, number: i64) -> Result<Option<Position>> {
        let mut sql = Sql::default();
        sql.push("SELECT ").push(self.order.column).push(", k.id FROM ");
        walk.push(&mut sql, &conn, false);
        span.narrow(&mut sql, &self.order);
        self.order.push(&mut sql, self.order.column, "k.id");
        sql.push(" LIMIT 1 OFFSET ").bind(number - 1);
        let found: Option<(i64, Uuid)> = run!(conn, sqlx::query_as, sql, fetch_optional)?;
        Ok(found.map(|(at, id)| (Timestamp::from_micros(at), ApiKeyId(id))))
    }

    /// Selects complete keys: those of `inner`, which selects the columns `id` and `at`.
    async fn read(&self, conn: Conn<'_>, mut inner: Sql, count: i64) -> Result<Vec<Row>> {
        let mut sql = Sql::default();
        std::mem::swap(&mut sql.values, &mut inner.values);
        sql.push("SELECT k.*, a.name AS agent_name, a.status AS agent_status, f.at AS at FROM (").push(&inner.text);
        self.order.push(&mut sql, "at", "id");
        sql.limit(count)
            .push(") AS f CROSS JOIN api_keys k CROSS JOIN agents a WHERE k.id = f.id AND a.id = k.agent_id");
        self.order.push(&mut sql, "f.at", "f.id");
        Ok(run!(conn, sqlx::query_as, sql, fetch_all)?)
    }
}

/// Converts up to `limit + 1` rows to a page. With `next`, the page ends early.
fn page(rows: Vec<Row>, limit: Limit, next: Option<Position>) -> Result<Page<ListedKey, Position>> {
    let page = Page::cut(rows, limit, |row| (Timestamp::from_micros(row.at), ApiKeyId(row.key.id)));
    Ok(Page {
        items: page.items.into_iter().map(ListedKey::try_from).collect::<Result<_>>()?,
        next: page.next.or(next),
    })
}

/// Returns a page of keys after `after`. A page can end early: see the module.
///
/// # Errors
/// If the database fails.
pub async fn list(
    mut conn: Conn<'_>,
    filter: &Filter,
    sort: Sort,
    now: Timestamp,
    after: Option<Position>,
    limit: Limit,
) -> Result<Page<ListedKey, Position>> {
    let listing = Listing { filter, order: Order::of(sort), now };
    let count = i64::from(limit.get()) + 1;
    let mut span = Span { after, until: None };
    if let Some(branches) = listing.few(conn.reborrow()).await? {
        let mut sql = Sql::default();
        // Materialized, so that the planner does not read the listing in order instead.
        sql.push("WITH matching AS MATERIALIZED (");
        listing.of_branches(&mut sql, &conn, &branches, &span);
        sql.push(") SELECT id, at FROM matching");
        let found = listing.read(conn, sql, count).await?;
        return page(found, limit, None);
    }
    let walk = key_sql::walk(filter, sort, now);
    span.after = span.after.or_else(|| key_sql::start(filter, sort, now));
    let mut found = Vec::new();
    for window in WINDOWS {
        span.until = listing.nth(conn.reborrow(), &walk, &span, window).await?;
        let missing = count - i64::try_from(found.len()).unwrap_or(count);
        let mut sql = Sql::default();
        listing.matching(&mut sql, &conn, &walk, &span);
        found.extend(listing.read(conn.reborrow(), sql, missing).await?);
        let Some(until) = span.until.take() else { return page(found, limit, None) };
        if found.len() > usize::from(limit.get()) {
            return page(found, limit, None);
        }
        span.after = Some(until);
    }
    page(found, limit, span.after)
}

/// Counts the keys that match a filter, up to `most`. Also returns whether there may be more: if no condition of the
/// filter selects few keys, only the first keys in order of creation are checked.
///
/// # Errors
/// If the database fails.
pub async fn count(mut conn: Conn<'_>, filter: &Filter, now: Timestamp, most: i64) -> Result<(i64, bool)> {
    let sort = Sort::of(filter);
    let listing = Listing { filter, order: Order::of(sort), now };
    let mut span = Span::default();
    let mut sql = Sql::default();
    sql.push("SELECT COUNT(*) FROM (");
    if let Some(branches) = listing.few(conn.reborrow()).await? {
        listing.of_branches(&mut sql, &conn, &branches, &span);
    } else {
        let walk = key_sql::walk(filter, sort, now);
        span.after = key_sql::start(filter, sort, now);
        span.until = listing.nth(conn.reborrow(), &walk, &span, WINDOWS.iter().sum()).await?;
        listing.matching(&mut sql, &conn, &walk, &span);
    }
    sql.limit(most).push(") AS counted");
    let count: i64 = run!(conn, sqlx::query_scalar, sql, fetch_one)?;
    Ok((count, count >= most || span.until.is_some()))
}

/// Counts the keys in a selection, up to `most`.
///
/// # Errors
/// If the database fails.
pub async fn count_selected(conn: Conn<'_>, selection: Selection, now: Timestamp, most: i64) -> Result<i64> {
    Ok(count(conn, &Filter::from(selection), now, most).await?.0)
}

/// Returns those of these keys that exist, sorted by agent and name.
///
/// # Errors
/// If the database fails.
pub async fn those(mut conn: Conn<'_>, ids: &[ApiKeyId]) -> Result<Vec<ListedKey>> {
    let mut found = Vec::with_capacity(ids.len());
    for chunk in even_chunks(ids) {
        let mut sql = Sql::default();
        sql.push("SELECT k.*, a.name AS agent_name, a.status AS agent_status, k.created_at AS at FROM api_keys k ");
        sql.push("JOIN agents a ON a.id = k.agent_id WHERE k.id IN (");
        for (number, id) in chunk.iter().enumerate() {
            sql.push(if number == 0 { "" } else { ", " }).bind(id.0);
        }
        sql.push(")");
        sql.is_one_plan = true;
        let rows: Vec<Row> = run!(conn.reborrow(), sqlx::query_as, sql, fetch_all)?;
        for row in rows {
            found.push(ListedKey::try_from(row)?);
        }
    }
    let place = |listed: &ListedKey| (listed.agent_name.clone(), listed.key.name.clone(), listed.key.id);
    found.sort_by_cached_key(place);
    Ok(found)
}
