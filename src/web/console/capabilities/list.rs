//! The list of capabilities. Search and page are in the URL.

use askama::Template;
use axum::{extract::State, response::IntoResponse};

use super::{PER_PAGE, Row};
use crate::{
    domain::{Capability, capability::Position, text},
    service::{Action, agents::capabilities, overview},
    web::{
        api::paging::{Cursor, parse_cursor},
        console::{
            Shared,
            guard::Admin,
            page::{
                frame::{Frame, Page},
                query::{Params, Query},
            },
        },
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

const PATH: &str = "/console/capabilities";

/// The query of the list.
pub(in crate::web::console) struct Listing {
    text: Option<String>,
    after: Option<Position>,
}

impl FromQuery for Listing {
    fn read(fields: &mut Fields) -> Option<Self> {
        let text = fields.optional("q", |text| text::line(text.trim(), 0, 128)).filter(|text| !text.is_empty());
        Some(Self { text, after: fields.optional("cursor", parse_cursor) })
    }
}

#[derive(Template)]
#[template(path = "capabilities/list.html")]
struct ListPage {
    frame: Frame,
    capabilities: Vec<Row>,
    params: Params,
    next: Option<String>,
}

/// Lists capabilities.
pub(in crate::web::console) async fn page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Query(Listing { text, after }, params): Query<Listing>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let page = capabilities::search(&services, &admin, text.as_deref(), after, PER_PAGE).await?;
    let now = services.env.now();
    let ids: Vec<_> = page.items.iter().map(|capability| capability.id).collect();
    let holders = capabilities::count_holders(&services, &admin, &ids, overview::COUNT_MAX).await?;
    let uses = capabilities::last_uses(&services, &admin, &ids).await?;
    let row = |capability: &Capability| {
        let holders = holders.get(&capability.id).copied().unwrap_or_default();
        Row::of(capability, holders, uses.get(&capability.id).copied(), now)
    };
    let rows = page.items.iter().map(row).collect();
    let next = page.next.map(|next| params.with("cursor", &next.encode()).href(PATH));
    Ok(Page(ListPage { frame: frame.at("capabilities"), capabilities: rows, params, next }))
}
