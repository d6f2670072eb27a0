//! Listings of agents. Each page costs about the same, for every filter, sort order and position.
//!
//! The indexes sort agents by status and type, or by owner, status and type, and then in the order of the listing. A
//! filter without a status or type is a merge of at most twelve index ranges, which both databases read only as far as
//! the page needs.
//!
//! An index of labels has the agents with each label in the order of their creation. If a selector requires a value, a
//! listing in this order walks the agents with that label, and checks their status and type.
//!
//! The other conditions (a text, a part of the owner, a capability, other labels, and unused agents in another order than
//! that of their last use) have no index in the order of the listing. A page is found in three steps:
//!
//! 1. Check the next few agents of the listing. If many agents match, these fill the page.
//! 2. Look up candidates in an index of one condition: the trigram index, the holders of the capability, the agents with a
//!    label, or the agents by their last use. If there are at most 5,000, check and sort them.
//! 3. Otherwise check the agents in the order of the listing, in windows of growing size.
//!
//! Conditions that no index narrows down enough can end a page early. The page then contains the matches of the
//! windows, possibly none, and the position where the next page starts. So no page costs more than the windows.

use sqlx::FromRow;

use super::{
    Row,
    conditions::{self, Conditions, by_label, narrow},
    labels,
    search::{self, Candidates},
};
use crate::{
    domain::{
        Agent, AgentId, AgentStatus, AgentType, Limit, Page, Result, Timestamp,
        agent::{Filter, Position, Sort},
    },
    store::db::{
        Conn,
        sql::{Sql, run},
    },
};

/// How many agents to check before using the index, per agent of a page.
const NEXT: i64 = 4;
/// The sizes of the windows to check.
const WINDOWS: [i64; 3] = [1_000, 4_000, 16_000];
/// The columns that every statement in the order of a listing selects.
const PLACE: &str = "a.id, a.created_at, a.name, a.last_used_at";

/// Returns the columns to sort by. Together they are unique.
const fn columns(sort: Sort) -> &'static [&'static str] {
    match sort {
        Sort::Oldest | Sort::Newest => &["created_at", "id"],
        Sort::Name | Sort::NameDescending => &["name"],
        Sort::LastUsed | Sort::LongestUnused => &["last_used_at", "id"],
    }
}

const fn is_ascending(sort: Sort) -> bool {
    matches!(sort, Sort::Oldest | Sort::Name | Sort::LongestUnused)
}

fn order(sql: &mut Sql, sort: Sort, table: &str) {
    let direction = if is_ascending(sort) { "" } else { " DESC" };
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
        let forwards = is_ascending(sort);
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
                Sort::LastUsed | Sort::LongestUnused => {
                    sql.push(" AND (a.last_used_at, a.id) ").push(comparison).push(" (");
                    let last_used_at = position.last_used_at.map_or(0, Timestamp::as_micros);
                    sql.bind(last_used_at).push(", ").bind(position.id.0).push(")");
                }
            }
        }
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
///
/// The ranges of an index of labels have only the columns to sort by.
fn keys(sql: &mut Sql, columns: &str, filter: &Filter, sort: Sort, span: &Span) {
    if let Some((key, values)) = by_label(filter, sort) {
        for (number, value) in values.iter().enumerate() {
            sql.push(if number == 0 { "" } else { " UNION ALL " })
                .push("SELECT * FROM (SELECT a.created_at, a.id FROM ");
            sql.push("(SELECT created_at, agent_id AS id FROM agent_labels WHERE key = ").bind(key);
            sql.and("value =", value.as_str()).push(") AS a WHERE 1 = 1");
            span.narrow(sql, sort);
            order(sql, sort, "a.");
            sql.push(") AS part");
        }
        return;
    }
    for (number, (status, agent_type)) in ranges(filter).into_iter().enumerate() {
        sql.push(if number == 0 { "" } else { " UNION ALL " }).push("SELECT * FROM (SELECT ");
        sql.push(columns).push(" FROM agents a WHERE 1 = 1");
        narrow(sql, filter.owner.as_deref(), status, agent_type);
        if let Some(unused) = filter.unused.filter(|_| conditions::is_by_use(sort)) {
            conditions::require_last_use(sql, unused);
        }
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

/// Adds a `FROM` clause for the first `count` agents `a` of a span, with the columns that conditions need.
fn from_first(sql: &mut Sql, filter: &Filter, sort: Sort, span: &Span, count: i64) {
    // The limit also keeps the planner from searching for the text first.
    if by_label(filter, sort).is_some() {
        sql.push(" FROM (");
        keys_in_order(sql, "", filter, sort, span, count);
        sql.push(") AS walked CROSS JOIN agents a WHERE a.id = walked.id");
    } else {
        sql.push(" FROM (");
        keys_in_order(sql, "created_at, id, name, owner, description, last_used_at", filter, sort, span, count);
        sql.push(") AS a WHERE 1 = 1");
    }
}

/// Returns a statement that selects the agents whose keys `inner` selects, sorted.
fn agents_of(sort: Sort, inner: impl FnOnce(&mut Sql), count: i64) -> Sql {
    let mut sql = Sql::default();
    sql.push(concat!("SELECT ", labels::columns!(), " FROM ("));
    inner(&mut sql);
    sql.push(") AS k CROSS JOIN agents a WHERE 1 = 1");
    for column in columns(sort) {
        sql.push(" AND a.").push(column).push(" = k.").push(column);
    }
    order(&mut sql, sort, "k.");
    sql.limit(count);
    sql
}

/// An agent with the column that only listings need.
#[derive(FromRow)]
struct ListedRow {
    #[sqlx(flatten)]
    agent: Row,
    last_used_at: i64,
}

struct Listed {
    agent: Agent,
    last_used_at: Timestamp,
}

fn position(listed: &Listed, sort: Sort) -> Position {
    Position {
        created_at: listed.agent.created_at,
        id: listed.agent.id,
        name: listed.agent.name.to_string(),
        last_used_at: conditions::is_by_use(sort).then_some(listed.last_used_at),
    }
}

fn cut(found: Vec<Listed>, limit: Limit, sort: Sort) -> Page<Agent, Position> {
    let page = Page::cut(found, limit, |listed| position(listed, sort));
    Page { items: agents(page.items), next: page.next }
}

fn agents(found: Vec<Listed>) -> Vec<Agent> {
    found.into_iter().map(|listed| listed.agent).collect()
}

/// Returns a page of agents after `after`.
///
/// If there are too many candidates for every condition, a page may end early. It then contains the matches among the
/// next 21,000 agents, possibly none, and the position of the next page. A search for a text that the index knows never
/// does. One of one or two characters may (on PostgreSQL also one without three letters or digits in a row).
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
    if let Some(found) = with_id(conn.reborrow(), filter, sort, &span).await? {
        return Ok(Page { items: agents(vec![found]), next: None });
    }
    let checked = Conditions::of(filter, sort);
    if checked.is_empty() {
        let sql =
            agents_of(sort, |sql| keys_in_order(sql, &columns(sort).join(", "), filter, sort, &span, count), count);
        return Ok(cut(fetch(conn, sql).await?, limit, sort));
    }
    let sql = matching(&conn, filter, sort, &span, &checked, (NEXT * count, count));
    let found = fetch(conn.reborrow(), sql).await?;
    if found.len() > usize::from(limit.get()) {
        return Ok(cut(found, limit, sort));
    }
    let candidates = candidates(conn.reborrow(), filter, &checked).await?;
    if matches!(candidates, Candidates::Few(_)) {
        let sql = sorted_candidates(&conn, filter, sort, &span, &checked, &candidates, count);
        return Ok(cut(fetch(conn, sql).await?, limit, sort));
    }
    let first = span.clone();
    let mut found = Vec::new();
    for window in WINDOWS {
        span.until = nth(conn.reborrow(), filter, sort, &span, window).await?;
        let missing = count - i64::try_from(found.len()).unwrap_or(count);
        // Limited by the span and not by a count, so that agents that are added in the meantime do not displace others.
        let sql = matching(&conn, filter, sort, &span, &checked, (i64::MAX, missing));
        found.extend(fetch(conn.reborrow(), sql).await?);
        let Some(until) = span.until.take() else { return Ok(cut(found, limit, sort)) };
        if found.len() > usize::from(limit.get()) {
            return Ok(cut(found, limit, sort));
        }
        span.after = Some(until);
    }
    if matches!(candidates, Candidates::Unknown) {
        return Ok(Page { items: agents(found), next: span.after });
    }
    // Many agents contain the text, but few in the next windows of this listing. Look up all matches.
    let sql = sorted_candidates(&conn, filter, sort, &first, &checked, &candidates, count);
    Ok(cut(fetch(conn, sql).await?, limit, sort))
}

/// Returns the agent whose ID is the text, if it matches the other conditions. So a pasted ID is found.
async fn with_id(conn: Conn<'_>, filter: &Filter, sort: Sort, span: &Span) -> Result<Option<Listed>> {
    let Some(id) = filter.text.as_deref().and_then(AgentId::parse) else { return Ok(None) };
    let others = Filter { text: None, ..filter.clone() };
    let inner = |sql: &mut Sql| {
        sql.push("SELECT ").push(PLACE).push(" FROM agents a WHERE a.id = ").bind(id.0);
        narrow(sql, filter.owner.as_deref(), filter.status, filter.agent_type);
        Conditions::all_of(&others).require(sql, &conn, false);
        span.narrow(sql, sort);
    };
    let sql = agents_of(sort, inner, 1);
    Ok(fetch(conn, sql).await?.pop())
}

/// Looks up the agents that may match, in the index of one of the conditions.
async fn candidates(mut conn: Conn<'_>, filter: &Filter, checked: &Conditions<'_>) -> Result<Candidates> {
    let mut best = Candidates::Unknown;
    for text in checked.texts() {
        match search::candidates(conn.reborrow(), text).await? {
            few @ Candidates::Few(_) => return Ok(few),
            // Only the matches of the whole text are all looked up in the end.
            Candidates::Many if checked.text == Some(text) => best = Candidates::Many,
            Candidates::Many | Candidates::Unknown => {}
        }
    }
    if let Some(capability) = checked.capability {
        let inner = |sql: &mut Sql, column: &str| {
            sql.push("SELECT a.").push(column).push(" FROM agent_capabilities g CROSS JOIN agents a ");
            sql.push("WHERE a.id = g.agent_id AND g.capability_id = ").bind(capability.0);
        };
        if let few @ Candidates::Few(_) = search::few(conn.reborrow(), inner).await? {
            return Ok(few);
        }
    }
    for term in checked.selector.into_iter().flat_map(labels::looked_up) {
        let inner = |sql: &mut Sql, column: &str| {
            sql.push("SELECT a.").push(column).push(" FROM (SELECT l.agent_id");
            labels::from_labels(sql, term);
            sql.push(") AS l CROSS JOIN agents a WHERE a.id = l.agent_id");
        };
        if let few @ Candidates::Few(_) = search::few(conn.reborrow(), inner).await? {
            return Ok(few);
        }
    }
    if checked.unused.is_some() {
        let inner = |sql: &mut Sql, column: &str| {
            keys(sql, column, filter, Sort::LongestUnused, &Span::default());
        };
        if let few @ Candidates::Few(_) = search::few(conn.reborrow(), inner).await? {
            return Ok(few);
        }
    }
    if checked.has_state() {
        // In an order for which there is an index of the status and the type.
        let inner = |sql: &mut Sql, column: &str| keys(sql, column, filter, Sort::LongestUnused, &Span::default());
        if let few @ Candidates::Few(_) = search::few(conn, inner).await? {
            return Ok(few);
        }
    }
    Ok(best)
}

/// Selects the first `count` agents that match among the first `among` agents of a span.
fn matching(
    conn: &Conn<'_>,
    filter: &Filter,
    sort: Sort,
    span: &Span,
    checked: &Conditions<'_>,
    (among, count): (i64, i64),
) -> Sql {
    let inner = |sql: &mut Sql| {
        sql.push("SELECT ").push(PLACE);
        from_first(sql, filter, sort, span, among);
        checked.require(sql, conn, false);
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
    Ok(fetch(conn, sql).await?.first().map(|listed| position(listed, sort)))
}

/// Selects the candidates that match the filter, sorted. Reads the columns to sort by first, and complete agents only
/// for the page, because an agent may be large.
fn sorted_candidates(
    conn: &Conn<'_>,
    filter: &Filter,
    sort: Sort,
    span: &Span,
    checked: &Conditions<'_>,
    candidates: &Candidates,
    count: i64,
) -> Sql {
    let inner = |sql: &mut Sql| {
        // Materialized, so that the planner does not read the listing in order instead.
        sql.push("WITH matching AS MATERIALIZED (SELECT ").push(PLACE);
        search::from_candidates(sql, conn, candidates, checked.text.unwrap_or_default());
        checked.require(sql, conn, matches!(candidates, Candidates::Many));
        narrow(sql, filter.owner.as_deref(), filter.status, filter.agent_type);
        if let Some(unused) = filter.unused.filter(|_| checked.unused.is_none()) {
            conditions::require_unused(sql, unused);
        }
        span.narrow(sql, sort);
        sql.push(") SELECT * FROM matching");
        order(sql, sort, "");
        sql.limit(count);
    };
    agents_of(sort, inner, count)
}

async fn fetch(conn: Conn<'_>, sql: Sql) -> Result<Vec<Listed>> {
    let rows: Vec<ListedRow> = run!(conn, sqlx::query_as, sql, fetch_all)?;
    let listed = |row: ListedRow| {
        Ok(Listed { last_used_at: Timestamp::from_micros(row.last_used_at), agent: row.agent.try_into()? })
    };
    rows.into_iter().map(listed).collect()
}

/// Counts the agents that match a filter, up to `cap`. A text that is too short for the index is searched for in every
/// agent.
///
/// # Errors
/// If the database fails.
pub async fn count_up_to(mut conn: Conn<'_>, filter: &Filter, cap: u32) -> Result<u64> {
    let checked = Conditions::of(filter, count_order(filter));
    if with_id(conn.reborrow(), filter, Sort::Oldest, &Span::default()).await?.is_some() {
        return Ok(1);
    }
    let mut sql = Sql::default();
    sql.push("SELECT COUNT(*) FROM (");
    if checked.is_empty() {
        keys(&mut sql, "id", filter, count_order(filter), &Span::default());
    } else {
        let candidates = candidates(conn.reborrow(), filter, &checked).await?;
        let few = matches!(candidates, Candidates::Few(_));
        sql.push("SELECT 1");
        if few {
            search::from_candidates(&mut sql, &conn, &candidates, "");
        } else {
            sql.push(" FROM agents a WHERE 1 = 1");
        }
        checked.require(&mut sql, &conn, !few);
        narrow(&mut sql, filter.owner.as_deref(), filter.status, filter.agent_type);
        if let Some(unused) = filter.unused.filter(|_| checked.unused.is_none()) {
            conditions::require_unused(&mut sql, unused);
        }
    }
    sql.limit(i64::from(cap)).push(") AS counted");
    scalar(conn, sql).await
}

/// A number of agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The number of agents that were found.
    pub found: u64,
    /// Whether there may be more.
    pub may_be_more: bool,
}

/// Counts the agents that match a filter, up to `cap`, for the price of a page of the listing.
///
/// # Errors
/// If the database fails.
pub async fn estimate(mut conn: Conn<'_>, filter: &Filter, cap: u32) -> Result<Estimate> {
    let sort = count_order(filter);
    let checked = Conditions::of(filter, sort);
    let up_to_cap = |found| Estimate { found, may_be_more: found >= u64::from(cap) };
    if checked.is_empty()
        || with_id(conn.reborrow(), filter, Sort::Oldest, &Span::default()).await?.is_some()
        || matches!(candidates(conn.reborrow(), filter, &checked).await?, Candidates::Few(_))
    {
        return Ok(up_to_cap(count_up_to(conn, filter, cap).await?));
    }
    let among: i64 = WINDOWS.iter().sum();
    let mut sql = Sql::default();
    sql.push("SELECT COUNT(*) FROM (SELECT 1");
    from_first(&mut sql, filter, sort, &Span::default(), among);
    checked.require(&mut sql, &conn, false);
    sql.limit(i64::from(cap)).push(") AS counted");
    Ok(Estimate { found: scalar(conn, sql).await?, may_be_more: true })
}

/// Returns the order whose indexes contain the conditions of a filter.
const fn count_order(filter: &Filter) -> Sort {
    if filter.unused.is_some() { Sort::LongestUnused } else { Sort::Oldest }
}

async fn scalar(conn: Conn<'_>, sql: Sql) -> Result<u64> {
    let count: i64 = run!(conn, sqlx::query_scalar, sql, fetch_one)?;
    Ok(u64::try_from(count).unwrap_or(0))
}
