//! Saved filters of the audit log.

use uuid::Uuid;

use crate::{
    domain::{AdministratorId, Result, Timestamp},
    store::db::{Conn, dispatch, execute},
};

/// A saved filter.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct View {
    /// Identifier.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// Query string of the list.
    pub query: String,
}

/// Returns the filters that an administrator saved, by name.
///
/// # Errors
/// When the database fails.
pub async fn of(conn: Conn<'_>, person: AdministratorId) -> Result<Vec<View>> {
    const SQL: &str = "SELECT id, name, query FROM audit_views WHERE person = $1 ORDER BY name";
    Ok(dispatch!(conn, |c| sqlx::query_as(SQL).bind(person.0).fetch_all(c).await)?)
}

/// Saves a filter, in place of one with the same name.
///
/// # Errors
/// When the database fails.
pub async fn save(conn: Conn<'_>, person: AdministratorId, view: &View, now: Timestamp) -> Result<()> {
    const SQL: &str = "INSERT INTO audit_views (id, person, name, query, created_at) VALUES ($1, $2, $3, $4, $5) \
        ON CONFLICT (person, name) DO UPDATE SET query = excluded.query";
    execute!(
        conn,
        sqlx::query(SQL).bind(view.id).bind(person.0).bind(&view.name).bind(&view.query).bind(now.as_micros())
    )?;
    Ok(())
}

/// Deletes a filter of an administrator. Returns its name; `None` if there is none.
///
/// # Errors
/// When the database fails.
pub async fn delete(conn: Conn<'_>, person: AdministratorId, id: Uuid) -> Result<Option<String>> {
    const SQL: &str = "DELETE FROM audit_views WHERE id = $1 AND person = $2 RETURNING name";
    Ok(dispatch!(conn, |c| sqlx::query_scalar(SQL).bind(id).bind(person.0).fetch_optional(c).await)?)
}
