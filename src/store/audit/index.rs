//! The index of the audit log: which records of a run hold which terms.
//!
//! A run is [`RUN`] records in a row. Once it is complete it is indexed, in the background and as a whole, so that the
//! write path pays for no secondary index; records after the last indexed run are few and are scanned. For each run
//! there is a row with its span of time, and a row for each of 256 parts of its terms, small enough that to look
//! one term up in every run is one short walk over a table.
//!
//! The index is derived and not part of the chain. It only ever says where to look: what a listing shows is decided by
//! the records themselves, so an index that was tampered with can hide records from a filter, as deleting them would,
//! but not invent any.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};
use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::spans;
use crate::{
    domain::{Error, Result, Timestamp, audit::Filter},
    store::{
        Store, Tx,
        db::{Conn, on},
        even_chunks,
        sql::{Sql, run},
    },
};

/// Records in a run.
pub const RUN: i64 = 8_192;
/// Parts that a run's terms are divided into, by their first byte.
pub(super) const BUCKETS: usize = 256;
/// Places are a bucket and then a run.
const BUCKET_STRIDE: i64 = 1 << 40;
/// From this many records on a term is stored as one bit for each record of the run.
const DENSE: usize = 512;
const WORDS: usize = 128;

/// One bit for each record of a run.
type Bits = [u64; WORDS];

/// A hash of what a record may be filtered by.
pub(super) type Term = u64;

#[derive(Clone, Copy)]
enum Kind {
    Actor = 1,
    /// An agent that something happened to and that is not the actor.
    Subject,
    Action,
    ResourceType,
    ResourceId,
    Outcome,
}

fn term(kind: Kind, value: &[u8]) -> Term {
    let digest = Sha256::new().chain_update([kind as u8]).chain_update(value).finalize();
    digest.iter().take(8).fold(0, |term, byte| term << 8 | u64::from(*byte))
}

/// What the index needs to know of a record.
#[derive(FromRow)]
struct Indexed {
    seq: i64,
    at: i64,
    actor: Option<Uuid>,
    subject: Option<Uuid>,
    action: String,
    resource_type: Option<String>,
    resource_id: Option<String>,
    success: i32,
}

impl Indexed {
    fn terms(&self) -> impl Iterator<Item = Term> {
        let subject = self.subject.filter(|subject| self.actor != Some(*subject));
        [
            self.actor.map(|id| term(Kind::Actor, id.as_bytes())),
            subject.map(|id| term(Kind::Subject, id.as_bytes())),
            Some(term(Kind::Action, self.action.as_bytes())),
            self.resource_type.as_ref().map(|kind| term(Kind::ResourceType, kind.as_bytes())),
            self.resource_id.as_ref().map(|id| term(Kind::ResourceId, id.as_bytes())),
            Some(term(Kind::Outcome, &[u8::from(self.success != 0)])),
        ]
        .into_iter()
        .flatten()
    }
}

/// What to look up for a filter: a record must hold one term of each list, and lie in the span of time.
pub(super) struct Wanted {
    terms: Vec<Vec<Term>>,
    from: Option<i64>,
    until: Option<i64>,
}

impl Wanted {
    /// `None` when the filter shows everything, and there is nothing to look up.
    pub(super) fn by(filter: &Filter) -> Option<Self> {
        let actor = filter.actor.map(|id| vec![term(Kind::Actor, id.0.as_bytes())]);
        let involving = filter.involving.map(|id| [Kind::Actor, Kind::Subject].map(|kind| term(kind, id.0.as_bytes())));
        let action = filter.action.as_ref().map(|word| vec![term(Kind::Action, word.as_bytes())]);
        let resource_type = filter.resource_type.as_ref().map(|word| vec![term(Kind::ResourceType, word.as_bytes())]);
        let resource_id = filter.resource_id.as_ref().map(|id| vec![term(Kind::ResourceId, id.as_bytes())]);
        let outcome = filter.success.map(|success| vec![term(Kind::Outcome, &[u8::from(success)])]);
        let terms: Vec<_> = [actor, involving.map(Vec::from), action, resource_type, resource_id, outcome]
            .into_iter()
            .flatten()
            .collect();
        let (from, until) = (filter.from.map(Timestamp::as_micros), filter.until.map(Timestamp::as_micros));
        (!terms.is_empty() || from.is_some() || until.is_some()).then_some(Self { terms, from, until })
    }
}

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
        let positions = (first..).zip(bits.iter().flat_map(|word| (0..64).map(move |bit| word >> bit & 1 == 1)));
        Some(positions.filter_map(|(seq, set)| set.then_some(seq)).collect())
    }
}

/// The run that a position lies in; for those below the first, a negative number.
pub(super) const fn run_of(seq: i64) -> i64 {
    (seq - 1).div_euclid(RUN)
}

/// How many runs are indexed, from the first on without gaps.
pub(super) async fn runs(conn: Conn<'_>) -> Result<i64> {
    const SQL: &str = "SELECT COALESCE(MAX(run), -1) + 1 FROM audit_runs";
    Ok(on!(conn, |c| sqlx::query_scalar(SQL).fetch_one(c).await?))
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

/// Looks up some runs; those with nothing to show are left out, the others come in order.
pub(super) async fn choose(mut conn: Conn<'_>, wanted: &Wanted, runs: &[i64]) -> Result<Vec<Chosen>> {
    let mut chosen: BTreeMap<i64, Option<Box<Bits>>> = runs.iter().map(|run| (*run, None)).collect();
    for alternatives in &wanted.terms {
        let mut holding: HashMap<i64, Box<Bits>> = HashMap::new();
        for &term in alternatives {
            for (run, postings) in load(conn.reborrow(), term, runs).await? {
                if chosen.contains_key(&run)
                    && let Some(entry) = find(&postings, term)
                {
                    entry.add_to(holding.entry(run).or_insert_with(|| Box::new([0; WORDS])));
                }
            }
        }
        chosen.retain(|run, bits| {
            let Some(mut common) = holding.remove(run) else { return false };
            if let Some(bits) = bits {
                common.iter_mut().zip(bits.iter()).for_each(|(word, other)| *word &= other);
            }
            let any = common.iter().any(|word| *word != 0);
            *bits = Some(common);
            any
        });
    }
    Ok(chosen.into_iter().map(|(run, bits)| Chosen { run, bits }).collect())
}

/// The runs from `low` to `high` that may have something to show, in order. Those below `spanned` belong to spans.
pub(super) async fn candidates(
    mut conn: Conn<'_>,
    wanted: &Wanted,
    (low, high): (i64, i64),
    spanned: i64,
) -> Result<Vec<i64>> {
    let mut runs = in_time(conn.reborrow(), wanted, low, high).await?;
    let last = high.min(spanned - 1);
    if low <= last && !wanted.terms.is_empty() {
        let holding = spans::holding(conn, &wanted.terms, low, last).await?;
        runs.retain(|run| *run > last || holding.binary_search(run).is_ok());
    }
    Ok(runs)
}

async fn in_time(conn: Conn<'_>, wanted: &Wanted, low: i64, high: i64) -> Result<Vec<i64>> {
    const SQL: &str = "SELECT run FROM audit_runs WHERE run >= $1 AND run <= $2 AND last_at >= $3 AND first_at <= $4";
    if wanted.from.is_none() && wanted.until.is_none() {
        return Ok((low..=high).collect());
    }
    let (from, until) = (wanted.from.unwrap_or(i64::MIN), wanted.until.unwrap_or(i64::MAX));
    Ok(on!(conn, |c| sqlx::query_scalar(SQL).bind(low).bind(high).bind(from).bind(until).fetch_all(c).await?))
}

/// The buckets of some runs, which are in order, that a term would be in.
async fn load(mut conn: Conn<'_>, term: Term, runs: &[i64]) -> Result<Vec<(i64, Vec<u8>)>> {
    let [first, ..] = term.to_be_bytes();
    let first = i64::from(first);
    if let (Some(low), Some(high)) = (runs.first(), runs.last())
        && usize::try_from(high - low).is_ok_and(|gaps| gaps < runs.len())
    {
        return bucket(conn, first, *low, *high).await;
    }
    let mut loaded = Vec::with_capacity(runs.len());
    for chunk in even_chunks(runs) {
        let mut sql = Sql::default();
        sql.push("SELECT place - ").bind(first * BUCKET_STRIDE).push(", postings FROM audit_index WHERE place IN (");
        for (number, run) in chunk.iter().enumerate() {
            sql.push(if number == 0 { "" } else { ", " }).bind(first * BUCKET_STRIDE + run);
        }
        sql.push(")");
        let rows: Vec<(i64, Vec<u8>)> = run!(conn.reborrow(), sqlx::query_as, sql, fetch_all);
        loaded.extend(rows);
    }
    Ok(loaded)
}

/// A bucket of the runs `low` to `high`.
pub(super) async fn bucket(conn: Conn<'_>, bucket: i64, low: i64, high: i64) -> Result<Vec<(i64, Vec<u8>)>> {
    const SQL: &str = "SELECT place - $1, postings FROM audit_index WHERE place >= $1 + $2 AND place <= $1 + $3";
    let first = bucket * BUCKET_STRIDE;
    Ok(on!(conn, |c| sqlx::query_as(SQL).bind(first).bind(low).bind(high).fetch_all(c).await?))
}

/// Where a term is in its run: offsets of two bytes, or one bit for each record.
pub(super) enum Entry<'p> {
    Sparse(&'p [u8]),
    Dense(&'p [u8]),
}

impl Entry<'_> {
    fn add_to(&self, bits: &mut Bits) {
        match self {
            Self::Sparse(offsets) => {
                for offset in offsets.chunks_exact(2) {
                    let offset = offset.iter().fold(0, |offset, byte| offset << 8 | usize::from(*byte));
                    if let Some(word) = bits.get_mut(offset / 64) {
                        *word |= 1 << (offset % 64);
                    }
                }
            }
            Self::Dense(words) => {
                for (word, bytes) in bits.iter_mut().zip(words.chunks_exact(8)) {
                    *word |= bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
                }
            }
        }
    }
}

fn find(postings: &[u8], wanted: Term) -> Option<Entry<'_>> {
    entries(postings).find_map(|(term, entry)| (term == wanted).then_some(entry))
}

/// What a bucket holds: the term (8 bytes), the number of records (2 bytes), and where they are, again and again.
pub(super) fn entries(mut postings: &[u8]) -> impl Iterator<Item = (Term, Entry<'_>)> {
    std::iter::from_fn(move || {
        let (term, rest) = postings.split_first_chunk::<8>()?;
        let (count, rest) = rest.split_first_chunk::<2>()?;
        let count = usize::from(u16::from_be_bytes(*count));
        let dense = count >= DENSE;
        let (entry, rest) = rest.split_at_checked(if dense { WORDS * 8 } else { count * 2 })?;
        postings = rest;
        Some((Term::from_be_bytes(*term), if dense { Entry::Dense(entry) } else { Entry::Sparse(entry) }))
    })
}

/// A run's rows: its span of time, and its buckets with their numbers.
struct Built {
    first_at: i64,
    last_at: i64,
    buckets: Vec<(i64, Vec<u8>)>,
}

fn build(run: i64, records: &[Indexed]) -> Built {
    let mut terms: Vec<(Term, u16)> = Vec::with_capacity(records.len() * 6);
    for record in records {
        if let Ok(offset) = u16::try_from(record.seq - run * RUN - 1) {
            terms.extend(record.terms().map(|term| (term, offset)));
        }
    }
    terms.sort_unstable();
    let mut buckets = vec![Vec::new(); BUCKETS];
    for group in terms.chunk_by(|a, b| a.0 == b.0) {
        let (Some((term, _)), Ok(count)) = (group.first(), u16::try_from(group.len())) else { continue };
        let [first, ..] = term.to_be_bytes();
        let Some(bucket) = buckets.get_mut(usize::from(first)) else { continue };
        bucket.extend_from_slice(&term.to_be_bytes());
        bucket.extend_from_slice(&count.to_be_bytes());
        if group.len() < DENSE {
            bucket.extend(group.iter().flat_map(|(_, offset)| offset.to_be_bytes()));
            continue;
        }
        let mut bits: Bits = [0; WORDS];
        for (_, offset) in group {
            if let Some(word) = bits.get_mut(usize::from(offset / 64)) {
                *word |= 1 << (offset % 64);
            }
        }
        bucket.extend(bits.iter().flat_map(|word| word.to_be_bytes()));
    }
    Built {
        first_at: records.iter().map(|record| record.at).min().unwrap_or(i64::MAX),
        last_at: records.iter().map(|record| record.at).max().unwrap_or(i64::MIN),
        buckets: (0..).zip(buckets).filter(|(_, postings)| !postings.is_empty()).collect(),
    }
}

/// Indexes the next run if it is complete, or the next span of runs; `false` when neither is.
///
/// # Errors
/// When the database fails.
pub async fn fill(store: &Store) -> Result<bool> {
    const SQL: &str = "SELECT seq, at, actor, subject, action, resource_type, resource_id, success FROM audit_log \
        WHERE seq > $1 AND seq <= $2";
    let mut read = store.read().await?;
    let run = runs(read.conn()).await?;
    if spans::fill(store, run).await? {
        return Ok(true);
    }
    if super::head(read.conn()).await?.seq < (run + 1) * RUN {
        return Ok(false);
    }
    let records: Vec<Indexed> =
        on!(read.conn(), |c| sqlx::query_as(SQL).bind(run * RUN).bind((run + 1) * RUN).fetch_all(c).await?);
    drop(read);
    // Some milliseconds of nothing but computing: not where requests are answered.
    let built = tokio::task::spawn_blocking(move || build(run, &records)).await;
    let built = built.map_err(|error| Error::Internal(Box::new(error)))?;
    store.write(move |tx| Box::pin(async move { save(tx, run, &built).await })).await?;
    Ok(true)
}

/// Forgets where terms are in the runs whose records are all archived.
///
/// # Errors
/// When the database fails.
pub async fn forget_archived(store: &Store) -> Result<()> {
    let runs = super::start(store.read().await?.conn()).await?.seq / RUN;
    // Bucket by bucket: all at once would keep other writers waiting.
    for bucket in 0..BUCKETS {
        let bucket = i64::try_from(bucket).unwrap_or(i64::MAX);
        store.write(move |tx| Box::pin(async move { forget(tx.conn(), bucket, runs).await })).await?;
    }
    Ok(())
}

async fn forget(mut conn: Conn<'_>, bucket: i64, runs: i64) -> Result<()> {
    const SQL: &str = "DELETE FROM audit_index WHERE place >= $1 AND place < $2";
    let first = bucket * BUCKET_STRIDE;
    on!(&mut conn, |c| sqlx::query(SQL).bind(first).bind(first + runs).execute(c).await.map(drop))?;
    spans::forget(conn, bucket, runs).await
}

/// Another node may have been quicker; then there is nothing to do.
async fn save(tx: &mut Tx, run: i64, built: &Built) -> Result<()> {
    const CLAIM: &str = "INSERT INTO audit_runs (run, first_at, last_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    let claimed = on!(tx.conn(), |c| {
        sqlx::query(CLAIM).bind(run).bind(built.first_at).bind(built.last_at).execute(c).await?.rows_affected()
    });
    if claimed == 0 {
        return Ok(());
    }
    for chunk in even_chunks(&built.buckets) {
        on!(tx.conn(), |c| {
            let mut query = QueryBuilder::new("INSERT INTO audit_index (place, postings) ");
            query.push_values(chunk, |mut row, (bucket, postings)| {
                row.push_bind(bucket * BUCKET_STRIDE + run).push_bind(postings.as_slice());
            });
            query.build().execute(c).await?;
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seq: i64, actor: u128, action: &str) -> Indexed {
        Indexed {
            seq,
            at: seq,
            actor: Some(Uuid::from_u128(actor)),
            subject: None,
            action: action.to_owned(),
            resource_type: None,
            resource_id: None,
            success: 1,
        }
    }

    fn positions(built: &Built, run: i64, wanted: Term) -> Vec<i64> {
        let [first, ..] = wanted.to_be_bytes();
        let mut bits = Box::new([0; WORDS]);
        if let Some((_, postings)) = built.buckets.iter().find(|(bucket, _)| *bucket == i64::from(first))
            && let Some(entry) = find(postings, wanted)
        {
            entry.add_to(&mut bits);
        }
        Chosen { run, bits: Some(bits) }.few(u32::MAX).unwrap()
    }

    #[test]
    fn a_run_says_where_each_term_is_however_often() {
        let run = 3;
        let records: Vec<_> = (run * RUN + 1..=(run + 1) * RUN)
            .map(|seq| record(seq, u128::from(seq % 1_000 == 7), if seq % 3 == 0 { "common" } else { "other" }))
            .collect();
        let built = build(run, &records);
        assert_eq!((built.first_at, built.last_at), (run * RUN + 1, (run + 1) * RUN));
        let holding = |test: &dyn Fn(&Indexed) -> bool| -> Vec<i64> {
            records.iter().filter(|record| test(record)).map(|record| record.seq).collect()
        };
        let rare = Uuid::from_u128(1);
        assert_eq!(
            positions(&built, run, term(Kind::Actor, rare.as_bytes())),
            holding(&|record| record.actor == Some(rare))
        );
        assert_eq!(positions(&built, run, term(Kind::Action, b"common")), holding(&|record| record.action == "common"));
        assert_eq!(positions(&built, run, term(Kind::Outcome, &[1])), holding(&|_| true));
        assert_eq!(positions(&built, run, term(Kind::Outcome, &[0])), Vec::<i64>::new());
    }

    #[test]
    fn a_mutilated_bucket_finds_nothing() {
        let built = build(0, &[record(1, 1, "a")]);
        for (_, postings) in &built.buckets {
            let half = postings.get(..postings.len() - 1).unwrap();
            assert!(find(half, 1).is_none());
            assert!(find(&[], 1).is_none());
        }
    }
}
