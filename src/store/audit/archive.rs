//! Archives of the audit log: files of records in the order of the chain, one JSON object a line, compressed by gzip.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Lines, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    crypto::hex::decode,
    domain::{
        ActorId, AgentId, Timestamp,
        audit::{ChainHash, Record, hex},
    },
};

/// A record as a line. `at` is in microseconds since the epoch, hashes are hexadecimal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    seq: i64,
    id: Uuid,
    at: i64,
    actor: Option<Uuid>,
    subject: Option<Uuid>,
    action: String,
    resource_type: Option<String>,
    resource_id: Option<String>,
    details: String,
    ip: Option<String>,
    success: bool,
    request_id: Option<String>,
    prev_hash: String,
    hash: String,
}

impl From<Record> for Line {
    fn from(record: Record) -> Self {
        Self {
            seq: record.seq,
            id: record.id,
            at: record.at.as_micros(),
            actor: record.actor.map(|id| id.0),
            subject: record.subject.map(|id| id.0),
            action: record.action,
            resource_type: record.resource_type,
            resource_id: record.resource_id,
            details: record.details,
            ip: record.ip,
            success: record.success,
            request_id: record.request_id,
            prev_hash: hex(&record.prev_hash),
            hash: hex(&record.hash),
        }
    }
}

impl TryFrom<Line> for Record {
    type Error = io::Error;

    fn try_from(line: Line) -> io::Result<Self> {
        Ok(Self {
            seq: line.seq,
            id: line.id,
            at: Timestamp::from_micros(line.at),
            actor: line.actor.map(ActorId),
            subject: line.subject.map(AgentId),
            action: line.action,
            resource_type: line.resource_type,
            resource_id: line.resource_id,
            details: line.details,
            ip: line.ip,
            success: line.success,
            request_id: line.request_id,
            prev_hash: hash(&line.prev_hash)?,
            hash: hash(&line.hash)?,
        })
    }
}

fn hash(text: &str) -> io::Result<ChainHash> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a hash is not 64 hexadecimal digits");
    decode(text).ok_or_else(wrong)
}

/// An archive that is being written. It takes its name when it is complete, and is removed when it is dropped before.
pub struct Writer {
    encoder: GzEncoder<BufWriter<File>>,
    part: Part,
    path: PathBuf,
}

/// The unfinished file.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // Gone already when the archive was completed.
        let _ = fs::remove_file(&self.0);
    }
}

impl Writer {
    /// Begins an archive that only its owner may read.
    ///
    /// # Errors
    /// When there is such a file already, or none can be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path.try_exists()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        let encoder = GzEncoder::new(BufWriter::new(file), Compression::default());
        Ok(Self { encoder, part: Part(part), path: path.to_owned() })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, record: Record) -> io::Result<()> {
        serde_json::to_writer(&mut self.encoder, &Line::from(record))?;
        self.encoder.write_all(b"\n")
    }

    /// Makes the archive durable, and only then gives it its name.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn finish(self) -> io::Result<()> {
        let file = self.encoder.finish()?.into_inner()?;
        file.sync_all()?;
        fs::rename(&self.part.0, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }
}

/// The records of an archive, one after another.
pub struct Reader(Lines<BufReader<MultiGzDecoder<BufReader<File>>>>);

impl Reader {
    /// Opens an archive.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(BufReader::new(MultiGzDecoder::new(BufReader::new(File::open(path)?))).lines()))
    }
}

impl Iterator for Reader {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<io::Result<Record>> {
        let line = self.0.next()?;
        Some(line.and_then(|line| serde_json::from_str::<Line>(&line)?.try_into()))
    }
}
