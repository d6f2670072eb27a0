//! Makes a backup.

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    file::{NewFile, Sink},
    format::{AIMS, Header, Line, RowLine, TableLine, Trailer},
};
use crate::{
    clock::Environment,
    crypto::{
        MasterKey, MasterKeys,
        envelope::{Encrypted, Encryption},
    },
    domain::{
        Error, Timestamp,
        audit::{Head, hex},
    },
    service::{master_key::open_everything, tokens::signing_keys::KeyringError},
    store::{
        Db,
        backup::{Part, Snapshot, knows_schema, latest_schema, stream},
    },
};

/// Bytes that are written at once.
const BUFFER: usize = 64 * 1024;

/// A backup to make.
pub struct Request {
    /// Where it goes.
    pub output: Output,
    /// How it is encrypted.
    pub encryption: Encryption,
    /// The master key, to include it. Only in an encrypted backup.
    pub master_key: Option<MasterKey>,
}

impl Request {
    /// Checks that the backup is encrypted, so that it may contain the master key.
    ///
    /// # Errors
    /// [`BackupError::MasterKeyInTheClear`].
    pub const fn require_encryption(&self) -> Result<(), BackupError> {
        match self.encryption {
            Encryption::None => Err(BackupError::MasterKeyInTheClear),
            Encryption::To(_) | Encryption::Passphrase(_) => Ok(()),
        }
    }
}

/// Where a backup goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// A new file.
    File(PathBuf),
}

/// A backup that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// The name of the file; `None` for standard output.
    pub file: Option<String>,
    /// Its size in bytes.
    pub bytes: u64,
    /// The SHA-256 of its content, which its last line contains.
    pub sha256: String,
    /// The schema of the data.
    pub schema: i64,
    /// When the data was read.
    pub made_at: Timestamp,
    /// The end of the audit chain.
    pub head: Head,
    /// The number of rows of each table.
    pub rows: BTreeMap<String, u64>,
    /// How it is encrypted.
    pub encryption: &'static str,
    /// True if it contains the master key.
    pub has_master_key: bool,
}

/// Why no backup was made. The messages are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The master key would be readable beside what it protects.
    #[error(
        "the master key goes into an encrypted backup only: with it, anybody who reads the backup can sign tokens; add \
         --encrypt-to or --passphrase-file"
    )]
    MasterKeyInTheClear,
    /// The master key is another one than that of the database, so a backup with it would be of no use.
    #[error(transparent)]
    WrongMasterKey(KeyringError),
    /// A newer version of AIMS created the schema.
    #[error(
        "the database has the schema {found}, but this version of AIMS ({AIMS}) knows only up to {known}; use the newer \
         version"
    )]
    NewerSchema {
        /// The schema of the database.
        found: i64,
        /// The latest schema that this version knows.
        known: i64,
    },
    /// The output cannot be written.
    #[error("cannot write the backup to {0}: {1}")]
    Output(String, #[source] io::Error),
    /// The database failed.
    #[error("cannot read the database: {}", .0.with_causes())]
    Store(#[from] Error),
}

/// Makes a backup of a database that may be in use.
///
/// # Errors
/// See [`BackupError`]. Then there is no file.
pub async fn make(db: &Db, env: &Environment, request: Request) -> Result<Made, BackupError> {
    if request.master_key.is_some() {
        request.require_encryption()?;
    }
    let Request { output, encryption, master_key } = request;
    let name = match &output {
        Output::Stdout => "standard output".to_owned(),
        Output::File(path) => path.display().to_string(),
    };
    let failed = |error| BackupError::Output(name.clone(), error);
    let sink = match &output {
        Output::Stdout => Sink::Stdout(io::stdout()),
        Output::File(path) => Sink::File(NewFile::create(path, env.uuid()).map_err(failed)?),
    };
    let snapshot = Snapshot::begin(db).await?;
    let facts = snapshot.facts().clone();
    if !knows_schema(facts.schema) {
        return Err(BackupError::NewerSchema { found: facts.schema, known: latest_schema() });
    }
    // Older schemas have other tables.
    if let Some(master) = &master_key
        && facts.schema == latest_schema()
        && !open_everything(db.read().await?.conn(), &MasterKeys::one(master.clone())).await?
    {
        return Err(BackupError::WrongMasterKey(KeyringError::WrongMasterKey));
    }
    let header = Header {
        aims: AIMS.to_owned(),
        schema: facts.schema,
        made_at: env.now(),
        public_url: facts.public_url,
        head: facts.head,
        master_key,
    };
    let (sender, receiver) = stream();
    let (schema, made_at, head) = (header.schema, header.made_at, header.head);
    let (encryption_name, has_master_key) = (encryption.name(), header.master_key.is_some());
    // Compression and encryption take processor time, which the threads of requests must not spend.
    let writing = spawn_blocking(move || write(sink, &encryption, &header, receiver));
    let sending = async move { snapshot.send(&sender).await };
    let (sent, written) = tokio::join!(sending, writing);
    let written = written.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    // A database that fails ends the stream, and so the writing.
    sent?;
    let Written { bytes, trailer } = written.map_err(failed)?;
    let file = match &output {
        Output::Stdout => None,
        Output::File(path) => path.file_name().map(Path::new).map(|name| name.display().to_string()),
    };
    Ok(Made {
        file,
        bytes,
        sha256: trailer.sha256,
        schema,
        made_at,
        head,
        rows: trailer.rows,
        encryption: encryption_name,
        has_master_key,
    })
}

struct Written {
    bytes: u64,
    trailer: Trailer,
}

fn write(sink: Sink, encryption: &Encryption, header: &Header, mut parts: mpsc::Receiver<Part>) -> io::Result<Written> {
    let counting = Counting { output: sink, bytes: 0 };
    let encrypted = encryption.wrap(BufWriter::with_capacity(BUFFER, counting))?;
    let mut lines = Lines { output: GzEncoder::new(encrypted, Compression::fast()), digest: Sha256::new() };
    let mut rows = BTreeMap::new();
    let mut current = String::new();
    lines.put(header.to_line()?)?;
    loop {
        match parts.blocking_recv().ok_or_else(|| io::Error::other("reading the database was interrupted"))? {
            Part::End => break,
            Part::Table(table) => {
                lines.put(serde_json::to_vec(&Line::Table(TableLine::from(&table)))?)?;
                rows.insert(table.name.clone(), 0);
                current = table.name;
            }
            Part::Rows(batch) => {
                for row in &batch {
                    lines.put(serde_json::to_vec(&RowLine(row))?)?;
                }
                *rows.entry(current.clone()).or_insert(0) += batch.len() as u64;
            }
        }
    }
    let trailer = Trailer { rows, sha256: lines.sha256() };
    lines.put(serde_json::to_vec(&trailer)?)?;
    let counting = lines.output.finish()?.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    let bytes = counting.bytes;
    counting.output.finish()?;
    Ok(Written { bytes, trailer })
}

struct Lines<W: Write> {
    output: GzEncoder<Encrypted<W>>,
    digest: Sha256,
}

impl<W: Write> Lines<W> {
    fn put(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        self.digest.update(&line);
        self.output.write_all(&line)
    }

    fn sha256(&self) -> String {
        hex(&self.digest.clone().finalize().into())
    }
}

struct Counting<W> {
    output: W,
    bytes: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

impl Serialize for Made {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::json!({
            "file": self.file, "bytes": self.bytes, "sha256": self.sha256, "schema": self.schema,
            "made_at": self.made_at, "head_seq": self.head.seq, "head_hash": hex(&self.head.hash), "rows": self.rows,
            "encryption": self.encryption, "master_key": self.has_master_key,
        })
        .serialize(serializer)
    }
}
