//! A new SQLite database that a backup is loaded into. Nobody uses it until it is complete and verified.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sqlx::{
    Connection, Executor, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::sync::mpsc;

use super::{
    Part,
    columns::{On, describe},
    loader::{Counts, LoadError, load},
};
use crate::store::db::{Location, OpenError, sqlite::MIGRATIONS, sqlite_file::with_suffix};

/// Files that SQLite and AIMS put beside a database.
const BESIDE: [&str; 4] = ["-wal", "-shm", "-journal", ".lock"];

/// The database. Its files are deleted when it is dropped, unless they were put in place before.
pub struct Scratch {
    file: PathBuf,
    /// The folder that exists for it alone, if there is one.
    folder: Option<PathBuf>,
}

impl Scratch {
    /// Creates a folder that only its owner can use, and a database in it.
    ///
    /// # Errors
    /// If the folder exists already or cannot be created.
    pub fn in_new_folder(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(folder)?;
        let scratch = Self { file: folder.join("scratch.db"), folder: Some(folder.to_owned()) };
        create(&scratch.file)?;
        Ok(scratch)
    }

    /// Creates a database at `file`, and deletes what an interrupted run left there. The caller holds a lock, so that
    /// nobody else uses the file.
    pub(super) fn at(file: PathBuf) -> io::Result<Self> {
        let scratch = Self { file, folder: None };
        scratch.remove();
        create(&scratch.file)?;
        Ok(scratch)
    }

    /// Returns where the database is.
    #[must_use]
    pub fn location(&self) -> Location {
        Location::Sqlite(self.file.clone())
    }

    /// Creates the tables of a schema, and loads the rows. The database needs no recovery from a crash: then it is
    /// discarded.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn load(&self, schema: i64, parts: &mut mpsc::Receiver<Part>) -> Result<Counts, LoadError> {
        let options = SqliteConnectOptions::new()
            .filename(&self.file)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Off)
            .synchronous(SqliteSynchronous::Off)
            .pragma("temp_store", "FILE")
            .pragma("cache_size", "-65536");
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(OpenError::Connect)?;
        MIGRATIONS.run_to(schema, &mut connection).await.map_err(OpenError::from)?;
        let mut transaction = connection.begin().await?;
        let counts = load(On::Sqlite(&mut transaction), parts).await?;
        index_text(&mut transaction).await?;
        transaction.commit().await?;
        connection.close().await?;
        Ok(counts)
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    fn remove(&self) {
        // Nothing else can be done about a file that cannot be deleted. Only its owner can read it.
        let _ = fs::remove_file(&self.file);
        for suffix in BESIDE {
            let _ = fs::remove_file(with_suffix(&self.file, suffix));
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.remove();
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir(folder);
        }
    }
}

fn create(file: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map(drop)
}

/// Builds the text index of agents again.
async fn index_text(c: &mut SqliteConnection) -> Result<(), LoadError> {
    const SQL: &str = "DELETE FROM agents_to_index; INSERT INTO agents_text (rowid, name, owner, description) \
        SELECT number, name, owner, description FROM agents";
    if describe(On::Sqlite(c), "agents_to_index").await?.is_some() {
        c.execute(SQL).await?;
    }
    Ok(())
}
