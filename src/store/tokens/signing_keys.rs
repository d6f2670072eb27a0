//! Token signing keys, sealed with the master key. The master key is never stored in the database.

use sqlx::FromRow;

use crate::{
    domain::{Error, Result, Timestamp, token::SigningAlgorithm},
    store::{
        Tx,
        db::{Conn, dispatch, execute},
        stored,
    },
};

/// A signing key with a sealed private key.
#[derive(Clone)]
pub struct SealedKey {
    /// Key identifier.
    pub kid: String,
    /// Signature algorithm.
    pub algorithm: SigningAlgorithm,
    /// The private key, sealed.
    pub sealed_private_key: Vec<u8>,
    /// When it was generated and published.
    pub created_at: Timestamp,
    /// When it started signing. `None` for the next key.
    pub activated_at: Option<Timestamp>,
    /// When it stopped signing.
    pub retired_at: Option<Timestamp>,
}

#[derive(FromRow)]
struct Row {
    kid: String,
    algorithm: String,
    sealed_private_key: Vec<u8>,
    created_at: i64,
    activated_at: Option<i64>,
    retired_at: Option<i64>,
}

impl TryFrom<Row> for SealedKey {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            kid: row.kid,
            algorithm: stored("signing algorithm", SigningAlgorithm::parse(&row.algorithm).ok_or(()))?,
            sealed_private_key: row.sealed_private_key,
            created_at: Timestamp::from_micros(row.created_at),
            activated_at: row.activated_at.map(Timestamp::from_micros),
            retired_at: row.retired_at.map(Timestamp::from_micros),
        })
    }
}

/// Returns all signing keys, newest first.
///
/// # Errors
/// If the database fails.
pub async fn list(conn: Conn<'_>) -> Result<Vec<SealedKey>> {
    const SQL: &str = "SELECT * FROM signing_keys ORDER BY created_at DESC, kid";
    let rows: Vec<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).fetch_all(c).await)?;
    rows.into_iter().map(SealedKey::try_from).collect()
}

/// Inserts a signing key.
///
/// # Errors
/// If the database fails.
pub async fn insert(tx: &mut Tx, key: &SealedKey) -> Result<()> {
    const SQL: &str = "INSERT INTO signing_keys (kid, algorithm, sealed_private_key, created_at, activated_at, \
        retired_at) VALUES ($1, $2, $3, $4, $5, $6)";
    execute!(
        tx.conn(),
        sqlx::query(SQL)
            .bind(&key.kid)
            .bind(key.algorithm.as_str())
            .bind(&key.sealed_private_key)
            .bind(key.created_at.as_micros())
            .bind(key.activated_at.map(Timestamp::as_micros))
            .bind(key.retired_at.map(Timestamp::as_micros))
    )?;
    tx.mark_everything_changed();
    Ok(())
}

/// Marks a key as signing since `now`.
///
/// # Errors
/// If the database fails.
pub async fn activate(tx: &mut Tx, kid: &str, now: Timestamp) -> Result<()> {
    const SQL: &str = "UPDATE signing_keys SET activated_at = $2 WHERE kid = $1";
    execute!(tx.conn(), sqlx::query(SQL).bind(kid).bind(now.as_micros()))?;
    tx.mark_everything_changed();
    Ok(())
}

/// Marks a key as retired since `now`.
///
/// # Errors
/// If the database fails.
pub async fn retire(tx: &mut Tx, kid: &str, now: Timestamp) -> Result<()> {
    const SQL: &str = "UPDATE signing_keys SET retired_at = $2 WHERE kid = $1";
    execute!(tx.conn(), sqlx::query(SQL).bind(kid).bind(now.as_micros()))?;
    tx.mark_everything_changed();
    Ok(())
}

/// Deletes a key. Tokens that it signed become invalid.
///
/// # Errors
/// If the database fails.
pub async fn delete(tx: &mut Tx, kid: &str) -> Result<()> {
    const SQL: &str = "DELETE FROM signing_keys WHERE kid = $1";
    execute!(tx.conn(), sqlx::query(SQL).bind(kid))?;
    tx.mark_everything_changed();
    Ok(())
}
