//! Listings of agents. Each page costs about the same, for every filter, sort order and position.
//!
//! The indexes sort agents by status and type, or by owner, status and type, and then in the order of the listing. A
//! filter without a status or type is a merge of at most twelve index ranges, which both databases read only as far as
//! the page needs.
//!
//! A search for a text has three steps:
//!
//! 1. Check the next few agents of the listing. If many agents contain the text, these fill the page.
//! 2. Look up candidates in the trigram index. If there are few, check each of them.
//! 3. Otherwise check the agents in the order of the listing, in windows of growing size.
//!
//! A text that is too short for the index can end a page early. The page then contains the matches of the windows,
//! possibly none, and the position where the next page starts.

use super::{
    Row,
    search::{self, Candidates},
};
use crate::{
    domain::{
        Agent, AgentStatus, AgentType, Limit, Page, Result,
        agent::{Filter, Position, Sort},
    },
    store::db::{
        Conn, dispatch,
        sql::{Sql, run},
    },
};

/// How many agents to check before using the index, per agent of a page.
const NEXT: i64 = 4;
/// The sizes of the windows to check for a text.
const WINDOWS: [i64; 3] = [1_000, 4_000, 16_000];

/// Returns the columns to sort by. Together they are unique.
const fn columns(sort: Sort) -> &'static [&'static str] {
    match sort {
        Sort::Oldest | Sort::Newest => &["created_at", "id"],
        Sort::Name | Sort::NameDescending => &["name"],
    }
}

fn order(sql: &mut Sql, sort: Sort, table: &str) {
    let direction = if matches!(sort, Sort::Oldest | Sort::Name) { "" } else { " DESC" };
    for (number, column) in columns(sort).iter().enumerate() {
        sql.push(if number == 0 { " ORDER BY " } else { ", " }).push(table).push(column).push(direction);
    }
}

/// The part of a listing after one position, up to and including another.
#[derive(Clone, Default)]
struct Span {
    after: Option<Position>,
    until: Option<Position>,
}

impl Span {
    fn narrow(&self, sql: &mut Sql, sort: Sort) {
        let forwards = matches!(sort, Sort::Oldest | Sort::Name);
        let bounds =
            [(&self.after, if forwards { ">" } else { "<" }), (&self.until, if forwards { "<=" } else { ">=" })];
        for (position, comparison) in bounds {
            let Some(position) = position else { continue };
            match sort {
                Sort::Oldest | Sort::Newest => {
                    sql.push(" AND (a.created_at, a.id) ").push(comparison).push(" (");
                    sql.bind(position.created_at.as_micros()).push(", ").bind(position.id.0).push(")");
                }
                Sort::Name | Sort::NameDescending => {
                    sql.push(" AND a.name ").push(comparison).push(" ").bind(position.name.as_str());
                }
            }
        }
    }
}

/// Adds the conditions of a filter, except for its text.
fn narrow(sql: &mut Sql, owner: Option<&str>, status: Option<AgentStatus>, agent_type: Option<AgentType>) {
    if let Some(owner) = owner {
        sql.and("a.owner =", owner);
    }
    if let Some(status) = status {
        sql.and("a.status =", status.as_str());
    }
    if let Some(agent_type) = agent_type {
        sql.and("a.agent_type =", agent_type.as_str());
    }
}

/// Returns the index ranges that a filter covers.
fn ranges(filter: &Filter) -> Vec<(Option<AgentStatus>, Option<AgentType>)> {
    if filter.owner.is_none() && filter.status.is_none() && filter.agent_type.is_none() {
        return vec![(None, None)];
    }
    let statuses = filter.status.as_ref().map_or(AgentStatus::ALL, std::slice::from_ref);
    let types = filter.agent_type.as_ref().map_or(AgentType::ALL, std::slice::from_ref);
    statuses.iter().flat_map(|&status| types.iter().map(move |&kind| (Some(status), Some(kind)))).collect()
}

/// Selects columns of the agents of a span, one range after another. Each range is sorted, so that both databases merge
/// the ranges. Without it PostgreSQL would not recognise that it can.
fn keys(sql: &mut Sql, columns: &str, filter: &Filter, sort: Sort, span: &Span) {
    for (number, (status, agent_type)) in ranges(filter).into_iter().enumerate() {
        sql.push(if number == 0 { "" } else { " UNION ALL " }).push("SELECT * FROM (SELECT ");
        sql.push(columns).push(" FROM agents a WHERE 1 = 1");
        narrow(sql, filter.owner.as_deref(), status, agent_type);
        span.narrow(sql, sort);
        order(sql, sort, "a.");
        sql.push(") AS part");
    }
}

/// Selects columns of the first `count` agents of a span, sorted.
fn keys_in_order(sql: &mut Sql, columns: &str, filter: &Filter, sort: Sort, span: &Span, count: i64) {
    keys(sql, columns, filter, sort, span);
    order(sql, sort, "");
    sql.limit(count);
}

/// Returns a statement that selects the agents whose keys `inner` selects, sorted.
fn agents_of(sort: Sort, inner: impl FnOnce(&mut Sql), count: i64) -> Sql {
    let mut sql = Sql::default();
    sql.push("SELECT a.* FROM (");
    inner(&mut sql);
    sql.push(") AS k CROSS JOIN agents a WHERE 1 = 1");
    for column in columns(sort) {
        sql.push(" AND a.").push(column).push(" = k.").push(column);
    }
    order(&mut sql, sort, "k.");
    sql.limit(count);
    sql
}

fn position(agent: &Agent) -> Position {
    Position { created_at: agent.created_at, id: agent.id, name: agent.name.to_string() }
}

/// Returns a page of agents after `after`.
///
/// If the filter searches for a text of one or two characters (on PostgreSQL also for one without three letters or
/// digits in a row), a page may end early. It then contains the matches among the next 21,000 agents, possibly none,
/// and the position of the next page.
///
/// # Errors
/// If the database fails.
pub async fn list(
    mut conn: Conn<'_>,
    filter: &Filter,
    sort: Sort,
    after: Option<Position>,
    limit: Limit,
) -> Result<Page<Agent, Position>> {
    let count = i64::from(limit.get()) + 1;
    let mut span = Span { after, until: None };
    let Some(text) = &filter.text else {
        let sql =
            agents_of(sort, |sql| keys_in_order(sql, &columns(sort).join(", "), filter, sort, &span, count), count);
        return Ok(Page::cut(fetch(conn, sql).await?, limit, position));
    };
    let sql = containing_text(&conn, filter, sort, &span, text, (NEXT * count, count));
    let found = fetch(conn.reborrow(), sql).await?;
    if found.len() > usize::from(limit.get()) {
        return Ok(Page::cut(found, limit, position));
    }
    let candidates = search::candidates(conn.reborrow(), text).await?;
    if matches!(candidates, Candidates::Few(_)) {
        let sql = sorted_candidates(&conn, filter, sort, &span, &candidates, text, count);
        return Ok(Page::cut(fetch(conn, sql).await?, limit, position));
    }
    let first = span.clone();
    let mut found = Vec::new();
    for window in WINDOWS {
        span.until = nth(conn.reborrow(), filter, sort, &span, window).await?;
        let missing = count - i64::try_from(found.len()).unwrap_or(count);
        // Limited by the span and not by a count, so that agents that are added in the meantime do not displace others.
        let sql = containing_text(&conn, filter, sort, &span, text, (i64::MAX, missing));
        found.extend(fetch(conn.reborrow(), sql).await?);
        let Some(until) = span.until.take() else { return Ok(Page::cut(found, limit, position)) };
        if found.len() > usize::from(limit.get()) {
            return Ok(Page::cut(found, limit, position));
        }
        span.after = Some(until);
    }
    if matches!(candidates, Candidates::Unknown) {
        return Ok(Page { items: found, next: span.after });
    }
    // Many agents contain the text, but few in the next windows of this listing. Look up all matches.
    let sql = sorted_candidates(&conn, filter, sort, &first, &candidates, text, count);
    Ok(Page::cut(fetch(conn, sql).await?, limit, position))
}

/// Selects the first `count` agents that contain a text among the first `among` agents of a span.
fn containing_text(
    conn: &Conn<'_>,
    filter: &Filter,
    sort: Sort,
    span: &Span,
    text: &str,
    (among, count): (i64, i64),
) -> Sql {
    let inner = |sql: &mut Sql| {
        sql.push("SELECT a.created_at, a.id, a.name FROM (");
        // The limit also keeps the planner from searching for the text first.
        keys_in_order(sql, "created_at, id, name, owner, description", filter, sort, span, among);
        sql.push(") AS a WHERE 1 = 1");
        search::require_text(sql, conn, text, false);
        order(sql, sort, "a.");
        sql.limit(count);
    };
    agents_of(sort, inner, count)
}

/// Returns the position of the `number`th agent of a span. `None` if the span is shorter.
async fn nth(conn: Conn<'_>, filter: &Filter, sort: Sort, span: &Span, number: i64) -> Result<Option<Position>> {
    let sql = agents_of(
        sort,
        |sql| {
            keys(sql, &columns(sort).join(", "), filter, sort, span);
            order(sql, sort, "");
            sql.push(" LIMIT 1 OFFSET ").bind(number - 1);
        },
        1,
    );
    Ok(fetch(conn, sql).await?.first().map(position))
}

/// Selects the candidates that match the filter, sorted. Reads the columns to sort by first, and complete agents only
/// for the page, because an agent may be large.
fn sorted_candidates(
    conn: &Conn<'_>,
    filter: &Filter,
    sort: Sort,
    span: &Span,
    candidates: &Candidates,
    text: &str,
    count: i64,
) -> Sql {
    let inner = |sql: &mut Sql| {
        // Materialized, so that the planner does not read the listing in order instead.
        sql.push("WITH matching AS MATERIALIZED (SELECT a.id, a.created_at, a.name");
        search::from_candidates(sql, conn, candidates, text);
        search::require_text(sql, conn, text, matches!(candidates, Candidates::Many));
        narrow(sql, filter.owner.as_deref(), filter.status, filter.agent_type);
        span.narrow(sql, sort);
        sql.push(") SELECT * FROM matching");
        order(sql, sort, "");
        sql.limit(count);
    };
    agents_of(sort, inner, count)
}

async fn fetch(conn: Conn<'_>, sql: Sql) -> Result<Vec<Agent>> {
    let rows: Vec<Row> = run!(conn, sqlx::query_as, sql, fetch_all)?;
    rows.into_iter().map(Agent::try_from).collect()
}

/// Counts the agents that match a filter, up to `cap`. A text that is too short for the index is searched for in every
/// agent.
///
/// # Errors
/// If the database fails.
pub async fn count_up_to(mut conn: Conn<'_>, filter: &Filter, cap: u32) -> Result<u64> {
    let cap = i64::from(cap);
    let mut sql = Sql::default();
    sql.push("SELECT COUNT(*) FROM (");
    match &filter.text {
        None => keys(&mut sql, "id", filter, Sort::Oldest, &Span::default()),
        Some(text) => {
            let candidates = search::candidates(conn.reborrow(), text).await?;
            let few = matches!(candidates, Candidates::Few(_));
            sql.push("SELECT 1");
            if few {
                search::from_candidates(&mut sql, &conn, &candidates, text);
            } else {
                sql.push(" FROM agents a WHERE 1 = 1");
            }
            search::require_text(&mut sql, &conn, text, !few);
            narrow(&mut sql, filter.owner.as_deref(), filter.status, filter.agent_type);
        }
    }
    sql.limit(cap).push(") AS counted");
    let count: i64 = run!(conn, sqlx::query_scalar, sql, fetch_one)?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Returns at most `limit` owners that start with `prefix`, sorted. Costs one index lookup per owner, however many
/// agents each owns.
///
/// # Errors
/// If the database fails.
pub async fn owners(conn: Conn<'_>, prefix: &str, limit: Limit) -> Result<Vec<String>> {
    const SQL: &str = "WITH RECURSIVE known (owner) AS (\
        SELECT MIN(owner) FROM agents WHERE owner >= $1 UNION ALL \
        SELECT (SELECT MIN(a.owner) FROM agents a WHERE a.owner > known.owner) FROM known \
            WHERE known.owner IS NOT NULL) \
        SELECT owner FROM known WHERE owner IS NOT NULL LIMIT +$2";
    let owners: Vec<String> =
        dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(prefix).bind(i64::from(limit.get())).fetch_all(c).await)?;
    Ok(owners.into_iter().take_while(|owner| owner.starts_with(prefix)).collect())
}
