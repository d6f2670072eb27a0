//! The chart of the audit log, compared with a model that counts every record.

use aims::{
    domain::{
        ActorId, Timestamp,
        audit::{Buckets, Filter, GENESIS, Record},
    },
    store::{
        Store,
        audit::{self, chart::Count},
    },
};
use uuid::Uuid;

use super::Dice;
use crate::{
    both,
    support::{Database, TestClock, open},
};

both!(counts_are_those_of_the_records, records_that_are_archived_are_not_counted);

/// More runs than are counted by the database, and a part of another.
const RECORDS: usize = 8 * 8_192 + 900;
/// After the records of the first start, which are in the first run.
const START: i64 = 1_800_000_000;

fn record(dice: &mut Dice, number: usize) -> Record {
    let success = dice.roll(10) != 0;
    // Half of all records are in the first tenth of the time.
    let at = if number < RECORDS / 2 { number } else { number * 10 };
    Record {
        seq: 0,
        id: Uuid::from_u128(u128::try_from(number).unwrap()),
        at: Timestamp::from_secs(START + i64::try_from(at).unwrap()),
        actor: Some(ActorId(Uuid::from_u128(u128::try_from(dice.roll(20)).unwrap()))),
        subject: None,
        action: (*dice.pick(&["frequent", "usual"])).to_owned(),
        resource_type: None,
        resource_id: None,
        details: if success { "{}" } else { "{\"reason\":\"invalid_key\"}" }.to_owned(),
        ip: Some(format!("10.0.0.{}", dice.roll(300))),
        success,
        request_id: Some(format!("request-{number}")),
        prev_hash: GENESIS,
        hash: GENESIS,
    }
}

async fn filled(store: &Store) -> Vec<Record> {
    let mut dice = Dice(5);
    let records: Vec<_> = (0..RECORDS).map(|number| record(&mut dice, number)).collect();
    for records in records.chunks(16_384) {
        let records = records.to_vec();
        let import = store.write(move |tx| {
            Box::pin(async move {
                tx.import_audit(records);
                Ok(())
            })
        });
        import.await.unwrap();
    }
    records
}

fn model(records: &[Record], filter: &Filter, buckets: &Buckets) -> Vec<Count> {
    let mut counts = vec![Count::default(); buckets.count()];
    for record in records.iter().filter(|record| filter.shows(record)) {
        let Some(bucket) = buckets.bucket_of(record.at) else { continue };
        let count = &mut counts[bucket];
        *(if record.success { &mut count.success } else { &mut count.failure }) += 1;
    }
    counts
}

fn filters() -> [Filter; 7] {
    let text = |text: &str| Some(text.to_owned());
    [
        Filter::default(),
        Filter { action: text("frequent"), ..Filter::default() },
        Filter { actor: Some(ActorId(Uuid::from_u128(3))), success: Some(false), ..Filter::default() },
        Filter { reason: text("invalid_key"), ..Filter::default() },
        Filter { ip: text("10.0.0.7"), ..Filter::default() },
        Filter { request: text("request-12345"), ..Filter::default() },
        Filter { action: text("none"), ..Filter::default() },
    ]
}

async fn assert_counts(store: &Store, records: &[Record]) {
    let last = i64::try_from(RECORDS * 10).unwrap();
    for (from, until) in [(0, last), (1_000, 40_000), (last / 2, last / 2 + 30), (30_000, last), (last + 1, last + 2)] {
        let buckets = Buckets::of(Timestamp::from_secs(START + from), Timestamp::from_secs(START + until)).unwrap();
        for filter in filters() {
            let counts = audit::chart::count(store, &filter, &buckets).await.unwrap();
            assert_eq!(counts.since, None);
            assert_eq!(counts.buckets, model(records, &filter, &buckets), "{filter:?} {buckets:?}");
        }
    }
}

async fn counts_are_those_of_the_records(db: Database) {
    let store = open(&db, &TestClock::new(), &[]).await.services().store.clone();
    let records = filled(&store).await;
    let mut runs = 0;
    while audit::index::fill(&store).await.unwrap() {
        runs += 1;
        // Records after the last indexed run are counted one by one, and older ones than that not at all.
        if runs >= 5 {
            assert_counts(&store, &records).await;
        }
    }
    assert_eq!(runs, 8);
    // Runs that an earlier version indexed have no terms for some of the filters.
    db.execute("UPDATE audit_runs SET version = 1 WHERE run >= 6").await;
    assert_counts(&store, &records).await;
    while audit::index::fill(&store).await.unwrap() {}
    assert_eq!(db.count("SELECT COUNT(*) FROM audit_runs WHERE version = 2").await, 8);
    // A backlog: only the newest records are counted.
    db.execute("DELETE FROM audit_runs WHERE run >= 2").await;
    let last = Timestamp::from_secs(START + i64::try_from(RECORDS * 10).unwrap());
    let buckets = Buckets::of(Timestamp::from_secs(START), last).unwrap();
    let counts = audit::chart::count(&store, &Filter::default(), &buckets).await.unwrap();
    let counted: i64 = counts.buckets.iter().map(|count| count.success + count.failure).sum();
    assert_eq!(counted, 4 * 8_192);
    assert_eq!(counts.since, Some(records[RECORDS - 4 * 8_192].at));
}

async fn records_that_are_archived_are_not_counted(db: Database) {
    let store = open(&db, &TestClock::new(), &[]).await.services().store.clone();
    let records = filled(&store).await;
    while audit::index::fill(&store).await.unwrap() {}
    let earlier = usize::try_from(db.count("SELECT COUNT(*) FROM audit_log").await).unwrap() - records.len();
    db.execute("UPDATE audit_start SET seq = 10000; DELETE FROM audit_log WHERE seq <= 10000").await;
    audit::index::forget_archived(&store).await.unwrap();
    assert_counts(&store, &records[10_000 - earlier..]).await;
}
