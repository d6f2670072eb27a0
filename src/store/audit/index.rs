//! The filter index of the audit log: which records may match a filter.
//!
//! A filter must not read the whole log, and secondary indexes on the log would halve the rate of token exchanges. So the log
//! is indexed in the background, one *run* of 8,192 consecutive records at a time, once the run is complete. Records after
//! the last indexed run are scanned instead.
//!
//! A record has up to nine *terms*, one for each field that a filter can name. A term is a 64-bit hash of the field and its
//! value. The terms of a run are divided into 256 *buckets* by their first byte. Indexing a run writes, in one transaction:
//!
//! - `audit_runs (run, first_at, last_at, version)`: one row with the earliest and the latest time of its records, and the version
//!   of the index, because earlier versions have fewer terms. Their runs are indexed again, and until then, filters by the terms
//!   that they lack scan them;
//! - `audit_names (id, name)`: one row for each agent that was deleted, with its last name;
//! - `audit_index (place, postings)`: one row for each bucket that is not empty, where `place` is `bucket << 40 | run`. The rows
//!   of a bucket are thus in the order of their runs, and looking a term up in many runs reads one range of the primary key.
//!
//! `postings` holds an entry for each term, one after another. Numbers are big-endian:
//!
//! | Bytes  | Content                                                                                      |
//! |--------|----------------------------------------------------------------------------------------------|
//! | 8      | the term                                                                                     |
//! | 2      | the number of records with this term                                                         |
//! | 2 each | if there are fewer than 512: the offset of each record from the first one of the run         |
//! | 1,024  | otherwise a bitmap: 128 words of 64 bits, where the lowest bit of a word is its first record |
//!
//! A lookup goes through the runs from one end of the log, reads the buckets of its terms for a group of runs with one
//! statement, intersects the bitmaps in memory, and reads the records that remain by their positions. Most rows are below 1 KiB:
//! at ten million records, looking up a term everywhere reads 1,220 rows, about 1 MiB.
//!
//! The index is derived data and not part of the hash chain. It only says where to look: each record is compared with the
//! filter before it is returned. So a manipulated index can hide records from a filter, as deleting them would, but it cannot
//! invent any. It can also falsify the counts of the chart and the names of deleted agents. To build it again, delete the rows of `audit_runs`.

use sqlx::{AssertSqlSafe, QueryBuilder};
use uuid::Uuid;

use super::terms::{Described, Term, VERSION};
use crate::{
    domain::{
        Error, Result,
        audit::{AuditAction, text_in},
    },
    store::{
        Store, Tx,
        db::{Conn, dispatch, execute},
        even_chunks,
    },
};

/// Records in a run.
pub(super) const RUN: i64 = 8_192;
const BUCKETS: i64 = 256;
const BUCKET_STRIDE: i64 = 1 << 40;
/// The least number of records for which a bitmap is stored: from here on it is no larger than the offsets.
const DENSE: usize = 512;
pub(super) const WORDS: usize = 128;

/// One bit for each record of a run.
pub(super) type Bitmap = [u64; WORDS];

pub(super) fn empty_bitmap() -> Box<Bitmap> {
    Box::new([0; WORDS])
}

/// Sets the bit of the record at an offset in its run.
pub(super) fn set(bits: &mut Bitmap, offset: u16) {
    if let Some(word) = bits.get_mut(usize::from(offset / 64)) {
        *word |= 1 << (offset % 64);
    }
}

/// Returns the run of a position; it is negative for positions before the first record.
pub(super) const fn run_of(seq: i64) -> i64 {
    (seq - 1).div_euclid(RUN)
}

/// Returns the primary key of the bucket for a term in a run.
pub(super) fn place_of(term: Term, run: i64) -> i64 {
    let [bucket, ..] = term.to_be_bytes();
    i64::from(bucket) * BUCKET_STRIDE + run
}

/// The records of a run that have a term.
pub(super) enum Entry<'p> {
    Offsets(&'p [[u8; 2]]),
    Bitmap(&'p [[u8; 8]]),
}

impl Entry<'_> {
    pub(super) fn add_to(&self, bits: &mut Bitmap) {
        match self {
            Self::Offsets(offsets) => offsets.iter().for_each(|offset| set(bits, u16::from_be_bytes(*offset))),
            Self::Bitmap(words) => {
                bits.iter_mut().zip(words.iter()).for_each(|(word, other)| *word |= u64::from_be_bytes(*other));
            }
        }
    }
}

/// Returns the entry of a term; `None` if there is none, or if the row is damaged before it.
pub(super) fn find(mut postings: &[u8], wanted: Term) -> Option<Entry<'_>> {
    loop {
        let (term, rest) = postings.split_first_chunk::<8>()?;
        let (count, rest) = rest.split_first_chunk::<2>()?;
        let count = usize::from(u16::from_be_bytes(*count));
        let is_dense = count >= DENSE;
        let (entry, rest) = rest.split_at_checked(if is_dense { WORDS * 8 } else { count * 2 })?;
        if Term::from_be_bytes(*term) == wanted {
            return Some(if is_dense {
                Entry::Bitmap(entry.as_chunks().0)
            } else {
                Entry::Offsets(entry.as_chunks().0)
            });
        }
        postings = rest;
    }
}

/// The rows of a run.
struct Built {
    first_at: i64,
    last_at: i64,
    /// The numbers and the postings of the buckets that are not empty.
    buckets: Vec<(i64, Vec<u8>)>,
    /// The names of agents that were deleted.
    names: Vec<(Uuid, String)>,
}

fn build(run: i64, records: &[Described]) -> Built {
    let mut terms: Vec<(Term, u16)> = Vec::with_capacity(records.len() * 9);
    for record in records {
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
        let mut bits = empty_bitmap();
        for (_, offset) in group {
            set(&mut bits, *offset);
        }
        bucket.extend(bits.iter().flat_map(|word| word.to_be_bytes()));
    }
    Built {
        first_at: records.iter().map(|record| record.at).min().unwrap_or(i64::MAX),
        last_at: records.iter().map(|record| record.at).max().unwrap_or(i64::MIN),
        buckets: (0..).zip(buckets).filter(|(_, postings)| !postings.is_empty()).collect(),
        names: records.iter().filter_map(deleted).collect(),
    }
}

/// Returns the identifier and the last name of the agent whose deletion this record is.
pub(super) fn deleted(record: &Described) -> Option<(Uuid, String)> {
    let is_deletion = record.success != 0 && record.action == AuditAction::AgentDeleted.as_str();
    let details = record.details.as_deref().filter(|_| is_deletion)?;
    Some((record.subject?, text_in(details, "name")?))
}

/// Returns how many runs are indexed with this version or a later one; they are the first ones, without gaps.
pub(super) async fn indexed(conn: Conn<'_>, version: i64) -> Result<i64> {
    const SQL: &str = "SELECT COALESCE((SELECT MIN(run) FROM audit_runs WHERE version < $1), \
        (SELECT MAX(run) + 1 FROM audit_runs), 0)";
    Ok(dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(version).fetch_one(c).await)?)
}

/// The columns of [`Described`]. Details are read only where they have a term or a name.
pub(super) const DESCRIBED: &str = "SELECT seq, at, actor, subject, action, resource_type, resource_id, success, ip, request_id, \
    CASE WHEN success = 0 OR action = 'agent.deleted' THEN details END AS details FROM audit_log";

/// Indexes the next run. Returns false if the next run is not complete yet.
///
/// # Errors
/// When the database fails.
pub async fn fill(store: &Store) -> Result<bool> {
    let sql = format!("{DESCRIBED} WHERE seq > $1 AND seq <= $2");
    let mut read = store.read().await?;
    let run = indexed(read.conn(), VERSION).await?;
    let (before, last) = (run * RUN, (run + 1) * RUN);
    if super::head(read.conn()).await?.seq < last {
        return Ok(false);
    }
    // Archived records are missing. The run is indexed without them.
    let records: Vec<Described> =
        dispatch!(read.conn(), |c| sqlx::query_as(AssertSqlSafe(sql)).bind(before).bind(last).fetch_all(c).await)?;
    drop(read);
    // Takes some milliseconds of processor time: too long for a thread that serves requests.
    let built = tokio::task::spawn_blocking(move || build(run, &records)).await;
    let built = built.map_err(|error| Error::Internal(Box::new(error)))?;
    store.write(move |tx| Box::pin(async move { save(tx, run, &built).await })).await?;
    Ok(true)
}

/// Deletes the buckets of runs whose records are all archived. Their rows in `audit_runs` stay, because the last of these
/// says how far the index goes.
///
/// # Errors
/// When the database fails.
pub async fn forget_archived(store: &Store) -> Result<()> {
    let runs = super::start(store.read().await?.conn()).await?.seq / RUN;
    // One transaction for each bucket, so that other writers do not wait long.
    for bucket in 0..BUCKETS {
        store.write(move |tx| Box::pin(async move { forget(tx.conn(), bucket, runs).await })).await?;
    }
    Ok(())
}

async fn forget(conn: Conn<'_>, bucket: i64, runs: i64) -> Result<()> {
    const SQL: &str = "DELETE FROM audit_index WHERE place >= $1 AND place < $2";
    let first = bucket * BUCKET_STRIDE;
    execute!(conn, sqlx::query(SQL).bind(first).bind(first + runs))?;
    Ok(())
}

async fn save(tx: &mut Tx, run: i64, built: &Built) -> Result<()> {
    /// Rows in one statement to PostgreSQL. [`POSTGRES_ROWS`](super::POSTGRES_ROWS) explains the limit; these rows are larger.
    const POSTGRES_ROWS: usize = 4;
    const CLAIM: &str = "INSERT INTO audit_runs (run, first_at, last_at, version) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (run) DO UPDATE SET first_at = excluded.first_at, last_at = excluded.last_at, version = excluded.version \
        WHERE audit_runs.version < excluded.version";
    const NAME: &str = "INSERT INTO audit_names (id, name) VALUES ($1, $2) \
        ON CONFLICT (id) DO UPDATE SET name = excluded.name";
    let claimed =
        execute!(tx.conn(), sqlx::query(CLAIM).bind(run).bind(built.first_at).bind(built.last_at).bind(VERSION))?;
    if claimed == 0 {
        // Another node has indexed the run.
        return Ok(());
    }
    for (id, name) in &built.names {
        execute!(tx.conn(), sqlx::query(NAME).bind(id).bind(name))?;
    }
    let mut conn = tx.conn();
    let most = if matches!(conn, Conn::Postgres(_)) { POSTGRES_ROWS } else { usize::MAX };
    for chunk in even_chunks(&built.buckets).flat_map(|chunk| chunk.chunks(most)) {
        dispatch!(&mut conn, |c| {
            let mut query = QueryBuilder::new("INSERT INTO audit_index (place, postings) ");
            query.push_values(chunk, |mut row, (bucket, postings)| {
                row.push_bind(bucket * BUCKET_STRIDE + run).push_bind(postings.as_slice());
            });
            query.push(" ON CONFLICT (place) DO UPDATE SET postings = excluded.postings");
            query.build().execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{
        super::terms::{Field, term},
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
            ip: None,
            request_id: None,
            details: None,
        }
    }

    fn positions(built: &Built, run: i64, wanted: Term) -> Vec<i64> {
        let [first, ..] = wanted.to_be_bytes();
        let mut bits = empty_bitmap();
        if let Some((_, postings)) = built.buckets.iter().find(|(bucket, _)| *bucket == i64::from(first))
            && let Some(entry) = find(postings, wanted)
        {
            entry.add_to(&mut bits);
        }
        let is_set = |offset: &i64| bits[usize::try_from(offset / 64).unwrap()] >> (offset % 64) & 1 == 1;
        (0..RUN).filter(is_set).map(|offset| run * RUN + 1 + offset).collect()
    }

    #[test]
    fn rare_and_frequent_terms_list_all_their_records() {
        let run = 3;
        let records: Vec<_> = (run * RUN + 1..=(run + 1) * RUN)
            .map(|seq| record(seq, u128::from(seq % 1_000 == 7), if seq % 3 == 0 { "common" } else { "other" }))
            .collect();
        let built = build(run, &records);
        assert_eq!((built.first_at, built.last_at), (run * RUN + 1, (run + 1) * RUN));
        let matching = |test: &dyn Fn(&Described) -> bool| -> Vec<i64> {
            records.iter().filter(|record| test(record)).map(|record| record.seq).collect()
        };
        let rare = Uuid::from_u128(1);
        assert_eq!(
            positions(&built, run, term(Field::Actor, rare.as_bytes())),
            matching(&|record| record.actor == Some(rare))
        );
        let common = term(Field::Action, b"common");
        assert_eq!(positions(&built, run, common), matching(&|record| record.action == "common"));
        assert_eq!(positions(&built, run, term(Field::Outcome, &[1])), matching(&|_| true));
        assert_eq!(positions(&built, run, term(Field::Outcome, &[0])), Vec::<i64>::new());
    }

    #[test]
    fn agents_that_act_on_themselves_have_one_term() {
        let mut record = record(1, 1, "a");
        record.subject = record.actor;
        assert_eq!(record.terms().count(), 3);
        record.subject = Some(Uuid::from_u128(2));
        assert_eq!(record.terms().count(), 4);
    }

    #[test]
    fn truncated_buckets_have_no_entries() {
        let built = build(0, &[record(1, 1, "a")]);
        assert_eq!(built.buckets.len(), 3);
        let terms: Vec<_> = record(1, 1, "a").terms().collect();
        for (_, postings) in &built.buckets {
            let truncated = postings.get(..postings.len() - 1).unwrap();
            assert!(terms.iter().all(|term| find(truncated, *term).is_none() && find(&[], *term).is_none()));
        }
    }
}
