//! Counts of authentications: when and from where each key was last used and how often per day; how many tokens were
//! issued and how many requests were refused per hour, by kind, and per agent; and when each agent was last used.
//!
//! They are collected in memory and written together, at most a second later: a key in constant use would otherwise
//! have three rows written with every batch. Readers of these counts have them written first.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::Value;
use sqlx::QueryBuilder;

use crate::{
    domain::{
        AgentId, ApiKeyId,
        audit::{Activity, AuditAction, Record},
        credential::api_key::Use,
    },
    store::{
        db::{Conn, dispatch, execute},
        even_chunks,
    },
};

/// How long counts may wait. A crash loses the counts of this time.
const DELAY: Duration = Duration::from_secs(1);
/// How many keys or agents may wait, so that writing them does not delay other work for long.
const MOST_KEYS: usize = 1_024;

/// The spans of time that the activity of agents is counted in, in hours.
pub(in crate::store) const BY_HOUR: i64 = 1;
pub(in crate::store) const BY_DAY: i64 = 24;
/// How far the last use of an agent may lag behind. Writing it changes an index, and on PostgreSQL every index of agents.
const LAST_USE_STEP: i64 = 60 * 1_000_000;
/// Maximum length of a reason. All that AIMS records are shorter.
const REASON_MAX: usize = 64;

pub(in crate::store) use crate::domain::audit::activity::{DAY, HOUR};

/// The authentications of a batch.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Sorted, in the order of the index that finds the keys.
    keys: BTreeMap<ApiKeyId, Use>,
    hours: BTreeMap<i64, Activity>,
    /// By hour, event and reason.
    kinds: BTreeMap<(i64, &'static str, String), i64>,
    /// By hour and agent, in the order of the index that finds them.
    agents: BTreeMap<(i64, AgentId), Activity>,
    /// When each agent last got a token.
    last_uses: BTreeMap<AgentId, i64>,
}

impl Usage {
    pub(super) fn used(&mut self, key: ApiKeyId, this: Use) {
        self.keys.entry(key).and_modify(|earlier| earlier.absorb(this)).or_insert(this);
    }

    pub(super) fn note(&mut self, action: AuditAction, record: &Record) {
        let is_issued =
            matches!(action, AuditAction::TokenIssued | AuditAction::TokenGranted | AuditAction::TokenExchanged);
        if record.success && !is_issued {
            return;
        }
        let (reason, times) = if is_issued { (String::new(), 1) } else { refusal(action, record) };
        let (issued, refused) = if is_issued { (times, 0) } else { (0, times) };
        let (hour, this) = (record.at.as_micros().div_euclid(HOUR), Activity { issued, refused });
        self.hours.entry(hour).or_default().absorb(this);
        *self.kinds.entry((hour, action.as_str(), reason)).or_default() += times;
        let Some(subject) = record.subject else { return };
        self.agents.entry((hour, subject)).or_default().absorb(this);
        // If an agent is affected, the actor is an agent as well: people get no tokens.
        let Some(actor) = record.actor.map(|actor| AgentId(actor.0)) else { return };
        if actor != subject {
            self.agents.entry((hour, actor)).or_default().absorb(this);
        }
        if is_issued {
            self.last_used(actor, record.at.as_micros());
        }
    }

    fn last_used(&mut self, agent: AgentId, at: i64) {
        self.last_uses.entry(agent).and_modify(|earlier| *earlier = at.max(*earlier)).or_insert(at);
    }

    fn absorb(&mut self, later: Self) {
        for (key, this) in later.keys {
            self.used(key, this);
        }
        for (hour, this) in later.hours {
            self.hours.entry(hour).or_default().absorb(this);
        }
        for (kind, times) in later.kinds {
            *self.kinds.entry(kind).or_default() += times;
        }
        for (place, this) in later.agents {
            self.agents.entry(place).or_default().absorb(this);
        }
        for (agent, at) in later.last_uses {
            self.last_used(agent, at);
        }
    }

    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.hours.is_empty()
    }
}

/// Returns the reason of a refusal and how many refusals its record stands for.
fn refusal(action: AuditAction, record: &Record) -> (String, i64) {
    let details = serde_json::from_str::<Value>(&record.details).unwrap_or_default();
    if action == AuditAction::RefusalsSuppressed {
        return (String::new(), details.get("suppressed").and_then(Value::as_i64).unwrap_or(1));
    }
    // Reasons are constants of the code. Anything else must not become a row of its own.
    let is_constant = |reason: &&str| {
        reason.len() <= REASON_MAX
            && reason.bytes().all(|byte| byte.is_ascii_lowercase() || b"_0123456789".contains(&byte))
    };
    let reason = details.get("reason").and_then(Value::as_str).filter(is_constant).unwrap_or_default();
    (reason.to_owned(), 1)
}

/// The authentications that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Pending {
    usage: Usage,
    since: Option<Instant>,
}

impl Pending {
    /// Adds the authentications of a committed batch.
    pub(super) fn absorb(&mut self, later: Usage) {
        if later.is_empty() {
            return;
        }
        self.usage.absorb(later);
        self.since.get_or_insert_with(Instant::now);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    /// Returns when the counts must be written. `None` if there are none.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.since.map(|since| since + DELAY)
    }

    pub(super) fn is_due(&self) -> bool {
        self.usage.keys.len().max(self.usage.last_uses.len()) >= MOST_KEYS
            || self.due_at().is_some_and(|due| due <= Instant::now())
    }

    /// Retries after another delay.
    pub(super) fn postpone(&mut self) {
        self.since = self.since.map(|_| Instant::now());
    }

    pub(super) async fn save(&self, mut conn: Conn<'_>) -> sqlx::Result<()> {
        const HOURS: &str = "INSERT INTO activity (hour, issued, refused) VALUES ($1, $2, $3) ON CONFLICT (hour) \
            DO UPDATE SET issued = activity.issued + excluded.issued, refused = activity.refused + excluded.refused";
        const KINDS: &str = "INSERT INTO activity_kinds (hour, action, reason, times) VALUES ($1, $2, $3, $4) \
            ON CONFLICT (hour, action, reason) DO UPDATE SET times = activity_kinds.times + excluded.times";
        let keys: Vec<_> = self.usage.keys.iter().map(|(key, this)| (*key, *this)).collect();
        save_keys(conn.reborrow(), &keys).await?;
        for (hour, Activity { issued, refused }) in &self.usage.hours {
            execute!(&mut conn, sqlx::query(HOURS).bind(hour).bind(issued).bind(refused))?;
        }
        for ((hour, action, reason), times) in &self.usage.kinds {
            execute!(&mut conn, sqlx::query(KINDS).bind(hour).bind(*action).bind(reason).bind(times))?;
        }
        save_agents(conn.reborrow(), &self.usage.agents).await?;
        let last_uses: Vec<_> = self.usage.last_uses.iter().map(|(agent, at)| (*agent, *at)).collect();
        save_last_uses(conn, &last_uses).await
    }
}

/// Adds to the counts of each agent by the hour and by the day.
async fn save_agents(mut conn: Conn<'_>, hours: &BTreeMap<(i64, AgentId), Activity>) -> sqlx::Result<()> {
    let mut days = BTreeMap::new();
    for ((hour, agent), this) in hours {
        days.entry((hour.div_euclid(BY_DAY), *agent)).or_insert_with(Activity::default).absorb(*this);
    }
    let spans = [(BY_HOUR, hours), (BY_DAY, &days)];
    let counts = spans.iter().flat_map(|(span, counts)| counts.iter().map(|(place, this)| (*span, *place, *this)));
    for chunk in even_chunks(&counts.collect::<Vec<_>>()) {
        dispatch!(&mut conn, |c| {
            let mut query = QueryBuilder::new("INSERT INTO agent_activity (span, at, agent_id, issued, refused) ");
            query.push_values(chunk, |mut row, (span, (at, agent), this)| {
                row.push_bind(*span).push_bind(*at).push_bind(agent.0);
                row.push_bind(this.issued).push_bind(this.refused);
            });
            query.push(
                " ON CONFLICT (span, at, agent_id) DO UPDATE SET issued = agent_activity.issued + excluded.issued, \
                 refused = agent_activity.refused + excluded.refused",
            );
            query.build().execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

/// Writes when each agent was last used, unless that is known to the minute. An agent must not occur twice.
async fn save_last_uses(mut conn: Conn<'_>, uses: &[(AgentId, i64)]) -> sqlx::Result<()> {
    for chunk in even_chunks(uses) {
        dispatch!(&mut conn, |c| {
            let mut query = QueryBuilder::new("UPDATE agents SET last_used_at = used.column2 FROM (");
            query.push_values(chunk, |mut row, (agent, at)| {
                row.push_bind(agent.0).push_bind(*at);
            });
            query.push(") AS used WHERE agents.id = used.column1 AND agents.last_used_at < used.column2 - ");
            query.push(LAST_USE_STEP).build().execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

/// Writes how each key was used. A key must not occur twice.
async fn save_keys(mut conn: Conn<'_>, uses: &[(ApiKeyId, Use)]) -> sqlx::Result<()> {
    for chunk in even_chunks(uses) {
        dispatch!(&mut conn, |c| {
            // First the keys that were idle for a day, then the others: `idle_since` is indexed, so it is updated once
            // a day only.
            for (update, earlier, by) in [
                ("UPDATE api_keys SET idle_since = used.column2, ", "api_keys.idle_since", DAY),
                ("UPDATE api_keys SET ", "COALESCE(api_keys.last_used_at, 0)", 0),
            ] {
                let mut query = QueryBuilder::new(update);
                query.push("last_used_at = used.column2, last_used_ip = used.column3 FROM (");
                query.push_values(chunk, |mut row, (key, used)| {
                    row.push_bind(key.0).push_bind(used.at.as_micros()).push_bind(used.ip.map(|ip| ip.to_string()));
                });
                query.push(") AS used WHERE api_keys.id = used.column1 AND ").push(earlier);
                query.push(" < used.column2 - ").push_bind(by).build().execute(&mut *c).await?;
            }

            let mut query = QueryBuilder::new("INSERT INTO api_key_uses (day, key_id, uses) ");
            query.push_values(chunk, |mut row, (key, used)| {
                row.push_bind(used.at.as_micros().div_euclid(DAY)).push_bind(key.0).push_bind(used.times);
            });
            query.push(" ON CONFLICT (day, key_id) DO UPDATE SET uses = api_key_uses.uses + excluded.uses");
            query.build().execute(c).await.map(drop)
        })?;
    }
    Ok(())
}
