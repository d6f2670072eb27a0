//! Rotating and revoking the selected keys, or all keys that match a filter.

use askama::Template;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use tower_sessions::Session;

use super::{
    change::read_grace,
    fleet::{FILTERS, Listing, PATH},
    reveal::{RotatedPage, described},
    row::Row,
};
use crate::{
    domain::{ApiKeyId, Error, Invalid, Result},
    service::{
        Caller, Services,
        credentials::{
            fleet,
            key_bulk::{self, Bulk},
        },
        tokens::live_tokens::Count,
    },
    web::{
        console::{
            Shared,
            guard::Admin,
            page::{
                form::{Form, Problems},
                frame::{Flash, Frame, Page, back_with_error, html},
            },
        },
        failure::Failure,
        request::extract::FromQuery,
    },
};

/// How many names a message lists.
const NAMED: usize = 5;
/// How many keys the confirmation lists.
const SHOWN: usize = 50;

#[derive(Template)]
#[template(path = "keys/bulk.html")]
struct BulkPage {
    frame: Frame,
    is_rotation: bool,
    /// The identifiers of the keys that will be changed: nothing else is.
    ids: Vec<String>,
    shown: Vec<Row>,
    unchanged: Vec<(Row, String)>,
    more_unchanged: usize,
    missing: usize,
    agents: usize,
    used_recently: usize,
    tokens: Count,
    /// Whether more keys match than can be changed together.
    is_truncated: bool,
    most: usize,
    /// The filters of the list, repeated in the form.
    filters: Vec<(String, String)>,
    back: String,
    problems: Problems,
}

/// Shows what the act would change, and asks for confirmation.
pub(in crate::web::console) async fn confirm(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let bulk = match form.get("act") {
        "rotate" => Bulk::Rotate,
        "revoke" => Bulk::Revoke,
        _ => return Err(Error::field(&["act"], Invalid::NotOneOf(&["rotate", "revoke"])).into()),
    };
    let (ids, is_truncated) = selected(&services, &admin, bulk, &form).await?;
    if ids.is_empty() {
        let nothing = Error::Refused("No key was selected. Select at least one first");
        return back_with_error(&session, &back(&form), &nothing).await;
    }
    let page = preview(&services, &admin, frame, bulk, &ids, &form).await?;
    Ok(Page(BulkPage { is_truncated, ..page }).into_response())
}

async fn preview(
    services: &Services,
    admin: &Admin,
    frame: Frame,
    bulk: Bulk,
    ids: &[ApiKeyId],
    form: &Form,
) -> Result<BulkPage> {
    let preview = key_bulk::preview(services, admin, bulk, ids).await?;
    let now = services.env.now();
    Ok(BulkPage {
        frame: frame.at("keys"),
        is_rotation: bulk == Bulk::Rotate,
        ids: preview.changed.iter().map(|one| one.key.id.to_string()).collect(),
        shown: preview.changed.iter().take(SHOWN).map(|one| Row::listed(one, false, now)).collect(),
        more_unchanged: preview.unchanged.len().saturating_sub(SHOWN),
        unchanged: preview.unchanged.into_iter().take(SHOWN).map(|one| described(one, now)).collect(),
        missing: preview.missing,
        agents: preview.agents,
        used_recently: preview.used_recently,
        tokens: preview.tokens,
        is_truncated: false,
        most: bulk.most(),
        filters: filters(form),
        back: back(form),
        problems: Problems::default(),
    })
}

/// Revokes the keys that the confirmation listed.
pub(in crate::web::console) async fn revoke_all(
    State(services): Shared,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let outcome = key_bulk::revoke(&services, &admin, &listed(&form)).await?;
    let done = outcome.done.len();
    let mut agents: Vec<_> = outcome.done.iter().map(|one| one.key.agent_id).collect();
    agents.sort_unstable();
    agents.dedup();
    let mut message = match done {
        0 => "No key was revoked.".to_owned(),
        _ => format!("{} of {} revoked, including their tokens.", plural(done, "key"), plural(agents.len(), "agent")),
    };
    let describe = |one: &key_bulk::Unchanged| {
        format!("{} of {} ({})", one.listed.key.name, one.listed.agent_name, one.reason.trim_end_matches('.'))
    };
    let names: Vec<_> = outcome.unchanged.iter().take(NAMED).map(describe).collect();
    if !names.is_empty() {
        let more = outcome.unchanged.len() - names.len();
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        message = format!("{message} Changed in the meantime, and not revoked: {}{more}.", names.join(", "));
    }
    if outcome.missing > 0 {
        let exist = if outcome.missing == 1 { "exists" } else { "exist" };
        message = format!("{message} {} no longer {exist}.", plural(outcome.missing, "key"));
    }
    let flash = Flash { good: done > 0, ..Flash::done(message) };
    flash.redirect(&session, &back(&form)).await
}

/// Rotates the keys that the confirmation listed, and shows the new ones once.
pub(in crate::web::console) async fn rotate_all(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let ids = listed(&form);
    let now = services.env.now();
    match form.read(|fields| read_grace(fields, "end_old")) {
        Ok(grace) => {
            let outcome = key_bulk::rotate(&services, &admin, &ids, grace).await?;
            Ok(Page(RotatedPage::of(frame, outcome, now, back(&form))).into_response())
        }
        Err(error) => {
            let status = Problems::status(&error);
            let problems = Problems::from_error(error, "")?;
            let page = preview(&services, &admin, frame, Bulk::Rotate, &ids, &form).await?;
            Ok(html(status, &BulkPage { problems, ..page }))
        }
    }
}

/// Returns the selected keys, or the first that match the filter, and whether there are more.
async fn selected(services: &Services, caller: &Caller, bulk: Bulk, form: &Form) -> Result<(Vec<ApiKeyId>, bool)> {
    if form.get("all") != "matching" {
        let ids = listed(form);
        let more = ids.len() > bulk.most();
        return Ok((ids.into_iter().take(bulk.most()).collect(), more));
    }
    let listing = form.read(Listing::read)?;
    match listing.resolve(services, caller).await? {
        Some((filter, _)) => fleet::matching(services, caller, &filter, bulk.most()).await,
        None => Ok((Vec::new(), false)),
    }
}

fn listed(form: &Form) -> Vec<ApiKeyId> {
    let mut ids: Vec<_> = form.all("id").filter_map(ApiKeyId::parse).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Returns the fields that repeat the filters of the list.
fn filters(form: &Form) -> Vec<(String, String)> {
    let is_filter = |(name, value): &&(String, String)| FILTERS.contains(&name.as_str()) && !value.is_empty();
    form.pairs().iter().filter(is_filter).cloned().collect()
}

/// Returns the path of the list with its filters.
fn back(form: &Form) -> String {
    match serde_urlencoded::to_string(filters(form)) {
        Ok(query) if !query.is_empty() => format!("{PATH}?{query}"),
        _ => PATH.to_owned(),
    }
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
