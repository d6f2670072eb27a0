//! What is counted of authentications besides their audit records: when and from where each key was last used, how often
//! it was, and how many tokens were issued in each hour.
//!
//! It is gathered in memory and written together, because a key that is used all the time would otherwise have its row,
//! its count and the hour's row written with every batch. Whoever reads it has it written first.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    activity::{self, Activity},
    api_keys,
};
use crate::{
    domain::{ApiKeyId, Timestamp, audit::AuditAction, credential::api_key::Use},
    store::db::Conn,
};

/// How long it may wait: what a crash can lose, as long as the database takes what is saved.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many keys may wait, so that writing them keeps nobody waiting for long.
const MOST: usize = 1_024;

#[derive(Debug, Default)]
pub(in crate::store) struct Usage {
    /// One entry a key, in the order of the index that finds them.
    keys: BTreeMap<ApiKeyId, Use>,
    activity: Activity,
}

impl Usage {
    pub(in crate::store) fn used(&mut self, key: ApiKeyId, this: Use) {
        self.keys.entry(key).and_modify(|earlier| earlier.absorb(this)).or_insert(this);
    }

    pub(in crate::store) fn note(&mut self, action: AuditAction, at: Timestamp) {
        self.activity.note(action, at);
    }

    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.activity.is_empty()
    }
}

/// What waits to be written.
#[derive(Debug, Default)]
pub(in crate::store) struct Pending {
    usage: Usage,
    /// Since when.
    since: Option<Instant>,
}

impl Pending {
    /// Adds what a batch that was committed saw.
    pub(in crate::store) fn absorb(&mut self, later: Usage) {
        if later.is_empty() {
            return;
        }
        for (key, this) in later.keys {
            self.usage.used(key, this);
        }
        self.usage.activity.absorb(&later.activity);
        self.since.get_or_insert_with(Instant::now);
    }

    pub(in crate::store) const fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    /// When it has to be written at the latest; `None` when nothing waits.
    pub(in crate::store) fn due_at(&self) -> Option<Instant> {
        self.since.map(|since| since + PATIENCE)
    }

    pub(in crate::store) fn is_due(&self) -> bool {
        self.usage.keys.len() >= MOST || self.due_at().is_some_and(|due| due <= Instant::now())
    }

    /// Tries again later.
    pub(in crate::store) fn postpone(&mut self) {
        self.since = self.since.map(|_| Instant::now());
    }

    pub(in crate::store) async fn save(&self, mut conn: Conn<'_>) -> sqlx::Result<()> {
        let keys: Vec<_> = self.usage.keys.iter().map(|(key, this)| (*key, *this)).collect();
        api_keys::touch(conn.reborrow(), &keys).await?;
        activity::add(conn, &self.usage.activity).await
    }
}
