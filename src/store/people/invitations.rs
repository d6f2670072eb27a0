//! Invitations of administrators.

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    domain::{AdministratorId, Error, Invitation, InvitationId, Result, Role, Timestamp, Username},
    store::{
        db::{Conn, dispatch, execute},
        stored,
    },
};

/// An invitation, and the administrator who invited.
#[derive(Clone, Debug)]
pub struct Invited {
    /// The invitation.
    pub invitation: Invitation,
    /// The username of the inviter.
    pub inviter: Username,
    /// Whether the inviter is an enabled owner.
    pub inviter_is_owner: bool,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    recipient: String,
    role: String,
    invited_by: Uuid,
    created_at: i64,
    expires_at: i64,
    inviter: String,
    inviter_role: String,
    inviter_disabled_at: Option<i64>,
}

impl TryFrom<Row> for Invited {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let inviter_role = stored("role", Role::parse(&row.inviter_role))?;
        Ok(Self {
            invitation: Invitation {
                id: InvitationId(row.id),
                recipient: row.recipient,
                role: stored("role", Role::parse(&row.role))?,
                invited_by: AdministratorId(row.invited_by),
                created_at: Timestamp::from_micros(row.created_at),
                expires_at: Timestamp::from_micros(row.expires_at),
            },
            inviter: stored("username", Username::parse(&row.inviter))?,
            inviter_is_owner: inviter_role == Role::Owner && row.inviter_disabled_at.is_none(),
        })
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT i.id, i.recipient, i.role, i.invited_by, i.created_at, i.expires_at, a.username AS inviter, \
             a.role AS inviter_role, a.disabled_at AS inviter_disabled_at \
             FROM invitations i JOIN administrators a ON a.id = i.invited_by ",
            $rest
        )
    };
}

/// Inserts an invitation. Returns false if there is one for the same recipient.
///
/// # Errors
/// If the database fails.
pub async fn insert(conn: Conn<'_>, invitation: &Invitation, token_hash: [u8; 32]) -> Result<bool> {
    const SQL: &str = "INSERT INTO invitations (id, token_hash, recipient, role, invited_by, created_at, expires_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (recipient) DO NOTHING";
    let inserted = execute!(
        conn,
        sqlx::query(SQL)
            .bind(invitation.id.0)
            .bind(token_hash.as_slice())
            .bind(&invitation.recipient)
            .bind(invitation.role.as_str())
            .bind(invitation.invited_by.0)
            .bind(invitation.created_at.as_micros())
            .bind(invitation.expires_at.as_micros())
    )?;
    Ok(inserted == 1)
}

/// Returns all invitations, sorted by recipient. Owners create them one by one, so there are few.
///
/// # Errors
/// If the database fails.
pub async fn list(conn: Conn<'_>) -> Result<Vec<Invited>> {
    const SQL: &str = select!("ORDER BY i.recipient");
    let rows: Vec<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).fetch_all(c).await)?;
    rows.into_iter().map(Invited::try_from).collect()
}

/// Returns the invitation with this identifier.
///
/// # Errors
/// If the database fails.
pub async fn find(conn: Conn<'_>, id: InvitationId) -> Result<Option<Invited>> {
    const SQL: &str = select!("WHERE i.id = $1");
    let row: Option<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(id.0).fetch_optional(c).await)?;
    row.map(Invited::try_from).transpose()
}

/// Returns the invitation whose link has the token with this hash.
///
/// # Errors
/// If the database fails.
pub async fn find_by_token(conn: Conn<'_>, token_hash: [u8; 32]) -> Result<Option<Invited>> {
    const SQL: &str = select!("WHERE i.token_hash = $1");
    let row: Option<Row> =
        dispatch!(conn, |c| sqlx::query_as(SQL).bind(token_hash.as_slice()).fetch_optional(c).await)?;
    row.map(Invited::try_from).transpose()
}

/// Replaces the link of an invitation. Returns false if the invitation does not exist.
///
/// # Errors
/// If the database fails.
pub async fn renew(conn: Conn<'_>, invitation: &Invitation, token_hash: [u8; 32]) -> Result<bool> {
    const SQL: &str =
        "UPDATE invitations SET token_hash = $2, invited_by = $3, created_at = $4, expires_at = $5 WHERE id = $1";
    let renewed = execute!(
        conn,
        sqlx::query(SQL)
            .bind(invitation.id.0)
            .bind(token_hash.as_slice())
            .bind(invitation.invited_by.0)
            .bind(invitation.created_at.as_micros())
            .bind(invitation.expires_at.as_micros())
    )?;
    Ok(renewed == 1)
}

/// Deletes an invitation. Returns false if it does not exist.
///
/// # Errors
/// If the database fails.
pub async fn remove(conn: Conn<'_>, id: InvitationId) -> Result<bool> {
    const SQL: &str = "DELETE FROM invitations WHERE id = $1";
    Ok(execute!(conn, sqlx::query(SQL).bind(id.0))? == 1)
}
