//! Bulk actions on the selected agents, or on all agents that match a filter.

use askama::Template;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use tower_sessions::Session;

use super::list::read_filter;
use crate::{
    domain::{AgentId, AgentStatus, Error, Invalid, Result, agent::Filter},
    service::{
        Caller, Services,
        agents::{self, BULK_MAX, Bulk},
    },
    web::{
        console::{
            Shared,
            guard::Admin,
            page::{
                form::Form,
                frame::{Frame, Page, back_to, back_with_error},
            },
        },
        failure::Failure,
    },
};

#[derive(Template)]
#[template(path = "agents/bulk.html")]
struct BulkPage {
    frame: Frame,
    action: &'static str,
    count: usize,
    names: Vec<String>,
    /// The submitted fields, repeated in the confirmation form.
    fields: Vec<(String, String)>,
    is_truncated: bool,
}

/// Shows the confirmation, with the number of affected agents.
pub(in crate::web::console) async fn confirm(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let bulk = parse_action(&form)?;
    let ids = selected(&services, &admin, bulk, &form).await?;
    if ids.is_empty() {
        return back_to(&session, "/console/agents", "Select at least one agent first.").await;
    }
    let shown: Vec<_> = ids.iter().copied().take(10).collect();
    let mut names: Vec<_> =
        agents::names(&services, &admin, &shown).await?.into_values().map(|name| name.to_string()).collect();
    names.sort_unstable();
    Ok(Page(BulkPage {
        frame: frame.at("agents"),
        action: match bulk {
            Bulk::Suspend => "suspend",
            Bulk::Reactivate => "reactivate",
        },
        is_truncated: ids.len() >= BULK_MAX,
        count: ids.len(),
        names,
        fields: form.pairs().to_vec(),
    })
    .into_response())
}

/// Performs the action.
pub(in crate::web::console) async fn apply(
    State(services): Shared,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let bulk = parse_action(&form)?;
    let ids = selected(&services, &admin, bulk, &form).await?;
    let count = ids.len().to_string();
    if form.get("count") != count {
        let changed = format!(
            "The number of matching agents has changed to {count}. Nothing was changed. Check the list and try again"
        );
        return back_with_error(&session, "/console/agents", &Error::Conflict(changed.into())).await;
    }
    let tally = agents::bulk(&services, &admin, bulk, ids, None).await?;
    let done = match bulk {
        Bulk::Suspend => "suspended",
        Bulk::Reactivate => "reactivated",
    };
    let unchanged = match tally.refused {
        0 => String::new(),
        1 => " 1 agent was not changed. Open it to see why.".to_owned(),
        more => format!(" {more} agents were not changed. Open them to see why."),
    };
    let agents = if tally.done == 1 { "1 agent".to_owned() } else { format!("{} agents", tally.done) };
    back_to(&session, "/console/agents", format!("{agents} {done}.{unchanged}")).await
}

fn parse_action(form: &Form) -> Result<Bulk> {
    match form.get("act") {
        "suspend" => Ok(Bulk::Suspend),
        "reactivate" => Ok(Bulk::Reactivate),
        _ => Err(Error::field(&["act"], Invalid::NotOneOf(&["suspend", "reactivate"]))),
    }
}

/// Returns the selected agents, or all agents that match the filter and that the action would change.
async fn selected(services: &Services, caller: &Caller, bulk: Bulk, form: &Form) -> Result<Vec<AgentId>> {
    if form.get("all") != "matching" {
        let mut ids: Vec<_> = form.all("id").filter_map(AgentId::parse).collect();
        ids.sort_unstable();
        ids.dedup();
        return Ok(ids);
    }
    let filter = form.read(|fields| Some(read_filter(fields)))?;
    let status = match bulk {
        Bulk::Suspend => AgentStatus::Active,
        Bulk::Reactivate => AgentStatus::Suspended,
    };
    if filter.status.is_some_and(|shown| shown != status) {
        return Ok(Vec::new());
    }
    agents::matching(services, caller, &Filter { status: Some(status), ..filter }).await
}
