//! Second factors of administrators: authenticator apps (TOTP), recovery codes and passkeys.

use std::collections::HashMap;

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    domain::{AdministratorId, PasskeyId, Result, Timestamp, person::administrator::Passkey},
    store::db::{Conn, dispatch, execute},
};

/// The authenticator app of an administrator (RFC 6238).
#[derive(Clone, Debug)]
pub struct Totp {
    /// The secret, sealed with the master key.
    pub sealed_secret: Vec<u8>,
    /// The last 30-second step whose code was used.
    pub last_step: i64,
}

/// Inserts the authenticator of an administrator, or replaces it.
///
/// # Errors
/// If the database fails.
pub async fn put_totp(conn: Conn<'_>, person: AdministratorId, totp: &Totp) -> Result<()> {
    const SQL: &str = "INSERT INTO totp_secrets (administrator_id, sealed_secret, last_step) VALUES ($1, $2, $3) \
        ON CONFLICT (administrator_id) DO UPDATE SET sealed_secret = excluded.sealed_secret, \
        last_step = excluded.last_step";
    execute!(conn, sqlx::query(SQL).bind(person.0).bind(&totp.sealed_secret).bind(totp.last_step))?;
    Ok(())
}

/// Returns the authenticator of an administrator.
///
/// # Errors
/// If the database fails.
pub async fn totp(conn: Conn<'_>, person: AdministratorId) -> Result<Option<Totp>> {
    const SQL: &str = "SELECT sealed_secret, last_step FROM totp_secrets WHERE administrator_id = $1";
    let row: Option<(Vec<u8>, i64)> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(person.0).fetch_optional(c).await)?;
    Ok(row.map(|(sealed_secret, last_step)| Totp { sealed_secret, last_step }))
}

/// Marks the code of a step as used. Returns false if this or a later code was used before.
///
/// # Errors
/// If the database fails.
pub async fn use_totp_step(conn: Conn<'_>, person: AdministratorId, step: i64) -> Result<bool> {
    const SQL: &str = "UPDATE totp_secrets SET last_step = $2 WHERE administrator_id = $1 AND last_step < $2";
    Ok(execute!(conn, sqlx::query(SQL).bind(person.0).bind(step))? == 1)
}

/// Deletes the authenticator and the recovery codes of an administrator.
///
/// # Errors
/// If the database fails.
pub async fn remove_totp(mut conn: Conn<'_>, person: AdministratorId) -> Result<()> {
    const TOTP: &str = "DELETE FROM totp_secrets WHERE administrator_id = $1";
    const CODES: &str = "DELETE FROM recovery_codes WHERE administrator_id = $1";
    for sql in [TOTP, CODES] {
        execute!(&mut conn, sqlx::query(sql).bind(person.0))?;
    }
    Ok(())
}

/// Replaces the recovery codes of an administrator.
///
/// # Errors
/// If the database fails.
pub async fn put_recovery_codes(mut conn: Conn<'_>, person: AdministratorId, hashes: &[[u8; 32]]) -> Result<()> {
    const DELETE: &str = "DELETE FROM recovery_codes WHERE administrator_id = $1";
    const SQL: &str = "INSERT INTO recovery_codes (administrator_id, code_hash) VALUES ($1, $2)";
    execute!(&mut conn, sqlx::query(DELETE).bind(person.0))?;
    for hash in hashes {
        execute!(&mut conn, sqlx::query(SQL).bind(person.0).bind(hash.as_slice()))?;
    }
    Ok(())
}

/// Marks a recovery code as used. Returns false if it does not exist or was used before.
///
/// # Errors
/// If the database fails.
pub async fn use_recovery_code(conn: Conn<'_>, person: AdministratorId, hash: [u8; 32], at: Timestamp) -> Result<bool> {
    const SQL: &str = "UPDATE recovery_codes SET used_at = $3 \
        WHERE administrator_id = $1 AND code_hash = $2 AND used_at IS NULL";
    let used = execute!(conn, sqlx::query(SQL).bind(person.0).bind(hash.as_slice()).bind(at.as_micros()))?;
    Ok(used == 1)
}

/// Counts the unused recovery codes of an administrator.
///
/// # Errors
/// If the database fails.
pub async fn recovery_codes_left(conn: Conn<'_>, person: AdministratorId) -> Result<i64> {
    const SQL: &str = "SELECT COUNT(*) FROM recovery_codes WHERE administrator_id = $1 AND used_at IS NULL";
    Ok(dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(person.0).fetch_one(c).await)?)
}

#[derive(FromRow)]
struct PasskeyRow {
    id: Uuid,
    administrator_id: Uuid,
    credential: String,
    name: String,
    created_at: i64,
    last_used_at: Option<i64>,
}

impl From<PasskeyRow> for (Passkey, String) {
    fn from(row: PasskeyRow) -> Self {
        let passkey = Passkey {
            id: PasskeyId(row.id),
            administrator: AdministratorId(row.administrator_id),
            name: row.name,
            created_at: Timestamp::from_micros(row.created_at),
            last_used_at: row.last_used_at.map(Timestamp::from_micros),
        };
        (passkey, row.credential)
    }
}

/// Inserts a passkey. Returns false if its credential is registered already.
///
/// # Errors
/// If the database fails.
pub async fn insert_passkey(conn: Conn<'_>, passkey: &Passkey, credential_id: &[u8], credential: &str) -> Result<bool> {
    const SQL: &str = "INSERT INTO passkeys (id, administrator_id, credential_id, credential, name, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (credential_id) DO NOTHING";
    let inserted = execute!(
        conn,
        sqlx::query(SQL)
            .bind(passkey.id.0)
            .bind(passkey.administrator.0)
            .bind(credential_id)
            .bind(credential)
            .bind(&passkey.name)
            .bind(passkey.created_at.as_micros())
    )?;
    Ok(inserted == 1)
}

/// Returns the passkeys of an administrator with their credentials, oldest first.
///
/// # Errors
/// If the database fails.
pub async fn passkeys(conn: Conn<'_>, person: AdministratorId) -> Result<Vec<(Passkey, String)>> {
    const SQL: &str = "SELECT * FROM passkeys WHERE administrator_id = $1 ORDER BY created_at, id";
    let rows: Vec<PasskeyRow> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(person.0).fetch_all(c).await)?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// Counts the passkeys of each administrator who has one.
///
/// # Errors
/// If the database fails.
pub async fn passkey_counts(conn: Conn<'_>) -> Result<HashMap<AdministratorId, i64>> {
    const SQL: &str = "SELECT administrator_id, COUNT(*) FROM passkeys GROUP BY administrator_id";
    let rows: Vec<(Uuid, i64)> = dispatch!(conn, |c| sqlx::query_as(SQL).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(person, count)| (AdministratorId(person), count)).collect())
}

/// Deletes all passkeys of an administrator. Returns how many.
///
/// # Errors
/// If the database fails.
pub async fn remove_passkeys(conn: Conn<'_>, person: AdministratorId) -> Result<u64> {
    const SQL: &str = "DELETE FROM passkeys WHERE administrator_id = $1";
    Ok(execute!(conn, sqlx::query(SQL).bind(person.0))?)
}

/// Returns the passkey with this credential identifier, and its credential.
///
/// # Errors
/// If the database fails.
pub async fn passkey_by_credential(conn: Conn<'_>, credential_id: &[u8]) -> Result<Option<(Passkey, String)>> {
    const SQL: &str = "SELECT * FROM passkeys WHERE credential_id = $1";
    let row: Option<PasskeyRow> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(credential_id).fetch_optional(c).await)?;
    Ok(row.map(Into::into))
}

/// Updates a passkey after an authentication: its credential, which contains the signature counter, and its last use.
///
/// # Errors
/// If the database fails.
pub async fn use_passkey(conn: Conn<'_>, id: PasskeyId, credential: &str, at: Timestamp) -> Result<()> {
    const SQL: &str = "UPDATE passkeys SET credential = $2, last_used_at = $3 WHERE id = $1";
    execute!(conn, sqlx::query(SQL).bind(id.0).bind(credential).bind(at.as_micros()))?;
    Ok(())
}

/// Deletes a passkey of an administrator. Returns false if the administrator has no such passkey.
///
/// # Errors
/// If the database fails.
pub async fn remove_passkey(conn: Conn<'_>, person: AdministratorId, id: PasskeyId) -> Result<bool> {
    const SQL: &str = "DELETE FROM passkeys WHERE administrator_id = $1 AND id = $2";
    Ok(execute!(conn, sqlx::query(SQL).bind(person.0).bind(id.0))? == 1)
}
