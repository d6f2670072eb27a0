//! Where the database is, what it is opened for, and why it could not be opened.

use std::{
    io,
    path::{PathBuf, absolute},
};

use secrecy::SecretString;
use sqlx::migrate::MigrateError;

use super::engine::Unfit;

/// The location of the database.
#[derive(Clone, Debug)]
pub enum Location {
    /// The path of an SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL URL. It may contain a password.
    Postgres(SecretString),
}

impl Location {
    /// Returns an error if this is an SQLite file that does not exist. Only commands that set up AIMS create a
    /// database.
    ///
    /// # Errors
    /// [`OpenError::Missing`].
    pub fn require(&self) -> Result<(), OpenError> {
        match self {
            Self::Sqlite(path) if !path.exists() => {
                Err(OpenError::Missing(absolute(path).unwrap_or_else(|_| path.clone())))
            }
            Self::Sqlite(_) | Self::Postgres(_) => Ok(()),
        }
    }
}

/// What a process opens the database for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The service: creates the database, migrates it and writes to it. On SQLite only one process at a time can open
    /// it in this mode, because its live view cannot follow the changes of another process.
    Write,
    /// A command that writes only what the service does not cache. It may run next to the service, and does not migrate.
    Beside,
    /// A command that only reads. It may run next to the service, and does not migrate.
    Read,
    /// A command that copies the whole database, which may also have an older schema. It may run next to the service.
    Snapshot,
}

/// Why the database could not be opened. The messages are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has opened the file to write to it.
    #[error("{0} is in use by another AIMS process")]
    InUse(PathBuf),
    /// The file does not exist.
    #[error(
        "cannot find the database {0}; run this command in the working directory of the service, or set DATABASE_URL \
         to the value that the service uses"
    )]
    Missing(PathBuf),
    /// The file has a second name in the file system.
    #[error(
        "the database file {0} has another name (a hard link). SQLite would write changes made under that name to a \
         separate log. Find the link with `find / -xdev -samefile {0}` and remove it"
    )]
    HardLinked(PathBuf),
    /// The file is a mount point.
    #[error(
        "the database file {0} is mounted without its folder. SQLite stores recent changes in a second file in the \
         same folder, so mount the folder instead"
    )]
    Mounted(PathBuf),
    /// The file or its folder cannot be used.
    #[error("cannot use the database file {0}: {1}")]
    File(PathBuf, #[source] io::Error),
    /// SQLite cannot open the file, or PostgreSQL rejected a statement during setup.
    #[error("cannot open the database: {0}")]
    Connect(#[source] sqlx::Error),
    /// The PostgreSQL server does not respond, or rejects the connection.
    #[error("cannot connect to the database at {0}: {1}")]
    Server(String, #[source] sqlx::Error),
    /// The file belongs to the service that AIMS replaces. It is left as it is.
    #[error("{0} is the database of the predecessor; choose another DATABASE_URL and run: aims import-seed {0}")]
    Predecessor(PathBuf),
    /// There are no tables.
    #[error("the database {0} is empty; check DATABASE_URL, or create the schema with: aims migrate")]
    Empty(String),
    /// There are tables, but not those of AIMS.
    #[error("{0} is not a database of AIMS; set DATABASE_URL to the one that the service uses, or to a new one")]
    Foreign(String),
    /// A migration is pending, and this command does not migrate.
    #[error("the database has schema {schema}, this version of AIMS needs {known}; run: aims migrate")]
    Older {
        /// The newest migration of the database.
        schema: i64,
        /// The newest migration of this version.
        known: i64,
    },
    /// A newer version of AIMS migrated the database.
    #[error(
        "the database has schema {schema}, this version of AIMS knows up to {known}; use the newer version of AIMS that \
         migrated it, or restore a backup from before the upgrade"
    )]
    Newer {
        /// The newest migration of the database.
        schema: i64,
        /// The newest migration of this version.
        known: i64,
    },
    /// The database was migrated by a version of AIMS that is neither older nor newer, such as a development build.
    #[error(
        "migration {0} of the database is not the one of this version of AIMS; use the version that migrated it, or \
         restore a backup from before"
    )]
    Divergent(i64),
    /// The server at this address speaks the protocol of PostgreSQL, but AIMS cannot work with it.
    #[error("cannot use the database at {0}: {1}")]
    Unfit(String, #[source] Unfit),
    /// A migration failed.
    #[error("cannot migrate the database: {0}")]
    Migrate(#[source] MigrateError),
}

impl From<MigrateError> for OpenError {
    fn from(error: MigrateError) -> Self {
        Self::Migrate(error)
    }
}
