//! Token signing keys, as stored: sealed under the master key, which the database never holds.

use sqlx::FromRow;

use super::{
    db::{Conn, on},
    stored,
};
use crate::domain::{Error, Result, Timestamp, token::SigningAlgorithm};

/// A signing key whose private half is sealed.
#[derive(Clone)]
pub struct SealedKey {
    /// Key identifier.
    pub kid: String,
    /// What it signs with.
    pub algorithm: SigningAlgorithm,
    /// The private key, sealed.
    pub sealed_private_key: Vec<u8>,
    /// When it was generated.
    pub created_at: Timestamp,
}

#[derive(FromRow)]
struct Row {
    kid: String,
    algorithm: String,
    sealed_private_key: Vec<u8>,
    created_at: i64,
}

impl TryFrom<Row> for SealedKey {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            kid: row.kid,
            algorithm: stored("signing algorithm", SigningAlgorithm::parse(&row.algorithm).ok_or(()))?,
            sealed_private_key: row.sealed_private_key,
            created_at: Timestamp::from_micros(row.created_at),
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
    const SQL: &str =
        "INSERT INTO signing_keys (kid, algorithm, sealed_private_key, created_at) VALUES ($1, $2, $3, $4)";
    on!(conn, |c| sqlx::query(SQL)
        .bind(&key.kid)
        .bind(key.algorithm.as_str())
        .bind(&key.sealed_private_key)
        .bind(key.created_at.as_micros())
        .execute(c)
        .await
        .map(drop))?;
    Ok(())
}
