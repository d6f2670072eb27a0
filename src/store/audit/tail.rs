//! The newest records, as far as this process appended them itself and in a row: what they are found by, kept in memory. The
//! index is built from it without reading them again, and what is not indexed yet is found without a scan.

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
    /// In the order of the chain and without gaps.
    records: RwLock<VecDeque<Findable>>,
    /// Told when a run is complete.
    completed: Notify,
}

/// Where in the tail something may be found.
pub(super) struct Found {
    /// The first and the last record that was looked at.
    pub(super) bounds: (i64, i64),
    /// In order.
    pub(super) positions: Vec<i64>,
}

impl Tail {
    fn read(&self) -> RwLockReadGuard<'_, VecDeque<Findable>> {
        self.records.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, VecDeque<Findable>> {
        self.records.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what was committed. Where another node appended meanwhile, or a commit whose answer was lost, the tail begins anew.
    pub(in crate::store) fn extend(&self, committed: &[Record]) {
        let added: Vec<Findable> = committed.iter().rev().take(MOST).rev().map(Findable::from).collect();
        let (Some(first), Some(last)) = (added.first(), added.last()) else { return };
        let completes = run_of(first.seq) != run_of(last.seq + 1);
        let mut records = self.write();
        if records.back().is_some_and(|last| last.seq + 1 != first.seq) {
            records.clear();
        }
        records.extend(added);
        let surplus = records.len().saturating_sub(MOST);
        records.drain(..surplus);
        drop(records);
        if completes {
            self.completed.notify_one();
        }
    }

    /// Returns once a run was completed since this was last asked.
    pub(super) async fn completed(&self) {
        self.completed.notified().await;
    }

    /// The records of a run; `None` when some are missing.
    pub(super) fn run(&self, run: i64) -> Option<Vec<Findable>> {
        let records = self.read();
        let of_run: Vec<_> = records.iter().filter(|record| run_of(record.seq) == run).copied().collect();
        (i64::try_from(of_run.len()) == Ok(RUN)).then_some(of_run)
    }

    /// Forgets the records of all runs before this one.
    pub(super) fn forget_before(&self, run: i64) {
        let mut records = self.write();
        let indexed = records.partition_point(|record| run_of(record.seq) < run);
        records.drain(..indexed);
    }

    /// Looks at the records strictly between two positions; `None` when it holds none of them.
    pub(super) fn look_up(&self, wanted: &Wanted, (after, before): (i64, i64)) -> Option<Found> {
        let records = self.read();
        let low = records.partition_point(|record| record.seq <= after);
        let high = records.partition_point(|record| record.seq < before);
        let bounds = (records.get(low)?.seq, records.get(high.checked_sub(1)?)?.seq);
        let between = records.range(low..high.max(low));
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
        assert_eq!(found(&tail, (0, 100)), None);
        tail.extend(&records(10..20));
        tail.extend(&records(20..30));
        assert_eq!(found(&tail, (0, i64::MAX)), Some(((10, 29), vec![14, 21, 28])));
        assert_eq!(found(&tail, (14, 28)), Some(((15, 27), vec![21])));
        assert_eq!(found(&tail, (21, 22)), None);
        assert_eq!(found(&tail, (29, i64::MAX)), None);
        assert_eq!(found(&tail, (0, 10)), None);
    }

    #[test]
    fn after_a_gap_it_begins_anew() {
        let tail = Tail::default();
        tail.extend(&records(10..20));
        tail.extend(&records(21..30));
        assert_eq!(found(&tail, (0, i64::MAX)), Some(((21, 29), vec![21, 28])));
    }

    #[test]
    fn only_a_whole_run_is_given_and_it_is_kept_until_it_is_forgotten() {
        let tail = Tail::default();
        tail.extend(&records(2..RUN + 1));
        assert!(tail.run(0).is_none());
        tail.extend(&records(RUN + 1..2 * RUN));
        assert!(tail.run(1).is_none());
        tail.extend(&records(2 * RUN..2 * RUN + 5));
        assert_eq!(tail.run(1).map(|run| (run[0].seq, run.len())), Some((RUN + 1, 8_192)));
        tail.forget_before(2);
        assert!(tail.run(1).is_none());
        assert_eq!(found(&tail, (0, i64::MAX)).unwrap().0, (2 * RUN + 1, 2 * RUN + 4));
    }

    #[test]
    fn the_oldest_give_way_when_there_are_too_many() {
        let tail = Tail::default();
        let most = i64::try_from(MOST).unwrap();
        tail.extend(&records(1..most + 1));
        tail.extend(&records(most + 1..most + 11));
        assert_eq!(found(&tail, (0, i64::MAX)).unwrap().0, (11, most + 10));
        tail.extend(&records(most + 11..3 * most));
        assert_eq!(found(&tail, (0, i64::MAX)).unwrap().0, (2 * most, 3 * most - 1));
    }
}
