//! Token signing keys, as stored: sealed under the master key, which the database never holds.

use sqlx::FromRow;

use crate::{
    domain::{Error, Result, Timestamp, token::SigningAlgorithm},
    store::{
        db::{Conn, on},
        stored,
    },
};

/// A signing key whose private half is sealed.
#[derive(Clone)]
pub struct SealedKey {
    /// Key identifier.
    pub kid: String,
    /// What it signs with.
    pub algorithm: SigningAlgorithm,
    /// The private key, sealed.
    pub sealed_private_key: Vec<u8>,
    /// When it was generated, and published.
    pub created_at: Timestamp,
    /// Since when it signs; `None` for the next one.
    pub activated_at: Option<Timestamp>,
    /// Since when it no longer signs.
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

/// Every signing key, newest first.
///
/// # Errors
/// When the database fails.
pub async fn list(conn: Conn<'_>) -> Result<Vec<SealedKey>> {
    const SQL: &str = "SELECT * FROM signing_keys ORDER BY created_at DESC, kid";
    let rows: Vec<Row> = on!(conn, |c| sqlx::query_as(SQL).fetch_all(c).await?);
    rows.into_iter().map(SealedKey::try_from).collect()
}

/// Adds a signing key.
///
/// # Errors
/// When the database fails.
pub async fn insert(conn: Conn<'_>, key: &SealedKey) -> Result<()> {
    const SQL: &str = "INSERT INTO signing_keys (kid, algorithm, sealed_private_key, created_at, activated_at, \
        retired_at) VALUES ($1, $2, $3, $4, $5, $6)";
    on!(conn, |c| sqlx::query(SQL)
        .bind(&key.kid)
        .bind(key.algorithm.as_str())
        .bind(&key.sealed_private_key)
        .bind(key.created_at.as_micros())
        .bind(key.activated_at.map(Timestamp::as_micros))
        .bind(key.retired_at.map(Timestamp::as_micros))
        .execute(c)
        .await
        .map(drop))?;
    Ok(())
}

/// Has a key sign since `now`.
///
/// # Errors
/// When the database fails.
pub async fn activate(conn: Conn<'_>, kid: &str, now: Timestamp) -> Result<()> {
    const SQL: &str = "UPDATE signing_keys SET activated_at = $2 WHERE kid = $1";
    on!(conn, |c| sqlx::query(SQL).bind(kid).bind(now.as_micros()).execute(c).await.map(drop))?;
    Ok(())
}

/// Has a key sign no more since `now`.
///
/// # Errors
/// When the database fails.
pub async fn retire(conn: Conn<'_>, kid: &str, now: Timestamp) -> Result<()> {
    const SQL: &str = "UPDATE signing_keys SET retired_at = $2 WHERE kid = $1";
    on!(conn, |c| sqlx::query(SQL).bind(kid).bind(now.as_micros()).execute(c).await.map(drop))?;
    Ok(())
}

/// Removes a key: what it signed counts no more.
///
/// # Errors
/// When the database fails.
pub async fn delete(conn: Conn<'_>, kid: &str) -> Result<()> {
    const SQL: &str = "DELETE FROM signing_keys WHERE kid = $1";
    on!(conn, |c| sqlx::query(SQL).bind(kid).execute(c).await.map(drop))?;
    Ok(())
}
