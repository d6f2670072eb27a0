//! Suspending, reactivating, revoking and deleting an agent.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use tower_sessions::Session;

use super::{Head, find, parse_id};
use crate::{
    domain::{Agent, Error, Result},
    service::{
        Services, agents,
        credentials::api_keys,
        tokens::live_tokens::{self, Count},
    },
    web::{
        console::{
            Shared,
            guard::Admin,
            page::{
                form::{Form, Problems},
                frame::{Frame, Moment, Page, back_to, back_with_error, html},
            },
        },
        failure::Failure,
    },
};

/// Suspends an agent. There is no confirmation because it can be undone.
pub(in crate::web::console) async fn suspend(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id = parse_id(&id)?;
    let path = format!("/console/agents/{id}");
    match agents::suspend(&services, &admin, id, None).await {
        Ok(agent) => {
            let message = format!("{} suspended. Its keys and tokens no longer work.", agent.name);
            back_to(&session, &path, message).await
        }
        Err(error @ (Error::Refused(_) | Error::Conflict(_))) => back_with_error(&session, &path, &error).await,
        Err(error) => Err(error.into()),
    }
}

/// Reactivates a suspended agent.
pub(in crate::web::console) async fn reactivate(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id = parse_id(&id)?;
    let path = format!("/console/agents/{id}");
    match agents::reactivate(&services, &admin, id).await {
        Ok(agent) => {
            let message = format!("{} reactivated. Its keys work again; it must request new tokens.", agent.name);
            back_to(&session, &path, message).await
        }
        Err(error @ (Error::Refused(_) | Error::Conflict(_))) => back_with_error(&session, &path, &error).await,
        Err(error) => Err(error.into()),
    }
}

#[derive(Template)]
#[template(path = "agents/stop.html")]
struct StopPage {
    frame: Frame,
    head: Head,
    /// `revoke` or `delete`.
    action: &'static str,
    live_tokens: Count,
    keys: usize,
    last_used: Option<Moment>,
    reason: String,
    problems: Problems,
}

impl StopPage {
    async fn of(services: &Services, admin: &Admin, frame: Frame, agent: &Agent, action: &'static str) -> Result<Self> {
        let now = services.env.now();
        let keys = api_keys::list(services, admin, agent.id).await?;
        Ok(Self {
            frame: frame.at("agents"),
            head: Head::of(services, admin, agent, action).await?,
            action,
            live_tokens: live_tokens::count(services, admin, agent.id).await?,
            last_used: keys.iter().filter_map(|key| key.last_used_at).max().map(|at| Moment::at(at, now)),
            keys: keys.iter().filter(|key| key.validity().check(now).is_ok()).count(),
            reason: String::new(),
            problems: Problems::default(),
        })
    }

    /// Returns the page unless the action would be denied.
    fn if_manageable(self) -> Result<Page<Self>, Failure> {
        Ok(Page(Self { head: self.head.manageable()?, ..self }))
    }
}

/// Asks for confirmation before an agent is revoked.
pub(in crate::web::console) async fn revoke_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &id).await?;
    StopPage::of(&services, &admin, frame, &agent, "revoke").await?.if_manageable()
}

/// Asks for confirmation before an agent is deleted.
pub(in crate::web::console) async fn delete_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &id).await?;
    StopPage::of(&services, &admin, frame, &agent, "delete").await?.if_manageable()
}

/// Revokes an agent after its name was entered as confirmation.
pub(in crate::web::console) async fn revoke(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let reason = match form.read(|fields| Some(fields.optional("reason", Agent::parse_reason))) {
        _ if form.get("confirm") != agent.name.as_str() => Err(name_mismatch()),
        Ok(reason) => Ok(reason.filter(|reason| !reason.trim().is_empty())),
        Err(error) => Err(error),
    };
    let revoked = match reason {
        Ok(reason) => agents::revoke(&services, &admin, agent.id, reason).await,
        Err(error) => Err(error),
    };
    match revoked {
        Ok(agent) => {
            let message = format!("{} revoked. Its keys and tokens no longer work.", agent.name);
            back_to(&session, &format!("/console/agents/{}", agent.id), message).await
        }
        Err(error) => show_again(&services, &admin, frame, &agent, "revoke", error, &form).await,
    }
}

/// Deletes an agent after its name was entered as confirmation.
pub(in crate::web::console) async fn delete(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let deleted = if form.get("confirm") == agent.name.as_str() {
        agents::delete(&services, &admin, agent.id).await
    } else {
        Err(name_mismatch())
    };
    match deleted {
        Ok(()) => {
            let message = format!("{} deleted. Its records stay in the audit log.", agent.name);
            back_to(&session, "/console/agents", message).await
        }
        Err(error) => show_again(&services, &admin, frame, &agent, "delete", error, &form).await,
    }
}

fn name_mismatch() -> Error {
    Error::field(&["confirm"], crate::domain::Invalid::new("mismatch", "The name does not match"))
}

async fn show_again(
    services: &Services,
    admin: &Admin,
    frame: Frame,
    agent: &Agent,
    action: &'static str,
    error: Error,
    form: &Form,
) -> Result<Response, Failure> {
    let status = Problems::status(&error);
    let problems = Problems::from_error(error, "")?;
    let page = StopPage::of(services, admin, frame, agent, action).await?;
    Ok(html(status, &StopPage { problems, reason: form.get("reason").to_owned(), ..page }))
}
