//! The records that are not indexed yet: what they are found by, kept in memory. The index is built from it, and what is not
//! indexed is found without a scan.
//!
//! The writer adds what it commits. What other nodes or earlier processes added is read by whoever keeps the index.

use std::{
    collections::VecDeque,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tokio::sync::Notify;

use super::{
    index::{RUN, run_of},
    terms::{Findable, Wanted},
};
use crate::domain::audit::Record;

/// Most records that are kept, at 64 bytes each: a run, and what comes while it is indexed.
const MOST: usize = 16_384;

#[derive(Debug, Default)]
pub(in crate::store) struct Tail {
    records: RwLock<Records>,
    /// Told when a run is complete.
    completed: Notify,
}

/// In the order of the chain and without gaps.
#[derive(Debug, Default)]
struct Records {
    known: VecDeque<Findable>,
    /// The position that follows; 0 until it is known where the index ends.
    next: i64,
}

/// Where in the tail something may be found.
pub(super) struct Found {
    /// The first and the last record that was looked at.
    pub(super) bounds: (i64, i64),
    /// In order.
    pub(super) positions: Vec<i64>,
}

impl Tail {
    fn read(&self) -> RwLockReadGuard<'_, Records> {
        self.records.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Records> {
        self.records.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what was committed, unless something is missing before it.
    pub(in crate::store) fn append(&self, committed: &[Record]) {
        let Some(first) = committed.first() else { return };
        if first.seq > self.read().next {
            return;
        }
        let added = committed.iter().map(Findable::from).collect();
        let mut records = self.write();
        // Read already; or the chain was set back, and what is known of its end is not true any more.
        if first.seq < records.next {
            let kept = records.known.partition_point(|record| record.seq < first.seq);
            records.known.truncate(kept);
            records.next = first.seq;
        }
        self.add(records, added);
    }

    /// Adds records that were read one after another, as far as they are not known yet.
    pub(super) fn extend(&self, added: Vec<Findable>) {
        self.add(self.write(), added);
    }

    fn add(&self, mut records: RwLockWriteGuard<'_, Records>, added: Vec<Findable>) {
        let run = run_of(records.next);
        for record in added {
            if record.seq == records.next && records.known.len() < MOST {
                records.next += 1;
                records.known.push_back(record);
            }
        }
        if run_of(records.next) != run {
            self.completed.notify_one();
        }
    }

    /// Returns once a run was completed since this was last asked.
    pub(super) async fn completed(&self) {
        self.completed.notified().await;
    }

    /// Forgets the records of all runs before this one, as they are indexed; gives the position from which on records are missing.
    pub(super) fn begin_with(&self, run: i64) -> i64 {
        let mut records = self.write();
        let indexed = records.known.partition_point(|record| run_of(record.seq) < run);
        records.known.drain(..indexed);
        records.next = records.next.max(run * RUN + 1);
        records.next
    }

    /// The records of the run that it begins with; `None` when some are missing, or when it begins with another.
    pub(super) fn run(&self, run: i64) -> Option<Vec<Findable>> {
        let length = usize::try_from(RUN).ok()?;
        let records = self.read();
        let begins = records.known.front().is_some_and(|first| first.seq == run * RUN + 1);
        (begins && records.known.len() >= length).then(|| records.known.iter().take(length).copied().collect())
    }

    /// Looks at the records strictly between two positions; `None` when it holds none of them.
    pub(super) fn look_up(&self, wanted: &Wanted, (after, before): (i64, i64)) -> Option<Found> {
        let records = self.read();
        let low = records.known.partition_point(|record| record.seq <= after);
        let high = records.known.partition_point(|record| record.seq < before);
        let bounds = (records.known.get(low)?.seq, records.known.get(high.checked_sub(1)?)?.seq);
        let between = records.known.range(low..high.max(low));
        let positions = between.filter(|record| wanted.may_be(record)).map(|record| record.seq).collect();
        Some(Found { bounds, positions }).filter(|found| found.bounds.0 <= found.bounds.1)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{
        AgentId, Timestamp,
        audit::{Filter, GENESIS},
    };

    /// Records from one position up to another; each seventh has a subject of its own.
    fn records(positions: std::ops::Range<i64>) -> Vec<Record> {
        positions
            .map(|seq| Record {
                seq,
                id: Uuid::nil(),
                at: Timestamp::from_micros(seq),
                actor: None,
                subject: Some(AgentId(Uuid::from_u128(u128::from(seq % 7 == 0)))),
                action: "any".to_owned(),
                resource_type: None,
                resource_id: None,
                details: String::new(),
                ip: None,
                success: true,
                request_id: None,
                prev_hash: GENESIS,
                hash: GENESIS,
            })
            .collect()
    }

    fn found(tail: &Tail, between: (i64, i64)) -> Option<((i64, i64), Vec<i64>)> {
        let seventh = Filter { involving: Some(AgentId(Uuid::from_u128(1))), ..Filter::default() };
        tail.look_up(&Wanted::by(&seventh)?, between).map(|found| (found.bounds, found.positions))
    }

    #[test]
    fn what_is_wanted_is_found_between_two_positions() {
        let tail = Tail::default();
        tail.begin_with(0);
        assert_eq!(found(&tail, (0, 100)), None);
        tail.append(&records(1..20));
        tail.append(&records(20..30));
        assert_eq!(found(&tail, (0, i64::MAX)), Some(((1, 29), vec![7, 14, 21, 28])));
        assert_eq!(found(&tail, (14, 28)), Some(((15, 27), vec![21])));
        assert_eq!(found(&tail, (21, 22)), None);
        assert_eq!(found(&tail, (29, i64::MAX)), None);
        assert_eq!(found(&tail, (0, 1)), None);
    }

    #[test]
    fn there_are_no_gaps() {
        let tail = Tail::default();
        tail.append(&records(1..5));
        assert_eq!(found(&tail, (0, i64::MAX)), None, "nobody said where the index ends");
        assert_eq!(tail.begin_with(0), 1);
        tail.append(&records(1..5));
        tail.append(&records(6..9));
        assert_eq!(tail.begin_with(0), 5);
        // Read meanwhile, and some of them known already.
        tail.extend(records(3..10).iter().map(Findable::from).collect());
        assert_eq!(found(&tail, (0, i64::MAX)), Some(((1, 9), vec![7])));
        tail.append(&records(11..12));
        assert_eq!(tail.begin_with(0), 10);
    }

    #[test]
    fn what_was_set_back_is_forgotten() {
        let tail = Tail::default();
        tail.begin_with(0);
        tail.append(&records(1..20));
        let mut other = records(12..13);
        other[0].subject = Some(AgentId(Uuid::from_u128(1)));
        tail.append(&other);
        assert_eq!(found(&tail, (0, i64::MAX)), Some(((1, 12), vec![7, 12])));
    }

    #[tokio::test]
    async fn a_run_is_given_once_it_is_whole_and_until_it_is_indexed() {
        let tail = Tail::default();
        tail.begin_with(1);
        tail.append(&records(RUN + 1..2 * RUN));
        assert!(tail.run(1).is_none());
        tail.append(&records(2 * RUN..2 * RUN + 5));
        tail.completed().await;
        assert_eq!(tail.run(1).map(|run| (run[0].seq, run.len())), Some((RUN + 1, 8_192)));
        assert!(tail.run(0).is_none() && tail.run(2).is_none());
        assert_eq!(tail.begin_with(2), 2 * RUN + 5);
        assert!(tail.run(1).is_none());
        assert_eq!(found(&tail, (0, i64::MAX)).unwrap().0, (2 * RUN + 1, 2 * RUN + 4));
        // Another node was quicker.
        assert_eq!(tail.begin_with(9), 9 * RUN + 1);
        assert_eq!(found(&tail, (0, i64::MAX)), None);
    }

    #[test]
    fn the_newest_are_left_out_when_there_are_too_many() {
        let tail = Tail::default();
        tail.begin_with(0);
        let most = i64::try_from(MOST).unwrap();
        tail.append(&records(1..most + 11));
        tail.append(&records(most + 11..most + 21));
        assert_eq!(tail.begin_with(0), most + 1);
        assert_eq!(tail.begin_with(1), most + 1);
        tail.append(&records(most + 1..most + 21));
        assert_eq!(tail.begin_with(1), most + 21);
    }
}
