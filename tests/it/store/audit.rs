//! Filtering the audit log, against a model that looks at every record, however far its index has come.

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
    filters_show_the_same_however_far_the_index_has_come,
    filters_show_the_same_when_two_processes_add_records,
    filters_show_the_same_by_spans_of_runs,
    records_that_are_gone_hold_up_no_index,
    spans_that_are_archived_are_not_summed_up_again,
    nodes_that_index_at_once_index_once,
);

/// Two complete runs and the beginning of a third.
const RECORDS: usize = 2 * 8_192 + 1_500;
/// A complete span of runs, a complete run, and the beginning of another.
const SPAN_RECORDS: usize = 33 * 8_192 + 1_500;
/// Runs beyond one span.
const RUNS: usize = 35;

fn id(number: usize) -> Uuid {
    Uuid::from_u128(u128::try_from(number).unwrap())
}

fn record(dice: &mut Dice, number: usize) -> Record {
    // Some are everywhere, some rare, and some in one place alone.
    let actor = match dice.roll(100) {
        0..50 => Some(id(1)),
        50..99 => Some(id(10 + dice.roll(2_000))),
        _ => None,
    };
    // After a while most agents are seen once.
    let agents = if number < RECORDS { 2_000 } else { 1_000_000 };
    let (other, kind) = (id(10 + dice.roll(agents)), *dice.pick(&["agent", "api_key"]));
    let resource = if dice.roll(2) == 0 { "not a uuid".to_owned() } else { id(dice.roll(50)).to_string() };
    let subject = dice.maybe(actor).flatten().or_else(|| dice.maybe(other));
    let action = match (number, dice.roll(1_000)) {
        (9_000..9_010, _) => "only.here",
        (_, 0) => "rare",
        (_, 1..300) => "frequent",
        _ => "usual",
    };
    // An import comes first and brings times that are older and in disorder.
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
        details: "{}".to_owned(),
        ip: None,
        success: dice.roll(200) != 0,
        request_id: None,
        prev_hash: GENESIS,
        hash: GENESIS,
    }
}

async fn filled(store: &Store, records: usize) -> Vec<Record> {
    let mut dice = Dice(11);
    let records: Vec<_> = (0..records).map(|number| record(&mut dice, number)).collect();
    import(store, &records).await
}

/// Adds records, and gives all that there are then.
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
    }
}

async fn list(store: &Store, filter: &Filter, start: Start, limit: u16) -> (Vec<i64>, Option<i64>) {
    let page = audit::list(store, filter, start, Limit::of(limit)).await.unwrap();
    (page.items.iter().map(|record| record.seq).collect(), page.next)
}

/// A filter shows what it shows of all records, from wherever one begins.
async fn shows_the_same(store: &Store, all: &[Record], filter: &Filter, dice: &mut Dice) {
    let wanted: Vec<i64> = all.iter().rev().filter(|record| filter.shows(record)).map(|record| record.seq).collect();
    // From the newest, and from somewhere, a few pages on.
    let somewhere = i64::try_from(1 + dice.roll(all.len())).unwrap();
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

async fn filters_show_the_same_however_far_the_index_has_come(db: Database) {
    let store = open(&db, &TestClock::new(), &[]).await.services().store.clone();
    // Knows nothing of what another process added.
    let beside = open_beside(&db, &TestClock::new(), &[]).await.services().store.clone();
    let all = filled(&store, RECORDS).await;
    for runs in 0..3 {
        let mut dice = Dice(12 + runs);
        for round in 0..60 {
            let filter = if round == 0 { Filter::default() } else { filter(&mut dice, &all) };
            shows_the_same(&store, &all, &filter, &mut dice).await;
            if round % 4 == 0 {
                shows_the_same(&beside, &all, &filter, &mut dice).await;
            }
        }
        assert_eq!(audit::index::fill(&store).await.unwrap(), runs < 2, "the last run is not complete");
    }
    let mut read = store.read().await.unwrap();
    assert_eq!(audit::find(read.conn(), 9_001).await.unwrap().as_ref(), all.get(9_000));
    assert_eq!(audit::find(read.conn(), 0).await.unwrap(), None);
    assert_eq!(verify(store.db()).await.unwrap().broken, None);
}

async fn filters_show_the_same_when_two_processes_add_records(db: Database) {
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
                shows_the_same(store, &all, &filter(&mut dice, &all), &mut dice).await;
            }
        }
    }
    let all = import(&store, rest).await;
    // The run is not whole in the memory of either.
    assert!(audit::index::fill(&store).await.unwrap());
    for _ in 0..20 {
        shows_the_same(&beside, &all, &filter(&mut dice, &all), &mut dice).await;
    }
}

/// How many spans are complete, and how many wide ones.
async fn spans(db: &Database) -> [i64; 2] {
    let mut complete = [0; 2];
    for (count, last) in complete.iter_mut().zip([8_191, 262_143_i64]) {
        let first = last << 40;
        let last = format!("SELECT COUNT(*) FROM audit_spans WHERE place BETWEEN {first} AND {}", first + 1_000);
        *count = db.count(&last).await;
    }
    complete
}

async fn filters_show_the_same_by_spans_of_runs(db: Database) {
    let store = open(&db, &TestClock::new(), &[]).await.services().store.clone();
    let mut dice = Dice(11);
    let records: Vec<_> = (0..RUNS * 8_192).map(|number| record(&mut dice, number)).collect();
    let (first, rest) = records.split_at(SPAN_RECORDS);
    let mut dice = Dice(15);
    let all = import(&store, first).await;
    while audit::index::fill(&store).await.unwrap() {}
    assert_eq!(db.count("SELECT COUNT(*) FROM audit_runs").await, 33);
    assert_eq!(spans(&db).await, [1, 0]);
    for _ in 0..30 {
        let filter = filter(&mut dice, &all);
        shows_the_same(&store, &all, &filter, &mut dice).await;
    }

    // A wide span, most of whose runs hold nothing.
    let all = import(&store, &rest[..RUNS * 8_192 - all.len()]).await;
    while audit::index::fill(&store).await.unwrap() {}
    assert_eq!(db.count("SELECT COUNT(*) FROM audit_runs").await, 35);
    db.execute(
        "WITH RECURSIVE runs (run) AS (SELECT 35 UNION ALL SELECT run + 1 FROM runs WHERE run < 1023) \
         INSERT INTO audit_runs (run, first_at, last_at) SELECT run, 1, 0 FROM runs WHERE run > (SELECT MAX(run) FROM audit_runs)",
    )
    .await;
    // Spans that fell behind leave more runs than are looked up at once.
    for _ in 0..15 {
        shows_the_same(&store, &all, &filter(&mut dice, &all), &mut dice).await;
    }
    while audit::index::fill(&store).await.unwrap() {}
    assert_eq!(spans(&db).await, [32, 1]);
    for _ in 0..30 {
        let filter = filter(&mut dice, &all);
        shows_the_same(&store, &all, &filter, &mut dice).await;
    }
}

async fn records_that_are_gone_hold_up_no_index(db: Database) {
    let store = open(&db, &TestClock::new(), &[]).await.services().store.clone();
    let mut all = filled(&store, RECORDS).await;
    // The whole first run, as an archive takes it, and one in the middle of the next.
    let gone = |seq: i64| seq <= 8_192 || seq == 9_005;
    db.execute("DELETE FROM audit_log WHERE seq <= 8192 OR seq = 9005").await;
    all.retain(|record| !gone(record.seq));
    // One that has to read what it indexes.
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
        shows_the_same(&beside, &all, &filter(&mut dice, &all), &mut dice).await;
    }
}

async fn spans_that_are_archived_are_not_summed_up_again(db: Database) {
    let store = open(&db, &TestClock::new(), &[]).await.services().store.clone();
    for run in 0..32 {
        db.execute(&format!("INSERT INTO audit_runs (run, first_at, last_at) VALUES ({run}, 1, 0)")).await;
    }
    assert!(audit::index::fill(&store).await.unwrap());
    assert_eq!(spans(&db).await, [1, 0]);
    db.execute("UPDATE audit_start SET seq = 32 * 8192").await;
    audit::index::forget_archived(&store).await.unwrap();
    assert!(!audit::index::fill(&store).await.unwrap());
}

async fn nodes_that_index_at_once_index_once(db: Database) {
    let store = open(&db, &TestClock::new(), &[]).await.services().store.clone();
    let beside = open_beside(&db, &TestClock::new(), &[]).await.services().store.clone();
    filled(&store, RECORDS).await;
    let (one, other) = tokio::join!(audit::index::fill(&store), audit::index::fill(&beside));
    assert!(one.unwrap() && other.unwrap());
    while audit::index::fill(&store).await.unwrap() {}
    assert_eq!(db.count("SELECT COUNT(*) FROM audit_runs").await, 2);
    assert_eq!(db.count("SELECT COUNT(*) FROM audit_index WHERE place % 1099511627776 = 0").await, 256);
}
