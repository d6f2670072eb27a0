//! Restores a backup, or verifies that it could be restored.
//!
//! The backup is loaded into a new database, migrated and verified there, before anything else is touched. Then the new
//! database takes the place of the old one in one step.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde_json::json;
use tokio::task::spawn_blocking;

use super::{
    format::Header,
    source::{ReadError, Source},
    undone::{self, Since},
};
use crate::{
    clock::Environment,
    crypto::MasterKeys,
    domain::{
        Error, Timestamp,
        audit::{AuditAction, Break, hex},
    },
    service::{audit, core::act::Act, master_key::open_everything, people::factors, tokens::signing_keys},
    store::{
        Db, Location, Mode, OpenError, Store, agents,
        backup::{LoadError, PostgresTarget, Scratch, Seen, Snapshot, SqliteTarget, head_of_data, stream},
        tokens::sealed,
    },
};

/// Why nothing was restored. The messages are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The data of the backup does not fit the database, or the database failed.
    #[error("cannot restore the backup: {0}")]
    Load(#[from] LoadError),
    /// The audit log in the backup is broken.
    #[error("the audit log in the backup is broken at seq {}: {}", .0.seq, .0.reason)]
    Broken(Break),
    /// The audit log in the backup does not end where its header says.
    #[error("the audit log in the backup does not end with the head that the backup names")]
    OtherHead,
    /// The backup has secrets that the master key does not open.
    #[error(
        "the master key does not decrypt the secrets in the backup; set the one that does. If it is lost for good, pass \
         --lost-master-key"
    )]
    MasterKey,
    /// The database exists.
    #[error("the database already holds data; pass --replace to delete it and restore the backup in its place")]
    Occupied,
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database on a PostgreSQL server has tables that this version does not know, so it cannot delete them.
    #[error("{0}. On PostgreSQL, restore it into a new, empty database")]
    Unknown(#[source] OpenError),
    /// The temporary folder cannot be used.
    #[error("cannot use the temporary folder {0}: {1}")]
    Folder(String, #[source] std::io::Error),
    /// The database failed.
    #[error("the database failed: {}", .0.with_causes())]
    Store(#[from] Error),
}

/// A backup that was read completely and verified.
#[derive(Clone)]
pub struct Verified {
    /// Its header.
    pub header: Header,
    /// The number of rows of each table.
    pub rows: BTreeMap<String, u64>,
    /// The SHA-256 of its content.
    pub sha256: String,
}

/// How to restore.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Delete the data that the database holds.
    pub replace: bool,
    /// Which secrets of the backup go on working.
    pub secrets: Secrets,
}

/// Which secrets of a backup go on working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// All of them, and the tokens that were issued before.
    Tokens,
    /// All of them. Agents must get new tokens.
    NoTokens,
    /// Those that need no master key, which is lost. Agents must get new tokens, and authenticator apps are removed.
    NoMasterKey,
}

/// A restored database that is not in its place yet. If it is dropped, nothing was changed.
pub struct Prepared {
    /// The backup.
    pub verified: Verified,
    /// What the restore takes back; `None` if it replaces nothing.
    pub since: Option<Since>,
    /// The number of authenticator apps that were removed.
    pub authenticators_removed: u64,
    scratch: Scratch,
    place: Place,
}

enum Place {
    Sqlite(SqliteTarget),
    Postgres(Box<PostgresTarget>),
}

/// Verifies a backup: restores it into a temporary database, which is then deleted.
///
/// # Errors
/// See [`RestoreError`].
pub async fn verify(source: Source, temporary: &Path, env: &Environment) -> Result<Verified, RestoreError> {
    let scratch = scratch_in(temporary, env)?;
    let (verified, db) = load(source, &scratch).await?;
    db.close().await;
    Ok(verified)
}

/// Loads and verifies a backup, to put it at `location`, where the service will have these master keys. Nothing there is
/// changed yet.
///
/// # Errors
/// See [`RestoreError`].
pub async fn prepare(
    source: Source,
    location: &Location,
    options: Options,
    master_keys: Option<&MasterKeys>,
    temporary: &Path,
    env: &Environment,
) -> Result<Prepared, RestoreError> {
    let lock = match location {
        Location::Sqlite(path) => Some(SqliteTarget::lock(path)?),
        Location::Postgres(_) => None,
    };
    let since = inspect(location, &source, options).await?;
    let (scratch, place) = match (location, lock) {
        (Location::Sqlite(_), Some(target)) => (target.scratch()?, Place::Sqlite(target)),
        (Location::Sqlite(path), None) => return Err(OpenError::Missing(path.clone()).into()),
        (Location::Postgres(url), _) => {
            let target = PostgresTarget::connect(url).await?;
            (scratch_in(temporary, env)?, Place::Postgres(Box::new(target)))
        }
    };
    let (verified, db) = load(source, &scratch).await?;
    let store = Store::start(db, Arc::new(|_| {}));
    let settled = async {
        let removed = settle(&store, env, &verified.header, since.as_ref(), options.secrets).await?;
        require_master_key(&store, master_keys).await?;
        Ok::<_, RestoreError>(removed)
    };
    let settled = settled.await;
    store.close().await;
    Ok(Prepared { verified, since, authenticators_removed: settled?, scratch, place })
}

impl Prepared {
    /// Puts the restored database in place.
    ///
    /// # Errors
    /// See [`RestoreError`]. Then the old database is as it was.
    pub async fn put(self) -> Result<(), RestoreError> {
        let seen = match &self.since {
            None => Seen::Nothing,
            Some(since) => since.head().map_or(Seen::Unreadable, Seen::Head),
        };
        match self.place {
            Place::Sqlite(target) => target.put(seen, self.scratch).await?,
            Place::Postgres(target) => {
                let db = Db::open(&self.scratch.location(), Mode::Read).await?;
                let snapshot = Snapshot::begin(&db).await?;
                let (sender, mut receiver) = stream();
                let sending = async move { snapshot.send(&sender).await };
                // The stream ends with the receiver, so that a restore that fails does not wait for the rest.
                let putting = async move { target.put(seen, &mut receiver).await };
                let (sent, put) = tokio::join!(sending, putting);
                db.close().await;
                match put {
                    // The stream was interrupted, because reading failed.
                    Err(LoadError::Interrupted) => {
                        sent?;
                        return Err(LoadError::Interrupted.into());
                    }
                    other => other?,
                }
            }
        }
        Ok(())
    }
}

fn scratch_in(temporary: &Path, env: &Environment) -> Result<Scratch, RestoreError> {
    let folder = temporary.join(format!("aims-{}", env.uuid()));
    Scratch::in_new_folder(&folder).map_err(|error| RestoreError::Folder(folder.display().to_string(), error))
}

/// Loads a backup into a new database, migrates it, and verifies its audit log.
async fn load(source: Source, scratch: &Scratch) -> Result<(Verified, Db), RestoreError> {
    let header = source.header().clone();
    let (sender, mut receiver) = stream();
    let reading = spawn_blocking(move || source.send(&sender));
    let loaded = scratch.load(header.schema, &mut receiver).await;
    // The reader goes on to the end of the file. If the file is damaged, that is why it could not be loaded.
    drop(receiver);
    let read = reading.await.map_err(|panic| Error::Internal(Box::new(panic)))?;
    let end = read?;
    loaded?;
    let db = Db::open(&scratch.location(), Mode::Write).await?;
    let found = audit::verify(&db).await;
    let checked = found.map_err(RestoreError::from).and_then(|found| match found.broken {
        Some(broken) => Err(RestoreError::Broken(broken)),
        None if found.head != header.head => Err(RestoreError::OtherHead),
        None => Ok(()),
    });
    if let Err(error) = checked {
        db.close().await;
        return Err(error);
    }
    Ok((Verified { header, rows: end.rows, sha256: end.sha256 }, db))
}

/// Looks at what the restore would replace. Returns what it takes back; `None` if there is nothing.
async fn inspect(location: &Location, source: &Source, options: Options) -> Result<Option<Since>, RestoreError> {
    let db = match (Db::open(location, Mode::Snapshot).await, location) {
        (Ok(db), _) => db,
        (Err(OpenError::Missing(_) | OpenError::Empty(_)), _) => return Ok(None),
        (
            Err(
                error @ (OpenError::Connect(_)
                | OpenError::File(..)
                | OpenError::Foreign(_)
                | OpenError::Newer { .. }
                | OpenError::Divergent(_)),
            ),
            Location::Sqlite(_),
        ) if options.replace => {
            return Ok(Some(Since::Unknown { reason: error.to_string(), head: None }));
        }
        (Err(error @ (OpenError::Newer { .. } | OpenError::Divergent(_))), Location::Postgres(_)) => {
            return Err(RestoreError::Unknown(error));
        }
        (Err(error), _) => return Err(error.into()),
    };
    let found = inspect_open(&db, source, options).await;
    db.close().await;
    match found {
        Err(RestoreError::Store(error)) if options.replace && !db.is_shared() => {
            Ok(Some(Since::Unknown { reason: error.with_causes(), head: None }))
        }
        found => found,
    }
}

async fn inspect_open(db: &Db, source: &Source, options: Options) -> Result<Option<Since>, RestoreError> {
    if head_of_data(db.read().await?.conn()).await?.is_none() {
        return Ok(None);
    }
    if !options.replace {
        return Err(RestoreError::Occupied);
    }
    Ok(Some(undone::since(db, source.header().head).await?))
}

/// Ends what must not go on working, and records the restore in the restored audit log. Returns the number of authenticator
/// apps that were removed.
async fn settle(
    store: &Store,
    env: &Environment,
    header: &Header,
    since: Option<&Since>,
    secrets: Secrets,
) -> Result<u64, RestoreError> {
    let replaced = since.and_then(Since::head);
    let details = json!({
        "made_at": header.made_at, "aims": header.aims, "schema": header.schema, "head_seq": header.head.seq,
        "head_hash": hex(&header.head.hash), "tokens_ended": secrets != Secrets::Tokens,
        "master_key_lost": secrets == Secrets::NoMasterKey,
        "replaced_seq": replaced.map(|head| head.seq), "replaced_hash": replaced.map(|head| hex(&head.hash)),
    });
    let env = env.clone();
    let removed = store
        .write_without_limit(move |tx| {
            Box::pin(async move {
                let mut act = Act::by_system(tx, env);
                if secrets != Secrets::Tokens {
                    end_tokens(&mut act).await?;
                }
                let mut removed = 0;
                if secrets == Secrets::NoMasterKey {
                    removed = factors::remove_all_authenticators(&mut act).await?;
                    sealed::forget_rotation(act.tx).await?;
                }
                act.audit(AuditAction::BackupRestored, None, None, details);
                Ok(removed)
            })
        })
        .await?;
    Ok(removed)
}

/// Checks that the service will start with these master keys, if the restored database needs one.
async fn require_master_key(store: &Store, keys: Option<&MasterKeys>) -> Result<(), RestoreError> {
    let mut read = store.read().await?;
    let named = sealed::last_rotation(read.conn()).await?.map(|rotation| rotation.key);
    let fits = match keys {
        Some(keys) => {
            named.is_none_or(|named| keys.find(named).is_some()) && open_everything(read.conn(), keys).await?
        }
        None => named.is_none() && !sealed::any(read.conn()).await?,
    };
    if fits { Ok(()) } else { Err(RestoreError::MasterKey) }
}

/// Ends every token, also those that were issued after the backup: verifiers no longer find the keys that signed them, and
/// AIMS, which may sign with a shared secret, refuses their epochs.
async fn end_tokens(act: &mut Act<'_>) -> Result<(), Error> {
    signing_keys::withdraw_all(act).await?;
    // An epoch that no lost token can have: the epochs of agents are counted from 0, or from the time of a restore.
    let epoch = Timestamp::as_micros(act.now);
    agents::begin_epoch(act.tx, epoch).await
}
