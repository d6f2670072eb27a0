//! Issued tokens and refused requests over time. They are counted as they happen, so that no page has to read the audit
//! log for them.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::{
    domain::{
        AgentId, Result, Timestamp,
        audit::{Activity, Bucket, Range},
    },
    store::{
        db::{
            Conn, dispatch, execute,
            sql::{Sql, run},
        },
        writer::usage::{BY_DAY, BY_HOUR, DAY, HOUR},
    },
};

/// How many days the counts by hour of each agent are kept. The longest range that reads them has 7 days.
const HOURS_KEPT: i64 = 8 * 24;
/// How many days of all other counts are kept.
const DAYS_KEPT: i64 = 90;
/// How many agents of each bucket may be among the busiest of a range, and how many of all buckets are summed.
const CANDIDATES: usize = 50;

/// A kind of event that the counts tell apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The event, as its audit records name it.
    pub action: String,
    /// The reason of a refusal; empty if the event has none.
    pub reason: String,
    /// How often it happened.
    pub times: i64,
}

/// What agents are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Issued tokens.
    Issued,
    /// Refused requests.
    Refused,
}

/// Returns what happened in a range, oldest first, including buckets without activity.
///
/// # Errors
/// If the database fails.
pub async fn recent(conn: Conn<'_>, range: Range, now: Timestamp) -> Result<Vec<Bucket>> {
    const SQL: &str = "SELECT hour, issued, refused FROM activity WHERE hour >= $1 AND hour <= $2";
    let (first, last) = (number(range.starts_at(now), HOUR), number(now, HOUR));
    let rows: Vec<(i64, i64, i64)> =
        dispatch!(conn, |c| sqlx::query_as(SQL).bind(first).bind(last).fetch_all(c).await)?;
    Ok(filled(range, now, BY_HOUR, &rows))
}

/// Returns what one agent did in a range, oldest first, including buckets without activity. Tokens by which the agent
/// acts for another count for both.
///
/// # Errors
/// If the database fails.
pub async fn of_agent(conn: Conn<'_>, agent: AgentId, range: Range, now: Timestamp) -> Result<Vec<Bucket>> {
    let (span, numbers) = if range.step() < BY_DAY { hours(range, now) } else { days(range, now) };
    let mut sql = Sql { is_one_plan: true, ..Sql::default() };
    sql.push("SELECT at, issued, refused FROM agent_activity WHERE span = ").bind(span).push(" AND ");
    sql.is_one_of(&conn, "at", &numbers).and("agent_id =", agent.0);
    let rows: Vec<(i64, i64, i64)> = run!(conn, sqlx::query_as, sql, fetch_all)?;
    Ok(filled(range, now, span, &rows))
}

/// Returns the agents with the most issued tokens or refused requests in a range, with the number of both.
///
/// The candidates are the first 50 of each hour or day of the range; of these, the 50 with the most in such hours or days
/// are counted exactly over the whole range. An agent that is never among the first 50 of a day is missed, however much
/// it adds up to.
///
/// # Errors
/// If the database fails.
pub async fn busiest(
    mut conn: Conn<'_>,
    by: By,
    range: Range,
    now: Timestamp,
    most: usize,
) -> Result<Vec<(AgentId, Activity)>> {
    // Days where possible: there are fewer of them.
    let (span, numbers) = if range == Range::Day { hours(range, now) } else { days(range, now) };
    let candidates = candidates(conn.reborrow(), by, span, &numbers).await?;
    let Some(last) = candidates.last().copied() else { return Ok(Vec::new()) };

    let mut sql = Sql { is_one_plan: true, ..Sql::default() };
    sql.push(
        "SELECT agent_id, CAST(SUM(issued) AS BIGINT), CAST(SUM(refused) AS BIGINT) FROM agent_activity WHERE span = ",
    );
    sql.bind(span).push(" AND ").is_one_of(&conn, "at", &numbers).push(" AND agent_id IN (");
    // The number of parameters is fixed, so the database prepares one statement.
    for place in 0..CANDIDATES {
        sql.push(if place == 0 { "" } else { ", " }).bind(candidates.get(place).copied().unwrap_or(last));
    }
    sql.push(") GROUP BY agent_id");
    let rows: Vec<(Uuid, i64, i64)> = run!(conn, sqlx::query_as, sql, fetch_all)?;
    let mut agents: Vec<_> =
        rows.into_iter().map(|(id, issued, refused)| (AgentId(id), Activity { issued, refused })).collect();
    agents.sort_by_key(|(id, this)| (std::cmp::Reverse(by.of(*this)), *id));
    agents.truncate(most);
    Ok(agents)
}

/// Returns at most [`CANDIDATES`] agents.
async fn candidates(conn: Conn<'_>, by: By, span: i64, numbers: &BTreeSet<i64>) -> Result<Vec<Uuid>> {
    let column = by.column();
    let mut sql = Sql { is_one_plan: true, ..Sql::default() };
    for (place, number) in numbers.iter().enumerate() {
        sql.push(if place == 0 { "" } else { " UNION ALL " });
        sql.push("SELECT * FROM (SELECT agent_id, ").push(column).push(" AS times FROM agent_activity WHERE span = ");
        sql.bind(span).push(" AND at = ").bind(*number).push(" AND ").push(column).push(" > 0 ORDER BY ");
        sql.push(column).push(" DESC").limit(i64::try_from(CANDIDATES).unwrap_or_default()).push(") AS first_of_it");
    }
    let rows: Vec<(Uuid, i64)> = run!(conn, sqlx::query_as, sql, fetch_all)?;
    let mut totals = BTreeMap::<_, i64>::new();
    for (agent, times) in rows {
        *totals.entry(agent).or_default() += times;
    }
    let mut candidates: Vec<_> = totals.into_iter().collect();
    candidates.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
    Ok(candidates.into_iter().take(CANDIDATES).map(|(agent, _)| agent).collect())
}

impl By {
    const fn column(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Refused => "refused",
        }
    }

    const fn of(self, activity: Activity) -> i64 {
        match self {
            Self::Issued => activity.issued,
            Self::Refused => activity.refused,
        }
    }
}

/// Returns how often each kind of event happened in a range, most frequent first.
///
/// # Errors
/// If the database fails.
pub async fn kinds(conn: Conn<'_>, range: Range, now: Timestamp) -> Result<Vec<Kind>> {
    const SQL: &str = "SELECT action, reason, CAST(SUM(times) AS BIGINT) AS times FROM activity_kinds \
        WHERE hour >= $1 AND hour <= $2 GROUP BY action, reason ORDER BY times DESC, action, reason";
    let (first, last) = (number(range.starts_at(now), HOUR), number(now, HOUR));
    let rows: Vec<(String, String, i64)> =
        dispatch!(conn, |c| sqlx::query_as(SQL).bind(first).bind(last).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(action, reason, times)| Kind { action, reason, times }).collect())
}

/// Returns true if an access token was ever issued.
///
/// # Errors
/// If the database fails.
pub async fn any_issued(conn: Conn<'_>) -> Result<bool> {
    const SQL: &str = "SELECT COUNT(*) FROM (SELECT hour FROM activity WHERE issued > 0 LIMIT 1) AS hours";
    let count: i64 = dispatch!(conn, |c| sqlx::query_scalar(SQL).fetch_one(c).await)?;
    Ok(count > 0)
}

/// Deletes at most `most` old counts of each sort. Returns how many were deleted.
///
/// # Errors
/// If the database fails.
pub async fn forget_old(mut conn: Conn<'_>, now: Timestamp, most: i64) -> Result<u64> {
    const AGENTS: &str = "DELETE FROM agent_activity WHERE (span, at, agent_id) IN \
        (SELECT span, at, agent_id FROM agent_activity WHERE span = $1 AND at <= $2 ORDER BY at, agent_id LIMIT +$3)";
    const KINDS: &str = "DELETE FROM activity_kinds WHERE (hour, action, reason) IN \
        (SELECT hour, action, reason FROM activity_kinds WHERE hour <= $1 ORDER BY hour, action, reason LIMIT +$2)";
    let (hour, day) = (number(now, HOUR), number(now, DAY));
    let mut deleted = 0;
    for (span, before) in [(BY_HOUR, hour - HOURS_KEPT), (BY_DAY, day - DAYS_KEPT)] {
        deleted += execute!(&mut conn, sqlx::query(AGENTS).bind(span).bind(before).bind(most))?;
    }
    deleted += execute!(conn, sqlx::query(KINDS).bind(hour - DAYS_KEPT * BY_DAY).bind(most))?;
    Ok(deleted)
}

/// Returns which hour or day since the epoch a time belongs to.
const fn number(at: Timestamp, unit: i64) -> i64 {
    at.as_micros().div_euclid(unit)
}

fn hours(range: Range, now: Timestamp) -> (i64, BTreeSet<i64>) {
    (BY_HOUR, (number(range.starts_at(now), HOUR)..=number(now, HOUR)).collect())
}

fn days(range: Range, now: Timestamp) -> (i64, BTreeSet<i64>) {
    (BY_DAY, (number(range.starts_at(now), DAY)..=number(now, DAY)).collect())
}

/// Distributes counts, each with the number of its hour or day, to the buckets of a range.
fn filled(range: Range, now: Timestamp, span: i64, counts: &[(i64, i64, i64)]) -> Vec<Bucket> {
    let mut buckets = range.buckets(now);
    let start = number(range.starts_at(now), HOUR);
    for &(number, issued, refused) in counts {
        let place = usize::try_from((number * span - start).div_euclid(range.step()));
        if let Some(bucket) = place.ok().and_then(|place| buckets.get_mut(place)) {
            bucket.activity.absorb(Activity { issued, refused });
        }
    }
    buckets
}
