//! Indexes of the index of the audit log, which say more of what is rare.
//!
//! A span is [`FAN`] runs in a row, and a wide one [`FAN`] spans in a row. Once all that it is made of is indexed, it gets a row for
//! each part of its terms. Of a term that few of its records hold the row says which ones; of any other, which of its runs, or
//! spans, hold it. So what is rare is found by a look at each wide span, at the spans after the last of these, and at the runs
//! after the last of those. Derived, as the index is, and immutable once complete.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::{
    index::{self, BUCKETS, Bits, RUN, run_of},
    lookup::{self, Rows},
    terms::Term,
};
use crate::{
    domain::{Error, Result},
    store::{
        Store,
        db::{Conn, on},
    },
};

/// Runs in a span, and spans in a wide one.
const FAN: i64 = 32;
/// Places are a part and then the number of a span.
const STRIDE: i64 = 1 << 40;
/// From more records than these on, a term's row says where to look further.
const FEW: usize = 32;

/// One bit for each run of a span, or span of a wide one.
type Members = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Span,
    Wide,
}

impl Level {
    const fn runs(self) -> i64 {
        match self {
            Self::Span => FAN,
            Self::Wide => FAN * FAN,
        }
    }

    const fn records_of_member(self) -> i64 {
        self.runs() / FAN * RUN
    }

    /// Its terms are divided into parts by as many bits, so that a row stays small.
    const fn bits(self) -> u32 {
        match self {
            Self::Span => 12,
            Self::Wide => 17,
        }
    }

    /// Parts of different levels have different numbers: a one, and then their bits.
    fn part_of(self, term: Term) -> i64 {
        (1 << self.bits()) + i64::try_from(term >> (u64::BITS - self.bits())).unwrap_or_default()
    }

    fn parts_of(self, bucket: i64) -> Range<i64> {
        let parts = (1 << self.bits()) / BUCKETS;
        let first = (1 << self.bits()) + bucket * parts;
        first..first + parts
    }

    /// The first place of the part that is written last.
    const fn last_part(self) -> i64 {
        ((2 << self.bits()) - 1) * STRIDE
    }
}

/// One span, wide or not; they are counted from 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    level: Level,
    number: i64,
}

impl Span {
    const fn first_run(self) -> i64 {
        self.number * self.level.runs()
    }

    /// Where the row is that a term would be in.
    pub(super) fn place(self, term: Term) -> i64 {
        self.level.part_of(term) * STRIDE + self.number
    }

    /// The position of its first record.
    const fn first_record(self) -> i64 {
        self.first_run() * RUN + 1
    }

    /// Which of its members a record lies in.
    const fn member_of(self, seq: i64) -> i64 {
        (seq - self.first_record()) / self.level.records_of_member()
    }
}

/// How far the index has come, without gaps, and the chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// The position of the last record.
    pub(super) end: i64,
    pub(super) runs: i64,
    spans: i64,
    wide: i64,
}

impl Extent {
    /// How many runs belong to complete spans.
    pub(super) const fn spanned(&self) -> i64 {
        self.spans * FAN
    }

    /// The widest spans that cover the runs `low` to `high`, which all belong to spans.
    pub(super) fn cover(&self, low: i64, high: i64) -> Vec<Span> {
        let widely = self.wide * Level::Wide.runs();
        let mut cover = Vec::new();
        for (level, low, high) in [(Level::Wide, low, high.min(widely - 1)), (Level::Span, low.max(widely), high)] {
            if low <= high {
                let numbers = low / level.runs()..=high / level.runs();
                cover.extend(numbers.map(|number| Span { level, number }));
            }
        }
        cover
    }
}

/// How far the index has come, and the chain.
pub(super) async fn extent(conn: Conn<'_>) -> Result<Extent> {
    const SQL: &str = "SELECT (SELECT seq FROM audit_head WHERE id = 1), \
        (SELECT COALESCE(MAX(run), -1) + 1 FROM audit_runs), \
        (SELECT COALESCE(MAX(place), $1 - 1) - $1 + 1 FROM audit_spans WHERE place >= $1 AND place < $1 + $3), \
        (SELECT COALESCE(MAX(place), $2 - 1) - $2 + 1 FROM audit_spans WHERE place >= $2 AND place < $2 + $3)";
    let [span, wide] = [Level::Span, Level::Wide].map(Level::last_part);
    let (end, runs, spans, wide): (Option<i64>, i64, i64, i64) =
        on!(conn, |c| sqlx::query_as(SQL).bind(span).bind(wide).bind(STRIDE).fetch_one(c).await?);
    Ok(Extent { end: end.unwrap_or(i64::MAX), runs, spans, wide })
}

/// Which records of a span hold something.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holders {
    /// Their positions, in order.
    These(Vec<i64>),
    /// They are in some of its members.
    In(Members),
}

impl Holders {
    const NONE: Self = Self::These(Vec::new());

    fn members(&self, span: Span) -> Members {
        match self {
            Self::These(positions) => positions.iter().fold(0, |members, seq| members | 1 << span.member_of(*seq)),
            Self::In(members) => *members,
        }
    }

    /// Those of either.
    fn or(self, other: Self, span: Span) -> Self {
        match (self, other) {
            (Self::These(one), Self::These(other)) => {
                Self::These(one.into_iter().chain(other).collect::<BTreeSet<_>>().into_iter().collect())
            }
            (one, other) => Self::In(one.members(span) | other.members(span)),
        }
    }

    /// Those of both; of one that is only known by its members, more.
    fn and(self, other: Self, span: Span) -> Self {
        match (self, other) {
            (Self::These(mut one), Self::These(other)) => {
                one.retain(|seq| other.binary_search(seq).is_ok());
                Self::These(one)
            }
            (Self::These(mut these), Self::In(members)) | (Self::In(members), Self::These(mut these)) => {
                these.retain(|seq| members >> span.member_of(*seq) & 1 == 1);
                Self::These(these)
            }
            (Self::In(one), Self::In(other)) => Self::In(one & other),
        }
    }
}

/// The runs of some spans that may hold one term of each list; with the records, where these are known. `rows` is what stands
/// where the terms would be in these spans.
pub(super) async fn holding(
    mut conn: Conn<'_>,
    lists: &[Vec<Term>],
    mut spans: Vec<Span>,
    mut rows: Rows,
) -> Result<BTreeMap<i64, Option<Box<Bits>>>> {
    let mut runs: BTreeMap<i64, Option<Box<Bits>>> = BTreeMap::new();
    loop {
        for span in std::mem::take(&mut spans) {
            let holders =
                |term: &Term| rows.get(&span.place(*term)).map_or(Holders::NONE, |row| find(row, span, *term));
            let any = |list: &Vec<Term>| list.iter().map(holders).reduce(|one, other| one.or(other, span));
            let all = lists.iter().filter_map(any).reduce(|one, other| one.and(other, span));
            match all.unwrap_or(Holders::In(Members::MAX)) {
                Holders::These(positions) => {
                    for seq in positions {
                        let bits = runs.entry(run_of(seq)).or_default().get_or_insert_with(index::no_bits);
                        index::set(bits, u16::try_from((seq - 1).rem_euclid(RUN)).unwrap_or_default());
                    }
                }
                Holders::In(members) => {
                    let members = (0..FAN).filter(|member| members >> member & 1 == 1);
                    let first = span.number * FAN;
                    match span.level {
                        Level::Span => runs.extend(members.map(|member| (first + member, None))),
                        Level::Wide => {
                            spans.extend(members.map(|member| Span { level: Level::Span, number: first + member }));
                        }
                    }
                }
            }
        }
        if spans.is_empty() {
            return Ok(runs);
        }
        rows = lookup::load(conn.reborrow(), lists, &[], &spans).await?;
    }
}

fn find(row: &[u8], span: Span, wanted: Term) -> Holders {
    let found = entries(row).find(|(term, _)| *term == wanted);
    found.map_or(Holders::NONE, |(_, entry)| match entry {
        Entry::These(offsets) => {
            let offsets = offsets.iter().map(|offset| i64::from(u32::from_be_bytes(*offset)));
            let within = offsets.filter(|offset| *offset < span.level.runs() * RUN);
            Holders::These(within.map(|offset| span.first_record() + offset).collect())
        }
        Entry::In(members) => Holders::In(members),
    })
}

/// Where a term is in a span: the offsets of its records, or the members that hold it.
enum Entry<'r> {
    These(&'r [[u8; 4]]),
    In(Members),
}

/// What a row holds: the term (8 bytes), the number of records (1 byte) and their offsets (4 bytes each), or 0 and the members
/// (4 bytes), again and again.
fn entries(mut row: &[u8]) -> impl Iterator<Item = (Term, Entry<'_>)> {
    std::iter::from_fn(move || {
        let (term, rest) = row.split_first_chunk::<8>()?;
        let (count, rest) = rest.split_first()?;
        let (numbers, rest) = rest.split_at_checked(usize::from(*count).max(1) * 4)?;
        row = rest;
        let (numbers, _) = numbers.as_chunks::<4>();
        let entry = match numbers.first() {
            Some(members) if *count == 0 => Entry::In(Members::from_be_bytes(*members)),
            _ => Entry::These(numbers),
        };
        Some((Term::from_be_bytes(*term), entry))
    })
}

/// Sums up the next span whose members are all indexed; `false` when there is none.
pub(super) async fn fill(store: &Store, extent: Extent) -> Result<bool> {
    let span = if extent.runs >= (extent.spans + 1) * FAN {
        Span { level: Level::Span, number: extent.spans }
    } else if extent.spans >= (extent.wide + 1) * FAN {
        Span { level: Level::Wide, number: extent.wide }
    } else {
        return Ok(false);
    };
    // Bucket by bucket: all at once would keep other writers waiting.
    for bucket in 0..BUCKETS {
        let members = members(store.read().await?.conn(), span, bucket).await?;
        let rows = tokio::task::spawn_blocking(move || sum_up(span, bucket, &members)).await;
        let rows = rows.map_err(|error| Error::Internal(Box::new(error)))?;
        // Another node may have been quicker; it has written the same.
        store
            .write(move |tx| {
                Box::pin(async move { index::add(tx.conn(), "audit_spans (place, holders) ", &rows).await })
            })
            .await?;
    }
    Ok(true)
}

/// The rows of a bucket of what a span is made of, with the number of the member that each belongs to.
async fn members(mut conn: Conn<'_>, span: Span, bucket: i64) -> Result<Vec<(i64, Vec<u8>)>> {
    const SQL: &str = "SELECT place - $1, holders FROM audit_spans WHERE place >= $1 AND place < $1 + $2";
    if span.level == Level::Span {
        return index::bucket(conn, bucket, (span.first_run(), FAN)).await;
    }
    let mut rows: Vec<(i64, Vec<u8>)> = Vec::new();
    for part in Level::Span.parts_of(bucket) {
        let first = part * STRIDE + span.number * FAN;
        rows.extend(on!(&mut conn, |c| sqlx::query_as(SQL).bind(first).bind(FAN).fetch_all(c).await?));
    }
    Ok(rows)
}

/// That a member holds a term: one of its records, by its offset in the span, or more than a few.
type Mark = (Term, i64, Option<i64>);

/// The rows of a bucket of a span with their places: those that hold something, and the very last one, which is always there.
fn sum_up(span: Span, bucket: i64, members: &[(i64, Vec<u8>)]) -> Vec<(i64, Vec<u8>)> {
    let mut marks: Vec<Mark> = Vec::new();
    for (member, row) in members {
        let (member, first) = (*member, member * span.level.records_of_member());
        match span.level {
            Level::Span => index::entries(row).for_each(|(term, entry)| match entry.few(FEW) {
                Some(offsets) => marks.extend(offsets.map(|offset| (term, member, Some(first + i64::from(offset))))),
                None => marks.push((term, member, None)),
            }),
            Level::Wide => entries(row).for_each(|(term, entry)| match entry {
                Entry::These(offsets) => {
                    let offsets = offsets.iter().map(|offset| first + i64::from(u32::from_be_bytes(*offset)));
                    marks.extend(offsets.map(|offset| (term, member, Some(offset))));
                }
                Entry::In(_) => marks.push((term, member, None)),
            }),
        }
    }
    marks.sort_unstable();
    let parts = span.level.parts_of(bucket);
    let mut rows: Vec<_> = parts.clone().map(|part| (part * STRIDE + span.number, Vec::new())).collect();
    for group in marks.chunk_by(|a, b| a.0 == b.0) {
        let Some((term, ..)) = group.first() else { continue };
        let row = usize::try_from(span.level.part_of(*term) - parts.start).ok().and_then(|part| rows.get_mut(part));
        let Some((_, row)) = row else { continue };
        row.extend_from_slice(&term.to_be_bytes());
        let offsets: Option<Vec<u32>> = group.iter().map(|(.., offset)| u32::try_from((*offset)?).ok()).collect();
        match (u8::try_from(group.len()), offsets) {
            (Ok(count), Some(offsets)) if offsets.len() <= FEW => {
                row.push(count);
                row.extend(offsets.iter().flat_map(|offset| offset.to_be_bytes()));
            }
            _ => {
                row.push(0);
                row.extend(
                    group.iter().fold(0, |members: Members, (_, member, _)| members | 1 << member).to_be_bytes(),
                );
            }
        }
    }
    let last = span.level.last_part() + span.number;
    rows.retain(|(place, row)| !row.is_empty() || *place == last);
    rows
}

/// Forgets a bucket of the spans whose runs are all among the first `runs`, but for their last rows: these say that they were
/// complete.
pub(super) async fn forget(mut conn: Conn<'_>, bucket: i64, runs: i64) -> Result<()> {
    const SQL: &str = "DELETE FROM audit_spans WHERE place >= $1 AND place < $2";
    for level in [Level::Span, Level::Wide] {
        let spans = runs / level.runs();
        for first in level.parts_of(bucket).map(|part| part * STRIDE) {
            if spans == 0 || first == level.last_part() {
                continue;
            }
            on!(&mut conn, |c| sqlx::query(SQL).bind(first).bind(first + spans).execute(c).await.map(drop))?;
        }
    }
    Ok(())
}
