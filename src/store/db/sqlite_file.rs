//! The files of an SQLite database: their real paths, the lock against a second writer, and whether they are still in
//! place.
//!
//! SQLite uses POSIX locks. Closing any descriptor of a file drops all such locks that the process holds on it. So
//! nothing in this process except SQLite may open the database, its `-wal` or its `-shm` file. This module only reads
//! their metadata, and keeps its lock in a separate file.

use std::{
    fs::{self, File, Metadata, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf, absolute},
    sync::{Mutex, PoisonError},
};

use rustix::process::geteuid;
use sqlx::{
    Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};

use super::location::OpenError;

/// Maximum number of symbolic links to follow, as in the Linux kernel.
const MOST_LINKS: usize = 40;

/// A database file was deleted, moved or replaced while the service was running, so writes are no longer durable.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{} was deleted, moved or replaced while AIMS was using it; stop AIMS before you touch its database files", .0.display()
)]
pub struct FileReplaced(PathBuf);

/// The files of a database that this process writes to.
#[derive(Debug)]
pub struct SqliteFiles {
    watched: Vec<Watched>,
    /// The index of the WAL.
    index: PathBuf,
    /// The lock against other AIMS processes. Closing the file releases it.
    _lock: Option<File>,
    /// A connection that stays open, so that SQLite keeps its lock on the database and does not replace the WAL.
    keeper: Mutex<Option<SqliteConnection>>,
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    identity: Identity,
}

/// Device and inode.
type Identity = (u64, u64);

impl SqliteFiles {
    /// Opens a connection to the database at `path`, a result of [`resolve`], and records the identity of its files.
    pub(in crate::store) async fn open(
        path: &Path,
        lock: Option<File>,
        options: SqliteConnectOptions,
    ) -> Result<Self, OpenError> {
        let failed = |error| OpenError::File(path.to_owned(), error);
        let mut keeper = SqliteConnection::connect_with(&options).await.map_err(OpenError::Connect)?;
        // The first read takes the lock and opens the WAL. Both stay until the connection is closed.
        let reading = sqlx::query("SELECT COUNT(*) FROM sqlite_master").execute(&mut keeper).await;
        reading.map_err(OpenError::Connect)?;
        let mut watched = Vec::new();
        for path in [path.to_owned(), with_suffix(path, "-wal")] {
            watched.push(Watched { identity: identity(&fs::metadata(&path).map_err(failed)?), path });
        }
        if let Some(lock) = &lock {
            let identity = identity(&lock.metadata().map_err(failed)?);
            watched.push(Watched { path: lock_path(path), identity });
        }
        Ok(Self { watched, index: with_suffix(path, "-shm"), _lock: lock, keeper: Mutex::new(Some(keeper)) })
    }

    /// Returns the first file that is no longer at its path.
    ///
    /// # Errors
    /// An I/O error other than "not found".
    pub(in crate::store) fn replaced(&self) -> io::Result<Option<FileReplaced>> {
        for file in &self.watched {
            if !is_at(file.identity, &file.path)? {
                return Ok(Some(FileReplaced(file.path.clone())));
            }
        }
        Ok(None)
    }

    /// Returns true if `path` is one of the files, also under another name.
    pub(in crate::store) fn include(&self, path: &Path) -> bool {
        // SQLite may replace the index of the WAL itself, so its identity is not recorded.
        let index = fs::metadata(&self.index).ok().map(|found| identity(&found));
        let mut files = self.watched.iter().map(|file| file.identity).chain(index);
        files.any(|file| is_at(file, path).unwrap_or_default())
    }

    /// Closes the connection that was kept open.
    pub(in crate::store) async fn close(&self) {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            let _ = keeper.close().await;
        }
    }
}

/// Returns the absolute path of the database without symbolic links. The file need not exist. SQLite creates the WAL
/// next to this path, so processes with the same path share one WAL and one lock.
pub(in crate::store) fn resolve(path: &Path) -> Result<PathBuf, OpenError> {
    let failed = |error| OpenError::File(path.to_owned(), error);
    let mut resolved = absolute(path).map_err(failed)?;
    for _ in 0..MOST_LINKS {
        let (Some(folder), Some(name)) = (resolved.parent(), resolved.file_name()) else {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        };
        let folder = folder.canonicalize().map_err(failed)?;
        match fs::read_link(folder.join(name)) {
            Ok(target) => resolved = folder.join(target),
            Err(_) => return Ok(folder.join(name)),
        }
    }
    Err(failed(io::Error::other("too many symbolic links")))
}

/// Takes the lock against other AIMS processes that write to the database at `path`, a result of [`resolve`].
///
/// The name of the lock file is derived from the path. The path identifies the database because files with a second
/// name are rejected: under a hard link, or a mount of the file alone, SQLite would use a separate WAL and corrupt the
/// database.
pub(in crate::store) fn lock_for_writing(path: &Path) -> Result<File, OpenError> {
    let failed = |error| OpenError::File(path.to_owned(), error);
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(failed(io::ErrorKind::IsADirectory.into())),
        Ok(found) if found.nlink() > 1 => return Err(OpenError::HardLinked(path.to_owned())),
        Ok(_) if is_mounted(path) => return Err(OpenError::Mounted(path.to_owned())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(_) | Err(_) => {}
    }
    let lock = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(lock_path(path));
    let lock = lock.map_err(|error| OpenError::File(lock_path(path), error))?;
    give_to_service(&lock, path);
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Gives a file that root created to the owner of the file or the folder at `path`: the service runs as that user, and must be
/// able to open what a command created.
pub fn give_to_service(file: &File, path: &Path) {
    let like = fs::metadata(path).or_else(|_| fs::metadata(path.parent().unwrap_or(path)));
    let (Ok(like), Ok(own), true) = (like, file.metadata(), geteuid().is_root()) else { return };
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        // In a user namespace that lacks the owner, the file stays as it is.
        let _ = fchown(file, Some(like.uid()), Some(like.gid()));
    }
}

/// Adds the creation of a missing database to `options`, with the permissions of its lock file: readable by the owner
/// only.
pub(in crate::store) fn creating(path: &Path, options: SqliteConnectOptions) -> SqliteConnectOptions {
    let encoded =
        |path: &Path| percent_encoding::percent_encode(path.as_os_str().as_encoded_bytes(), ESCAPED).to_string();
    let uri = format!("file:{}?modeof={}", encoded(path), encoded(&lock_path(path)));
    options.filename(uri).create_if_missing(true).journal_mode(SqliteJournalMode::Wal)
}

/// Characters to percent-encode in SQLite's file URIs.
const ESCAPED: &percent_encoding::AsciiSet = percent_encoding::NON_ALPHANUMERIC;

fn lock_path(path: &Path) -> PathBuf {
    with_suffix(path, ".lock")
}

pub(in crate::store) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn identity(file: &Metadata) -> Identity {
    (file.dev(), file.ino())
}

fn is_at(file: Identity, path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(found) => Ok(identity(&found) == file),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns true if the file itself is a mount point, as with `docker run -v ./aims.db:/data/aims.db`.
#[cfg(target_os = "linux")]
fn is_mounted(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(not(target_os = "linux"))]
const fn is_mounted(_: &Path) -> bool {
    false
}
