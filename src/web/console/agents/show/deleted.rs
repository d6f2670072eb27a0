//! The page of an agent that was deleted: its last name, who deleted it, and its records.

use askama::Template;
use axum::response::Response;
use http::StatusCode;

use crate::{
    domain::{AgentId, Error, Limit, audit::Start},
    service::{Services, agents::past, audit},
    web::{
        api::paging::Cursor,
        console::{
            audit::{Row, rows},
            guard::Admin,
            page::{
                frame::{Frame, Moment, html},
                query::Params,
            },
        },
        failure::Failure,
    },
};

const PER_PAGE: Limit = Limit::of(50);

#[derive(Template)]
#[template(path = "agents/deleted.html")]
struct DeletedPage {
    frame: Frame,
    id: AgentId,
    name: String,
    at: Moment,
    by: Option<String>,
    /// The record of the deletion.
    seq: i64,
    records: Vec<Row>,
    next: Option<String>,
}

/// Shows what is left of a deleted agent.
///
/// # Errors
/// [`Error::NotFound`] if there never was such an agent, or if the record of its deletion is archived.
pub(super) async fn page(
    services: &Services,
    admin: &Admin,
    frame: Frame,
    id: AgentId,
    before: Option<i64>,
    params: &Params,
) -> Result<Response, Failure> {
    let Some(deleted) = past::deleted(services, admin, id).await? else {
        return Err(Error::NotFound("Agent").into());
    };
    let page = audit::of_agent(services, admin, id, Start::Before(before.unwrap_or(i64::MAX)), PER_PAGE).await?;
    let path = format!("/console/agents/{id}");
    let page = DeletedPage {
        frame: frame.at("agents"),
        id,
        name: deleted.name.unwrap_or_else(|| id.to_string()),
        at: Moment::at(deleted.at, services.env.now()),
        by: deleted.by,
        seq: deleted.seq,
        next: page.next.map(|next| params.with("cursor", &next.encode()).href(&path)),
        records: rows(services, admin, page.items).await?,
    };
    Ok(html(StatusCode::GONE, &page))
}
