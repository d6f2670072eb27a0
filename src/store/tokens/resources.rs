//! Protected resources.

use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    domain::{
        Error, Limit, Page, ProtectedResource, ProtectedResourceId, ResourceUri, Result, Timestamp,
        token::protected_resource::Position,
    },
    store::{
        db::{Conn, dispatch, execute},
        stored,
    },
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

/// Inserts a resource. Returns false if its identifier or an equivalent one is taken.
///
/// # Errors
/// If the database fails.
pub async fn insert(conn: Conn<'_>, resource: &ProtectedResource) -> Result<bool> {
    const SQL: &str = "INSERT INTO resources (id, identifier, name, scope, created_at, updated_at, normal_form) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
    let inserted = execute!(
        conn,
        sqlx::query(SQL)
            .bind(resource.id.0)
            .bind(resource.identifier.as_str())
            .bind(&resource.name)
            .bind(resource.capabilities.as_scope())
            .bind(resource.created_at.as_micros())
            .bind(resource.updated_at.as_micros())
            .bind(resource.identifier.normal_form())
    )?;
    Ok(inserted == 1)
}

/// Adds the normal form to resources that an earlier version registered. Of several equivalent resources the oldest
/// gets it. The others are found by their exact identifier only.
///
/// # Errors
/// If the database fails.
pub async fn add_normal_forms(mut conn: Conn<'_>) -> Result<()> {
    const MISSING: &str = "SELECT * FROM resources WHERE normal_form IS NULL ORDER BY created_at, id";
    const ADD: &str = "UPDATE resources SET normal_form = $2 WHERE id = $1 AND normal_form IS NULL \
        AND NOT EXISTS (SELECT 1 FROM resources WHERE normal_form = $2)";
    let rows: Vec<Row> = dispatch!(&mut conn, |c| sqlx::query_as(MISSING).fetch_all(c).await)?;
    for row in rows {
        let resource = ProtectedResource::try_from(row)?;
        let normal_form = resource.identifier.normal_form();
        execute!(&mut conn, sqlx::query(ADD).bind(resource.id.0).bind(normal_form))?;
    }
    Ok(())
}

/// Returns the resource with this `id`.
///
/// # Errors
/// If the database fails.
pub async fn find(conn: Conn<'_>, id: ProtectedResourceId) -> Result<Option<ProtectedResource>> {
    const SQL: &str = "SELECT * FROM resources WHERE id = $1";
    let row: Option<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(id.0).fetch_optional(c).await)?;
    row.map(ProtectedResource::try_from).transpose()
}

/// Returns the resource with this identifier, or else the one with an equivalent identifier.
///
/// # Errors
/// If the database fails.
pub async fn find_by_identifier(conn: Conn<'_>, identifier: &ResourceUri) -> Result<Option<ProtectedResource>> {
    const SQL: &str = "SELECT * FROM resources WHERE identifier = $1 OR normal_form = $2 \
        ORDER BY CASE WHEN identifier = $1 THEN 0 ELSE 1 END LIMIT 1";
    let row: Option<Row> = dispatch!(conn, |c| sqlx::query_as(SQL)
        .bind(identifier.as_str())
        .bind(identifier.normal_form())
        .fetch_optional(c)
        .await)?;
    row.map(ProtectedResource::try_from).transpose()
}

/// Returns a page of resources after `after`, oldest first.
///
/// # Errors
/// If the database fails.
pub async fn list(conn: Conn<'_>, after: Option<Position>, limit: Limit) -> Result<Page<ProtectedResource, Position>> {
    const SQL: &str = "SELECT * FROM resources WHERE (created_at, id) > ($1, $2) ORDER BY created_at, id LIMIT +$3";
    let (created_at, id) = after.map_or((i64::MIN, Uuid::nil()), |(at, id)| (at.as_micros(), id.0));
    let rows: Vec<Row> = dispatch!(conn, |c| sqlx::query_as(SQL)
        .bind(created_at)
        .bind(id)
        .bind(i64::from(limit.get()) + 1)
        .fetch_all(c)
        .await)?;
    let resources = rows.into_iter().map(ProtectedResource::try_from).collect::<Result<_>>()?;
    Ok(Page::cut(resources, limit, |resource: &ProtectedResource| (resource.created_at, resource.id)))
}

/// Returns at most `most` resources whose tokens may carry a capability, by its name and not by a wildcard, oldest first.
/// Reads every resource, of which there are as many as an operator registers.
///
/// # Errors
/// If the database fails.
pub async fn naming(conn: Conn<'_>, capability: &str, most: i64) -> Result<Vec<ProtectedResource>> {
    const SQL: &str = "SELECT * FROM resources WHERE REPLACE(' ' || scope || ' ', ' ' || $1 || ' ', '') \
        <> ' ' || scope || ' ' ORDER BY created_at, id LIMIT +$2";
    let rows: Vec<Row> = dispatch!(conn, |c| sqlx::query_as(SQL).bind(capability).bind(most).fetch_all(c).await)?;
    rows.into_iter().map(ProtectedResource::try_from).collect()
}

/// Updates the name and the capabilities of a resource. Its identifier never changes.
///
/// # Errors
/// If the database fails.
pub async fn update(conn: Conn<'_>, resource: &ProtectedResource) -> Result<()> {
    const SQL: &str = "UPDATE resources SET name = $2, scope = $3, updated_at = $4 WHERE id = $1";
    execute!(
        conn,
        sqlx::query(SQL)
            .bind(resource.id.0)
            .bind(&resource.name)
            .bind(resource.capabilities.as_scope())
            .bind(resource.updated_at.as_micros())
    )?;
    Ok(())
}

/// Deletes a resource.
///
/// # Errors
/// If the database fails.
pub async fn delete(conn: Conn<'_>, id: ProtectedResourceId) -> Result<()> {
    const SQL: &str = "DELETE FROM resources WHERE id = $1";
    execute!(conn, sqlx::query(SQL).bind(id.0))?;
    Ok(())
}
