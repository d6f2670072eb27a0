//! Units of work that share a transaction.

use std::ops::RangeInclusive;

use aims::{
    domain::{
        Agent, AgentId, AgentName, AgentStatus, AgentType, Error, Result, Timestamp,
        audit::{AuditAction, Event, Resource},
    },
    service::audit::verify,
    store::{Store, Tx, agents},
};
use futures_util::future::{join, join_all};
use uuid::Uuid;

use super::Dice;
use crate::{
    both,
    support::{Database, TestClock, open},
};

both!(a_refused_unit_is_undone_and_no_other);

const RECORDS: &str = "SELECT COUNT(*) FROM audit_log";

/// How far a unit comes before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Nowhere,
    AfterOne,
    AfterAll,
    Kept,
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

async fn unit(tx: &mut Tx, numbers: RangeInclusive<u128>, end: End) -> Result<()> {
    if end == End::Nowhere {
        return Err(Error::Refused("before anything"));
    }
    for number in numbers {
        assert!(agents::insert(tx, &agent(number)).await?);
        tx.audit(event(number));
        if end == End::AfterOne {
            return Err(Error::Refused("after one"));
        }
    }
    if end == End::Kept { Ok(()) } else { Err(Error::Refused("after all")) }
}

/// What is asked for at once shares transactions, wherever in them the refused units are.
async fn a_refused_unit_is_undone_and_no_other(db: Database) {
    let app = open(&db, &TestClock::new(), &[]).await;
    let store: &Store = &app.services().store;
    let mut dice = Dice(11);
    let (mut number, mut kept, mut recorded) = (1_000, Vec::new(), db.count(RECORDS).await);
    for round in 0..30 {
        let length = if round < 8 { 1 } else { 1 + dice.roll(12) };
        let ends: Vec<_> = (0..length)
            .map(|_| *dice.pick(&[End::Nowhere, End::AfterOne, End::AfterAll, End::Kept, End::Kept, End::Kept]))
            .collect();
        let first = number;
        let units = ends.iter().zip((first..).step_by(2)).map(|(end, number)| {
            let end = *end;
            store.write(move |tx| Box::pin(unit(tx, number..=number + 1, end)))
        });
        let record = store.record(event(first + 1_000_000), None);
        // Among the units, or after them.
        let (answers, record) = if dice.roll(2) == 0 {
            join(join_all(units), record).await
        } else {
            let (record, answers) = join(record, join_all(units)).await;
            (answers, record)
        };
        record.unwrap();
        recorded += 1;
        for (end, answer) in ends.iter().zip(answers) {
            assert_eq!(answer.is_ok(), *end == End::Kept, "{ends:?}: {answer:?}");
            if answer.is_ok() {
                kept.extend([number, number + 1]);
                recorded += 2;
            }
            number += 2;
        }
        let there = db.count("SELECT COUNT(*) FROM agents WHERE owner = 'tests'").await;
        assert_eq!(usize::try_from(there).unwrap(), kept.len(), "{ends:?}");
        assert_eq!(db.count(RECORDS).await, recorded, "{ends:?}");
    }
    for number in &kept {
        let known = agents::find(store.read().await.unwrap().conn(), AgentId(Uuid::from_u128(*number))).await.unwrap();
        assert_eq!(known, Some(agent(*number)));
    }
    let counts = agents::counts(store.read().await.unwrap().conn()).await.unwrap();
    let counted: i64 = counts.iter().map(|(_, agents)| agents).sum();
    assert_eq!(counted, db.count("SELECT COUNT(*) FROM agents").await);
    assert!(verify(store.db()).await.unwrap().broken.is_none());
}
