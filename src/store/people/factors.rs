//! What administrators prove themselves with besides the password: authenticator apps, recovery codes, passkeys.

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    domain::{AdministratorId, PasskeyId, Result, Timestamp, person::administrator::Passkey},
    store::db::{Conn, on},
};

/// An administrator's authenticator: the sealed secret, and the last 30-second step whose code was used.
#[derive(Clone, Debug)]
pub struct Totp {
    /// The secret, sealed under the master key.
    pub sealed_secret: Vec<u8>,
    /// The last step whose code was used.
    pub last_step: i64,
}

/// Keeps an authenticator in place of the one before.
///
/// # Errors
/// When the database fails.
pub async fn put_totp(conn: Conn<'_>, person: AdministratorId, totp: &Totp) -> Result<()> {
    const SQL: &str = "INSERT INTO totp_secrets (administrator_id, sealed_secret, last_step) VALUES ($1, $2, $3) \
        ON CONFLICT (administrator_id) DO UPDATE SET sealed_secret = excluded.sealed_secret, \
        last_step = excluded.last_step";
    on!(conn, |c| sqlx::query(SQL)
        .bind(person.0)
        .bind(&totp.sealed_secret)
        .bind(totp.last_step)
        .execute(c)
        .await
        .map(drop))?;
    Ok(())
}

/// The authenticator of an administrator.
///
/// # Errors
/// When the database fails.
pub async fn totp(conn: Conn<'_>, person: AdministratorId) -> Result<Option<Totp>> {
    const SQL: &str = "SELECT sealed_secret, last_step FROM totp_secrets WHERE administrator_id = $1";
    let row: Option<(Vec<u8>, i64)> = on!(conn, |c| sqlx::query_as(SQL).bind(person.0).fetch_optional(c).await?);
    Ok(row.map(|(sealed_secret, last_step)| Totp { sealed_secret, last_step }))
}

/// Notes that a step's code was used; `false` when that or a later one was used before.
///
/// # Errors
/// When the database fails.
pub async fn use_totp_step(conn: Conn<'_>, person: AdministratorId, step: i64) -> Result<bool> {
    const SQL: &str = "UPDATE totp_secrets SET last_step = $2 WHERE administrator_id = $1 AND last_step < $2";
    Ok(on!(conn, |c| sqlx::query(SQL).bind(person.0).bind(step).execute(c).await?.rows_affected()) == 1)
}

/// Forgets the authenticator and the recovery codes.
///
/// # Errors
/// When the database fails.
pub async fn remove_totp(mut conn: Conn<'_>, person: AdministratorId) -> Result<()> {
    const TOTP: &str = "DELETE FROM totp_secrets WHERE administrator_id = $1";
    const CODES: &str = "DELETE FROM recovery_codes WHERE administrator_id = $1";
    for sql in [TOTP, CODES] {
        on!(&mut conn, |c| sqlx::query(sql).bind(person.0).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// Keeps recovery codes in place of those before.
///
/// # Errors
/// When the database fails.
pub async fn put_recovery_codes(mut conn: Conn<'_>, person: AdministratorId, hashes: &[[u8; 32]]) -> Result<()> {
    const FORGET: &str = "DELETE FROM recovery_codes WHERE administrator_id = $1";
    const SQL: &str = "INSERT INTO recovery_codes (administrator_id, code_hash) VALUES ($1, $2)";
    on!(&mut conn, |c| sqlx::query(FORGET).bind(person.0).execute(c).await.map(drop))?;
    for hash in hashes {
        on!(&mut conn, |c| sqlx::query(SQL).bind(person.0).bind(hash.as_slice()).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// Uses up a recovery code; `false` when there is none, or it was used before.
///
/// # Errors
/// When the database fails.
pub async fn use_recovery_code(conn: Conn<'_>, person: AdministratorId, hash: [u8; 32], at: Timestamp) -> Result<bool> {
    const SQL: &str = "UPDATE recovery_codes SET used_at = $3 \
        WHERE administrator_id = $1 AND code_hash = $2 AND used_at IS NULL";
    let used = on!(conn, |c| sqlx::query(SQL)
        .bind(person.0)
        .bind(hash.as_slice())
        .bind(at.as_micros())
        .execute(c)
        .await?
        .rows_affected());
    Ok(used == 1)
}

/// How many recovery codes are left.
///
/// # Errors
/// When the database fails.
pub async fn recovery_codes_left(conn: Conn<'_>, person: AdministratorId) -> Result<i64> {
    const SQL: &str = "SELECT COUNT(*) FROM recovery_codes WHERE administrator_id = $1 AND used_at IS NULL";
    Ok(on!(conn, |c| sqlx::query_scalar(SQL).bind(person.0).fetch_one(c).await?))
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

/// Adds a passkey; `false` when the credential is registered already.
///
/// # Errors
/// When the database fails.
pub async fn insert_passkey(conn: Conn<'_>, passkey: &Passkey, credential_id: &[u8], credential: &str) -> Result<bool> {
    const SQL: &str = "INSERT INTO passkeys (id, administrator_id, credential_id, credential, name, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (credential_id) DO NOTHING";
    let inserted = on!(conn, |c| sqlx::query(SQL)
        .bind(passkey.id.0)
        .bind(passkey.administrator.0)
        .bind(credential_id)
        .bind(credential)
        .bind(&passkey.name)
        .bind(passkey.created_at.as_micros())
        .execute(c)
        .await?
        .rows_affected());
    Ok(inserted == 1)
}

/// The passkeys of an administrator with their credentials, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn passkeys(conn: Conn<'_>, person: AdministratorId) -> Result<Vec<(Passkey, String)>> {
    const SQL: &str = "SELECT * FROM passkeys WHERE administrator_id = $1 ORDER BY created_at, id";
    let rows: Vec<PasskeyRow> = on!(conn, |c| sqlx::query_as(SQL).bind(person.0).fetch_all(c).await?);
    Ok(rows.into_iter().map(Into::into).collect())
}

/// The passkey with this credential identifier, and its credential.
///
/// # Errors
/// When the database fails.
pub async fn passkey_by_credential(conn: Conn<'_>, credential_id: &[u8]) -> Result<Option<(Passkey, String)>> {
    const SQL: &str = "SELECT * FROM passkeys WHERE credential_id = $1";
    let row: Option<PasskeyRow> = on!(conn, |c| sqlx::query_as(SQL).bind(credential_id).fetch_optional(c).await?);
    Ok(row.map(Into::into))
}

/// Writes what an authentication changed: the credential's counter, and when it was used.
///
/// # Errors
/// When the database fails.
pub async fn use_passkey(conn: Conn<'_>, id: PasskeyId, credential: &str, at: Timestamp) -> Result<()> {
    const SQL: &str = "UPDATE passkeys SET credential = $2, last_used_at = $3 WHERE id = $1";
    on!(conn, |c| sqlx::query(SQL).bind(id.0).bind(credential).bind(at.as_micros()).execute(c).await.map(drop))?;
    Ok(())
}

/// Removes a passkey of an administrator; `false` when they have no such one.
///
/// # Errors
/// When the database fails.
pub async fn remove_passkey(conn: Conn<'_>, person: AdministratorId, id: PasskeyId) -> Result<bool> {
    const SQL: &str = "DELETE FROM passkeys WHERE administrator_id = $1 AND id = $2";
    Ok(on!(conn, |c| sqlx::query(SQL).bind(person.0).bind(id.0).execute(c).await?.rows_affected()) == 1)
}
