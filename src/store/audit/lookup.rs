//! What the index of the audit log says of where a filter may find something: which runs, and which of their records.

use std::{
    collections::{BTreeSet, HashMap},
    iter,
    ops::RangeInclusive,
};

use super::{
    index::{self, Bits, RUN, place_of},
    spans::{self, Extent, Span},
    terms::{Term, Wanted},
};
use crate::{
    domain::Result,
    store::{
        db::{Conn, on},
        sql::{Sql, run},
    },
};

/// Most runs after the last span that are looked up at once with the spans: usually fewer than a span has.
const NEWEST: usize = 64;

/// The records of one run that a filter may show.
pub(super) struct Chosen {
    run: i64,
    /// `None`: all of them.
    bits: Option<Box<Bits>>,
}

impl Chosen {
    /// The first and the last position of the run.
    pub(super) const fn bounds(&self) -> (i64, i64) {
        (self.run * RUN + 1, (self.run + 1) * RUN)
    }

    /// The positions, when there are at most `most`.
    pub(super) fn few(&self, most: u32) -> Option<Vec<i64>> {
        let bits = self.bits.as_ref()?;
        if bits.iter().map(|word| word.count_ones()).sum::<u32>() > most {
            return None;
        }
        let first = self.run * RUN + 1;
        let words = (first..).step_by(64).zip(bits.iter());
        Some(words.flat_map(|(first, word)| ones(*word).map(move |bit| first + bit)).collect())
    }
}

/// The places of the bits that are set, in order.
fn ones(word: u64) -> impl Iterator<Item = i64> {
    let rests = iter::successors(Some(word), |rest| Some(rest & rest.wrapping_sub(1)));
    rests.take_while(|rest| *rest != 0).map(|rest| i64::from(rest.trailing_zeros()))
}

/// The first and the last of the runs `low` to `high` that touch the span of time; `None` when none does.
pub(super) async fn within(conn: Conn<'_>, wanted: &Wanted, low: i64, high: i64) -> Result<Option<(i64, i64)>> {
    const SQL: &str = "SELECT MIN(run), MAX(run) FROM audit_runs WHERE run >= $1 AND run <= $2 AND last_at >= $3 \
        AND first_at <= $4";
    if wanted.from.is_none() && wanted.until.is_none() {
        return Ok((low <= high).then_some((low, high)));
    }
    let (from, until) = (wanted.from.unwrap_or(i64::MIN), wanted.until.unwrap_or(i64::MAX));
    let ends: (Option<i64>, Option<i64>) =
        on!(conn, |c| sqlx::query_as(SQL).bind(low).bind(high).bind(from).bind(until).fetch_one(c).await?);
    Ok(ends.0.zip(ends.1))
}

/// A run that may have something to show, with what is known of where.
pub(super) type Candidate = (i64, Option<Box<Bits>>);

/// Looks up some runs, which are in order; those with nothing to show are left out.
pub(super) async fn choose(conn: Conn<'_>, wanted: &Wanted, candidates: &[Candidate]) -> Result<Vec<Chosen>> {
    let all = |(run, bits): &Candidate| Chosen { run: *run, bits: bits.clone() };
    let unknown: Vec<_> = candidates.iter().filter(|(_, bits)| bits.is_none()).map(|(run, _)| *run).collect();
    if unknown.is_empty() || wanted.terms.is_empty() {
        return Ok(candidates.iter().map(all).collect());
    }
    let rows = load(conn, &wanted.terms, &unknown, &[]).await?;
    let chosen = candidates.iter().filter_map(|candidate| match candidate {
        (run, None) => Some(Chosen { run: *run, bits: Some(common(wanted, *run, &rows)?) }),
        _ => Some(all(candidate)),
    });
    Ok(chosen.collect())
}

/// The records of a run that hold one term of each list; `None` when there are none.
fn common(wanted: &Wanted, run: i64, rows: &Rows) -> Option<Box<Bits>> {
    let mut common: Option<Box<Bits>> = None;
    for alternatives in &wanted.terms {
        let found = alternatives.iter().filter_map(|term| index::find(rows.get(&place_of(*term, run))?, *term));
        let any = found.fold(None, |any, entry| {
            let mut any = any.unwrap_or_else(index::no_bits);
            entry.add_to(&mut any);
            Some(any)
        })?;
        match &mut common {
            Some(common) => common.iter_mut().zip(any.iter()).for_each(|(word, other)| *word &= other),
            None => common = Some(any),
        }
    }
    common.filter(|bits| bits.iter().any(|word| *word != 0))
}

/// The runs from `low` to `high` that may have something to show, in order: those that come after the spans, and what leads to
/// those before. What says so of the newest, and of the widest spans, is read at once.
pub(super) async fn candidates(
    mut conn: Conn<'_>,
    wanted: &Wanted,
    (low, high): (i64, i64),
    extent: Extent,
) -> Result<(Vec<Candidate>, Spanned)> {
    let times = in_time(conn.reborrow(), wanted, low, high).await?;
    let last = high.min(extent.spanned() - 1);
    let unspanned = low.max(extent.spanned())..=high;
    let unspanned: Vec<_> = unspanned.filter(|run| is_in(times.as_deref(), *run)).collect();
    let mut spanned = Spanned { runs: low..=last, times, cover: Vec::new(), rows: Rows::new() };
    if wanted.terms.is_empty() {
        return Ok((unspanned.into_iter().map(|run| (run, None)).collect(), spanned));
    }
    let (unknown, newest) = unspanned.split_at(unspanned.len().saturating_sub(NEWEST));
    spanned.cover = extent.cover(low, last);
    spanned.rows = load(conn, &wanted.terms, newest, &spanned.cover).await?;
    let newest = newest.iter().filter_map(|run| Some((*run, Some(common(wanted, *run, &spanned.rows)?))));
    let newer = unknown.iter().map(|run| (*run, None)).chain(newest).collect();
    Ok((newer, spanned))
}

/// Runs that spans sum up, and what was read of the spans.
pub(super) struct Spanned {
    runs: RangeInclusive<i64>,
    times: Option<Vec<i64>>,
    cover: Vec<Span>,
    rows: Rows,
}

impl Spanned {
    /// Those of them that may have something to show, in order.
    pub(super) async fn candidates(self, conn: Conn<'_>, wanted: &Wanted) -> Result<Vec<Candidate>> {
        let Self { runs, times, cover, rows } = self;
        if wanted.terms.is_empty() {
            return Ok(runs.filter(|run| is_in(times.as_deref(), *run)).map(|run| (run, None)).collect());
        }
        let holding = spans::holding(conn, &wanted.terms, cover, rows).await?;
        Ok(holding.into_iter().filter(|(run, _)| runs.contains(run) && is_in(times.as_deref(), *run)).collect())
    }
}

/// Whether a run is one of those that touch the span of time; `None`: all do.
fn is_in(times: Option<&[i64]>, run: i64) -> bool {
    times.is_none_or(|times| times.binary_search(&run).is_ok())
}

/// The runs that touch the span of time, in order; `None`: all do.
async fn in_time(conn: Conn<'_>, wanted: &Wanted, low: i64, high: i64) -> Result<Option<Vec<i64>>> {
    const SQL: &str = "SELECT run FROM audit_runs WHERE run >= $1 AND run <= $2 AND last_at >= $3 AND first_at <= $4 \
        ORDER BY run";
    if wanted.from.is_none() && wanted.until.is_none() {
        return Ok(None);
    }
    let (from, until) = (wanted.from.unwrap_or(i64::MIN), wanted.until.unwrap_or(i64::MAX));
    Ok(Some(on!(conn, |c| sqlx::query_scalar(SQL).bind(low).bind(high).bind(from).bind(until).fetch_all(c).await?)))
}

/// What stands at which place, of a run or of a span: no place is both.
pub(super) type Rows = HashMap<i64, Vec<u8>>;

/// Reads where the terms would be, in some runs, which are in order, and in some spans.
pub(super) async fn load(conn: Conn<'_>, lists: &[Vec<Term>], runs: &[i64], spans: &[Span]) -> Result<Rows> {
    if runs.is_empty() && spans.is_empty() {
        return Ok(Rows::new());
    }
    let mut sql = Sql::default();
    sql.push("SELECT place, terms FROM (");
    if let (Some(low), Some(high)) = (runs.first(), runs.last()) {
        sql.push("SELECT place, postings AS terms FROM audit_index WHERE ");
        if usize::try_from(high - low).is_ok_and(|gaps| gaps < runs.len()) {
            let ranges = lists.iter().flatten().map(|term| (place_of(*term, *low), place_of(*term, *high)));
            for (number, (low, high)) in ranges.collect::<BTreeSet<_>>().into_iter().enumerate() {
                sql.push(if number == 0 { "place >= " } else { " OR place >= " }).bind(low);
                sql.push(" AND place <= ").bind(high);
            }
        } else {
            let places = lists.iter().flatten().flat_map(|term| runs.iter().map(|run| place_of(*term, *run)));
            sql.is_one_of(&conn, "place", &places.collect());
        }
        sql.push(if spans.is_empty() { "" } else { " UNION ALL " });
    }
    if !spans.is_empty() {
        let places = lists.iter().flatten().flat_map(|term| spans.iter().map(|span| span.place(*term)));
        sql.push("SELECT place, holders AS terms FROM audit_spans WHERE ").is_one_of(&conn, "place", &places.collect());
    }
    sql.push(") AS found").at_once("place");
    let rows: Vec<(i64, Vec<u8>)> = run!(conn, sqlx::query_as, sql, fetch_all);
    Ok(rows.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_records_are_told_by_their_positions() {
        let offsets = [0, 1, 63, 64, 4_095, 8_191];
        let mut bits = index::no_bits();
        for offset in offsets {
            index::set(&mut bits, offset);
        }
        let chosen = Chosen { run: 2, bits: Some(bits) };
        assert_eq!(chosen.bounds(), (16_385, 24_576));
        assert_eq!(chosen.few(6), Some(offsets.map(|offset| 16_385 + i64::from(offset)).to_vec()));
        assert_eq!(chosen.few(5), None);
        assert_eq!(Chosen { run: 2, bits: None }.few(u32::MAX), None);
    }
}
