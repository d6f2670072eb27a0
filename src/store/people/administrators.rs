//! Administrators, their passwords, and the links for the initial setup.

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    crypto::PasswordHash,
    domain::{Administrator, AdministratorId, Error, Result, Role, Timestamp, Username},
    store::{
        db::{Conn, dispatch, execute},
        stored,
    },
};

const COLUMNS: &str = "id, username, display_name, role, password_changed_at, created_at, updated_at, disabled_at, \
    last_sign_in_at, totp_enabled_at";

#[derive(FromRow)]
pub(in crate::store) struct Row {
    id: Uuid,
    username: String,
    display_name: String,
    role: String,
    password_changed_at: i64,
    created_at: i64,
    updated_at: i64,
    disabled_at: Option<i64>,
    last_sign_in_at: Option<i64>,
    totp_enabled_at: Option<i64>,
}

#[derive(FromRow)]
struct WithPassword {
    #[sqlx(flatten)]
    person: Row,
    password_hash: String,
}

impl TryFrom<Row> for Administrator {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: AdministratorId(row.id),
            username: stored("username", Username::parse(&row.username))?,
            display_name: row.display_name,
            role: stored("role", Role::parse(&row.role))?,
            created_at: Timestamp::from_micros(row.created_at),
            updated_at: Timestamp::from_micros(row.updated_at),
            disabled_at: row.disabled_at.map(Timestamp::from_micros),
            last_sign_in_at: row.last_sign_in_at.map(Timestamp::from_micros),
            password_changed_at: Timestamp::from_micros(row.password_changed_at),
            totp_enabled_at: row.totp_enabled_at.map(Timestamp::from_micros),
        })
    }
}

/// Inserts an administrator. Returns false if the username is taken.
///
/// # Errors
/// If the database fails.
pub async fn insert(conn: Conn<'_>, person: &Administrator, password: &PasswordHash) -> Result<bool> {
    const SQL: &str = "INSERT INTO administrators (id, username, display_name, role, password_hash, \
        password_changed_at, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
        ON CONFLICT (username) DO NOTHING";
    let inserted = execute!(
        conn,
        sqlx::query(SQL)
            .bind(person.id.0)
            .bind(person.username.as_str())
            .bind(&person.display_name)
            .bind(person.role.as_str())
            .bind(password.to_phc())
            .bind(person.password_changed_at.as_micros())
            .bind(person.created_at.as_micros())
            .bind(person.updated_at.as_micros())
    )?;
    Ok(inserted == 1)
}

/// Returns the administrator with this identifier.
///
/// # Errors
/// If the database fails.
pub async fn find(conn: Conn<'_>, id: AdministratorId) -> Result<Option<Administrator>> {
    let sql = format!("SELECT {COLUMNS} FROM administrators WHERE id = $1");
    let row: Option<Row> =
        dispatch!(conn, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id.0).fetch_optional(c).await)?;
    row.map(Administrator::try_from).transpose()
}

/// Returns the administrator with this username and the password hash. Takes one query whether or not the username
/// exists.
///
/// # Errors
/// If the database fails.
pub async fn find_by_username(conn: Conn<'_>, username: &Username) -> Result<Option<(Administrator, PasswordHash)>> {
    let sql = format!("SELECT {COLUMNS}, password_hash FROM administrators WHERE username = $1");
    let row: Option<WithPassword> =
        dispatch!(conn, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(username.as_str()).fetch_optional(c).await)?;
    row.map(|row| Ok((row.person.try_into()?, PasswordHash::from_phc(row.password_hash)))).transpose()
}

/// Returns the password hash of an administrator.
///
/// # Errors
/// If the database fails.
pub async fn password(conn: Conn<'_>, id: AdministratorId) -> Result<Option<PasswordHash>> {
    const SQL: &str = "SELECT password_hash FROM administrators WHERE id = $1";
    let hash: Option<String> = dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(id.0).fetch_optional(c).await)?;
    Ok(hash.map(PasswordHash::from_phc))
}

/// Returns all administrators, sorted by username. They are people, so there are few.
///
/// # Errors
/// If the database fails.
pub async fn list(conn: Conn<'_>) -> Result<Vec<Administrator>> {
    let sql = format!("SELECT {COLUMNS} FROM administrators ORDER BY username");
    let rows: Vec<Row> = dispatch!(conn, |c| sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(c).await)?;
    rows.into_iter().map(Administrator::try_from).collect()
}

/// Returns true if there is an administrator, enabled or disabled.
///
/// # Errors
/// If the database fails.
pub async fn any(conn: Conn<'_>) -> Result<bool> {
    const SQL: &str = "SELECT COUNT(*) FROM (SELECT id FROM administrators LIMIT 1) AS present";
    let count: i64 = dispatch!(conn, |c| sqlx::query_scalar(SQL).fetch_one(c).await)?;
    Ok(count > 0)
}

/// Returns true if an enabled owner other than `except` exists.
///
/// # Errors
/// If the database fails.
pub async fn has_other_owner(conn: Conn<'_>, except: AdministratorId) -> Result<bool> {
    const SQL: &str = "SELECT COUNT(*) FROM (SELECT id FROM administrators \
        WHERE role = 'owner' AND disabled_at IS NULL AND id <> $1 LIMIT 1) AS others";
    let count: i64 = dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(except.0).fetch_one(c).await)?;
    Ok(count > 0)
}

/// Updates the editable fields of an administrator. Returns false if the administrator does not exist.
///
/// # Errors
/// If the database fails.
pub async fn update(conn: Conn<'_>, person: &Administrator) -> Result<bool> {
    const SQL: &str = "UPDATE administrators SET display_name = $2, role = $3, disabled_at = $4, updated_at = $5, \
        last_sign_in_at = $6, totp_enabled_at = $7 WHERE id = $1";
    let updated = execute!(
        conn,
        sqlx::query(SQL)
            .bind(person.id.0)
            .bind(&person.display_name)
            .bind(person.role.as_str())
            .bind(person.disabled_at.map(Timestamp::as_micros))
            .bind(person.updated_at.as_micros())
            .bind(person.last_sign_in_at.map(Timestamp::as_micros))
            .bind(person.totp_enabled_at.map(Timestamp::as_micros))
    )?;
    Ok(updated == 1)
}

/// Updates the password.
///
/// # Errors
/// If the database fails.
pub async fn set_password(conn: Conn<'_>, id: AdministratorId, hash: &PasswordHash, at: Timestamp) -> Result<()> {
    const SQL: &str =
        "UPDATE administrators SET password_hash = $2, password_changed_at = $3, updated_at = $3 WHERE id = $1";
    execute!(conn, sqlx::query(SQL).bind(id.0).bind(hash.to_phc()).bind(at.as_micros()))?;
    Ok(())
}

/// Inserts the link for the initial setup. Replaces an unused earlier link.
///
/// # Errors
/// If the database fails.
pub async fn put_setup_token(mut conn: Conn<'_>, hash: [u8; 32], expires_at: Timestamp) -> Result<()> {
    const DELETE: &str = "DELETE FROM setup_tokens WHERE used_at IS NULL";
    const SQL: &str = "INSERT INTO setup_tokens (token_hash, expires_at) VALUES ($1, $2)";
    execute!(&mut conn, sqlx::query(DELETE))?;
    execute!(&mut conn, sqlx::query(SQL).bind(hash.as_slice()).bind(expires_at.as_micros()))?;
    Ok(())
}

/// Records the public URL of a service that uses the database.
///
/// # Errors
/// If the database fails.
pub async fn put_public_url(conn: Conn<'_>, url: &str) -> Result<()> {
    const SQL: &str = "INSERT INTO service_address (id, public_url) VALUES (1, $1) \
        ON CONFLICT (id) DO UPDATE SET public_url = excluded.public_url";
    execute!(conn, sqlx::query(SQL).bind(url))?;
    Ok(())
}

/// Returns the public URL of the service that used the database last; `None` if none has.
///
/// # Errors
/// If the database fails.
pub async fn public_url(conn: Conn<'_>) -> Result<Option<String>> {
    const SQL: &str = "SELECT public_url FROM service_address WHERE id = 1";
    Ok(dispatch!(conn, |c| sqlx::query_scalar(SQL).fetch_optional(c).await)?)
}

/// A link for the initial setup, which creates the first administrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetupToken {
    /// When it expires.
    pub expires_at: Timestamp,
    /// When it was used.
    pub used_at: Option<Timestamp>,
}

/// Returns the setup token with this hash.
///
/// # Errors
/// If the database fails.
pub async fn setup_token(conn: Conn<'_>, hash: [u8; 32]) -> Result<Option<SetupToken>> {
    const SQL: &str = "SELECT expires_at, used_at FROM setup_tokens WHERE token_hash = $1";
    let row: Option<(i64, Option<i64>)> =
        dispatch!(conn, |c| sqlx::query_as(SQL).bind(hash.as_slice()).fetch_optional(c).await)?;
    Ok(row.map(|(expires_at, used_at)| SetupToken {
        expires_at: Timestamp::from_micros(expires_at),
        used_at: used_at.map(Timestamp::from_micros),
    }))
}

/// Marks a setup token as used. Returns false if it was used before.
///
/// # Errors
/// If the database fails.
pub async fn use_setup_token(conn: Conn<'_>, hash: [u8; 32], at: Timestamp) -> Result<bool> {
    const SQL: &str = "UPDATE setup_tokens SET used_at = $2 WHERE token_hash = $1 AND used_at IS NULL";
    let used = execute!(conn, sqlx::query(SQL).bind(hash.as_slice()).bind(at.as_micros()))?;
    Ok(used == 1)
}
