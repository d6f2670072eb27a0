//! Operations on the selected agents, or on all agents that match the filter of the list. Nothing changes before a page
//! has shown what will, and the filter survives every step.

use std::{collections::HashSet, sync::Arc};

use askama::Template;
use axum::{extract::State, response::Response};
use http::{HeaderMap, StatusCode};
use tower_sessions::Session;

use super::{
    export::{self, Format, Source},
    impact::{Confirmed, Effect, Kind, Selected},
    list::{Listing, PARAMETERS, PATH, Wanted, capability_names, suggestions},
};
use crate::{
    domain::{
        Agent, AgentId, AgentStatus, BulkActId, Error, Invalid, Result, Role, agent::label_change::LabelChange,
        capability::builtin,
    },
    service::{
        Caller, Services,
        agents::{
            bulk::{
                BULK_MAX, Bulk,
                apply::{self, Applied, Done},
                preview::preview,
                undo::{self, Undo},
            },
            listing,
        },
    },
    web::{
        console::{
            Shared,
            guard::{Admin, is_htmx},
            page::{
                form::{Form, Problems},
                frame::{Flash, Frame, back_with_error, html},
                grouped,
            },
        },
        failure::Failure,
        request::extract::FromQuery,
    },
};

const CHANGED: &str = "The agents have changed since you saw this page, so nothing was changed.";

#[derive(Template)]
#[template(path = "agents/bulk.html")]
struct BulkPage {
    frame: Frame,
    kind: Kind,
    /// The number of agents that were selected.
    selected: String,
    is_truncated: bool,
    /// The selection and the filter, repeated in the form.
    fields: Vec<(String, String)>,
    target: String,
    reason: String,
    suggestions: Vec<(String, String)>,
    effect: Option<Effect>,
    problems: Problems,
    back: String,
}

/// Shows what an operation would change.
pub(in crate::web::console) async fn confirm(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, Failure> {
    let back = back(&form);
    let operation = parse_operation(&form)?;
    let kind = match operation {
        Operation::Export(format) => return export_selected(services, &session, admin, &form, format).await,
        Operation::Change(kind) => kind,
    };
    let (ids, is_truncated) = selected(&services, &admin, kind, &form).await?;
    if ids.is_empty() {
        return nothing_selected(&session, &form, &back).await;
    }
    let page = BulkPage::of(&services, &admin, frame, kind, &ids, is_truncated, &form).await?;
    let (problems, effect) = if kind.needs_target() && form.get("target").trim().is_empty() {
        (Problems::default(), None)
    } else {
        match effect_of(&services, &admin, kind, &form, &ids).await {
            Ok(effect) => (Problems::default(), Some(effect)),
            Err(error) => (Problems::from_error(error, "target")?, None),
        }
    };
    // htmx shows the error in the place of the effect.
    let status = if problems.any() && !is_htmx(&headers) { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    Ok(html(status, &BulkPage { effect, problems, ..page }))
}

async fn effect_of(services: &Services, admin: &Admin, kind: Kind, form: &Form, ids: &[AgentId]) -> Result<Effect> {
    let bulk = read_bulk(services, admin, kind, form).await?;
    let preview = preview(services, admin, &bulk, ids).await.map_err(about_target)?;
    let names = Confirmed::default().names(services, admin, &preview).await?;
    Ok(Effect::of(kind, &bulk, &preview, &names))
}

/// Performs an operation.
pub(in crate::web::console) async fn apply(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let back = back(&form);
    let Operation::Change(kind) = parse_operation(&form)? else { return Err(unknown_operation().into()) };
    let (ids, is_truncated) = selected(&services, &admin, kind, &form).await?;
    if ids.is_empty() {
        return nothing_selected(&session, &form, &back).await;
    }
    let applied = match read_bulk(&services, &admin, kind, &form).await {
        Ok(bulk) => match apply::apply(&services, &admin, &bulk, &ids, form.get("seen")).await {
            Ok(applied) => Ok((bulk, applied)),
            Err(error) => Err(about_target(error)),
        },
        Err(error) => Err(error),
    };
    match applied {
        Ok((bulk, Applied::Done(done))) => flash(&admin, kind, &bulk, &done, &form).redirect(&session, &back).await,
        Ok((bulk, Applied::Outdated(preview))) => {
            let page = BulkPage::of(&services, &admin, frame, kind, &ids, is_truncated, &form).await?;
            let confirmed = Confirmed::of(&form);
            let names = confirmed.names(&services, &admin, &preview).await?;
            let mut effect = Effect::of(kind, &bulk, &preview, &names);
            let was_shown = !form.get("seen").is_empty();
            if was_shown {
                effect.differences.push(CHANGED.to_owned());
                // The preview itself names agents that were selected one by one.
                effect.differences.extend(confirmed.differences(&preview, &names, Selected::ByFilter));
            }
            let status = if was_shown { StatusCode::CONFLICT } else { StatusCode::OK };
            Ok(html(status, &BulkPage { effect: Some(effect), ..page }))
        }
        Err(error) => {
            let status = Problems::status(&error);
            let problems = Problems::from_error(error, "target")?;
            let page = BulkPage::of(&services, &admin, frame, kind, &ids, is_truncated, &form).await?;
            Ok(html(status, &BulkPage { problems, ..page }))
        }
    }
}

/// Undoes an operation, as far as nobody has changed its agents since.
pub(in crate::web::console) async fn undo(
    State(services): Shared,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let back = back(&form);
    let missing = || Error::Refused("There is nothing left to undo");
    let Some(id) = BulkActId::parse(form.get("bulk")) else { return Err(missing().into()) };
    let undone = match undo::undo(&services, &admin, id).await {
        Err(Error::NotFound(_)) => return back_with_error(&session, &back, &missing()).await,
        undone => undone?,
    };
    if undone.done == 0 && undone.left == 0 {
        return back_with_error(&session, &back, &missing()).await;
    }
    let (verb, event) = match (undone.undo, undone.done) {
        (Undo::Suspend, _) => ("reactivated", "agent.reactivated"),
        (Undo::Grant(_), 1) => ("no longer holds the capability", "capability.revoked"),
        (Undo::Grant(_), _) => ("no longer hold the capability", "capability.revoked"),
        (Undo::Transfer(_), 1) => ("returned to its previous owner", "agent.updated"),
        (Undo::Transfer(_), _) => ("returned to their previous owners", "agent.updated"),
        (Undo::Label(_), 1) => ("has its previous labels again", "agent.updated"),
        (Undo::Label(_), _) => ("have their previous labels again", "agent.updated"),
    };
    let left = match undone.left {
        0 => String::new(),
        1 => " 1 agent was left as it is, because it was changed since.".to_owned(),
        more => format!(" {} agents were left as they are, because they were changed since.", grouped(more)),
    };
    let message = format!("Undone: {} {verb}.{left}", agents(undone.done));
    Flash::done(message)
        .link("Show in the audit log", audit_log(&admin, event, undone.at))
        .redirect(&session, &back)
        .await
}

impl BulkPage {
    fn heading(&self) -> String {
        let selected = &self.selected;
        match self.kind {
            Kind::Suspend => format!("Suspend {selected}?"),
            Kind::Reactivate => format!("Reactivate {selected}?"),
            Kind::Grant => format!("Grant a capability to {selected}"),
            Kind::Ungrant => format!("Revoke a capability from {selected}"),
            Kind::Transfer => format!("Transfer {selected} to another owner"),
            Kind::Label => format!("Label {selected}"),
        }
    }

    async fn of(
        services: &Services,
        admin: &Admin,
        frame: Frame,
        kind: Kind,
        ids: &[AgentId],
        is_truncated: bool,
        form: &Form,
    ) -> Result<Self> {
        const OWN: [&str; 4] = ["target", "reason", "seen", "expected"];
        let fields = form.pairs().iter().filter(|(name, _)| !OWN.contains(&name.as_str())).cloned().collect();
        let suggestions = match kind {
            Kind::Grant | Kind::Ungrant => {
                let is_owner = admin.0.administrator.role == Role::Owner;
                let names = capability_names(services, admin).await?.into_iter();
                names.filter(|name| is_owner || name != builtin::ADMIN).map(|name| (name, String::new())).collect()
            }
            Kind::Transfer => {
                let owners = suggestions(services, admin, form.get("target")).await?;
                owners.into_iter().map(|owner| (owner.name, owner.agents)).collect()
            }
            Kind::Suspend | Kind::Reactivate | Kind::Label => Vec::new(),
        };
        Ok(Self {
            frame: frame.at("agents"),
            kind,
            selected: agents(ids.len()),
            is_truncated,
            fields,
            target: form.get("target").to_owned(),
            reason: form.get("reason").to_owned(),
            suggestions,
            effect: None,
            problems: Problems::default(),
            back: back(form),
        })
    }
}

enum Operation {
    Change(Kind),
    Export(Format),
}

fn unknown_operation() -> Error {
    Error::field(&["act"], Invalid::NotOneOf(&["suspend", "reactivate", "grant", "ungrant", "transfer", "label"]))
}

fn parse_operation(form: &Form) -> Result<Operation> {
    match form.get("act").split_once('.') {
        Some(("export", format)) => {
            Ok(Operation::Export(Format::parse(format).map_err(|invalid| Error::field(&["act"], invalid))?))
        }
        _ => Kind::parse(form.get("act")).map(Operation::Change).ok_or_else(unknown_operation),
    }
}

/// Reads an operation with what it needs: a reason, a capability, an owner or labels.
async fn read_bulk(services: &Services, caller: &Caller, kind: Kind, form: &Form) -> Result<Bulk> {
    let unknown = || Error::field(&["target"], Invalid::new("unknown", "No capability with this name exists"));
    let capability = async || {
        let known = listing::capability_named(services, caller, form.get("target").trim()).await?;
        known.map(|capability| capability.id).ok_or_else(unknown)
    };
    Ok(match kind {
        Kind::Suspend => {
            let reason = form.read(|fields| Some(fields.optional("reason", Agent::parse_reason)))?;
            Bulk::Suspend(reason.filter(|reason| !reason.trim().is_empty()))
        }
        Kind::Reactivate => Bulk::Reactivate,
        Kind::Grant => Bulk::Grant(capability().await?),
        Kind::Ungrant => Bulk::Ungrant(capability().await?),
        Kind::Transfer => {
            let owner = form.read(|fields| fields.required("target", |owner| Agent::parse_owner(owner.trim())))?;
            Bulk::Transfer(owner)
        }
        Kind::Label => Bulk::Label(form.read(|fields| fields.required("target", LabelChange::parse))?),
    })
}

/// Explains an error about the capability at its field.
fn about_target(error: Error) -> Error {
    match error {
        Error::NotFound(_) => Error::field(&["target"], Invalid::new("unknown", "No capability with this name exists")),
        Error::Denied(crate::domain::Denial::MoreAuthority(name)) => {
            let message = format!("You cannot grant {name}, because you do not hold it");
            Error::field(&["target"], Invalid::new("authority", message))
        }
        other => other,
    }
}

/// Returns the selected agents; if none is selected and a filter is set, all agents that match it. Also returns whether
/// there are more than [`BULK_MAX`].
async fn selected(services: &Services, caller: &Caller, kind: Kind, form: &Form) -> Result<(Vec<AgentId>, bool)> {
    let mut seen = HashSet::new();
    let mut ids: Vec<_> = form.all("id").filter_map(AgentId::parse).filter(|id| seen.insert(*id)).collect();
    if form.get("all") == "matching" || ids.is_empty() {
        let wanted = form.read(|fields| Some(Wanted::read(fields)))?;
        if !wanted.is_narrow() && form.get("all") != "matching" {
            return Ok((Vec::new(), false));
        }
        let filter = wanted.resolve(services, caller).await?;
        ids = listing::matching(services, caller, &filter).await?;
        let status = match kind {
            Kind::Suspend => Some(AgentStatus::Active),
            Kind::Reactivate => Some(AgentStatus::Suspended),
            Kind::Grant | Kind::Ungrant | Kind::Transfer | Kind::Label => None,
        };
        // Repeating an operation on too many agents must get to the ones that it left out.
        if ids.len() > BULK_MAX && status.is_some() && filter.status.is_none() {
            let filter = crate::domain::agent::Filter { status, ..filter };
            ids = listing::matching(services, caller, &filter).await?;
        }
    }
    let is_truncated = ids.len() > BULK_MAX;
    ids.truncate(BULK_MAX);
    Ok((ids, is_truncated))
}

async fn nothing_selected(session: &Session, form: &Form, back: &str) -> Result<Response, Failure> {
    let wanted = form.read(|fields| Some(Wanted::read(fields)))?;
    let is_narrow = wanted.is_narrow() || form.get("all") == "matching";
    let message = if is_narrow { "No agent matches any more" } else { "Select at least one agent first" };
    back_with_error(session, back, &Error::Refused(message)).await
}

async fn export_selected(
    services: Arc<Services>,
    session: &Session,
    admin: Admin,
    form: &Form,
    format: Format,
) -> Result<Response, Failure> {
    let ids: Vec<_> = form.all("id").filter_map(AgentId::parse).collect();
    let listing = form.read(Listing::read)?;
    let is_narrow = listing.wanted.is_narrow();
    if form.get("all") == "matching" || (ids.is_empty() && is_narrow) {
        let sort = listing.sort;
        let filter = listing.wanted.resolve(&services, &admin).await?;
        return Ok(export::file(services, admin, Source::Matching { filter, sort, after: None }, format));
    }
    if ids.is_empty() {
        return nothing_selected(session, form, &back(form)).await;
    }
    Ok(export::file(services, admin, Source::Selected(ids.into()), format))
}

/// Returns the list with the filter of a form.
fn back(form: &Form) -> String {
    let pairs = PARAMETERS.iter().map(|name| (*name, form.get(name))).filter(|(_, value)| !value.is_empty());
    match serde_urlencoded::to_string(pairs.collect::<Vec<_>>()) {
        Ok(query) if !query.is_empty() => format!("{PATH}?{query}"),
        _ => PATH.to_owned(),
    }
}

/// Describes what an operation changed.
fn flash(admin: &Admin, kind: Kind, bulk: &Bulk, done: &Done, form: &Form) -> Flash {
    let subject = match done.changed.as_slice() {
        [only] => only.name.to_string(),
        many => agents(many.len()),
    };
    let target = form.get("target").trim();
    let mut message = match kind {
        Kind::Suspend => format!("{subject} suspended."),
        Kind::Reactivate => format!("{subject} reactivated."),
        Kind::Grant => format!("{target} granted to {subject}."),
        Kind::Ungrant => format!("{target} revoked from {subject}."),
        Kind::Transfer => format!("{subject} transferred to {target}."),
        Kind::Label => format!("{subject} labelled: {target}."),
    };
    match done.unchanged {
        0 => {}
        1 => message.push_str(" 1 other agent did not change."),
        more => message = format!("{message} {} other agents did not change.", grouped(more)),
    }
    if let Some((agent, reason)) = done.failed.first() {
        let failed = agents(done.failed.len());
        message = format!("{message} {failed} could not be changed, for example {}: {reason}.", agent.name);
    }
    let flash = Flash::done(message).link("Show in the audit log", audit_log(admin, bulk.event().as_str(), done.at));
    match done.act.filter(|_| !done.changed.is_empty()) {
        Some(act) => {
            let filters = PARAMETERS.iter().map(|name| ((*name).to_owned(), form.get(name).to_owned()));
            let fields = filters.filter(|(_, value)| !value.is_empty());
            let fields = fields.chain([("bulk".to_owned(), act.to_string())]).collect();
            flash.undo("/console/agents/bulk/undo", fields)
        }
        None => flash,
    }
}

/// Returns a link to the records of an operation.
fn audit_log(admin: &Admin, event: &str, from: crate::domain::Timestamp) -> String {
    let actor = admin.0.administrator.id.to_string();
    let query = [("action", event), ("actor", &actor), ("from", &from.to_string())];
    format!("/console/audit?{}", serde_urlencoded::to_string(query).unwrap_or_default())
}

/// "1 agent", "20 agents".
fn agents(number: usize) -> String {
    if number == 1 { "1 agent".to_owned() } else { format!("{} agents", grouped(number)) }
}
