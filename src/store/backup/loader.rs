//! Loads a stream of rows into the tables of a new database.

use std::collections::BTreeMap;

use sqlx::AssertSqlSafe;
use tokio::sync::mpsc;

use super::{
    Part, TABLES, Table,
    columns::{On, Stored, describe, on},
};
use crate::{
    domain::{Error, Result},
    store::db::OpenError,
};

/// The number of rows of each table.
pub type Counts = BTreeMap<String, u64>;

/// Why a stream cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The stream does not fit the tables.
    #[error("{0}")]
    Misfit(String),
    /// The database is not the one that was looked at.
    #[error("the database has changed since the restore began; stop every AIMS process that uses it, and try again")]
    Changed,
    /// The stream stopped before its end. The sender reports the reason.
    #[error("the stream of rows was interrupted")]
    Interrupted,
    /// The database failed.
    #[error("the database failed: {}", .0.with_causes())]
    Store(#[from] Error),
    /// The database cannot be created or migrated.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// A file cannot be used.
    #[error("cannot use {0}: {1}")]
    File(String, #[source] std::io::Error),
}

impl From<sqlx::Error> for LoadError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Loads every table, and returns how many rows each has. The caller holds a transaction.
pub(super) async fn load(mut on: On<'_>, parts: &mut mpsc::Receiver<Part>) -> Result<Counts, LoadError> {
    let mut expected = BTreeMap::new();
    for name in TABLES {
        if let Some(stored) = describe(on.reborrow(), name).await? {
            // The migrations put a few rows into new tables.
            execute(on.reborrow(), format!("DELETE FROM \"{name}\"")).await?;
            expected.insert(name, stored);
        }
    }
    let mut counts = Counts::new();
    let mut current: Option<Stored> = None;
    loop {
        match parts.recv().await.ok_or(LoadError::Interrupted)? {
            Part::End => break,
            Part::Table(table) => {
                let stored = expected.remove(table.name.as_str());
                let stored = stored.ok_or_else(|| misfit(&table, "is unknown, or comes twice"))?;
                if stored.table != table {
                    return Err(misfit(&table, "has other columns"));
                }
                counts.insert(table.name, 0);
                current = Some(stored);
            }
            Part::Rows(rows) => {
                let stored = current.as_mut().ok_or_else(|| LoadError::Misfit("a row has no table".to_owned()))?;
                stored.insert(on.reborrow(), &rows).await?;
                *counts.entry(stored.table.name.clone()).or_default() += rows.len() as u64;
            }
        }
    }
    if let Some((name, _)) = expected.first_key_value() {
        return Err(LoadError::Misfit(format!("the table {name} is missing")));
    }
    for (name, expected) in &counts {
        let sql = format!("SELECT COUNT(*) FROM \"{name}\"");
        let found: i64 = on!(on.reborrow(), |c| sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(c).await)?;
        if u64::try_from(found) != Ok(*expected) {
            return Err(LoadError::Misfit(format!("the table {name} has {found} rows instead of {expected}")));
        }
    }
    Ok(counts)
}

fn misfit(table: &Table, what: &str) -> LoadError {
    LoadError::Misfit(format!("the table {:?} {what}", table.name))
}

pub(super) async fn execute(on: On<'_>, sql: String) -> sqlx::Result<()> {
    on!(on, |c| sqlx::query(AssertSqlSafe(sql)).execute(c).await.map(drop))
}
