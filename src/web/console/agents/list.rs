//! The list of agents. Search, filters, sort order and page are in the URL.

use askama::Template;
use axum::{extract::State, response::IntoResponse};

use super::type_name;
use crate::{
    domain::{
        Agent, AgentStatus, AgentType, Limit, Timestamp,
        agent::{Filter, Position, Sort},
        text,
    },
    service::{Action, agents},
    web::{
        api::paging::{Cursor, parse_cursor},
        console::{
            Shared,
            guard::Admin,
            page::{
                frame::{Frame, Moment, Page},
                query::{Params, Query},
            },
        },
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

const PER_PAGE: Limit = Limit::of(50);

#[derive(Template)]
#[template(path = "agents/list.html")]
struct ListPage {
    frame: Frame,
    agents: Vec<Row>,
    params: Params,
    sort: Sort,
    next: Option<String>,
    searched: bool,
}

struct Row {
    id: String,
    name: String,
    owner: String,
    description: String,
    status: &'static str,
    agent_type: &'static str,
    created: Moment,
}

impl Row {
    fn of(agent: &Agent, now: Timestamp) -> Self {
        Self {
            id: agent.id.to_string(),
            name: agent.name.to_string(),
            owner: agent.owner.clone(),
            description: agent.description.chars().take(160).collect(),
            status: agent.status.as_str(),
            agent_type: type_name(agent.agent_type),
            created: Moment::at(agent.created_at, now),
        }
    }
}

/// The query of the list.
pub(in crate::web::console) struct Listing {
    pub(super) filter: Filter,
    sort: Sort,
    after: Option<Position>,
}

impl FromQuery for Listing {
    fn read(fields: &mut Fields) -> Option<Self> {
        let sort = fields.optional("sort", Sort::parse).unwrap_or(Sort::Newest);
        Some(Self { filter: read_filter(fields), sort, after: fields.optional("cursor", parse_cursor) })
    }
}

/// Reads the filter from a URL, or from a bulk form that repeats it.
pub(super) fn read_filter(fields: &mut Fields) -> Filter {
    Filter {
        status: fields.optional("status", AgentStatus::parse),
        owner: fields.optional("owner", |owner| text::line(owner, 1, Agent::OWNER_MAX)),
        agent_type: fields.optional("type", AgentType::parse),
        text: fields.optional("q", |text| text::line(text.trim(), 0, 128)).filter(|text| !text.is_empty()),
    }
}

/// Shows the list of agents.
pub(in crate::web::console) async fn page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Query(Listing { filter, sort, after }, params): Query<Listing>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let page = agents::list(&services, &admin, &filter, sort, after, PER_PAGE).await?;
    let now = services.env.now();
    let next = page.next.as_ref().map(|next| params.with("cursor", &next.encode()).href("/console/agents"));
    Ok(Page(ListPage {
        frame: frame.at("agents"),
        agents: page.items.iter().map(|agent| Row::of(agent, now)).collect(),
        searched: ["q", "status", "type", "owner", "cursor"].iter().any(|name| !params.get(name).is_empty()),
        params,
        sort,
        next,
    }))
}
