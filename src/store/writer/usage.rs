//! Counts of authentications: when and from where each key was last used, how often per day, and how many tokens were
//! issued and credentials rejected per hour.
//!
//! They are collected in memory and written together, at most a second later: a key in constant use would otherwise
//! have three rows written with every batch. Readers of these counts have them written first.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sqlx::QueryBuilder;

use crate::{
    domain::{ApiKeyId, Timestamp, audit::AuditAction, credential::api_key::Use},
    store::{
        db::{Conn, dispatch, execute},
        even_chunks,
    },
};

/// How long counts may wait. A crash loses the counts of this time.
const DELAY: Duration = Duration::from_secs(1);
/// How many keys may wait, so that writing them does not delay other work for long.
const MOST_KEYS: usize = 1_024;

/// A day, in microseconds.
pub(in crate::store) const DAY: i64 = 24 * HOUR;
/// An hour, in microseconds.
pub(in crate::store) const HOUR: i64 = 3_600 * 1_000_000;

/// The authentications of a batch.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Sorted, in the order of the index that finds the keys.
    keys: BTreeMap<ApiKeyId, Use>,
    hours: BTreeMap<i64, Activity>,
}

/// Authentications in one hour.
#[derive(Clone, Copy, Debug, Default)]
struct Activity {
    issued: i64,
    refused: i64,
}

impl Usage {
    pub(super) fn used(&mut self, key: ApiKeyId, this: Use) {
        self.keys.entry(key).and_modify(|earlier| earlier.absorb(this)).or_insert(this);
    }

    pub(super) fn note(&mut self, action: AuditAction, at: Timestamp) {
        let this = match action {
            AuditAction::TokenIssued | AuditAction::TokenGranted | AuditAction::TokenExchanged => {
                Activity { issued: 1, refused: 0 }
            }
            AuditAction::AuthFailed | AuditAction::SignInFailed => Activity { issued: 0, refused: 1 },
            _ => return,
        };
        self.hours.entry(at.as_micros().div_euclid(HOUR)).or_default().absorb(this);
    }
}

impl Activity {
    const fn absorb(&mut self, other: Self) {
        self.issued += other.issued;
        self.refused += other.refused;
    }
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
        if later.keys.is_empty() && later.hours.is_empty() {
            return;
        }
        for (key, this) in later.keys {
            self.usage.used(key, this);
        }
        for (hour, this) in later.hours {
            self.usage.hours.entry(hour).or_default().absorb(this);
        }
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
        self.usage.keys.len() >= MOST_KEYS || self.due_at().is_some_and(|due| due <= Instant::now())
    }

    /// Retries after another delay.
    pub(super) fn postpone(&mut self) {
        self.since = self.since.map(|_| Instant::now());
    }

    pub(super) async fn save(&self, mut conn: Conn<'_>) -> sqlx::Result<()> {
        const HOURS: &str = "INSERT INTO activity (hour, issued, refused) VALUES ($1, $2, $3) ON CONFLICT (hour) \
            DO UPDATE SET issued = activity.issued + excluded.issued, refused = activity.refused + excluded.refused";
        let keys: Vec<_> = self.usage.keys.iter().map(|(key, this)| (*key, *this)).collect();
        save_keys(conn.reborrow(), &keys).await?;
        for (hour, Activity { issued, refused }) in &self.usage.hours {
            execute!(&mut conn, sqlx::query(HOURS).bind(hour).bind(issued).bind(refused))?;
        }
        Ok(())
    }
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
