//! Suspending, reactivating, revoking and deleting an agent.

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use tower_sessions::Session;

use super::{
    confirm::{ConfirmPage, Question, impact::Loss},
    find, parse_id,
};
use crate::{
    domain::{Agent, AgentStatus, Error, Result},
    service::{
        Expected, Services,
        agents::{self, impact},
    },
    web::{
        console::{
            Shared,
            guard::Admin,
            page::{
                form::{Form, Problems},
                frame::{Flash, Frame, back_to, back_with_error, html},
            },
        },
        failure::Failure,
    },
};

/// An action that stops an agent.
#[derive(Clone, Copy)]
enum Stop {
    Suspend,
    Revoke,
    Delete,
}

impl Stop {
    fn question(self, agent: &Agent) -> Question {
        let (verb, button, action, note) = match self {
            Self::Suspend => (
                "Suspend",
                "Suspend agent",
                "suspend",
                "The agent, its keys and its tokens stop working immediately. You can reactivate it at any time. Its \
                 keys work again then, but it must request new tokens.",
            ),
            Self::Revoke => (
                "Revoke",
                "Revoke agent",
                "revoke",
                "The agent, its keys and its tokens stop working immediately. This cannot be undone. The agent and its \
                 history stay visible.",
            ),
            Self::Delete => (
                "Delete",
                "Delete agent",
                "delete",
                "The agent stops working immediately, and its keys and grants are deleted. This cannot be undone. Its \
                 records stay in the audit log.",
            ),
        };
        Question {
            button,
            verb,
            object: agent.name.to_string(),
            rest: String::new(),
            note: note.to_owned(),
            action: action.to_owned(),
            cancel: format!("/console/agents/{}", agent.id),
            asks_reason: !matches!(self, Self::Delete),
            asks_name: !matches!(self, Self::Suspend),
        }
    }

    async fn page(self, services: &Services, admin: &Admin, frame: Frame, agent: &Agent) -> Result<ConfirmPage> {
        let impact = impact::of(services, admin, agent.id).await?;
        ConfirmPage::of(services, admin, frame, agent, self.question(agent), &impact, Loss::Agents).await
    }

    async fn show_again(
        self,
        services: &Services,
        admin: &Admin,
        frame: Frame,
        agent: &Agent,
        error: Error,
        form: &Form,
    ) -> Result<Response, Failure> {
        let status = Problems::status(&error);
        let problems = Problems::from_error(error, "")?;
        let page = self.page(services, admin, frame, agent).await?;
        Ok(html(status, &ConfirmPage { problems, reason: form.get("reason").to_owned(), ..page }))
    }
}

fn read_reason(form: &Form) -> Result<Option<String>> {
    let reason = form.read(|fields| Some(fields.optional("reason", Agent::parse_reason)))?;
    Ok(reason.filter(|reason| !reason.trim().is_empty()))
}

/// Asks for confirmation and a reason before an agent is suspended.
pub(in crate::web::console) async fn suspend_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &id).await?;
    if agent.status != AgentStatus::Active {
        return Err(Error::Refused("Only active agents can be suspended").into());
    }
    Ok(Stop::Suspend.page(&services, &admin, frame, &agent).await?.if_manageable()?)
}

/// Suspends an agent.
pub(in crate::web::console) async fn suspend(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let suspended = match read_reason(&form) {
        Ok(reason) => agents::suspend(&services, &admin, agent.id, Expected::Any, reason).await,
        Err(error) => Err(error),
    };
    match suspended {
        Ok(agent) => {
            let path = format!("/console/agents/{}", agent.id);
            Flash::done(format!("{} suspended. Its keys and tokens no longer work.", agent.name))
                .undo(format!("{path}/reactivate"), Vec::new())
                .redirect(&session, &path)
                .await
        }
        Err(error) => Stop::Suspend.show_again(&services, &admin, frame, &agent, error, &form).await,
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
    match agents::reactivate(&services, &admin, id, Expected::Any).await {
        Ok(agent) => {
            let message = format!("{} reactivated. Its keys work again; it must request new tokens.", agent.name);
            back_to(&session, &path, message).await
        }
        Err(error @ (Error::Refused(_) | Error::Conflict(_))) => back_with_error(&session, &path, &error).await,
        Err(error) => Err(error.into()),
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
    Ok(Stop::Revoke.page(&services, &admin, frame, &agent).await?.if_manageable()?)
}

/// Asks for confirmation before an agent is deleted.
pub(in crate::web::console) async fn delete_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &id).await?;
    Ok(Stop::Delete.page(&services, &admin, frame, &agent).await?.if_manageable()?)
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
    let revoked = match require_name(&form, &agent).and_then(|()| read_reason(&form)) {
        Ok(reason) => agents::revoke(&services, &admin, agent.id, Expected::Any, reason).await,
        Err(error) => Err(error),
    };
    match revoked {
        Ok(agent) => {
            let message = format!("{} revoked. Its keys and tokens no longer work.", agent.name);
            back_to(&session, &format!("/console/agents/{}", agent.id), message).await
        }
        Err(error) => Stop::Revoke.show_again(&services, &admin, frame, &agent, error, &form).await,
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
    let deleted = match require_name(&form, &agent) {
        Ok(()) => agents::delete(&services, &admin, agent.id, Expected::Any).await,
        Err(error) => Err(error),
    };
    match deleted {
        Ok(()) => {
            let records = format!("/console/agents/{}", agent.id);
            Flash::done(format!("{} deleted. Its records stay in the audit log.", agent.name))
                .link("View its records", records)
                .redirect(&session, "/console/agents")
                .await
        }
        Err(error) => Stop::Delete.show_again(&services, &admin, frame, &agent, error, &form).await,
    }
}

fn require_name(form: &Form, agent: &Agent) -> Result<()> {
    if form.get("confirm") == agent.name.as_str() {
        return Ok(());
    }
    Err(Error::field(&["confirm"], crate::domain::Invalid::new("mismatch", "The name does not match")))
}
