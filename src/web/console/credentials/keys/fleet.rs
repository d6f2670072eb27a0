//! The list of API keys across all agents.

use std::collections::HashMap;

use askama::Template;
use axum::{
    extract::{FromRequestParts, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, request::Parts};
use tower_sessions::Session;

use super::row::Row;
use crate::{
    domain::{
        Agent, AgentId, AgentName, Error, Invalid, Limit, Result, Selection,
        credential::{
            api_key::Position,
            key_filter::{ExpiryFilter, Filter, LimitFilter, Sort, StateFilter, UsageFilter},
        },
        text,
    },
    service::{Caller, Services, agents, core::power, credentials::fleet},
    web::{
        api::paging::{Cursor, parse_cursor},
        console::{
            Shared,
            agents::list::{Suggestion, malformed_status, read_selector, suggestions},
            guard::Admin,
            page::{
                form::{Problems, message},
                frame::{Flash, Frame, Page, html},
                query::{Chip, Params, Query},
            },
        },
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

/// The path of the list.
pub(super) const PATH: &str = "/console/keys";
const PER_PAGE: Limit = Limit::of(50);
/// Counts stop here.
const COUNT_MAX: i64 = 1_000;
/// The parameters that select keys.
pub(super) const FILTERS: [&str; 11] =
    ["q", "agent", "owner", "selector", "status", "use", "expiry", "limit", "admin", "grace", "sort"];

/// The names that earlier links use, with the selection and the parameter that replaces each.
const SHOWN: [(&str, Selection, (&str, &str)); 4] = [
    ("all", Selection::All, ("show", "")),
    ("expiring", Selection::Expiring, ("expiry", "7d")),
    ("idle", Selection::Idle, ("use", "unused_90d")),
    ("in_grace", Selection::InGrace, ("status", "rotated")),
];

/// The quick filters: label, name and value of the parameter.
const TABS: [(&str, &str, &str); 6] = [
    ("All", "", ""),
    ("Expire within 7 days", "expiry", "7d"),
    ("Never expire", "expiry", "never"),
    ("Unused for 90 days", "use", "unused_90d"),
    ("Never used", "use", "never"),
    ("Rotated, still used", "grace", "used"),
];

/// The choices of each filter: value and label.
type Choices = &'static [(&'static str, &'static str)];
const STATES: Choices = &[
    ("active", "Active"),
    ("rotated", "Rotated, still works"),
    ("blocked", "Blocked by its agent"),
    ("expired", "Expired"),
    ("revoked", "Revoked"),
];
const USES: Choices =
    &[("never", "Never used"), ("unused_30d", "Unused for 30 days"), ("unused_90d", "Unused for 90 days")];
const EXPIRIES: Choices = &[("7d", "Within 7 days"), ("30d", "Within 30 days"), ("never", "Never")];
const LIMITS: Choices = &[
    ("networks", "Networks"),
    ("capabilities", "Capabilities"),
    ("uses", "Number of tokens"),
    ("token_life", "Token lifetime"),
];
const SORTS: Choices = &[
    ("created", "Newest first"),
    ("created_backwards", "Oldest first"),
    ("last_used", "Recently used first"),
    ("last_used_backwards", "Longest unused first"),
    ("expiry", "Next to expire first"),
    ("expiry_backwards", "Last to expire first"),
];

#[derive(Template)]
#[template(path = "keys/fleet.html")]
struct FleetPage {
    frame: Frame,
    keys: Vec<Row>,
    params: Params,
    filters: Vec<Chip>,
    owners: Vec<Suggestion>,
    sort: Sort,
    next: Option<String>,
    /// The number of matching keys, for people.
    count: String,
    is_filtered: bool,
    problems: Problems,
}

impl FleetPage {
    /// Returns true if a choice of a filter is selected.
    fn chosen(&self, name: &str, value: &str) -> bool {
        if name == "sort" { self.sort.as_str() == value } else { self.params.get(name) == value }
    }

    /// Returns true if the list shows exactly the keys of a quick filter.
    fn is_tab(&self, name: &str, value: &str) -> bool {
        let used = FILTERS.iter().filter(|filter| **filter != "sort" && !self.params.get(filter).is_empty());
        let used: Vec<_> = used.collect();
        if name.is_empty() { used.is_empty() } else { used == [&name] && self.params.get(name) == value }
    }
}

/// The query of the list. The agent may be a name, which [`Listing::resolve`] looks up.
pub(in crate::web::console) struct Listing {
    filter: Filter,
    agent: Option<String>,
    sort: Option<Sort>,
    shown: Option<&'static str>,
    after: Option<Position>,
    /// Why the selector is not valid.
    malformed: Option<Invalid>,
}

impl FromQuery for Listing {
    fn read(fields: &mut Fields) -> Option<Self> {
        let text = fields.optional("q", |text| text::line(text.trim(), 0, 128));
        let shown = fields.optional("show", |text| {
            let found = SHOWN.iter().find(|(word, ..)| *word == text).map(|&(word, selection, _)| (word, selection));
            found.ok_or(Invalid::NotOneOf(&["all", "expiring", "idle", "in_grace"]))
        });
        let (selector, malformed) = read_selector(fields);
        let all = shown.map_or_else(Filter::default, |(_, selection)| Filter::from(selection));
        let filter = Filter {
            text: text.filter(|text| !text.is_empty()),
            agent: None,
            owner: fields.optional("owner", |owner| text::line(owner, 1, Agent::OWNER_MAX)),
            selector,
            state: fields.optional("status", StateFilter::parse).or(all.state),
            usage: fields.optional("use", UsageFilter::parse).or(all.usage),
            expiry: fields.optional("expiry", ExpiryFilter::parse).or(all.expiry),
            limit: fields.optional("limit", LimitFilter::parse),
            administrators: fields.optional("admin", one_of(&["1"])).is_some(),
            used_in_grace: fields.optional("grace", one_of(&["used"])).is_some(),
        };
        Some(Self {
            filter,
            agent: fields.optional("agent", |agent| text::line(agent.trim(), 1, Agent::OWNER_MAX)),
            sort: fields.optional("sort", Sort::parse),
            shown: shown.map(|(word, _)| word),
            after: fields.optional("cursor", parse_cursor),
            malformed,
        })
    }
}

fn one_of(words: &'static [&'static str]) -> impl Fn(&str) -> Result<(), Invalid> {
    move |text| if words.contains(&text) { Ok(()) } else { Err(Invalid::NotOneOf(words)) }
}

impl Listing {
    /// Looks up the agent. Returns the filter, and the name of the agent. `None` if there is no such agent.
    pub(super) async fn resolve(&self, services: &Services, caller: &Caller) -> Result<Option<(Filter, String)>> {
        if let Some(invalid) = &self.malformed {
            return Err(Error::field(&["query", "selector"], invalid.clone()));
        }
        let Some(agent) = &self.agent else { return Ok(Some((self.filter.clone(), String::new()))) };
        let found = match (AgentId::parse(agent), AgentName::parse(agent)) {
            (Some(id), _) => agents::get(services, caller, id).await,
            (None, Ok(name)) => agents::by_name(services, caller, &name).await,
            (None, Err(_)) => return Ok(None),
        };
        match found {
            Ok(agent) => Ok(Some((Filter { agent: Some(agent.id), ..self.filter.clone() }, agent.name.to_string()))),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A request without an API key in its address. The script and the pattern of the search field keep one out of it; if one
/// arrives anyway, a redirect removes it before anything can repeat it, errors included.
pub(in crate::web::console) struct WithoutSecret;

impl<S: Send + Sync> FromRequestParts<S> for WithoutSecret {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let pairs: Vec<(String, String)> =
            serde_urlencoded::from_str(parts.uri.query().unwrap_or_default()).unwrap_or_default();
        if !pairs.iter().any(|(name, value)| fleet::contains_secret(name) || fleet::contains_secret(value)) {
            return Ok(Self);
        }
        let refused = Error::Refused(
            "The address contained a whole API key, so nothing was searched. Proxies and the history of your browser \
             may have recorded it: treat it as leaked. Use “Find a leaked key” instead",
        );
        let session = Session::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)?;
        Err(Flash::failed(&refused).redirect(&session, PATH).await.unwrap_or_else(IntoResponse::into_response))
    }
}

/// Lists the API keys of all agents.
pub(in crate::web::console) async fn list(
    State(services): Shared,
    _: WithoutSecret,
    frame: Frame,
    admin: Admin,
    headers: HeaderMap,
    Query(listing, params): Query<Listing>,
) -> Result<Response, Failure> {
    let params = canonical(&params, listing.shown);
    let owners = suggestions(&services, &admin, params.get("owner")).await?;
    if let Some(invalid) = &listing.malformed {
        let problems = Problems::one("selector", message(invalid));
        let page = page(frame, Vec::new(), &params, &listing, "");
        let page = FleetPage { count: "No keys".to_owned(), owners, problems, ..page };
        return Ok(html(malformed_status(&headers), &page));
    }
    let Some((filter, agent_name)) = listing.resolve(&services, &admin).await? else {
        let page = page(frame, Vec::new(), &params, &listing, "");
        return Ok(Page(FleetPage { count: "No keys".to_owned(), owners, ..page }).into_response());
    };
    let sort = listing.sort.unwrap_or_else(|| Sort::of(&filter));
    let found = fleet::list(&services, &admin, &filter, sort, listing.after, PER_PAGE).await?;
    let (count, more) = fleet::count(&services, &admin, &filter, COUNT_MAX).await?;
    let now = services.env.now();
    let mut managed = HashMap::new();
    for listed in &found.items {
        let agent = listed.key.agent_id;
        if let std::collections::hash_map::Entry::Vacant(entry) = managed.entry(agent) {
            let may_manage = frame.may_operate() && power::lacking(&services, &admin, agent).await?.is_none();
            entry.insert(may_manage);
        }
    }
    let mut items = found.items;
    // The index knows the last use to the day.
    match sort {
        Sort::RecentlyUsed => items.sort_by_key(|listed| std::cmp::Reverse(listed.key.used_or_created_at())),
        Sort::LongestUnused => items.sort_by_key(|listed| listed.key.used_or_created_at()),
        _ => {}
    }
    let back = encode_back(&params);
    let row = |listed| Row {
        back: back.clone(),
        ..Row::listed(listed, managed.get(&listed.key.agent_id).copied().unwrap_or(false), now)
    };
    let keys: Vec<_> = items.iter().map(row).collect();
    let page = page(frame, keys, &params, &listing, &agent_name);
    Ok(Page(FleetPage {
        sort,
        next: found.next.as_ref().map(|next| params.with("cursor", &next.encode()).href(PATH)),
        count: describe_count(count, more),
        owners,
        ..page
    })
    .into_response())
}

fn page(frame: Frame, keys: Vec<Row>, params: &Params, listing: &Listing, agent_name: &str) -> FleetPage {
    let mut filters = params.chips(
        PATH,
        &[
            ("q", "Search"),
            ("agent", "Agent"),
            ("owner", "Owner"),
            ("selector", "Labels"),
            ("status", "Status"),
            ("use", "Use"),
            ("expiry", "Expires"),
            ("limit", "Limit"),
            ("admin", "Agent holds"),
            ("grace", "Rotated"),
        ],
    );
    for chip in &mut filters {
        let choices = match chip.label {
            "Agent" if !agent_name.is_empty() => {
                agent_name.clone_into(&mut chip.value);
                continue;
            }
            "Status" => STATES,
            "Use" => USES,
            "Expires" => EXPIRIES,
            "Limit" => LIMITS,
            "Agent holds" => &[("1", "admin:*")],
            "Rotated" => &[("used", "Still used")],
            _ => continue,
        };
        if let Some((_, label)) = choices.iter().find(|(value, _)| *value == chip.value) {
            chip.value = (*label).to_owned();
        }
    }
    FleetPage {
        frame: frame.at("keys"),
        keys,
        params: params.clone(),
        is_filtered: !filters.is_empty(),
        filters,
        owners: Vec::new(),
        sort: listing.sort.unwrap_or(Sort::Newest),
        next: None,
        count: String::new(),
        problems: Problems::default(),
    }
}

/// Replaces the name that earlier links use by the parameter of today, so that the page offers to change it.
fn canonical(params: &Params, shown: Option<&str>) -> Params {
    let replacement = SHOWN.iter().find(|(word, ..)| Some(*word) == shown).map(|(.., replacement)| *replacement);
    match replacement {
        Some((name, value)) if params.get(name).is_empty() || name == "show" => {
            params.with("show", "").with(name, value)
        }
        _ => params.with("show", ""),
    }
}

/// Returns the query parameter that leads back to the list.
fn encode_back(params: &Params) -> String {
    serde_urlencoded::to_string([("list", params.href(PATH))]).map(|query| format!("?{query}")).unwrap_or_default()
}

fn describe_count(count: i64, more: bool) -> String {
    let number = if count >= COUNT_MAX { "1,000".to_owned() } else { count.to_string() };
    match (count, more) {
        (0, true) => "Many keys to search".to_owned(),
        (0, false) => "No keys".to_owned(),
        (1, false) => "1 key".to_owned(),
        (_, true) => format!("{number}+ keys"),
        (_, false) => format!("{number} keys"),
    }
}
