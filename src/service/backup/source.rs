//! Reads a backup, and checks that it is complete and unaltered.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use flate2::bufread::GzDecoder;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{
    file,
    format::{AIMS, FORMAT, Header, Line, Trailer, parse_row},
};
use crate::{
    crypto::envelope::{Decryption, DecryptionError, MAGIC},
    domain::audit::hex,
    store::backup::{Column, Part, Row, knows_schema, latest_schema},
};

const GZIP: &[u8] = &[0x1f, 0x8b];
/// Other files that somebody may take for a backup of AIMS, each with what to do.
const OTHERS: [(&[u8], &str); 2] = [
    (b"SQLite format 3", "it is an SQLite database: stop the service and put it in place of the old one"),
    (b"PGDMP", "it is a dump of PostgreSQL: use pg_restore"),
];
/// The longest line. No row is longer: requests are limited to 1 MiB.
const LINE_MAX: u64 = 16 * 1024 * 1024;
/// Rows and bytes in a batch.
const BATCH: (usize, usize) = (256, 256 * 1024);

/// Why a backup cannot be read. The messages are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read the backup: {0}")]
    File(#[source] io::Error),
    /// The file is something else.
    #[error("this is no backup of AIMS: {0}")]
    Other(&'static str),
    /// The backup is not encrypted, although a key was given.
    #[error(
        "the backup is not encrypted, so it may come from somebody else than you expect; leave the key out to read it"
    )]
    NotEncrypted,
    /// The backup is encrypted, and no key was given.
    #[error("the backup is encrypted: pass --identity or --passphrase-file")]
    NoKey,
    /// The backup cannot be decrypted.
    #[error(transparent)]
    Decryption(#[from] DecryptionError),
    /// The backup was truncated or altered.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// A later version of AIMS made the backup.
    #[error(
        "AIMS {aims} made the backup, with {what} {found}; this version of AIMS ({AIMS}) knows only up to {known}: use the \
         newer version"
    )]
    Newer {
        /// The version of AIMS that made it.
        aims: String,
        /// What is later.
        what: &'static str,
        /// Its version in the backup.
        found: i64,
        /// The latest version that this AIMS knows.
        known: i64,
    },
}

/// What a completely read backup says at its end.
#[derive(Clone)]
pub(super) struct End {
    pub(super) sha256: String,
    pub(super) rows: BTreeMap<String, u64>,
}

/// A backup whose header was read.
pub struct Source {
    lines: BufReader<GzDecoder<Box<dyn BufRead + Send>>>,
    digest: Sha256,
    header: Header,
}

impl Source {
    /// Opens a backup and reads its header.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn open(path: &Path, decryption: &Decryption) -> Result<Self, ReadError> {
        let mut file = BufReader::new(file::open(path).map_err(ReadError::File)?);
        let start = file.fill_buf().map_err(ReadError::File)?.to_vec();
        let input = Self::decrypt(&start, file, decryption)?;
        let mut lines = BufReader::new(GzDecoder::new(input));
        let mut digest = Sha256::new();
        let line = next_line(&mut lines)?.ok_or_else(|| ReadError::Damaged("it is empty".to_owned()))?;
        digest.update(&line);
        let header = Header::parse(&line).map_err(|later| match later {
            None => ReadError::Damaged("its header cannot be read".to_owned()),
            Some((format, aims)) => ReadError::Newer {
                aims,
                what: "the format",
                found: i64::try_from(format).unwrap_or(i64::MAX),
                known: i64::try_from(FORMAT).unwrap_or(i64::MAX),
            },
        })?;
        if header.schema > latest_schema() {
            let (aims, found) = (header.aims, header.schema);
            return Err(ReadError::Newer { aims, what: "the schema", found, known: latest_schema() });
        }
        if !knows_schema(header.schema) {
            return Err(ReadError::Damaged(format!("there is no schema {}", header.schema)));
        }
        Ok(Self { lines, digest, header })
    }

    fn decrypt(
        start: &[u8],
        file: BufReader<File>,
        decryption: &Decryption,
    ) -> Result<Box<dyn BufRead + Send>, ReadError> {
        if start.starts_with(MAGIC) {
            if decryption.is_none() {
                return Err(ReadError::NoKey);
            }
            return Ok(Box::new(BufReader::new(decryption.unwrap(file)?)));
        }
        if let Some((_, what)) = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
            return Err(ReadError::Other(what));
        }
        if !start.starts_with(GZIP) {
            return Err(ReadError::Other("it begins neither with an age nor with a gzip header"));
        }
        if decryption.is_none() { Ok(Box::new(file)) } else { Err(ReadError::NotEncrypted) }
    }

    /// Returns the header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Reads the whole backup and sends its rows. [`Part::End`] follows only if the backup is complete and unaltered. Goes on
    /// reading if nobody receives, because a damaged backup may be the reason for that. Blocks its thread.
    pub(super) fn send(mut self, to: &mpsc::Sender<Part>) -> Result<End, ReadError> {
        let mut batch = Batch { to, rows: Vec::new(), bytes: 0 };
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let mut table: Option<(String, Vec<Column>)> = None;
        let damaged = |what: &str| ReadError::Damaged(what.to_owned());
        let trailer = loop {
            let Some(line) = next_line(&mut self.lines)? else { return Err(damaged("its end is missing")) };
            if line.starts_with(b"[") {
                let (name, columns) = table.as_ref().ok_or_else(|| damaged("a row has no table"))?;
                let row = parse_row(&line, columns).ok_or_else(|| damaged("a row cannot be read"))?;
                *counts.entry(name.clone()).or_default() += 1;
                batch.add(row, line.len());
            } else {
                match serde_json::from_slice(&line).map_err(|_| damaged("a line cannot be read"))? {
                    Line::Trailer(trailer) => break trailer,
                    Line::Table(next) => {
                        let next = next.into_table().ok_or_else(|| damaged("a table cannot be read"))?;
                        batch.flush();
                        counts.entry(next.name.clone()).or_default();
                        table = Some((next.name.clone(), next.columns.clone()));
                        batch.send(Part::Table(next));
                    }
                }
            }
            self.digest.update(&line);
        };
        batch.flush();
        let sha256 = hex(&self.digest.clone().finalize().into());
        let Trailer { rows, sha256: expected } = trailer;
        if sha256 != expected || rows != counts {
            return Err(damaged("its content does not match the checksum at its end"));
        }
        // The end of the compressed data has a checksum of its own, and so has that of the encrypted data.
        if next_line(&mut self.lines)?.is_some() || has_more(self.lines.get_mut().get_mut())? {
            return Err(damaged("something follows its end"));
        }
        batch.send(Part::End);
        Ok(End { sha256, rows })
    }
}

struct Batch<'t> {
    to: &'t mpsc::Sender<Part>,
    rows: Vec<Row>,
    bytes: usize,
}

impl Batch<'_> {
    fn add(&mut self, row: Row, bytes: usize) {
        self.rows.push(row);
        self.bytes += bytes;
        if self.rows.len() >= BATCH.0 || self.bytes >= BATCH.1 {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.bytes = 0;
        if !self.rows.is_empty() {
            let rows = std::mem::take(&mut self.rows);
            self.send(Part::Rows(rows));
        }
    }

    fn send(&self, part: Part) {
        // The receiver reports why it stopped.
        let _ = self.to.blocking_send(part);
    }
}

/// Reads a line with its line break; `None` at the end.
fn next_line(input: &mut impl BufRead) -> Result<Option<Vec<u8>>, ReadError> {
    let mut line = Vec::new();
    input.take(LINE_MAX).read_until(b'\n', &mut line).map_err(unreadable)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => Err(ReadError::Damaged("it ends in the middle of a line".to_owned())),
    }
}

fn has_more(input: &mut Box<dyn BufRead + Send>) -> Result<bool, ReadError> {
    input.fill_buf().map(|rest| !rest.is_empty()).map_err(unreadable)
}

fn unreadable(error: io::Error) -> ReadError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            ReadError::Damaged(error.to_string())
        }
        _ => ReadError::File(error),
    }
}
