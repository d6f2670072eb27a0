//! The list of API keys across all agents.

use std::collections::{HashMap, HashSet};

use askama::Template;
use axum::{extract::State, response::IntoResponse};

use super::Row;
use crate::{
    domain::{ApiKey, Invalid, Limit, Selection, credential::api_key::Position},
    service::{agents, core::power, credentials::api_keys},
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

#[derive(Template)]
#[template(path = "keys/fleet.html")]
struct FleetPage {
    frame: Frame,
    keys: Vec<Row>,
    show: &'static str,
    params: Params,
    next: Option<String>,
}

/// The query of the list.
pub(in crate::web::console) struct Listing {
    selection: Selection,
    after: Option<Position>,
}

/// The filters: URL value, label and selection.
const SELECTIONS: [(&str, &str, Selection); 4] = [
    ("all", "All", Selection::All),
    ("expiring", "Expiring within 7 days", Selection::Expiring),
    ("idle", "Unused for 90 days", Selection::Idle),
    ("in_grace", "Rotated, still active", Selection::InGrace),
];

impl FromQuery for Listing {
    fn read(fields: &mut Fields) -> Option<Self> {
        let selection = fields.optional("show", |text| {
            let found = SELECTIONS.iter().find(|(word, ..)| *word == text).map(|(.., selection)| *selection);
            found.ok_or(Invalid::NotOneOf(&["all", "expiring", "idle", "in_grace"]))
        });
        Some(Self { selection: selection.unwrap_or(Selection::All), after: fields.optional("cursor", parse_cursor) })
    }
}

/// Lists the API keys of all agents.
pub(in crate::web::console) async fn fleet(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Query(Listing { selection, after }, params): Query<Listing>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let page = api_keys::fleet(&services, &admin, selection, after, Limit::of(50)).await?;
    let now = services.env.now();
    let mut agents: Vec<_> = page.items.iter().map(|key| key.agent_id).collect();
    agents.sort_unstable();
    agents.dedup();
    let names: HashMap<_, _> = agents::names(&services, &admin, &agents).await?;
    let mut managed = HashSet::new();
    for agent in agents {
        if frame.may_operate() && power::lacking(&services, &admin, agent).await?.is_none() {
            managed.insert(agent);
        }
    }
    let row = |key: &ApiKey| {
        let name = names.get(&key.agent_id).map(ToString::to_string).unwrap_or_default();
        Row::of(key, name, managed.contains(&key.agent_id), 0, now)
    };
    let show = SELECTIONS.iter().find(|(.., listed)| *listed == selection).map_or("all", |(word, ..)| word);
    Ok(Page(FleetPage {
        frame: frame.at("keys"),
        keys: page.items.iter().map(row).collect(),
        show,
        next: page.next.as_ref().map(|next| params.with("cursor", &next.encode()).href("/console/keys")),
        params,
    }))
}
