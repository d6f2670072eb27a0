//! An SQLite database that a restored one takes the place of.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use sqlx::{Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{Seen, columns::On, loader::LoadError, scratch::Scratch, unchanged};
use crate::store::db::{
    OpenError,
    sqlite_file::{lock_for_writing, resolve, with_suffix},
};

/// The place of the database, with the lock that keeps a service from starting there.
pub struct SqliteTarget {
    path: PathBuf,
    _lock: File,
}

impl SqliteTarget {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`OpenError::InUse`] if the service runs.
    pub fn lock(path: &Path) -> Result<Self, OpenError> {
        let path = resolve(path)?;
        let lock = lock_for_writing(&path)?;
        Ok(Self { path, _lock: lock })
    }

    /// Creates a new database beside the place, on the same file system.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn scratch(&self) -> Result<Scratch, LoadError> {
        let file = with_suffix(&self.path, ".restoring");
        Scratch::at(file.clone()).map_err(|error| LoadError::File(file.display().to_string(), error))
    }

    /// Puts the new database in place. Up to the rename, which is atomic, the old one stays as it is.
    ///
    /// # Errors
    /// [`OpenError::InUse`] if another process has the old database open; [`LoadError::Changed`].
    pub async fn put(self, seen: Seen, scratch: Scratch) -> Result<(), LoadError> {
        let failed = |error| LoadError::File(self.path.display().to_string(), error);
        self.end_old_log(seen).await?;
        // SQLite has closed the file, so no lock can be lost.
        File::open(scratch.file()).and_then(|file| file.sync_all()).map_err(failed)?;
        fs::rename(scratch.file(), &self.path).map_err(failed)?;
        let folder = self.path.parent().unwrap_or_else(|| Path::new("/"));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }

    /// Copies the write-ahead log of the old database into it. SQLite would apply a log that is left to the new one.
    /// Checks that the database is the one that was seen.
    async fn end_old_log(&self, seen: Seen) -> Result<(), LoadError> {
        let options = SqliteConnectOptions::new().filename(&self.path);
        let ended = async {
            let mut old = SqliteConnection::connect_with(&options).await?;
            old.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
            let unchanged = unchanged::require(On::Sqlite(&mut old), seen).await;
            old.close().await?;
            unchanged
        };
        let has_file = self.path.exists();
        let is_readable = match ended.await {
            Err(LoadError::Changed) => return Err(LoadError::Changed),
            ended => ended.is_ok(),
        };
        for suffix in ["-wal", "-shm"] {
            let file = with_suffix(&self.path, suffix);
            match fs::metadata(&file) {
                // The last process that closes a database deletes its log.
                Ok(_) if has_file && is_readable => return Err(OpenError::InUse(self.path.clone()).into()),
                // The log of a database that is damaged or gone.
                Ok(_) => fs::remove_file(&file).map_err(|error| LoadError::File(file.display().to_string(), error))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(LoadError::File(file.display().to_string(), error)),
            }
        }
        Ok(())
    }
}
