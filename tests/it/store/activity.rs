//! Counts of issued tokens and refused requests, in total, by kind and by agent.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use aims::{
    clock::Clock,
    domain::{
        Agent, AgentId, AgentName, AgentStatus, AgentType, Timestamp,
        agent::labels::Labels,
        audit::{Activity, AuditAction, Bucket, Event, Range},
    },
    store::{
        Store, agents,
        credentials::activity::{self, By, Kind},
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    both,
    support::{Database, TestClock, open},
};

both!(
    agents_are_counted_by_the_hour_and_by_the_day,
    refusals_are_counted_by_their_reason,
    the_busiest_agents_are_found_in_every_range,
    the_last_use_of_an_agent_is_known_and_changes_nothing_else,
    old_counts_are_forgotten,
);

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

const fn id(number: u128) -> AgentId {
    AgentId(Uuid::from_u128(number))
}

struct Fixture {
    store: Store,
    clock: TestClock,
    number: Mutex<u128>,
}

impl Fixture {
    async fn new(db: &Database) -> Self {
        let clock = TestClock::new();
        Self { store: open(db, &clock, &[]).await.services().store.clone(), clock, number: Mutex::new(0) }
    }

    fn event(&self, action: AuditAction, agents: Option<(u128, u128)>, details: Value) -> Event {
        let mut number = self.number.lock().unwrap();
        *number += 1;
        let is_issued = [AuditAction::TokenIssued, AuditAction::TokenExchanged].contains(&action);
        Event {
            id: Uuid::from_u128(*number),
            at: self.clock.now(),
            actor: agents.map(|(actor, _)| id(actor).into()),
            subject: agents.map(|(_, subject)| id(subject)),
            action,
            resource: None,
            details,
            ip: None,
            success: is_issued,
            request_id: None,
        }
    }

    async fn issue(&self, agent: u128) {
        self.store.record(self.event(AuditAction::TokenIssued, Some((agent, agent)), json!({})), None).await.unwrap();
    }

    async fn refuse(&self, agent: Option<u128>, action: AuditAction, details: Value) {
        let event = self.event(action, agent.map(|agent| (agent, agent)), details);
        self.store.record(event, None).await.unwrap();
    }

    async fn of_agent(&self, agent: u128, range: Range) -> Vec<Bucket> {
        let mut read = self.store.read_usage().await.unwrap();
        activity::of_agent(read.conn(), id(agent), range, self.clock.now()).await.unwrap()
    }

    async fn busiest(&self, by: By, range: Range, most: usize) -> Vec<(u128, i64, i64)> {
        let mut read = self.store.read_usage().await.unwrap();
        let found = activity::busiest(read.conn(), by, range, self.clock.now(), most).await.unwrap();
        found.into_iter().map(|(id, this)| (id.0.as_u128(), this.issued, this.refused)).collect()
    }
}

/// The places of the buckets in which something happened, counted from the last one, with the numbers.
fn happened(buckets: &[Bucket]) -> Vec<(usize, i64, i64)> {
    let numbered = buckets.iter().rev().enumerate().filter(|(_, bucket)| bucket.activity != Activity::default());
    numbered.map(|(place, bucket)| (place, bucket.activity.issued, bucket.activity.refused)).collect()
}

async fn agents_are_counted_by_the_hour_and_by_the_day(db: Database) {
    let fixture = Fixture::new(&db).await;
    fixture.issue(1).await;
    fixture.issue(1).await;
    fixture.issue(2).await;
    fixture.refuse(Some(1), AuditAction::AuthFailed, json!({ "reason": "key_expired" })).await;
    fixture.refuse(None, AuditAction::AuthFailed, json!({ "reason": "invalid_key" })).await;
    // From noon to 22:00 of the next day.
    fixture.clock.advance(34 * HOUR);
    fixture.issue(1).await;
    let event = fixture.event(AuditAction::TokenExchanged, Some((1, 2)), json!({}));
    fixture.store.record(event, None).await.unwrap();
    fixture.clock.advance(HOUR);

    assert_eq!(happened(&fixture.of_agent(1, Range::Day).await), [(1, 2, 0)]);
    assert_eq!(happened(&fixture.of_agent(1, Range::Week).await), [(0, 2, 0), (5, 2, 1)]);
    assert_eq!(happened(&fixture.of_agent(1, Range::Month).await), [(0, 2, 0), (1, 2, 1)]);
    assert_eq!(happened(&fixture.of_agent(1, Range::Quarter).await), [(0, 2, 0), (1, 2, 1)]);
    // A token by which one agent acts for another counts for both.
    assert_eq!(happened(&fixture.of_agent(2, Range::Month).await), [(0, 1, 0), (1, 1, 0)]);
    assert_eq!(happened(&fixture.of_agent(3, Range::Quarter).await), []);
    let mut read = fixture.store.read_usage().await.unwrap();
    let now = fixture.clock.now();
    assert_eq!(happened(&activity::recent(read.conn(), Range::Day, now).await.unwrap()), [(1, 2, 0)]);
    assert_eq!(happened(&activity::recent(read.conn(), Range::Week, now).await.unwrap()), [(0, 2, 0), (5, 3, 2)]);
    assert_eq!(happened(&activity::recent(read.conn(), Range::Month, now).await.unwrap()), [(0, 2, 0), (1, 3, 2)]);
}

async fn refusals_are_counted_by_their_reason(db: Database) {
    let fixture = Fixture::new(&db).await;
    for _ in 0..3 {
        fixture.refuse(Some(1), AuditAction::AuthFailed, json!({ "reason": "key_expired" })).await;
    }
    fixture.refuse(None, AuditAction::SignInFailed, json!({ "reason": "wrong_credentials" })).await;
    fixture.refuse(Some(1), AuditAction::AuthzDenied, json!({ "capability": "a:b" })).await;
    // What is not a constant never becomes a kind of its own.
    fixture.refuse(Some(1), AuditAction::TokenRefused, json!({ "reason": "<script>" })).await;
    fixture.refuse(Some(1), AuditAction::TokenRefused, json!({ "reason": "x".repeat(65) })).await;
    fixture.refuse(Some(1), AuditAction::RefusalsSuppressed, json!({ "suppressed": 40 })).await;
    fixture.issue(1).await;
    let mut read = fixture.store.read_usage().await.unwrap();
    let kinds = activity::kinds(read.conn(), Range::Day, fixture.clock.now()).await.unwrap();
    let kind = |action: AuditAction, reason: &str, times| Kind {
        action: action.as_str().to_owned(),
        reason: reason.to_owned(),
        times,
    };
    let expected = [
        kind(AuditAction::RefusalsSuppressed, "", 40),
        kind(AuditAction::AuthFailed, "key_expired", 3),
        kind(AuditAction::TokenRefused, "", 2),
        kind(AuditAction::TokenIssued, "", 1),
        kind(AuditAction::AuthzDenied, "", 1),
        kind(AuditAction::SignInFailed, "wrong_credentials", 1),
    ];
    let sorted = |mut kinds: Vec<Kind>| {
        kinds.sort_by(|a, b| (-a.times, &a.action).cmp(&(-b.times, &b.action)));
        kinds
    };
    assert_eq!(sorted(kinds), sorted(expected.to_vec()));
    assert_eq!(happened(&fixture.of_agent(1, Range::Day).await), [(0, 1, 46)]);
}

async fn the_busiest_agents_are_found_in_every_range(db: Database) {
    let fixture = Fixture::new(&db).await;
    // Agent 100 is the busiest of the first day, agent 200 of the last one; 300 adds up to more than either.
    for agent in [100, 100, 100, 300, 300, 1, 2, 3] {
        fixture.issue(agent).await;
    }
    fixture.clock.advance(3 * DAY);
    for agent in [200, 200, 300, 300, 4] {
        fixture.issue(agent).await;
    }
    fixture.refuse(Some(4), AuditAction::AuthFailed, json!({ "reason": "key_expired" })).await;
    fixture.refuse(Some(300), AuditAction::AuthFailed, json!({ "reason": "key_expired" })).await;
    fixture.refuse(Some(4), AuditAction::AuthFailed, json!({ "reason": "key_expired" })).await;

    for range in [Range::Week, Range::Month, Range::Quarter] {
        let found = fixture.busiest(By::Issued, range, 3).await;
        assert_eq!(found, [(300, 4, 1), (100, 3, 0), (200, 2, 0)], "{range:?}");
    }
    let today = fixture.busiest(By::Issued, Range::Day, 10).await;
    assert_eq!(today, [(200, 2, 0), (300, 2, 1), (4, 1, 2)]);
    for range in Range::ALL {
        let found = fixture.busiest(By::Refused, *range, 10).await;
        let issued = if *range == Range::Day { 2 } else { 4 };
        assert_eq!(found, [(4, 1, 2), (300, issued, 1)], "{range:?}");
    }
    fixture.clock.advance(100 * DAY);
    assert_eq!(fixture.busiest(By::Issued, Range::Quarter, 10).await, []);
}

async fn the_last_use_of_an_agent_is_known_and_changes_nothing_else(db: Database) {
    let fixture = Fixture::new(&db).await;
    let at = Timestamp::from_micros(1);
    let agent = Agent {
        id: id(1),
        name: AgentName::parse("seen").unwrap(),
        description: String::new(),
        owner: "tests".to_owned(),
        status: AgentStatus::Active,
        agent_type: AgentType::ALL[0],
        metadata_json: "{}".to_owned(),
        labels: Labels::default(),
        created_at: at,
        updated_at: at,
        suspended_at: None,
        revoked_at: None,
        token_epoch: 0,
    };
    let inserted = Arc::new(agent.clone());
    let insert = inserted.clone();
    fixture.store.write(move |tx| Box::pin(async move { agents::insert(tx, &insert).await })).await.unwrap();
    let last_use = async || {
        drop(fixture.store.read_usage().await.unwrap());
        db.count("SELECT last_used_at FROM agents WHERE name = 'seen'").await
    };
    assert_eq!(last_use().await, 0);
    if db.is_sqlite() {
        // Changes to the text index wait here.
        db.execute("DELETE FROM agents_to_index").await;
    }
    fixture.refuse(Some(1), AuditAction::AuthFailed, json!({ "reason": "key_expired" })).await;
    assert_eq!(last_use().await, 0, "a refusal is no use");

    fixture.issue(1).await;
    let first = last_use().await;
    assert!(first > 0);
    // Known to the minute.
    fixture.clock.advance(Duration::from_secs(30));
    fixture.issue(1).await;
    assert_eq!(last_use().await, first);
    fixture.clock.advance(Duration::from_secs(31));
    fixture.issue(1).await;
    assert!(last_use().await >= first + 61_000_000);

    let found = agents::find(fixture.store.read().await.unwrap().conn(), id(1)).await.unwrap().unwrap();
    assert_eq!((found.updated_at, found.token_epoch), (at, 0));
    if db.is_sqlite() {
        assert_eq!(db.count("SELECT COUNT(*) FROM agents_to_index").await, 0, "the text index does not change");
    }
}

async fn old_counts_are_forgotten(db: Database) {
    let fixture = Fixture::new(&db).await;
    fixture.issue(1).await;
    fixture.refuse(Some(1), AuditAction::AuthFailed, json!({ "reason": "key_expired" })).await;
    drop(fixture.store.read_usage().await.unwrap());
    let rows = async || {
        let now = fixture.clock.now();
        let forgetting =
            fixture.store.write(move |tx| Box::pin(async move { activity::forget_old(tx.conn(), now, 100).await }));
        forgetting.await.unwrap();
        [
            db.count("SELECT COUNT(*) FROM agent_activity WHERE span = 1").await,
            db.count("SELECT COUNT(*) FROM agent_activity WHERE span = 24").await,
            db.count("SELECT COUNT(*) FROM activity_kinds").await,
        ]
    };
    fixture.clock.advance(7 * DAY);
    assert_eq!(rows().await, [1, 1, 2]);
    fixture.clock.advance(DAY);
    assert_eq!(rows().await, [0, 1, 2]);
    fixture.clock.advance(81 * DAY);
    assert_eq!(rows().await, [0, 1, 2]);
    fixture.clock.advance(DAY);
    assert_eq!(rows().await, [0, 0, 0]);
}
