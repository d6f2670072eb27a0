//! Listings of agents: each page costs about the same, whatever the filter, the order and the place in it.
//!
//! The indexes order agents by status and type, or by owner, status and type, and then in the order of the listing. A
//! filter that leaves the status or the type open is a merge of at most twelve such ranges, which both databases read only
//! as far as the page needs.
//!
//! A text is looked for among the next few agents of the listing first: where many hold it, these fill the page. If they do
//! not, the index of trigrams is asked. Where few agents may hold the text, they are looked at one by one. Otherwise the
//! listing is gone through in its order, a window at a time. A text that is too short for the index may end a page early:
//! with the agents found in the windows looked at, which may be none, and with the place where the next page goes on.

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
        Conn, on,
        sql::{Sql, run},
    },
};

/// How many agents of a listing are looked through before the index is asked, for each that the page holds.
const NEXT: i64 = 4;
/// How many agents of a listing are looked through for a text, one window after another.
const WINDOWS: [i64; 3] = [1_000, 4_000, 16_000];

/// The columns that a sort goes by; together they are different for any two agents.
const fn columns(sort: Sort) -> &'static [&'static str] {
    match sort {
        Sort::Oldest | Sort::Newest => &["created_at", "id"],
        Sort::Name | Sort::NameBackwards => &["name"],
    }
}

fn order(sql: &mut Sql, sort: Sort, table: &str) {
    let direction = if matches!(sort, Sort::Oldest | Sort::Name) { "" } else { " DESC" };
    for (number, column) in columns(sort).iter().enumerate() {
        sql.push(if number == 0 { " ORDER BY " } else { ", " }).push(table).push(column).push(direction);
    }
}

/// The part of a listing after one place and up to another.
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
                Sort::Name | Sort::NameBackwards => {
                    sql.push(" AND a.name ").push(comparison).push(" ").bind(position.name.as_str());
                }
            }
        }
    }
}

/// Narrows to a filter, but for its text.
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

/// The ranges of an index that a filter covers.
fn ranges(filter: &Filter) -> Vec<(Option<AgentStatus>, Option<AgentType>)> {
    if filter.owner.is_none() && filter.status.is_none() && filter.agent_type.is_none() {
        return vec![(None, None)];
    }
    let statuses = filter.status.as_ref().map_or(AgentStatus::ALL, std::slice::from_ref);
    let types = filter.agent_type.as_ref().map_or(AgentType::ALL, std::slice::from_ref);
    statuses.iter().flat_map(|&status| types.iter().map(move |&kind| (Some(status), Some(kind)))).collect()
}

/// Adds columns of the agents of a span, one range after another. Each in order, so that both databases merge what they read
/// when the whole is sorted: PostgreSQL would not see it otherwise.
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

/// Adds columns of the first `count` agents of a span, in order.
fn keys_in_order(sql: &mut Sql, columns: &str, filter: &Filter, sort: Sort, span: &Span, count: i64) {
    keys(sql, columns, filter, sort, span);
    order(sql, sort, "");
    sql.limit(count);
}

/// Adds the text of a statement that gives the agents whose keys `inner` adds, in order.
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

/// A page of agents, after `after`. When the filter looks for a text of one or two characters (on PostgreSQL also for
/// one without three letters or digits in a row), a page may end early: it then holds what was found among the next
/// 21,000 agents, if anything, and leads on.
///
/// # Errors
/// When the database fails.
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
    let sql = holding(&conn, filter, sort, &span, text, (NEXT * count, count));
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
        // The span bounds it, and not a number: agents that are added meanwhile must not push others out.
        let sql = holding(&conn, filter, sort, &span, text, (i64::MAX, missing));
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
    // Many hold the text, and few of those that the listing shows next: the index has to name them all.
    let sql = sorted_candidates(&conn, filter, sort, &first, &candidates, text, count);
    Ok(Page::cut(fetch(conn, sql).await?, limit, position))
}

/// The first agents that hold a text among the first of a span: `(among, count)`.
fn holding(conn: &Conn<'_>, filter: &Filter, sort: Sort, span: &Span, text: &str, (among, count): (i64, i64)) -> Sql {
    let inner = |sql: &mut Sql| {
        sql.push("SELECT a.created_at, a.id, a.name FROM (");
        // The number also keeps the planner from looking for the text first.
        keys_in_order(sql, "created_at, id, name, owner, description", filter, sort, span, among);
        sql.push(") AS a WHERE 1 = 1");
        search::holds(sql, conn, text, false);
        order(sql, sort, "a.");
        sql.limit(count);
    };
    agents_of(sort, inner, count)
}

/// The place of the `number`th agent of a span; `None` when it ends before.
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

/// The agents among the candidates that the filter shows, sorted. The sort's columns come first and the rest later: an
/// agent may be large, and only those on the page are wanted whole.
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
        // Materialised, so that no planner goes through the listing instead.
        sql.push("WITH matching AS MATERIALIZED (SELECT a.id, a.created_at, a.name");
        search::from_candidates(sql, conn, candidates, text);
        search::holds(sql, conn, text, matches!(candidates, Candidates::Many));
        narrow(sql, filter.owner.as_deref(), filter.status, filter.agent_type);
        span.narrow(sql, sort);
        sql.push(") SELECT * FROM matching");
        order(sql, sort, "");
        sql.limit(count);
    };
    agents_of(sort, inner, count)
}

async fn fetch(conn: Conn<'_>, sql: Sql) -> Result<Vec<Agent>> {
    let rows: Vec<Row> = run!(conn, sqlx::query_as, sql, fetch_all);
    rows.into_iter().map(Agent::try_from).collect()
}

/// How many agents a filter shows, counted no further than `cap`. A text that is too short for the index is looked
/// for in every agent, which takes as long as there are many and few hold it.
///
/// # Errors
/// When the database fails.
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
            search::holds(&mut sql, &conn, text, !few);
            narrow(&mut sql, filter.owner.as_deref(), filter.status, filter.agent_type);
        }
    }
    sql.limit(cap).push(") AS counted");
    let count: i64 = run!(conn, sqlx::query_scalar, sql, fetch_one);
    Ok(u64::try_from(count).unwrap_or(0))
}

/// The owners of agents whose names begin with `prefix`, in order, at most `limit`. Costs one step in an index for
/// each, however many agents each owns.
///
/// # Errors
/// When the database fails.
pub async fn owners(conn: Conn<'_>, prefix: &str, limit: Limit) -> Result<Vec<String>> {
    const SQL: &str = "WITH RECURSIVE known (owner) AS (\
        SELECT MIN(owner) FROM agents WHERE owner >= $1 UNION ALL \
        SELECT (SELECT MIN(a.owner) FROM agents a WHERE a.owner > known.owner) FROM known \
            WHERE known.owner IS NOT NULL) \
        SELECT owner FROM known WHERE owner IS NOT NULL LIMIT +$2";
    let owners: Vec<String> =
        on!(conn, |c| sqlx::query_scalar(SQL).bind(prefix).bind(i64::from(limit.get())).fetch_all(c).await?);
    Ok(owners.into_iter().take_while(|owner| owner.starts_with(prefix)).collect())
}
