//! Reads the filter index: which records of a run may match a filter.

use std::{
    collections::{BTreeSet, HashMap},
    iter,
};

use super::{
    index::{self, Bitmap, RUN, place_of},
    terms::{Field, Term, Wanted, term},
};
use crate::{
    domain::Result,
    store::db::{
        Conn, dispatch,
        sql::{Sql, run},
    },
};

/// The records of one run that may match a filter.
pub(super) struct Matches {
    run: i64,
    /// `None` if the index does not narrow them down.
    bits: Option<Box<Bitmap>>,
}

impl Matches {
    /// Returns the first and the last position of the run.
    pub(super) const fn bounds(&self) -> (i64, i64) {
        (self.run * RUN + 1, (self.run + 1) * RUN)
    }

    /// Returns the positions of the records in ascending order, unless there are more than `most`.
    pub(super) fn positions(&self, most: u32) -> Option<Vec<i64>> {
        let bits = self.bits.as_ref()?;
        if bits.iter().map(|word| word.count_ones()).sum::<u32>() > most {
            return None;
        }
        let first = self.run * RUN + 1;
        let words = (first..).step_by(64).zip(bits.iter());
        Some(words.flat_map(|(first, word)| ones(*word).map(move |bit| first + bit)).collect())
    }
}

/// Returns the numbers of the bits that are set, in ascending order.
fn ones(word: u64) -> impl Iterator<Item = i64> {
    let rests = iter::successors(Some(word), |rest| Some(rest & rest.wrapping_sub(1)));
    rests.take_while(|rest| *rest != 0).map(|rest| i64::from(rest.trailing_zeros()))
}

/// Returns the runs from `low` to `high` that overlap the filter's time range, in ascending order.
pub(super) async fn runs(conn: Conn<'_>, wanted: &Wanted, (low, high): (i64, i64)) -> Result<Vec<i64>> {
    const SQL: &str = "SELECT run FROM audit_runs WHERE run >= $1 AND run <= $2 AND last_at >= $3 AND first_at <= $4 \
        ORDER BY run";
    if wanted.from.is_none() && wanted.until.is_none() {
        return Ok((low..=high).collect());
    }
    let (from, until) = (wanted.from.unwrap_or(i64::MIN), wanted.until.unwrap_or(i64::MAX));
    Ok(dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(low).bind(high).bind(from).bind(until).fetch_all(c).await)?)
}

/// Looks up the filter's terms in `runs`, which are in ascending order, and leaves out runs without a match.
pub(super) async fn matches(conn: Conn<'_>, wanted: &Wanted, runs: &[i64]) -> Result<Vec<Matches>> {
    let (Some(low), Some(high)) = (runs.first(), runs.last()) else { return Ok(Vec::new()) };
    if wanted.terms.is_empty() {
        return Ok(runs.iter().map(|run| Matches { run: *run, bits: None }).collect());
    }
    let buckets = read(conn, wanted.terms.iter().flatten().copied(), (*low, *high)).await?;
    let matches =
        runs.iter().filter_map(|run| Some(Matches { run: *run, bits: Some(intersect(wanted, *run, &buckets)?) }));
    Ok(matches.collect())
}

/// Reads the buckets of terms in the runs from `low` to `high`.
async fn read(
    conn: Conn<'_>,
    terms: impl Iterator<Item = Term>,
    (low, high): (i64, i64),
) -> Result<HashMap<i64, Vec<u8>>> {
    let ranges = terms.map(|term| (place_of(term, low), place_of(term, high)));
    let mut sql = Sql::default();
    sql.push("SELECT place, postings FROM audit_index WHERE ");
    for (number, (first, last)) in ranges.collect::<BTreeSet<_>>().into_iter().enumerate() {
        sql.push(if number == 0 { "place >= " } else { " OR place >= " }).bind(first);
        sql.push(" AND place <= ").bind(last);
    }
    sql.at_once("place");
    let rows: Vec<(i64, Vec<u8>)> = run!(conn, sqlx::query_as, sql, fetch_all)?;
    Ok(rows.into_iter().collect())
}

/// The records of one run that may match a filter, by their outcome.
pub(super) struct Outcomes {
    pub(super) run: i64,
    pub(super) success: Box<Bitmap>,
    pub(super) failure: Box<Bitmap>,
}

impl Outcomes {
    /// Returns how many records between two offsets in the run succeeded and failed. The second offset is excluded.
    pub(super) fn count(&self, start: i64, end: i64) -> (i64, i64) {
        (count(&self.success, start, end), count(&self.failure, start, end))
    }
}

fn count(bits: &Bitmap, start: i64, end: i64) -> i64 {
    let words = (0..).step_by(64).zip(bits.iter());
    let counts = words.map(|(first, word)| {
        let below = |offset: i64| match offset - first {
            ..=0 => 0,
            64.. => u64::MAX,
            bits => (1 << bits) - 1,
        };
        i64::from((word & below(end) & !below(start)).count_ones())
    });
    counts.sum()
}

/// Returns how many rows of the index [`outcomes`] reads for a run.
pub(super) fn rows_per_run(wanted: &Wanted) -> usize {
    let buckets: BTreeSet<_> = wanted.terms.iter().flatten().map(|term| place_of(*term, 0)).collect();
    buckets.len() + 1
}

/// Does the same as [`matches`], and divides the records by their outcome. Leaves out records up to `archived`.
pub(super) async fn outcomes(conn: Conn<'_>, wanted: &Wanted, runs: &[i64], archived: i64) -> Result<Vec<Outcomes>> {
    let (Some(low), Some(high)) = (runs.first(), runs.last()) else { return Ok(Vec::new()) };
    let failed = term(Field::Outcome, &[0]);
    let terms = wanted.terms.iter().flatten().copied().chain([failed]);
    let buckets = read(conn, terms, (*low, *high)).await?;
    let outcomes = runs.iter().filter_map(|run| {
        let mut success = match wanted.terms.as_slice() {
            [] => Box::new([u64::MAX; index::WORDS]),
            _ => intersect(wanted, *run, &buckets)?,
        };
        let left = archived - run * RUN;
        for (first, word) in (0..).step_by(64).zip(success.iter_mut()) {
            if left > first {
                *word &= u64::MAX.checked_shl(u32::try_from(left - first).unwrap_or(u32::MAX)).unwrap_or(0);
            }
        }
        let mut failure = index::empty_bitmap();
        if let Some(entry) = buckets.get(&place_of(failed, *run)).and_then(|bucket| index::find(bucket, failed)) {
            entry.add_to(&mut failure);
        }
        for (success, failure) in success.iter_mut().zip(failure.iter_mut()) {
            *failure &= *success;
            *success &= !*failure;
        }
        Some(Outcomes { run: *run, success, failure })
    });
    Ok(outcomes.collect())
}

/// Returns the records of a run that have at least one term of each list; `None` if there are none.
fn intersect(wanted: &Wanted, run: i64, buckets: &HashMap<i64, Vec<u8>>) -> Option<Box<Bitmap>> {
    let mut common: Option<Box<Bitmap>> = None;
    for alternatives in &wanted.terms {
        let mut any = index::empty_bitmap();
        for term in alternatives {
            if let Some(entry) = buckets.get(&place_of(*term, run)).and_then(|bucket| index::find(bucket, *term)) {
                entry.add_to(&mut any);
            }
        }
        match &mut common {
            Some(common) => common.iter_mut().zip(any.iter()).for_each(|(word, other)| *word &= other),
            None => common = Some(any),
        }
    }
    common.filter(|bits| bits.iter().any(|word| *word != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_listed_up_to_a_maximum() {
        let offsets = [0, 1, 63, 64, 4_095, 8_191];
        let mut bits = index::empty_bitmap();
        for offset in offsets {
            index::set(&mut bits, offset);
        }
        let matches = Matches { run: 2, bits: Some(bits) };
        assert_eq!(matches.bounds(), (16_385, 24_576));
        assert_eq!(matches.positions(6), Some(offsets.map(|offset| 16_385 + i64::from(offset)).to_vec()));
        assert_eq!(matches.positions(5), None);
        assert_eq!(Matches { run: 2, bits: None }.positions(u32::MAX), None);
    }
}
