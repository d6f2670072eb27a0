//! The command palette: finds pages, actions and agents by name.

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

/// Commands with a page of their own, and the action that each one requires.
const COMMANDS: [(Action, &str, &str); 6] = [
    (Action::CreateAgent, "Create agent", "/console/agents/new"),
    (Action::CreateCapability, "Create capability", "/console/capabilities/new"),
    (Action::ManageResources, "Create resource", "/console/resources/new"),
    (Action::ManageAdministrators, "Create administrator", "/console/administrators/new"),
    (Action::ManageFactors, "Add authenticator app", "/console/account/authenticator"),
    (Action::ListKeys, "View keys that expire soon", "/console/keys?show=expiring"),
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

/// The search text.
pub(in crate::web::console) struct Search(String);

impl FromQuery for Search {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self(fields.optional("q", |text| text::line(text.trim(), 0, 128)).unwrap_or_default()))
    }
}

/// Lists matching pages and commands that the role allows, and matching agents.
pub(in crate::web::console) async fn list(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Query(Search(text), _): Query<Search>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let wanted = text.to_lowercase();
    let matches = |name: &str| name.to_lowercase().contains(&wanted);
    let pages = NAVIGATION.iter().filter(|(section, ..)| *section != "administrators" || frame.is_owner());
    let mut entries: Vec<_> = pages
        .filter(|(_, _, name, _)| matches(name))
        .map(|&(_, href, name, icon)| Entry { name: name.to_owned(), href: href.to_owned(), kind: "Page", icon })
        .collect();
    let commands = COMMANDS.iter().filter(|(action, name, _)| frame.may(*action) && matches(name));
    entries.extend(commands.map(|&(_, name, href)| Entry {
        name: name.to_owned(),
        href: href.to_owned(),
        kind: "Action",
        icon: "plus",
    }));
    if !wanted.is_empty() {
        let filter = Filter { text: Some(text), ..Filter::default() };
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
