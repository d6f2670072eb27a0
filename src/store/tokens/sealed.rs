//! Every column of values that are sealed with the master key, and which master key seals new ones.
//!
//! The names of these columns start with `sealed_`. A test compares them with [`Kind::ALL`], so that a rotation of the
//! master key leaves none out.

use uuid::Uuid;

use crate::{
    crypto::{
        MasterKeyId,
        seal::{authenticator_purpose, signing_key_purpose},
    },
    domain::{Error, Result, Timestamp},
    store::{
        Tx,
        db::{Conn, dispatch, execute},
        stored,
    },
};

/// A kind of sealed value. Each one has its own column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The private signing keys.
    SigningKeys,
    /// The secrets of authenticator apps.
    Authenticators,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::SigningKeys, Self::Authenticators];

    /// Returns the name for audit records and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SigningKeys => "signing_keys",
            Self::Authenticators => "authenticators",
        }
    }

    /// Returns the table and the column of the values.
    #[must_use]
    pub const fn column(self) -> (&'static str, &'static str) {
        match self {
            Self::SigningKeys => ("signing_keys", "sealed_private_key"),
            Self::Authenticators => ("totp_secrets", "sealed_secret"),
        }
    }
}

/// A sealed value.
#[derive(Clone)]
pub struct Sealed {
    /// The kind.
    pub kind: Kind,
    /// What the value belongs to: a key ID, or the ID of an administrator.
    pub owner: String,
    /// The value.
    pub value: Vec<u8>,
}

impl Sealed {
    /// Returns the purpose that the value was sealed for.
    #[must_use]
    pub fn purpose(&self) -> String {
        match self.kind {
            Kind::SigningKeys => signing_key_purpose(&self.owner),
            Kind::Authenticators => authenticator_purpose(&self.owner),
        }
    }
}

/// Returns up to `most` sealed values of a kind, in the order of their owners, after the owner `after`.
///
/// # Errors
/// If the database fails.
pub async fn page(conn: Conn<'_>, kind: Kind, after: Option<&str>, most: i64) -> Result<Vec<Sealed>> {
    const SIGNING_KEYS: &str = "SELECT kid, sealed_private_key FROM signing_keys WHERE kid > $1 ORDER BY kid LIMIT +$2";
    const AUTHENTICATORS: &str = "SELECT administrator_id, sealed_secret FROM totp_secrets \
        WHERE administrator_id > $1 ORDER BY administrator_id LIMIT +$2";
    let rows: Vec<(String, Vec<u8>)> = match kind {
        Kind::SigningKeys => {
            let after = after.unwrap_or_default();
            dispatch!(conn, |c| sqlx::query_as(SIGNING_KEYS).bind(after).bind(most).fetch_all(c).await)?
        }
        Kind::Authenticators => {
            let after = after.map_or(Ok(Uuid::nil()), administrator)?;
            let rows: Vec<(Uuid, Vec<u8>)> =
                dispatch!(conn, |c| sqlx::query_as(AUTHENTICATORS).bind(after).bind(most).fetch_all(c).await)?;
            rows.into_iter().map(|(id, value)| (id.to_string(), value)).collect()
        }
    };
    Ok(rows.into_iter().map(|(owner, value)| Sealed { kind, owner, value }).collect())
}

/// Returns true if the database holds a sealed value.
///
/// # Errors
/// If the database fails.
pub async fn any(mut conn: Conn<'_>) -> Result<bool> {
    for kind in Kind::ALL {
        if !page(conn.reborrow(), kind, None, 1).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Replaces a sealed value by the same secret under another key. Returns false if the value has changed since it was
/// read.
///
/// # Errors
/// If the database fails.
pub async fn replace(tx: &mut Tx, sealed: &Sealed, value: &[u8]) -> Result<bool> {
    const SIGNING_KEY: &str =
        "UPDATE signing_keys SET sealed_private_key = $3 WHERE kid = $1 AND sealed_private_key = $2";
    const AUTHENTICATOR: &str =
        "UPDATE totp_secrets SET sealed_secret = $3 WHERE administrator_id = $1 AND sealed_secret = $2";
    let replaced = match sealed.kind {
        Kind::SigningKeys => {
            execute!(tx.conn(), sqlx::query(SIGNING_KEY).bind(&sealed.owner).bind(&sealed.value).bind(value))?
        }
        Kind::Authenticators => {
            let owner = administrator(&sealed.owner)?;
            execute!(tx.conn(), sqlx::query(AUTHENTICATOR).bind(owner).bind(&sealed.value).bind(value))?
        }
    };
    Ok(replaced == 1)
}

fn administrator(id: &str) -> Result<Uuid> {
    Uuid::parse_str(id).map_err(|error| Error::internal(error.to_string()))
}

/// The last rotation of the master key.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// The key that has sealed new values since.
    pub key: MasterKeyId,
    /// The key before it.
    pub previous: MasterKeyId,
    /// When it began.
    pub rotated_at: Timestamp,
    /// When the last value was sealed anew.
    pub completed_at: Option<Timestamp>,
}

/// Returns the last rotation of the master key; `None` if it was never rotated.
///
/// # Errors
/// If the database fails.
pub async fn last_rotation(conn: Conn<'_>) -> Result<Option<Rotation>> {
    const SQL: &str = "SELECT key_id, previous_id, rotated_at, completed_at FROM master_key WHERE id = 1";
    let row: Option<(String, String, i64, Option<i64>)> =
        dispatch!(conn, |c| sqlx::query_as(SQL).fetch_optional(c).await)?;
    let Some((key, previous, rotated_at, completed_at)) = row else { return Ok(None) };
    let id = |text: &str| stored("master key ID", MasterKeyId::parse(text).ok_or(()));
    Ok(Some(Rotation {
        key: id(&key)?,
        previous: id(&previous)?,
        rotated_at: Timestamp::from_micros(rotated_at),
        completed_at: completed_at.map(Timestamp::from_micros),
    }))
}

/// Records that `to` seals new values from now on, instead of `from`. Returns false if another key than `from` is
/// recorded.
///
/// # Errors
/// If the database fails.
pub async fn begin_rotation(tx: &mut Tx, from: MasterKeyId, to: MasterKeyId, now: Timestamp) -> Result<bool> {
    const SQL: &str = "INSERT INTO master_key (id, key_id, previous_id, rotated_at) VALUES (1, $1, $2, $3) \
        ON CONFLICT (id) DO UPDATE SET key_id = excluded.key_id, previous_id = excluded.previous_id, \
        rotated_at = excluded.rotated_at, completed_at = NULL WHERE master_key.key_id = excluded.previous_id";
    let (from, to, at) = (from.to_string(), to.to_string(), now.as_micros());
    Ok(execute!(tx.conn(), sqlx::query(SQL).bind(to).bind(from).bind(at))? == 1)
}

/// Records that no value is sealed with the key before `key` any more. Returns false if that is recorded already.
///
/// # Errors
/// If the database fails.
pub async fn complete_rotation(tx: &mut Tx, key: MasterKeyId, now: Timestamp) -> Result<bool> {
    const SQL: &str = "UPDATE master_key SET completed_at = $2 WHERE key_id = $1 AND completed_at IS NULL";
    Ok(execute!(tx.conn(), sqlx::query(SQL).bind(key.to_string()).bind(now.as_micros()))? == 1)
}

/// Forgets the last rotation, so that any master key may seal new values.
///
/// # Errors
/// If the database fails.
pub async fn forget_rotation(tx: &mut Tx) -> Result<()> {
    execute!(tx.conn(), sqlx::query("DELETE FROM master_key"))?;
    Ok(())
}
