//! The numbers that are read when the metrics are read: the database's connections, the audit log and the fleet.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Services, backup};
use crate::{
    domain::{AgentStatus, Result, Timestamp},
    store::{agents, audit, people::overview},
    telemetry::metrics::{labels, number},
};

/// How long to wait for the database. Much shorter than a scrape may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long counts of the fleet are kept.
const KEPT: Duration = Duration::from_secs(10);
/// Up to how many keys are counted.
const KEYS_MAX: i64 = 100_000;

const DAY: Duration = Duration::from_hours(24);

/// When the fleet was last counted.
#[derive(Debug, Default)]
pub struct Counted(Option<Instant>);

/// Sets the gauges to the present numbers. Those that the database does not tell in time keep their last values.
pub async fn refresh(services: &Services, counted: &mut Counted) {
    set_own(services);
    let answered = timeout(PATIENCE, read(services, counted)).await;
    let is_up = matches!(answered, Ok(Ok(())));
    services.metrics().database.up.set(if is_up { 1.0 } else { 0.0 });
}

/// Sets the gauges of this process.
fn set_own(services: &Services) {
    let database = &services.metrics().database;
    let (waiting, most) = services.store.queue();
    database.queue_length.set(count(waiting));
    database.queue_capacity.set(count(most));
    for (pool, connections) in services.store.db().connections() {
        database.idle.set(pool, count(connections.idle));
        database.in_use.set(pool, count(connections.in_use));
        database.most.set(pool, count(connections.most));
    }
}

async fn read(services: &Services, counted: &mut Counted) -> Result<()> {
    let database = &services.metrics().database;
    let mut read = services.store.read().await?;
    let head = audit::head(read.conn()).await?;
    database.chain_head.set(signed(head.seq));
    if counted.0.is_some_and(|at| at.elapsed() < KEPT) {
        return Ok(());
    }
    for (status, agents) in agents::counts(read.conn()).await? {
        let label = match status {
            AgentStatus::Active => labels::AgentStatus::Active,
            AgentStatus::Suspended => labels::AgentStatus::Suspended,
            AgentStatus::Revoked => labels::AgentStatus::Revoked,
        };
        database.agents.set(label, signed(agents));
    }
    let now = services.env.now();
    for (label, days) in [(labels::Within::Week, 7), (labels::Within::Month, 30)] {
        let keys = overview::count_expiring_keys(read.conn(), now, now.plus(DAY * days), KEYS_MAX).await?;
        database.keys_expiring.set(label, signed(keys));
    }
    drop(read);
    let last = backup::last(services).await?;
    database.backup_made.set(signed(last.made_at.map_or(0, Timestamp::as_secs)));
    database.backup_succeeded.set(if last.failed_at.is_some() { 0.0 } else { 1.0 });
    database.backup_overdue.set(if last.is_overdue { 1.0 } else { 0.0 });
    counted.0 = Some(Instant::now());
    Ok(())
}

fn count(value: usize) -> f64 {
    number(u64::try_from(value).unwrap_or(u64::MAX))
}

fn signed(value: i64) -> f64 {
    number(u64::try_from(value).unwrap_or_default())
}
