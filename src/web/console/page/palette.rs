//! Everything that can be gone to, by typing a few letters of it.

use askama::Template;
use axum::{extract::State, response::IntoResponse};

use super::{
    frame::{Frame, Page},
    query::Query,
};
use crate::{
    domain::{
        Limit,
        agent::{Filter, Sort},
        text,
    },
    service::{Action, agents},
    web::{
        console::{NAVIGATION, Shared, guard::Admin},
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

/// Acts that lead to a page of their own, with what they demand.
const ACTS: [(Action, &str, &str); 6] = [
    (Action::CreateAgent, "Register an agent", "/console/agents/new"),
    (Action::CreateCapability, "Register a capability", "/console/capabilities/new"),
    (Action::ManageResources, "Register a resource", "/console/resources/new"),
    (Action::ManageAdministrators, "Add an administrator", "/console/administrators/new"),
    (Action::ManageFactors, "Add an authenticator app", "/console/account/authenticator"),
    (Action::ListKeys, "See keys that expire soon", "/console/keys?show=expiring"),
];

#[derive(Template)]
#[template(path = "palette.html")]
struct PaletteFragment {
    entries: Vec<Entry>,
}

struct Entry {
    name: String,
    href: String,
    kind: &'static str,
    icon: &'static str,
}

/// What was typed.
pub(in crate::web::console) struct Typed(String);

impl FromQuery for Typed {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self(fields.optional("q", |text| text::line(text.trim(), 0, 128)).unwrap_or_default()))
    }
}

/// What the letters may mean: pages and acts that the role allows, and agents.
pub(in crate::web::console) async fn list(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Query(Typed(typed), _): Query<Typed>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let wanted = typed.to_lowercase();
    let matches = |name: &str| name.to_lowercase().contains(&wanted);
    let pages = NAVIGATION.iter().filter(|(section, ..)| *section != "administrators" || frame.is_owner());
    let mut entries: Vec<_> = pages
        .filter(|(_, _, name, _)| matches(name))
        .map(|&(_, href, name, icon)| Entry { name: name.to_owned(), href: href.to_owned(), kind: "Page", icon })
        .collect();
    let acts = ACTS.iter().filter(|(action, name, _)| frame.may(*action) && matches(name));
    entries.extend(acts.map(|&(_, name, href)| Entry {
        name: name.to_owned(),
        href: href.to_owned(),
        kind: "Act",
        icon: "plus",
    }));
    if !wanted.is_empty() {
        let filter = Filter { text: Some(typed), ..Filter::default() };
        let found = agents::list(&services, &admin, &filter, Sort::Name, None, Limit::of(8)).await?;
        entries.extend(found.items.into_iter().map(|agent| Entry {
            name: agent.name.to_string(),
            href: format!("/console/agents/{}", agent.id),
            kind: "Agent",
            icon: "agent",
        }));
    }
    Ok(Page(PaletteFragment { entries }))
}
