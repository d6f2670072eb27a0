//! The list of agents. Search, filters, sort order and page are in the URL.

use std::time::Duration;

use askama::Template;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};

use crate::{
    domain::{
        Agent, AgentStatus, AgentType, Error, Invalid, Limit, Result, Timestamp,
        agent::{
            Filter, Position, Sort, Unused,
            labels::Labels,
            selector::{Selector, Term},
        },
        text,
    },
    service::{
        Action, Caller, Services,
        agents::{
            self,
            listing::{self, COUNT_MAX, Facts},
        },
    },
    web::{
        api::paging::{Cursor, parse_cursor},
        console::{
            Shared,
            guard::{Admin, is_htmx},
            page::{
                form::{Problems, message},
                frame::{Frame, Moment, Page, html},
                grouped,
                query::{Chip, Params, Query},
            },
        },
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

pub(super) const PATH: &str = "/console/agents";
/// The parameters of the list. Forms that act on agents repeat them, so that the list keeps its state.
pub(super) const PARAMETERS: [&str; 9] =
    ["q", "selector", "status", "type", "owner", "capability", "used", "sort", "cursor"];
const FILTERS: [(&str, &str); 7] = [
    ("q", "Search"),
    ("selector", "Labels"),
    ("status", "Status"),
    ("type", "Type"),
    ("owner", "Owner"),
    ("capability", "Capability"),
    ("used", "Use"),
];
const PER_PAGE: Limit = Limit::of(50);
/// How many capabilities and labels a row shows.
const SHOWN: usize = 2;

#[derive(Template)]
#[template(path = "agents/list.html")]
struct ListPage {
    frame: Frame,
    agents: Vec<Row>,
    chips: Vec<Chip>,
    owners: Vec<Suggestion>,
    capabilities: Vec<String>,
    /// The number of matching agents.
    matching: Matching,
    params: Params,
    sort: Sort,
    next: Option<String>,
    /// Whether a filter is active, so that "all that match" is a selection of its own.
    filtered: bool,
    problems: Problems,
}

impl ListPage {
    /// Returns a link to the list in another order: the other direction if the column already decides it.
    fn sorted(&self, first: Sort, second: Sort) -> String {
        let sort = if self.sort == first { second } else { first };
        self.params.with("sort", sort.as_str()).with("cursor", "").href(PATH)
    }

    fn direction(&self, ascending: Sort, descending: Sort) -> &'static str {
        match self.sort {
            sort if sort == ascending => "ascending",
            sort if sort == descending => "descending",
            _ => "none",
        }
    }

    fn export(&self, format: &str) -> String {
        self.params.with("cursor", "").with("format", format).href("/console/agents/export")
    }
}

struct Row {
    id: String,
    name: String,
    owner: String,
    /// The list of the owner's agents, with the other filters.
    owner_href: String,
    description: String,
    labels: Vec<String>,
    /// The other labels.
    more_labels: Vec<String>,
    status: &'static str,
    capabilities: Vec<String>,
    /// The names of the other capabilities.
    others: Vec<String>,
    keys: i64,
    last_used: Option<Moment>,
    created: Moment,
}

impl Row {
    fn of(agent: &Agent, facts: &Facts, params: &Params, now: Timestamp) -> Self {
        let held = facts.held.get(&agent.id).into_iter().flatten().map(|(name, _)| name.to_string());
        let mut capabilities: Vec<_> = held.collect();
        let others = capabilities.split_off(SHOWN.min(capabilities.len()));
        let mut labels = label_texts(&agent.labels);
        let more_labels = labels.split_off(SHOWN.min(labels.len()));
        Self {
            id: agent.id.to_string(),
            name: agent.name.to_string(),
            owner_href: params.with("owner", &agent.owner).with("cursor", "").href(PATH),
            owner: agent.owner.clone(),
            description: agent.description.chars().take(160).collect(),
            labels,
            more_labels,
            status: agent.status.as_str(),
            capabilities,
            others,
            keys: facts.keys.get(&agent.id).copied().unwrap_or_default(),
            last_used: facts.last_uses.get(&agent.id).map(|at| Moment::at(*at, now)),
            created: Moment::at(agent.created_at, now),
        }
    }
}

/// A number of agents that match, as text: "37", "1,000+", or nothing if counting them would take too long.
pub(super) struct Matching {
    found: u64,
    may_be_more: bool,
}

impl Matching {
    async fn of(services: &Services, caller: &Caller, filter: &Filter) -> Result<Self> {
        let estimate = listing::estimate(services, caller, filter).await?;
        Ok(Self { found: estimate.found, may_be_more: estimate.may_be_more })
    }

    /// "37 agents".
    fn agents(&self) -> String {
        match self.number() {
            number if number.is_empty() => "More agents".to_owned(),
            number if number == "1" => "1 agent".to_owned(),
            number => format!("{number} agents"),
        }
    }

    fn number(&self) -> String {
        match (self.found, self.may_be_more) {
            (found, false) => grouped(found),
            (0, true) => String::new(),
            (found, true) => format!("{}+", grouped(found)),
        }
    }

    /// "All 37 that match".
    fn all(&self) -> String {
        let number = self.number();
        if number.is_empty() { "All that match".to_owned() } else { format!("All {number} that match") }
    }
}

/// The query of the list.
pub(in crate::web::console) struct Listing {
    pub(super) wanted: Wanted,
    pub(super) sort: Sort,
    after: Option<Position>,
}

impl FromQuery for Listing {
    fn read(fields: &mut Fields) -> Option<Self> {
        let sort = fields.optional("sort", Sort::parse).unwrap_or(Sort::Newest);
        Some(Self { wanted: Wanted::read(fields), sort, after: fields.optional("cursor", parse_cursor) })
    }
}

/// A filter as people enter it.
#[derive(Default)]
pub(super) struct Wanted {
    filter: Filter,
    owner: Option<String>,
    capability: Option<String>,
    used: Option<Used>,
    /// Why the selector is not valid. The list says so in the place of the agents; everything else fails.
    malformed: Option<Invalid>,
}

#[derive(Clone, Copy)]
enum Used {
    Never,
    NotForDays(u64),
}

impl Wanted {
    /// Reads the filter from a URL, or from a form that repeats it.
    pub(super) fn read(fields: &mut Fields) -> Self {
        let line = |text: &str, most| text::line(text.trim(), 0, most);
        let given = |text: &String| !text.is_empty();
        let (selector, malformed) = read_selector(fields);
        let optional = |text: &str| if text.is_empty() { Ok(None) } else { AgentStatus::parse(text).map(Some) };
        Self {
            filter: Filter {
                status: fields.optional("status", optional).flatten(),
                agent_type: fields
                    .optional("type", |text| if text.is_empty() { Ok(None) } else { AgentType::parse(text).map(Some) })
                    .flatten(),
                text: fields.optional("q", |text| line(text, 128)).filter(given),
                selector,
                ..Filter::default()
            },
            owner: fields.optional("owner", |text| line(text, Agent::OWNER_MAX)).filter(given),
            capability: fields.optional("capability", |text| line(text, 128)).filter(given),
            used: fields
                .optional("used", |text| match text {
                    "" => Ok(None),
                    "never" => Ok(Some(Used::Never)),
                    "30d" => Ok(Some(Used::NotForDays(30))),
                    "90d" => Ok(Some(Used::NotForDays(90))),
                    _ => Err(Invalid::NotOneOf(&["never", "30d", "90d"])),
                })
                .flatten(),
            malformed,
        }
    }

    /// Returns true if it leaves out any agent.
    pub(super) fn is_narrow(&self) -> bool {
        let filter = &self.filter;
        let any = [self.owner.is_some(), self.capability.is_some(), self.used.is_some(), filter.text.is_some()];
        let labels = filter.selector.is_some() || self.malformed.is_some();
        any.contains(&true) || labels || filter.status.is_some() || filter.agent_type.is_some()
    }

    /// Looks up the owner and the capability.
    pub(super) async fn resolve(self, services: &Services, caller: &Caller) -> Result<Filter> {
        if let Some(invalid) = self.malformed {
            return Err(Error::field(&["query", "selector"], invalid));
        }
        let now = services.env.now();
        let unused = self.used.map(|used| match used {
            Used::Never => Unused::Ever,
            Used::NotForDays(days) => Unused::Since(now.minus(Duration::from_hours(24 * days))),
        });
        let filter = Filter { unused, ..self.filter };
        listing::narrowed(services, caller, filter, self.owner, self.capability).await
    }
}

/// Reads a selector from the field `selector`. Returns separately why it is not valid.
pub(in crate::web::console) fn read_selector(fields: &mut Fields) -> (Option<Selector>, Option<Invalid>) {
    let read = fields.optional("selector", |text| {
        let text = text.trim();
        Ok(if text.is_empty() { None } else { Some(Selector::parse(text)) })
    });
    match read.flatten().transpose() {
        Ok(selector) => (selector, None),
        Err(invalid) => (None, Some(invalid)),
    }
}

/// Returns the status of a list that shows why its selector is not valid. htmx shows it in the place of the list.
pub(in crate::web::console) fn malformed_status(headers: &HeaderMap) -> StatusCode {
    if is_htmx(headers) { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY }
}

/// Returns each label as text.
pub(super) fn label_texts(labels: &Labels) -> Vec<String> {
    labels.iter().map(|(key, value)| Term::equals(key, value).to_string()).collect()
}

/// Shows the list of agents.
pub(in crate::web::console) async fn page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    headers: HeaderMap,
    Query(Listing { wanted, sort, after }, params): Query<Listing>,
) -> Result<Response, Failure> {
    if let Some(invalid) = &wanted.malformed {
        let page = ListPage {
            frame: frame.at("agents"),
            agents: Vec::new(),
            chips: params.chips(PATH, &FILTERS),
            owners: suggestions(&services, &admin, params.get("owner")).await?,
            capabilities: capability_names(&services, &admin).await?,
            matching: Matching { found: 0, may_be_more: false },
            params,
            sort,
            next: None,
            filtered: true,
            problems: Problems::one("selector", message(invalid)),
        };
        return Ok(html(malformed_status(&headers), &page));
    }
    let filtered = wanted.is_narrow();
    let filter = wanted.resolve(&services, &admin).await?;
    let page = agents::list(&services, &admin, &filter, sort, after, PER_PAGE).await?;
    let ids: Vec<_> = page.items.iter().map(|agent| agent.id).collect();
    let facts = listing::facts(&services, &admin, &ids).await?;
    let now = services.env.now();
    let mut chips = params.chips(PATH, &FILTERS);
    for chip in &mut chips {
        chip.value = match (chip.label, chip.value.as_str()) {
            ("Use", "never") => "never".to_owned(),
            ("Use", days) => format!("not for {} days", days.trim_end_matches('d')),
            ("Owner", part) if filter.owner_part.is_some() => format!("contains “{part}”"),
            ("Capability", text) => {
                let known = listing::capability_named(&services, &admin, text).await?;
                known.map_or_else(|| format!("{text} (unknown)"), |capability| capability.name.to_string())
            }
            (_, text) => text.to_owned(),
        };
    }
    let next = page.next.as_ref().map(|next| params.with("cursor", &next.encode()).href(PATH));
    Ok(Page(ListPage {
        frame: frame.at("agents"),
        agents: page.items.iter().map(|agent| Row::of(agent, &facts, &params, now)).collect(),
        chips,
        owners: suggestions(&services, &admin, params.get("owner")).await?,
        capabilities: capability_names(&services, &admin).await?,
        matching: Matching::of(&services, &admin, &filter).await?,
        params,
        sort,
        next,
        filtered,
        problems: Problems::default(),
    })
    .into_response())
}

/// Returns the names of the first capabilities, for suggestions.
pub(super) async fn capability_names(services: &Services, caller: &Caller) -> Result<Vec<String>> {
    let all = agents::capabilities::list(services, caller, None, Limit::of(200)).await?;
    let mut names: Vec<_> = all.items.iter().map(|capability| capability.name.to_string()).collect();
    names.sort_unstable();
    Ok(names)
}

/// An owner, with the number of their agents.
pub(in crate::web::console) struct Suggestion {
    pub(in crate::web::console) name: String,
    pub(in crate::web::console) agents: String,
}

/// Suggests owners for what was entered so far.
pub(in crate::web::console) async fn suggestions(
    services: &Services,
    caller: &Caller,
    entered: &str,
) -> Result<Vec<Suggestion>> {
    let suggestion = |(name, count): (String, i64)| {
        let matching = Matching { found: u64::try_from(count).unwrap_or(0), may_be_more: count >= COUNT_MAX };
        Suggestion { name, agents: matching.agents() }
    };
    // An invalid text has no suggestions.
    let Ok(entered) = text::line(entered.trim(), 0, Agent::OWNER_MAX) else { return Ok(Vec::new()) };
    Ok(listing::owners(services, caller, &entered).await?.into_iter().map(suggestion).collect())
}

/// What was entered for an owner so far.
pub(in crate::web::console) struct Entered(String);

impl FromQuery for Entered {
    fn read(fields: &mut Fields) -> Option<Self> {
        let line = |text: &str| text::line(text.trim(), 0, Agent::OWNER_MAX);
        let (owner, target) = (fields.optional("owner", line), fields.optional("target", line));
        Some(Self(owner.or(target).unwrap_or_default()))
    }
}

#[derive(Template)]
#[template(path = "agents/owners.html")]
struct OwnersFragment {
    owners: Vec<Suggestion>,
}

/// Suggests owners.
pub(in crate::web::console) async fn owners(
    State(services): Shared,
    admin: Admin,
    Query(Entered(entered), _): Query<Entered>,
) -> Result<impl IntoResponse + use<>, Failure> {
    Ok(Page(OwnersFragment { owners: suggestions(&services, &admin, &entered).await? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_comma_between_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        let about = |found, may_be_more| Matching { found, may_be_more };
        assert_eq!(about(1, false).agents(), "1 agent");
        assert_eq!(about(1_000, true).all(), "All 1,000+ that match");
        assert_eq!(about(0, true).all(), "All that match");
    }
}
