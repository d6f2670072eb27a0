//! Acts upon many agents: those that were ticked, or all that a search shows.

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
        agents::{self, BULK_MOST, Bulk},
    },
    web::{
        console::{
            Shared,
            guard::Admin,
            page::{
                form::Form,
                frame::{Frame, Page, back_to, refused},
            },
        },
        failure::Failure,
    },
};

#[derive(Template)]
#[template(path = "agents/bulk.html")]
struct BulkPage {
    frame: Frame,
    act: &'static str,
    count: usize,
    names: Vec<String>,
    /// What the form holds, to be sent again.
    fields: Vec<(String, String)>,
    cut: bool,
}

/// Asks again, with the number of agents that are meant.
pub(in crate::web::console) async fn confirm(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let bulk = wanted(&form)?;
    let ids = meant(&services, &admin, bulk, &form).await?;
    if ids.is_empty() {
        return back_to(&session, "/console/agents", "Tick the agents that you mean first.").await;
    }
    let shown: Vec<_> = ids.iter().copied().take(10).collect();
    let mut names: Vec<_> =
        agents::names(&services, &admin, &shown).await?.into_values().map(|name| name.to_string()).collect();
    names.sort_unstable();
    Ok(Page(BulkPage {
        frame: frame.at("agents"),
        act: match bulk {
            Bulk::Suspend => "suspend",
            Bulk::Reactivate => "reactivate",
        },
        cut: ids.len() >= BULK_MOST,
        count: ids.len(),
        names,
        fields: form.pairs().to_vec(),
    })
    .into_response())
}

/// Does it.
pub(in crate::web::console) async fn apply(
    State(services): Shared,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let bulk = wanted(&form)?;
    let ids = meant(&services, &admin, bulk, &form).await?;
    let count = ids.len().to_string();
    if form.get("count") != count {
        let changed = format!("The number of agents is {count} by now. Nothing was changed; look again");
        return refused(&session, "/console/agents", &Error::Conflict(changed.into())).await;
    }
    let tally = agents::bulk(&services, &admin, bulk, ids, None).await?;
    let did = match bulk {
        Bulk::Suspend => "suspended",
        Bulk::Reactivate => "reactivated",
    };
    let kept = match tally.refused {
        0 => String::new(),
        1 => " 1 stayed as it was: its own page tells why.".to_owned(),
        more => format!(" {more} stayed as they were: their own pages tell why."),
    };
    back_to(&session, "/console/agents", format!("{} {did}.{kept}", tally.done)).await
}

fn wanted(form: &Form) -> Result<Bulk> {
    match form.get("act") {
        "suspend" => Ok(Bulk::Suspend),
        "reactivate" => Ok(Bulk::Reactivate),
        _ => Err(Error::field(&["act"], Invalid::new("enum", "Agents can be suspended or reactivated"))),
    }
}

/// The agents that a form means: those that were ticked, or all that its filter shows and the act would change.
async fn meant(services: &Services, caller: &Caller, bulk: Bulk, form: &Form) -> Result<Vec<AgentId>> {
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
