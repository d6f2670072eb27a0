//! An SQLite database that a restored one takes the place of.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, open};
use sqlx::{Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{Seen, columns::On, loader::LoadError, scratch::Scratch, unchanged};
use crate::store::db::{
    OpenError,
    sqlite_file::{give_to_service, lock_for_writing, resolve, with_suffix},
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
        if fs::metadata(with_suffix(scratch.file(), "-wal")).is_ok_and(|log| log.len() > 0) {
            return Err(failed(io::Error::other("SQLite could not complete the restored database")));
        }
        self.end_old_log(seen).await?;
        // SQLite has closed the file, so no lock can be lost.
        // Root must not give away a file that another user linked there.
        let file = open(scratch.file(), OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        let file = File::from(file.map_err(|error| failed(error.into()))?);
        match fs::metadata(&self.path) {
            Ok(old) => {
                file.set_permissions(Permissions::from_mode(old.permissions().mode() & 0o777)).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        give_to_service(&file, &self.path);
        file.sync_all().map_err(failed)?;
        fs::rename(scratch.file(), &self.path).map_err(failed)?;
        let folder = self.path.parent().unwrap_or_else(|| Path::new("/"));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }

    /// Copies the write-ahead log of the old database into it. SQLite would apply a log that is left to the new one.
    /// Checks that the database is the one that was seen.
    async fn end_old_log(&self, seen: Seen) -> Result<(), LoadError> {
        let is_readable = self.path.exists() && self.copy_log(seen).await?;
        for suffix in ["-wal", "-shm"] {
            let file = with_suffix(&self.path, suffix);
            match fs::metadata(&file) {
                // The last process that closes a database deletes its log.
                Ok(_) if is_readable => return Err(OpenError::InUse(self.path.clone()).into()),
                // The log of a database that is damaged or gone.
                Ok(_) => fs::remove_file(&file).map_err(|error| LoadError::File(file.display().to_string(), error))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(LoadError::File(file.display().to_string(), error)),
            }
        }
        Ok(())
    }

    /// Returns false if the database is damaged.
    async fn copy_log(&self, seen: Seen) -> Result<bool, LoadError> {
        let options = SqliteConnectOptions::new().filename(&self.path);
        let copied = async {
            let mut old = SqliteConnection::connect_with(&options).await?;
            old.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
            Ok(old)
        };
        let mut old = match copied.await {
            Ok(old) => old,
            Err(error) if is_damage(&error, seen) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let unchanged = unchanged::require(On::Sqlite(&mut old), seen).await;
        old.close().await?;
        unchanged.map(|()| true)
    }
}

/// Returns true if the database, and so its log, is of no use. After other errors, such as a full disk, the log is needed.
fn is_damage(error: &sqlx::Error, seen: Seen) -> bool {
    const FULL: i32 = 13;
    const CORRUPT: i32 = 11;
    const NO_DATABASE: i32 = 26;
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    match code.map(|code| code & 0xff) {
        Some(CORRUPT | NO_DATABASE) => true,
        Some(FULL) => false,
        _ => seen == Seen::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqliteJournalMode;
    use tempfile::TempDir;

    use super::*;

    /// SQLite does not report that it could not copy the log when it closes a database.
    #[tokio::test]
    async fn a_database_whose_log_is_not_copied_is_not_put_in_place() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("aims.db");
        let target = SqliteTarget::lock(&path).unwrap();
        let scratch = target.scratch().unwrap();
        let options = SqliteConnectOptions::new().filename(scratch.file()).journal_mode(SqliteJournalMode::Wal);
        let mut other = SqliteConnection::connect_with(&options).await.unwrap();
        other.execute("CREATE TABLE a (b)").await.unwrap();
        let error = target.put(Seen::Nothing, scratch).await.unwrap_err();
        assert!(matches!(error, LoadError::File(..)), "{error}");
        assert!(!path.exists());
    }
}
