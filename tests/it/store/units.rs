//! Several units of work share a transaction.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

use aims::{
    domain::{
        Agent, AgentId, AgentName, AgentStatus, AgentType, Error, Limit, Result, Timestamp,
        agent::{Filter, Sort, labels::Labels},
        audit::{AuditAction, Event, Resource},
    },
    service::audit::verify,
    store::{Conn, Store, Tx, agents},
};
use futures_util::future::{BoxFuture, join_all};
use uuid::Uuid;

use super::Dice;
use crate::{
    both,
    support::{Database, TestClock, open},
};

both!(a_failed_unit_is_undone_alone);

/// When a unit fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    BeforeAny,
    AfterOne,
    AfterAll,
    Never,
}

fn agent(number: u128) -> Agent {
    let at = Timestamp::from_micros(1);
    Agent {
        id: AgentId(Uuid::from_u128(number)),
        name: AgentName::parse(&format!("agent-{number}")).unwrap(),
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
    }
}

fn event(number: u128) -> Event {
    Event {
        id: Uuid::from_u128(number),
        at: Timestamp::from_micros(1),
        actor: None,
        subject: None,
        action: AuditAction::AgentCreated,
        resource: Some(Resource::Agent(AgentId(Uuid::from_u128(number)))),
        details: serde_json::json!({}),
        ip: None,
        success: true,
        request_id: None,
    }
}

async fn unit(tx: &mut Tx, numbers: Range<u128>, end: End, is_recorded: bool) -> Result<()> {
    if end == End::BeforeAny {
        return Err(Error::Refused("before anything"));
    }
    for number in numbers {
        assert!(agents::insert(tx, &agent(number)).await?);
        if is_recorded {
            tx.audit(event(number));
        }
        if end == End::AfterOne {
            return Err(Error::Refused("after one"));
        }
    }
    if end == End::Never { Ok(()) } else { Err(Error::Refused("after all")) }
}

/// Counts the agents with this number in their name.
async fn found(store: &Store, number: u128) -> usize {
    let filter = Filter { text: Some(format!("agent-{number}")), ..Filter::default() };
    let mut read = store.read().await.unwrap();
    agents::list(read.conn(), &filter, Sort::Name, None, Limit::of(10)).await.unwrap().items.len()
}

/// Concurrent units share transactions. Failed units are at any place in them, with and without audit records.
async fn a_failed_unit_is_undone_alone(db: Database) {
    let app = open(&db, &TestClock::new(), &[]).await;
    let store: &Store = &app.services().store;
    let mut dice = Dice(11);
    let (mut next, mut kept, mut refused) = (100_000, Vec::new(), Vec::new());
    let mut recorded = db.count("SELECT COUNT(*) FROM audit_log").await;
    for round in 0..30 {
        let length = if round < 8 { 1 } else { 1 + dice.roll(12) };
        // More agents than make the text index update, and more records than fit in a statement.
        let each = if round % 10 == 9 { 90 } else { 2 };
        let is_recorded = dice.roll(4) > 0;
        let ends = [End::BeforeAny, End::AfterOne, End::AfterAll, End::Never, End::Never, End::Never];
        let ends: Vec<_> = (0..length).map(|_| *dice.pick(&ends)).collect();
        let mut work: Vec<BoxFuture<'_, Result<()>>> = Vec::new();
        for end in &ends {
            let (numbers, end) = (next..next + each, *end);
            next += each;
            if end == End::Never { &mut kept } else { &mut refused }.extend(numbers.clone());
            if end == End::Never && is_recorded {
                recorded += i64::try_from(each).unwrap();
            }
            work.push(Box::pin(store.write(move |tx| Box::pin(unit(tx, numbers, end, is_recorded)))));
        }
        let alone = dice.maybe(round % (work.len() + 1));
        if let Some(place) = alone {
            work.insert(place, Box::pin(store.record(event(next + 1_000_000), None)));
            recorded += 1;
        }
        let mut answers = join_all(work).await;
        if let Some(place) = alone {
            answers.remove(place).unwrap();
        }
        for (end, answer) in ends.iter().zip(answers) {
            assert_eq!(answer.is_ok(), *end == End::Never, "{ends:?}: {answer:?}");
        }
        let there = db.count("SELECT COUNT(*) FROM agents WHERE owner = 'tests'").await;
        assert_eq!(usize::try_from(there).unwrap(), kept.len(), "{ends:?}");
        assert_eq!(db.count("SELECT COUNT(*) FROM audit_log").await, recorded, "{ends:?}");
    }
    for number in kept.iter().step_by(17) {
        let known = agents::find(store.read().await.unwrap().conn(), AgentId(Uuid::from_u128(*number))).await.unwrap();
        assert_eq!(known, Some(agent(*number)));
        assert_eq!(found(store, *number).await, 1);
    }
    for number in refused.iter().step_by(17) {
        assert_eq!(found(store, *number).await, 0);
    }
    let counts = agents::counts(store.read().await.unwrap().conn()).await.unwrap();
    let counted: i64 = counts.iter().map(|(_, agents)| agents).sum();
    assert_eq!(counted, db.count("SELECT COUNT(*) FROM agents").await);
    assert!(verify(store.db()).await.unwrap().broken.is_none());
}

/// Other nodes write between two transactions. A batch that waited for them after each failed unit would take long.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn failed_units_release_the_end_of_the_chain_once_per_batch() {
    let db = Database::postgres().await;
    let app = open(&db, &TestClock::new(), &[]).await;
    let store = &app.services().store;
    let transactions: Arc<Mutex<Vec<i64>>> = Arc::default();
    let refused = (0..20).map(|_| {
        let transactions = transactions.clone();
        store.write(move |tx| {
            Box::pin(async move {
                let Conn::Postgres(mut c) = tx.conn() else { return Err(Error::Unavailable(None)) };
                let this = sqlx::query_scalar("SELECT txid_current()").fetch_one(c.begin()).await?;
                transactions.lock().unwrap().push(this);
                Err::<(), _>(Error::Refused("no"))
            })
        })
    });
    assert!(join_all(refused).await.iter().all(Result::is_err));
    let mut transactions = transactions.lock().unwrap().clone();
    assert_eq!(transactions.len(), 20);
    transactions.dedup();
    assert_eq!(transactions.len(), 2);
}
