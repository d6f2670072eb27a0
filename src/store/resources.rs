//! Protected resources, as stored.

use sqlx::FromRow;
use uuid::Uuid;

use super::{
    db::{Conn, on},
    stored,
};
use crate::domain::{
    Error, Limit, Page, ProtectedResource, ProtectedResourceId, ResourceUri, Result, Timestamp,
    protected_resource::Position,
};

#[derive(FromRow)]
struct Row {
    id: Uuid,
    identifier: String,
    name: String,
    scope: String,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for ProtectedResource {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: ProtectedResourceId(row.id),
            identifier: stored("resource identifier", ResourceUri::parse(&row.identifier))?,
            name: row.name,
            capabilities: stored("resource scope", Self::parse_capabilities(&row.scope))?,
            created_at: Timestamp::from_micros(row.created_at),
            updated_at: Timestamp::from_micros(row.updated_at),
        })
    }
}

/// Adds a resource; `false` when its identifier is taken.
///
/// # Errors
/// When the database fails.
pub async fn insert(conn: Conn<'_>, resource: &ProtectedResource) -> Result<bool> {
    const SQL: &str = "INSERT INTO resources (id, identifier, name, scope, created_at, updated_at) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (identifier) DO NOTHING";
    let inserted = on!(conn, |c| sqlx::query(SQL)
        .bind(resource.id.0)
        .bind(resource.identifier.as_str())
        .bind(&resource.name)
        .bind(resource.capabilities.as_scope())
        .bind(resource.created_at.as_micros())
        .bind(resource.updated_at.as_micros())
        .execute(c)
        .await?
        .rows_affected());
    Ok(inserted == 1)
}

/// The resource with this identifier of the record.
///
/// # Errors
/// When the database fails.
pub async fn find(conn: Conn<'_>, id: ProtectedResourceId) -> Result<Option<ProtectedResource>> {
    const SQL: &str = "SELECT * FROM resources WHERE id = $1";
    let row: Option<Row> = on!(conn, |c| sqlx::query_as(SQL).bind(id.0).fetch_optional(c).await?);
    row.map(ProtectedResource::try_from).transpose()
}

/// The resource that clients name by `identifier`.
///
/// # Errors
/// When the database fails.
pub async fn find_by_identifier(conn: Conn<'_>, identifier: &ResourceUri) -> Result<Option<ProtectedResource>> {
    const SQL: &str = "SELECT * FROM resources WHERE identifier = $1";
    let row: Option<Row> = on!(conn, |c| sqlx::query_as(SQL).bind(identifier.as_str()).fetch_optional(c).await?);
    row.map(ProtectedResource::try_from).transpose()
}

/// A page of resources in the order of registration, after `after`.
///
/// # Errors
/// When the database fails.
pub async fn list(conn: Conn<'_>, after: Option<Position>, limit: Limit) -> Result<Page<ProtectedResource, Position>> {
    const SQL: &str = "SELECT * FROM resources WHERE (created_at, id) > ($1, $2) ORDER BY created_at, id LIMIT +$3";
    let (created_at, id) = after.map_or((i64::MIN, Uuid::nil()), |(at, id)| (at.as_micros(), id.0));
    let rows: Vec<Row> = on!(conn, |c| {
        sqlx::query_as(SQL).bind(created_at).bind(id).bind(i64::from(limit.get()) + 1).fetch_all(c).await?
    });
    let resources = rows.into_iter().map(ProtectedResource::try_from).collect::<Result<_>>()?;
    Ok(Page::cut(resources, limit, |resource: &ProtectedResource| (resource.created_at, resource.id)))
}

/// Writes name and capabilities; the identifier never changes.
///
/// # Errors
/// When the database fails.
pub async fn update(conn: Conn<'_>, resource: &ProtectedResource) -> Result<()> {
    const SQL: &str = "UPDATE resources SET name = $2, scope = $3, updated_at = $4 WHERE id = $1";
    on!(conn, |c| sqlx::query(SQL)
        .bind(resource.id.0)
        .bind(&resource.name)
        .bind(resource.capabilities.as_scope())
        .bind(resource.updated_at.as_micros())
        .execute(c)
        .await
        .map(drop))?;
    Ok(())
}

/// Removes a resource.
///
/// # Errors
/// When the database fails.
pub async fn delete(conn: Conn<'_>, id: ProtectedResourceId) -> Result<()> {
    const SQL: &str = "DELETE FROM resources WHERE id = $1";
    on!(conn, |c| sqlx::query(SQL).bind(id.0).execute(c).await.map(drop))?;
    Ok(())
}
