//! Granting a capability to many agents: choosing them, a confirmation with numbers, and the grant.

use std::collections::HashMap;

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use tower_sessions::Session;

use super::{find_capability, may_grant, show::path_of};
use crate::{
    domain::{
        Agent, AgentStatus, Capability, CapabilityName, Denial, Error, Invalid, Limit, Result,
        agent::{Filter, Position, Sort},
        text,
    },
    service::{
        Services,
        agents::{
            self,
            bulk::{
                BULK_MAX, Bulk, Unchanged,
                apply::{self, Applied},
                preview::{self, Preview},
            },
            listing,
            named::{self, Listed},
        },
    },
    web::{
        api::paging::{Cursor, parse_cursor},
        console::{
            Shared,
            agents::{
                impact::{Confirmed, Selected},
                list::{Suggestion, malformed_status, read_selector, suggestions},
            },
            guard::Admin,
            page::{
                form::{Form, Problems, message},
                frame::{Flash, Frame, Page, html},
                grouped,
                query::{Chip, Params, Query},
            },
        },
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

const PER_PAGE: Limit = Limit::of(50);
/// Number of agents that a confirmation names.
const NAMED: usize = 10;
const CHANGED: &str = "The selected agents have changed. Nothing was granted. Check them and try again.";

/// Which agents to choose from.
pub(in crate::web::console) struct Choosing {
    filter: Filter,
    after: Option<Position>,
    /// Why the selector is not valid.
    malformed: Option<Invalid>,
}

impl FromQuery for Choosing {
    fn read(fields: &mut Fields) -> Option<Self> {
        let (selector, malformed) = read_selector(fields);
        let filter = Filter {
            status: fields.optional("status", AgentStatus::parse),
            owner: fields.optional("owner", |owner| text::line(owner, 1, Agent::OWNER_MAX)),
            text: fields.optional("q", |text| text::line(text.trim(), 0, 128)).filter(|text| !text.is_empty()),
            selector,
            ..Filter::default()
        };
        Some(Self { filter, after: fields.optional("cursor", parse_cursor), malformed })
    }
}

/// An agent to choose.
struct Row {
    id: String,
    name: String,
    owner: String,
    status: &'static str,
    /// Why it cannot be chosen.
    reason: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "capabilities/choose.html")]
struct ChoosePage {
    frame: Frame,
    capability: Capability,
    agents: Vec<Row>,
    params: Params,
    owners: Vec<Suggestion>,
    chips: Vec<Chip>,
    next: Option<String>,
    malformed: Problems,
}

/// Lists agents to grant a capability to.
pub(in crate::web::console) async fn choose(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    headers: HeaderMap,
    Path(id): Path<String>,
    Query(Choosing { filter, after, malformed }, params): Query<Choosing>,
) -> Result<Response, Failure> {
    let capability = find_capability(&services, &admin, &id).await?;
    require_grantable(&frame, &capability.name)?;
    let path = format!("{}/grants", path_of(capability.id));
    let chips =
        params.chips(&path, &[("q", "Search"), ("owner", "Owner"), ("selector", "Labels"), ("status", "Status")]);
    let empty = ChoosePage {
        frame: frame.at("capabilities"),
        capability,
        agents: Vec::new(),
        owners: suggestions(&services, &admin, params.get("owner")).await?,
        params,
        chips,
        next: None,
        malformed: Problems::default(),
    };
    if let Some(invalid) = malformed {
        let malformed = Problems::one("selector", message(&invalid));
        return Ok(html(malformed_status(&headers), &ChoosePage { malformed, ..empty }));
    }
    let page = agents::list(&services, &admin, &filter, Sort::Name, after, PER_PAGE).await?;
    let ids: Vec<_> = page.items.iter().map(|agent| agent.id).collect();
    let preview = preview::preview(&services, &admin, &Bulk::Grant(empty.capability.id), &ids).await?;
    let reasons: HashMap<_, _> = preview.unchanged.iter().map(|(id, _, reason)| (*id, short(reason))).collect();
    let row = |agent: &Agent| Row {
        id: agent.id.to_string(),
        name: agent.name.to_string(),
        owner: agent.owner.clone(),
        status: agent.status.as_str(),
        reason: reasons.get(&agent.id).copied(),
    };
    let next = page.next.map(|next| empty.params.with("cursor", &next.encode()).href(&path));
    Ok(Page(ChoosePage { agents: page.items.iter().map(row).collect(), next, ..empty }).into_response())
}

/// Why an agent cannot be chosen, in a few words.
const fn short(reason: &Unchanged) -> &'static str {
    match reason {
        Unchanged::Held => "Holds it",
        Unchanged::MoreAuthority(_) => "Holds more than you",
        Unchanged::Revoked => "Revoked",
        _ => "Cannot change",
    }
}

/// Only owners can grant `admin:*`.
fn require_grantable(frame: &Frame, name: &CapabilityName) -> Result<()> {
    if may_grant(frame, name) { Ok(()) } else { Err(Denial::MoreAuthority(name.to_string()).into()) }
}

#[derive(Template)]
#[template(path = "capabilities/confirm.html")]
struct ConfirmPage {
    frame: Frame,
    capability: Capability,
    /// Names of the agents that get the capability, and their number.
    will: (Vec<String>, usize),
    already: (Vec<String>, usize),
    stronger: (Vec<String>, usize),
    /// Agents that cannot change for another reason, with the reason.
    others: (Vec<String>, usize),
    unknown: (Vec<String>, usize),
    is_truncated: bool,
    /// What is different from what the administrator confirmed.
    differences: Vec<String>,
    /// The submitted fields, repeated in the form.
    fields: Vec<(String, String)>,
    /// Identifies the agents that get the capability.
    seen: String,
    /// See [`Confirmed::field`].
    expected: String,
    back: String,
}

/// The agents that an administrator selected.
struct Selection {
    listed: Listed,
    is_truncated: bool,
}

impl Selection {
    async fn read(services: &Services, admin: &Admin, form: &Form) -> Result<Self> {
        let mut listed = if selected(form) == Selected::ByFilter {
            let Choosing { filter, malformed, .. } = form.read(Choosing::read)?;
            if let Some(invalid) = malformed {
                return Err(Error::field(&["selector"], invalid));
            }
            Listed { agents: listing::matching(services, admin, &filter).await?, unknown: Vec::new() }
        } else {
            let pasted = form.get("agents").split(|c: char| c.is_whitespace() || matches!(c, ',' | ';'));
            let words = pasted.chain(form.all("id")).filter(|word| !word.is_empty()).map(str::to_owned);
            let words: Vec<_> = words.take(BULK_MAX + 1).collect();
            named::find(services, admin, &words).await?
        };
        let is_truncated = listed.agents.len() + listed.unknown.len() >= BULK_MAX;
        listed.agents.truncate(BULK_MAX);
        Ok(Self { listed, is_truncated })
    }

    fn page(self, frame: Frame, capability: Capability, preview: Preview, form: &Form) -> ConfirmPage {
        const OWN: [&str; 3] = ["seen", "expected", "cursor"];
        let (seen, expected) = (preview.fingerprint(&Bulk::Grant(capability.id)), Confirmed::field(&preview));
        let (mut already, mut stronger, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for (id, brief, reason) in preview.unchanged {
            let name = brief.map_or_else(|| id.to_string(), |brief| brief.name.to_string());
            match reason {
                Unchanged::Held => already.push(name),
                Unchanged::MoreAuthority(_) => stronger.push(name),
                reason => others.push(format!("{name}: {reason}")),
            }
        }
        let filters = ["q", "owner", "selector", "status"]
            .iter()
            .fold(Params::default(), |params, name| params.with(name, form.get(name)));
        let repeated = |(name, _): &&(String, String)| !OWN.contains(&name.as_str());
        let path = path_of(capability.id);
        ConfirmPage {
            frame: frame.at("capabilities"),
            will: first(preview.changes.into_iter().map(|brief| brief.name.to_string()).collect()),
            already: first(already),
            stronger: first(stronger),
            others: first(others),
            unknown: first(self.listed.unknown),
            is_truncated: self.is_truncated,
            differences: Vec::new(),
            fields: form.pairs().iter().filter(repeated).cloned().collect(),
            seen,
            expected,
            back: if form.get("from") == "list" { filters.href(&format!("{path}/grants")) } else { path },
            capability,
        }
    }
}

fn selected(form: &Form) -> Selected {
    if form.get("all") == "matching" { Selected::ByFilter } else { Selected::OneByOne }
}

/// Returns the first of some names, and how many there are.
fn first(mut names: Vec<String>) -> (Vec<String>, usize) {
    let count = names.len();
    names.sort_unstable();
    names.truncate(NAMED);
    (names, count)
}

/// Shows which of the selected agents would get the capability.
pub(in crate::web::console) async fn confirm(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let capability = find_capability(&services, &admin, &id).await?;
    require_grantable(&frame, &capability.name)?;
    let selection = Selection::read(&services, &admin, &form).await?;
    let bulk = Bulk::Grant(capability.id);
    let preview = preview::preview(&services, &admin, &bulk, &selection.listed.agents).await?;
    let page = selection.page(frame, capability, preview, &form);
    if [&page.will, &page.already, &page.stronger, &page.others, &page.unknown].iter().all(|(_, count)| *count == 0) {
        let nothing = Error::Refused("Select at least one agent, or paste names or IDs");
        return Flash::failed(&nothing).redirect(&session, &page.back).await;
    }
    Ok(Page(page).into_response())
}

/// Grants the capability, if the agents that get it are those that the administrator saw.
pub(in crate::web::console) async fn grant(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let capability = find_capability(&services, &admin, &id).await?;
    require_grantable(&frame, &capability.name)?;
    let selection = Selection::read(&services, &admin, &form).await?;
    let bulk = Bulk::Grant(capability.id);
    let done = match apply::apply(&services, &admin, &bulk, &selection.listed.agents, form.get("seen")).await? {
        Applied::Done(done) => done,
        Applied::Outdated(preview) => {
            let confirmed = Confirmed::of(&form);
            let names = confirmed.names(&services, &admin, &preview).await?;
            let mut differences = vec![CHANGED.to_owned()];
            differences.extend(confirmed.differences(&preview, &names, selected(&form)));
            let page = selection.page(frame, capability, preview, &form);
            return Ok(html(StatusCode::CONFLICT, &ConfirmPage { differences, ..page }));
        }
    };
    let count = done.changed.len();
    let to = if count == 1 { "1 agent".to_owned() } else { format!("{} agents", grouped(count)) };
    let unchanged = match done.failed.len() {
        0 => String::new(),
        1 => " 1 agent was not changed. Open it to see why.".to_owned(),
        more => format!(" {} agents were not changed. Open them to see why.", grouped(more)),
    };
    let path = path_of(capability.id);
    let message = format!("{} granted to {to}.{unchanged}", capability.name);
    let flash = Flash::done(message).link(capability.name.as_str(), path.clone());
    let flash = match done.act {
        Some(act) => flash.undo("/console/agents/bulk/undo", vec![("bulk".to_owned(), act.to_string())]),
        None => flash,
    };
    flash.redirect(&session, &path).await
}
