//! Revoking a capability from an agent, and deleting a capability. Both first show what they break.

use std::borrow::Borrow;

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use tower_sessions::Session;

use super::{
    Row, find_capability, may_grant,
    show::{Holders, path_of},
};
use crate::{
    domain::{Agent, Capability, Error, Result},
    service::{
        Action, Expected, Services,
        agents::{
            capabilities,
            capability_impact::{self, COUNT_MAX, GrantImpact, Impact},
            capability_removal::{self, WithGrants},
        },
        core::power,
    },
    web::{
        console::{
            Shared,
            agents::find,
            guard::Admin,
            page::{
                form::{Form, Problems},
                frame::{Flash, Frame, Moment, Page, html},
                query::Query,
            },
        },
        failure::Failure,
    },
};

const CHANGED: &str = "The agents that hold this capability, or the resources that name it, have changed. Nothing was \
                       deleted. Check them and try again.";

/// Formats a count that stops at [`COUNT_MAX`].
fn bounded(count: i64) -> String {
    if count >= COUNT_MAX { format!("{}+", COUNT_MAX - 1) } else { count.to_string() }
}

/// Formats a count with its noun.
fn counted(count: i64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{} {one}s", bounded(count)) }
}

#[derive(Template)]
#[template(path = "capabilities/impact.html")]
struct ImpactPage {
    frame: Frame,
    capability: Row,
    impact: Impact,
    problems: Problems,
}

impl ImpactPage {
    async fn of(services: &Services, admin: &Admin, frame: Frame, capability: &Capability) -> Result<Self> {
        let impact = capability_impact::of_capability(services, admin, capability.id).await?;
        Ok(Self {
            frame: frame.at("capabilities"),
            capability: Row::of(capability, impact.holders, impact.last_used_at, services.env.now()),
            impact,
            problems: Problems::default(),
        })
    }

    #[expect(clippy::unused_self, reason = "templates call methods of the page only")]
    fn counted(&self, count: impl Borrow<i64>, one: &str) -> String {
        counted(*count.borrow(), one)
    }

    /// What its deletion does, as the label of its button.
    fn button(&self) -> String {
        match (self.impact.holders, self.impact.resource_count) {
            (0, 0) => "Delete capability".to_owned(),
            (0, _) => "Delete capability and its mentions".to_owned(),
            (agents, _) => format!("Delete and revoke from {}", counted(agents, "agent")),
        }
    }

    /// Whether more agents or resources would change than can at once.
    const fn is_too_large(&self) -> bool {
        self.impact.holders >= COUNT_MAX || self.impact.resource_count >= COUNT_MAX
    }
}

/// Shows what the deletion of a capability would break.
pub(in crate::web::console) async fn impact(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let capability = find_capability(&services, &admin, &id).await?;
    Ok(Page(ImpactPage::of(&services, &admin, frame, &capability).await?))
}

/// Deletes a capability with its grants, if these and the resources that name it are still those that the administrator
/// saw.
pub(in crate::web::console) async fn delete(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let capability = find_capability(&services, &admin, &id).await?;
    if form.get("confirm").trim() != capability.name.as_str() {
        let page = ImpactPage::of(&services, &admin, frame, &capability).await?;
        let problems = Problems::one("confirm", "Type the name of the capability");
        return Ok(html(StatusCode::UNPROCESSABLE_ENTITY, &ImpactPage { problems, ..page }));
    }
    let with_grants = WithGrants::IfSeen(form.get("seen").to_owned());
    match capability_removal::delete(&services, &admin, capability.id, Expected::Any, with_grants).await {
        Ok(deleted) => {
            let agents = counted(i64::try_from(deleted.agents).unwrap_or(i64::MAX), "agent");
            let message = match deleted.agents {
                0 => format!("{} deleted.", capability.name),
                _ => format!("{} deleted. {agents} lost it, including their active tokens.", capability.name),
            };
            Flash::done(message).redirect(&session, "/console/capabilities").await
        }
        Err(error) => {
            let (status, problems) = match error {
                Error::Stale => (StatusCode::CONFLICT, Problems::general(CHANGED)),
                Error::Conflict(_) => (StatusCode::CONFLICT, Problems::from_error(error, "")?),
                error => (Problems::status(&error), Problems::from_error(error, "")?),
            };
            let page = ImpactPage::of(&services, &admin, frame, &capability).await?;
            Ok(html(status, &ImpactPage { problems, ..page }))
        }
    }
}

#[derive(Template)]
#[template(path = "capabilities/revoke.html")]
struct RevokePage {
    frame: Frame,
    capability: Capability,
    agent: Agent,
    impact: GrantImpact,
    granted: Moment,
    last_used: Option<Moment>,
    /// A capability of the agent that the administrator does not hold.
    lacking: Option<String>,
    /// The form, and the page to return to, with the filters of the list.
    action: String,
    back: String,
}

/// Asks whether to revoke a capability from an agent, and shows what that breaks.
pub(in crate::web::console) async fn revoke_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path((id, agent)): Path<(String, String)>,
    Query(_, params): Query<Holders>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let capability = find_capability(&services, &admin, &id).await?;
    let agent = find(&services, &admin, &agent).await?;
    let impact = capability_impact::of_grant(&services, &admin, agent.id, capability.id).await?;
    let (now, path) = (services.env.now(), path_of(capability.id));
    let lacking = power::lacking(&services, &admin, agent.id).await?;
    let may_revoke = may_grant(&frame, &capability.name);
    Ok(Page(RevokePage {
        frame: frame.at("capabilities"),
        granted: Moment::at(impact.grant.granted_at, now),
        last_used: impact.grant.last_used_at.map(|at| Moment::at(at, now)),
        lacking: lacking.or_else(|| (!may_revoke).then(|| capability.name.to_string())),
        action: params.href(&format!("{path}/holders/{}/remove", agent.id)),
        back: params.href(&path),
        impact,
        capability,
        agent,
    }))
}

/// Revokes a capability from an agent. The message offers to grant it again.
pub(in crate::web::console) async fn revoke(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path((id, agent)): Path<(String, String)>,
    Query(_, params): Query<Holders>,
) -> Result<Response, Failure> {
    let capability = find_capability(&services, &admin, &id).await?;
    let agent = find(&services, &admin, &agent).await?;
    let path = path_of(capability.id);
    let flash = match capabilities::ungrant(&services, &admin, agent.id, capability.id).await {
        Ok(()) => {
            let undo = vec![("agent".to_owned(), agent.id.to_string())];
            Flash::done(format!("{} revoked, including from active tokens.", capability.name))
                .link(agent.name.as_str(), format!("/console/agents/{}", agent.id))
                .undo(format!("{path}/holders"), undo)
        }
        // Agent and capability exist, so it is the grant that is missing.
        Err(error @ (Error::Refused(_) | Error::Denied(_) | Error::NotFound(_))) => Flash::failed(&error),
        Err(error) => return Err(error.into()),
    };
    flash.redirect(&session, &params.href(&path)).await
}
