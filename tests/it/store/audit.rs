//! Filters of the audit log, compared with a model that checks every record.

use aims::{
    domain::{
        ActorId, AgentId, Limit, Timestamp,
        audit::{Filter, GENESIS, Record, Start},
    },
    service::audit::verify,
    store::{Store, audit},
};
use uuid::Uuid;

use super::Dice;
use crate::{
    both,
    support::{Database, TestClock, open, open_beside},
};

both!(
    filters_match_the_same_records_at_every_state_of_the_index,
    filters_match_records_of_all_processes,
    filters_match_the_same_records_across_many_runs,
    missing_records_do_not_stop_the_index,
    archived_runs_are_removed_and_not_indexed_again,
    nodes_that_index_a_run_at_the_same_time_add_it_once,
    a_deleted_index_is_built_again,
    an_index_of_an_earlier_version_still_works,
);

/// Two complete runs and the beginning of a third.
const RECORDS: usize = 2 * 8_192 + 1_500;
/// More runs than the first three statements of a lookup cover.
const MANY_RUNS: i64 = 400;

fn id(number: usize) -> Uuid {
    Uuid::from_u128(u128::try_from(number).unwrap())
}

fn record(dice: &mut Dice, number: usize) -> Record {
    // One actor is in half of all records, many are rare, and one action is in a single place.
    let actor = match dice.roll(100) {
        0..50 => Some(id(1)),
        50..99 => Some(id(10 + dice.roll(2_000))),
        _ => None,
    };
    let (other, kind) = (id(10 + dice.roll(2_000)), *dice.pick(&["agent", "api_key"]));
    let resource = if dice.roll(2) == 0 { "not a uuid".to_owned() } else { id(dice.roll(50)).to_string() };
    let subject = dice.maybe(actor).flatten().or_else(|| dice.maybe(other));
    let action = match (number, dice.roll(1_000)) {
        (9_000..9_010, _) => "only.here",
        (_, 0) => "rare",
        (_, 1..300) => "frequent",
        _ => "usual",
    };
    let success = dice.roll(200) != 0;
    let ip = format!("10.0.0.{}", dice.roll(100));
    let reason = *dice.pick(&["invalid_key", "other"]);
    // The times of imported records, which come first, are in no order.
    let at = if number < 3_000 { dice.roll(1_000) } else { number * 10 - dice.roll(500) };
    Record {
        seq: 0,
        id: id(number),
        at: Timestamp::from_micros(i64::try_from(at).unwrap()),
        actor: actor.map(ActorId),
        subject: subject.map(AgentId),
        action: action.to_owned(),
        resource_type: dice.maybe(kind.to_owned()),
        resource_id: dice.maybe(resource),
        // A reason that somebody gave is not the reason of a refusal.
        details: format!("{{\"reason\":\"{reason}\"}}"),
        ip: dice.maybe(ip),
        success,
        request_id: Some(format!("request-{}", number / 3)),
        prev_hash: GENESIS,
        hash: GENESIS,
    }
}

async fn filled(store: &Store, records: usize) -> Vec<Record> {
    let mut dice = Dice(11);
    let records: Vec<_> = (0..records).map(|number| record(&mut dice, number)).collect();
    import(store, &records).await
}

/// Appends records, and returns all records of the log.
async fn import(store: &Store, records: &[Record]) -> Vec<Record> {
    for records in records.chunks(RECORDS) {
        let records = records.to_vec();
        let import = store.write(move |tx| {
            Box::pin(async move {
                tx.import_audit(records);
                Ok(())
            })
        });
        import.await.unwrap();
    }
    let chain = audit::chain(store.read().await.unwrap().conn(), 1, 1_000_000).await.unwrap();
    chain.into_iter().map(Option::unwrap).collect()
}

fn filter(dice: &mut Dice, all: &[Record]) -> Filter {
    let some = dice.pick(all);
    let one = some.subject.map_or(id(10), |subject| subject.0);
    let agent = *dice.pick(&[id(1), one, id(99_999_999)]);
    let moment = |dice: &mut Dice| Timestamp::from_micros(i64::try_from(dice.roll(all.len() * 11)).unwrap());
    let (first, second) = (moment(dice), moment(dice));
    Filter {
        actor: (dice.roll(4) == 0).then_some(ActorId(agent)),
        involving: (dice.roll(4) == 0).then_some(AgentId(agent)),
        action: (dice.roll(3) == 0).then(|| dice.pick(&["only.here", "rare", "frequent", "usual", "none"]).to_string()),
        resource_type: (dice.roll(4) == 0).then(|| dice.pick(&["agent", "api_key", "no"]).to_string()),
        resource_id: (dice.roll(5) == 0)
            .then(|| if dice.roll(2) == 0 { "not a uuid".to_owned() } else { id(dice.roll(51)).to_string() }),
        success: (dice.roll(4) == 0).then_some(dice.roll(3) == 0),
        from: (dice.roll(4) == 0).then_some(first),
        until: (dice.roll(4) == 0).then_some(second),
        request: (dice.roll(8) == 0).then(|| format!("request-{}", dice.roll(all.len() / 3))),
        reason: (dice.roll(8) == 0).then(|| dice.pick(&["invalid_key", "other", "no"]).to_string()),
        ip: (dice.roll(8) == 0).then(|| format!("10.0.0.{}", dice.roll(100))),
    }
}

async fn list(store: &Store, filter: &Filter, start: Start, limit: u16) -> (Vec<i64>, Option<i64>) {
    let page = audit::list(store, filter, start, Limit::of(limit)).await.unwrap();
    (page.items.iter().map(|record| record.seq).collect(), page.next)
}

/// Checks pages, offsets and the live tail of a filter.
async fn assert_matches_model(store: &Store, all: &[Record], filter: &Filter, dice: &mut Dice) {
    let wanted: Vec<i64> = all.iter().rev().filter(|record| filter.shows(record)).map(|record| record.seq).collect();
    // A few pages, from the newest record and from the middle.
    let somewhere = dice.pick(all).seq;
    for (mut start, limit) in [(Start::Offset(0), 500), (Start::Before(somewhere), 40)] {
        let mut rest: Vec<_> = match start {
            Start::Before(seq) => wanted.iter().copied().filter(|other| *other < seq).collect(),
            Start::Offset(_) => wanted.clone(),
        };
        for _ in 0..4 {
            let (page, next) = list(store, filter, start, limit).await;
            let later = rest.split_off(rest.len().min(usize::from(limit)));
            assert_eq!(page, rest, "{filter:?} {start:?}");
            assert_eq!(next, page.last().copied().filter(|_| !later.is_empty()), "{filter:?} {start:?}");
            rest = later;
            let Some(next) = next else { break };
            start = Start::Before(next);
        }
    }
    let skipped = dice.roll(wanted.len() + 5);
    let (page, _) = list(store, filter, Start::Offset(i64::try_from(skipped).unwrap()), 3).await;
    assert_eq!(page, wanted.iter().skip(skipped).take(3).copied().collect::<Vec<_>>(), "{filter:?} {skipped}");

    let later = audit::after(store, filter, somewhere, Limit::of(100)).await.unwrap();
    let later: Vec<_> = later.iter().map(|record| record.seq).collect();
    let beyond = wanted.iter().rev().copied().filter(|seq| *seq > somewhere).take(100);
    assert_eq!(later, beyond.collect::<Vec<_>>(), "{filter:?} after {somewhere}");
}

async fn filters_match_the_same_records_at_every_state_of_the_index(db: Database) {
    let store = open(&db, &TestClock::new(), &[]).await.services().store.clone();
    let beside = open_beside(&db, &TestClock::new(), &[]).await.services().store.clone();
    let all = filled(&store, RECORDS).await;
    for runs in 0..3 {
        let mut dice = Dice(12 + runs);
        for round in 0..60 {
            let filter = if round == 0 { Filter::default() } else { filter(&mut dice, &all) };
            assert_matches_model(&store, &all, &filter, &mut dice).await;
            if round % 4 == 0 {
                assert_matches_model(&beside, &all, &filter, &mut dice).await;
            }
        }
        assert_eq!(audit::index::fill(&store).await.unwrap(), runs < 2, "the last run is not complete");
    }
    let mut read = store.read().await.unwrap();
    assert_eq!(audit::find(read.conn(), 9_001).await.unwrap().as_ref(), all.get(9_000));
    assert_eq!(audit::find(read.conn(), 0).await.unwrap(), None);
    assert_eq!(verify(store.db()).await.unwrap().broken, None);
}

async fn filters_match_records_of_all_processes(db: Database) {
    let store = open(&db, &TestClock::new(), &[]).await.services().store.clone();
    let beside = open_beside(&db, &TestClock::new(), &[]).await.services().store.clone();
    let mut dice = Dice(18);
    let records: Vec<_> = (0..9_000).map(|number| record(&mut dice, number)).collect();
    let mut rest = records.as_slice();
    for (count, other) in [(1_000, &store), (1_000, &beside), (6_000, &store), (500, &beside), (500, &store)] {
        let next;
        (next, rest) = rest.split_at(count);
        let all = import(other, next).await;
        for store in [&store, &beside] {
            for _ in 0..20 {
                assert_matches_model(store, &all, &filter(&mut dice, &all), &mut dice).await;
            }
        }
    }
    let all = import(&store, rest).await;
    assert!(audit::index::fill(&store).await.unwrap());
    for _ in 0..20 {
        assert_matches_model(&beside, &all, &filter(&mut dice, &all), &mut dice).await;
    }
}

async fn filters_match_the_same_records_across_many_runs(db: Database) {
    let store = open(&db, &TestClock::new(), &[]).await.services().store.clone();
    let mut dice = Dice(15);
    let mut number = 0;
    let mut records = |count| {
        number += count;
        (number - count..number).map(|number| record(&mut dice, number)).collect::<Vec<_>>()
    };
    let store_head = async || audit::head(store.read().await.unwrap().conn()).await.unwrap().seq;
    // Each full run is followed by empty ones.
    for runs in [20, 90, MANY_RUNS] {
        let rest = 8_192 - store_head().await % 8_192;
        import(&store, &records(usize::try_from(rest).unwrap())).await;
        assert!(audit::index::fill(&store).await.unwrap());
        add_empty_runs(&db, runs).await;
    }
    let all = import(&store, &records(1_500)).await;
    assert!(!audit::index::fill(&store).await.unwrap());
    assert_eq!(all.len(), 3 * 8_192 + 1_500);
    let mut dice = Dice(16);
    for _ in 0..60 {
        let filter = filter(&mut dice, &all);
        assert_matches_model(&store, &all, &filter, &mut dice).await;
    }
}

/// Adds runs without records, until there are `runs`.
async fn add_empty_runs(db: &Database, runs: i64) {
    let (first_at, last_at) = (i64::MAX, i64::MIN + 1);
    db.execute(&format!(
        "WITH RECURSIVE numbers (run) AS (SELECT MAX(run) + 1 FROM audit_runs \
         UNION ALL SELECT run + 1 FROM numbers WHERE run < {runs} - 1) \
         INSERT INTO audit_runs (run, first_at, last_at, version) SELECT run, {first_at}, {last_at}, 2 FROM numbers; \
         UPDATE audit_head SET seq = {runs} * 8192"
    ))
    .await;
}

async fn missing_records_do_not_stop_the_index(db: Database) {
    let store = open(&db, &TestClock::new(), &[]).await.services().store.clone();
    let mut all = filled(&store, RECORDS).await;
    // The whole first run, as if it were archived, and one record in the middle of the second.
    let gone = |seq: i64| seq <= 8_192 || seq == 9_005;
    db.execute("DELETE FROM audit_log WHERE seq <= 8192 OR seq = 9005").await;
    all.retain(|record| !gone(record.seq));
    let beside = open_beside(&db, &TestClock::new(), &[]).await.services().store.clone();
    for wanted in [true, true, false] {
        assert_eq!(audit::index::fill(&beside).await.unwrap(), wanted);
    }
    let here = Filter { action: Some("only.here".to_owned()), ..Filter::default() };
    for store in [&store, &beside] {
        let (found, _) = list(store, &here, Start::Offset(0), 100).await;
        let wanted: Vec<_> = all.iter().rev().filter(|record| here.shows(record)).map(|record| record.seq).collect();
        assert_eq!((found.len(), found), (9, wanted));
    }
    let mut dice = Dice(19);
    for _ in 0..20 {
        assert_matches_model(&beside, &all, &filter(&mut dice, &all), &mut dice).await;
    }
}

async fn archived_runs_are_removed_and_not_indexed_again(db: Database) {
    let store = open(&db, &TestClock::new(), &[]).await.services().store.clone();
    filled(&store, RECORDS).await;
    while audit::index::fill(&store).await.unwrap() {}
    // One whole run, and a part of the next.
    db.execute("UPDATE audit_start SET seq = 9000").await;
    audit::index::forget_archived(&store).await.unwrap();
    assert_eq!(buckets(&db, 0).await, 0);
    assert_eq!(buckets(&db, 1).await, 256);
    db.execute("UPDATE audit_start SET seq = 16384").await;
    audit::index::forget_archived(&store).await.unwrap();
    assert_eq!(db.count("SELECT COUNT(*) FROM audit_index").await, 0);
    assert!(!audit::index::fill(&store).await.unwrap());
}

/// Returns how many buckets of a run are in the index.
async fn buckets(db: &Database, run: i64) -> i64 {
    db.count(&format!("SELECT COUNT(*) FROM audit_index WHERE place % 1099511627776 = {run}")).await
}

async fn nodes_that_index_a_run_at_the_same_time_add_it_once(db: Database) {
    let store = open(&db, &TestClock::new(), &[]).await.services().store.clone();
    let beside = open_beside(&db, &TestClock::new(), &[]).await.services().store.clone();
    filled(&store, RECORDS).await;
    let (one, other) = tokio::join!(audit::index::fill(&store), audit::index::fill(&beside));
    assert!(one.unwrap() && other.unwrap());
    while audit::index::fill(&store).await.unwrap() {}
    assert_eq!(db.count("SELECT COUNT(*) FROM audit_runs").await, 2);
    assert_eq!(buckets(&db, 0).await, 256);
}

async fn a_deleted_index_is_built_again(db: Database) {
    let store = open(&db, &TestClock::new(), &[]).await.services().store.clone();
    let all = filled(&store, RECORDS).await;
    while audit::index::fill(&store).await.unwrap() {}
    // What is left of the old index is overwritten.
    db.execute(
        "DELETE FROM audit_runs; \
         UPDATE audit_index SET postings = (SELECT postings FROM audit_index ORDER BY place DESC LIMIT 1) WHERE place < 2",
    )
    .await;
    let mut dice = Dice(21);
    for _ in 0..2 {
        for _ in 0..10 {
            let filter = filter(&mut dice, &all);
            assert_matches_model(&store, &all, &filter, &mut dice).await;
        }
        while audit::index::fill(&store).await.unwrap() {}
    }
    assert_eq!(db.count("SELECT COUNT(*) FROM audit_runs").await, 2);
}

async fn an_index_of_an_earlier_version_still_works(db: Database) {
    let app = open(&db, &TestClock::new(), &[]).await;
    let all = filled(&app.services().store, RECORDS).await;
    assert!(audit::index::fill(&app.services().store).await.unwrap());
    app.close().await;
    let blob = if db.is_sqlite() { "BLOB" } else { "BYTEA" };
    db.execute(&format!(
        "DROP TABLE IF EXISTS audit_spans; \
         CREATE TABLE audit_spans (place BIGINT NOT NULL PRIMARY KEY, holders {blob} NOT NULL); \
         INSERT INTO audit_spans (place, holders) SELECT place, postings FROM audit_index; \
         DELETE FROM _sqlx_migrations WHERE version = 14"
    ))
    .await;
    let store = open(&db, &TestClock::new(), &[]).await.services().store.clone();
    let spans = if db.is_sqlite() {
        "SELECT COUNT(*) FROM sqlite_schema WHERE name = 'audit_spans'"
    } else {
        "SELECT COUNT(*) FROM audit_spans"
    };
    assert_eq!(db.count(spans).await, 0);
    let mut dice = Dice(22);
    for _ in 0..2 {
        for _ in 0..10 {
            let filter = filter(&mut dice, &all);
            assert_matches_model(&store, &all, &filter, &mut dice).await;
        }
        while audit::index::fill(&store).await.unwrap() {}
    }
}
