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

use sqlx::QueryBuilder;

use super::{
    Tail, spans,
    terms::{Described, Findable, Term},
};
use crate::{
    domain::{Error, Result},
    store::{
        Store, Tx,
        db::{Conn, on},
        even_chunks,
    },
};

/// Records in a run.
pub const RUN: i64 = 8_192;
/// Parts that a run's terms are divided into, by their first byte.
pub(super) const BUCKETS: i64 = 256;
/// Places are a bucket and then a run.
const BUCKET_STRIDE: i64 = 1 << 40;
/// From this many records on a term is stored as one bit for each record of the run.
const DENSE: usize = 512;
const WORDS: usize = 128;

/// One bit for each record of a run.
pub(super) type Bits = [u64; WORDS];

pub(super) fn no_bits() -> Box<Bits> {
    Box::new([0; WORDS])
}

/// Sets the bit of a record by its offset in its run.
pub(super) fn set(bits: &mut Bits, offset: u16) {
    if let Some(word) = bits.get_mut(usize::from(offset / 64)) {
        *word |= 1 << (offset % 64);
    }
}

/// The run that a position lies in; for those below the first, a negative number.
pub(super) const fn run_of(seq: i64) -> i64 {
    (seq - 1).div_euclid(RUN)
}

/// Where the bucket is that a term would be in.
pub(super) fn place_of(term: Term, run: i64) -> i64 {
    let [bucket, ..] = term.to_be_bytes();
    i64::from(bucket) * BUCKET_STRIDE + run
}

/// A bucket of some runs in a row, which are counted from the first of them.
pub(super) async fn bucket(conn: Conn<'_>, bucket: i64, (first, count): (i64, i64)) -> Result<Vec<(i64, Vec<u8>)>> {
    const SQL: &str = "SELECT place - $1, postings FROM audit_index WHERE place >= $1 AND place < $1 + $2";
    let first = bucket * BUCKET_STRIDE + first;
    Ok(on!(conn, |c| sqlx::query_as(SQL).bind(first).bind(count).fetch_all(c).await?))
}

/// Where a term is in its run: offsets of two bytes, or one bit for each record.
pub(super) enum Entry<'p> {
    Sparse(&'p [u8]),
    Dense(&'p [u8]),
}

impl<'p> Entry<'p> {
    /// The offsets of its records in the run, when there are at most `most`.
    pub(super) fn few(&self, most: usize) -> Option<impl Iterator<Item = u16> + use<'p>> {
        let Self::Sparse(offsets) = self else { return None };
        let (offsets, _) = offsets.as_chunks();
        (offsets.len() <= most).then(|| offsets.iter().map(|offset| u16::from_be_bytes(*offset)))
    }

    pub(super) fn add_to(&self, bits: &mut Bits) {
        match self {
            Self::Sparse(_) => self.few(DENSE).into_iter().flatten().for_each(|offset| set(bits, offset)),
            Self::Dense(words) => {
                for (word, bytes) in bits.iter_mut().zip(words.chunks_exact(8)) {
                    *word |= bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
                }
            }
        }
    }
}

pub(super) fn find(postings: &[u8], wanted: Term) -> Option<Entry<'_>> {
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

fn build(run: i64, records: &[Findable]) -> Built {
    let mut terms: Vec<(Term, u16)> = Vec::with_capacity(records.len() * 6);
    let there = || records.iter().filter(|record| record.terms().next().is_some());
    for record in there() {
        if let Ok(offset) = u16::try_from(record.seq - run * RUN - 1) {
            terms.extend(record.terms().map(|term| (term, offset)));
        }
    }
    terms.sort_unstable();
    let mut buckets: Vec<_> = (0..BUCKETS).map(|_| Vec::new()).collect();
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
        let mut bits = no_bits();
        for (_, offset) in group {
            set(&mut bits, *offset);
        }
        bucket.extend(bits.iter().flat_map(|word| word.to_be_bytes()));
    }
    Built {
        first_at: there().map(|record| record.at).min().unwrap_or(i64::MAX),
        last_at: there().map(|record| record.at).max().unwrap_or(i64::MIN),
        buckets: (0..).zip(buckets).filter(|(_, postings)| !postings.is_empty()).collect(),
    }
}

/// Indexes the next run if it is complete, or the next span of runs; `false` when neither is.
///
/// # Errors
/// When the database fails.
pub async fn fill(store: &Store) -> Result<bool> {
    let mut read = store.read().await?;
    let extent = spans::extent(read.conn()).await?;
    if spans::fill(store, extent).await? {
        return Ok(true);
    }
    let run = extent.runs;
    catch_up(read.conn(), &store.tail, run).await?;
    drop(read);
    let Some(records) = store.tail.run(run) else { return Ok(false) };
    // Some milliseconds of nothing but computing: not where requests are answered.
    let built = tokio::task::spawn_blocking(move || build(run, &records)).await;
    let built = built.map_err(|error| Error::Internal(Box::new(error)))?;
    store.write(move |tx| Box::pin(async move { save(tx, run, &built).await })).await?;
    store.tail.begin_with(run + 1);
    Ok(true)
}

/// Reads what the tail lacks of the next run.
async fn catch_up(mut conn: Conn<'_>, tail: &Tail, run: i64) -> Result<()> {
    const SQL: &str = "SELECT seq, at, actor, subject, action, resource_type, resource_id, success FROM audit_log \
        WHERE seq >= $1 AND seq <= $2 ORDER BY seq";
    let missing = tail.begin_with(run);
    let last = super::head(conn.reborrow()).await?.seq.min((run + 1) * RUN);
    if missing > last {
        return Ok(());
    }
    let rows: Vec<Described> = on!(conn, |c| sqlx::query_as(SQL).bind(missing).bind(last).fetch_all(c).await?);
    let mut rows = rows.iter().map(Findable::from).peekable();
    let places = missing..=last;
    tail.extend(places.map(|seq| rows.next_if(|row| row.seq == seq).unwrap_or(Findable::gone(seq))).collect());
    Ok(())
}

/// Returns once this process completed a run since this was last asked.
pub async fn run_completed(store: &Store) {
    store.tail.completed().await;
}

/// Forgets where terms are in the runs whose records are all archived.
///
/// # Errors
/// When the database fails.
pub async fn forget_archived(store: &Store) -> Result<()> {
    let runs = super::start(store.read().await?.conn()).await?.seq / RUN;
    // Bucket by bucket: all at once would keep other writers waiting.
    for bucket in 0..BUCKETS {
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
    let rows: Vec<_> =
        built.buckets.iter().map(|(bucket, rest)| (bucket * BUCKET_STRIDE + run, rest.as_slice())).collect();
    add(tx.conn(), "audit_index (place, postings) ", &rows).await
}

/// Most rows in one statement to PostgreSQL; why so few is said at [`POSTGRES_ROWS`](super::POSTGRES_ROWS), whose rows are smaller.
const POSTGRES_ROWS: usize = 4;

/// Adds rows to a table of the index, but for those that are there.
pub(super) async fn add(mut conn: Conn<'_>, into: &str, rows: &[(i64, impl AsRef<[u8]> + Sync)]) -> Result<()> {
    let most = if matches!(conn, Conn::Postgres(_)) { POSTGRES_ROWS } else { usize::MAX };
    for chunk in even_chunks(rows).flat_map(|chunk| chunk.chunks(most)) {
        on!(&mut conn, |c| {
            let mut query = QueryBuilder::new("INSERT INTO ");
            query.push(into);
            query.push_values(chunk, |mut row, (place, content)| {
                row.push_bind(place).push_bind(content.as_ref());
            });
            query.push(" ON CONFLICT DO NOTHING").build().execute(c).await?;
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{
        super::terms::{Kind, term},
        *,
    };

    fn record(seq: i64, actor: u128, action: &str) -> Described {
        Described {
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
        let mut bits = no_bits();
        if let Some((_, postings)) = built.buckets.iter().find(|(bucket, _)| *bucket == i64::from(first))
            && let Some(entry) = find(postings, wanted)
        {
            entry.add_to(&mut bits);
        }
        let is_set = |offset: &i64| bits[usize::try_from(offset / 64).unwrap()] >> (offset % 64) & 1 == 1;
        (0..RUN).filter(is_set).map(|offset| run * RUN + 1 + offset).collect()
    }

    #[test]
    fn a_run_says_where_each_term_is_however_often() {
        let run = 3;
        let records: Vec<_> = (run * RUN + 1..=(run + 1) * RUN)
            .map(|seq| record(seq, u128::from(seq % 1_000 == 7), if seq % 3 == 0 { "common" } else { "other" }))
            .collect();
        let built = build(run, &records.iter().map(Findable::from).collect::<Vec<_>>());
        assert_eq!((built.first_at, built.last_at), (run * RUN + 1, (run + 1) * RUN));
        let holding = |test: &dyn Fn(&Described) -> bool| -> Vec<i64> {
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
        let built = build(0, &[Findable::from(&record(1, 1, "a"))]);
        for (_, postings) in &built.buckets {
            let half = postings.get(..postings.len() - 1).unwrap();
            assert!(find(half, 1).is_none());
            assert!(find(&[], 1).is_none());
        }
    }
}
