//! Finds what somebody pasted: a record number, a request ID, the name or ID of an agent, or the prefix of a key.

use axum::{extract::State, response::Response};
use tower_sessions::Session;

use super::filters::{self, LIST};
use crate::{
    domain::{
        ActorId, ApiKeyId, Limit, RequestId, Result,
        audit::{Filter, Start},
    },
    service::{
        Caller, Services,
        audit::{self, names},
    },
    web::{
        console::{
            Shared,
            guard::Admin,
            page::{
                form::Form,
                frame::{Flash, see_other},
                query::Params,
            },
        },
        failure::Failure,
    },
};

/// Length of `aims_` and the characters of a key that may be shown.
const PREFIX_LEN: usize = 13;

/// Returns the page of the audit log that shows what a text identifies. Of a whole API key, only the prefix is used.
pub(in crate::web::console) async fn locate(
    services: &Services,
    caller: &Caller,
    text: &str,
) -> Result<Option<String>> {
    let list = |name: &str, value: &str| Some(Params::default().with(name, value).href(LIST));
    let text = text.trim();
    if let Ok(seq) = text.trim_start_matches('#').parse::<i64>() {
        let head = audit::head(services, caller).await?.seq;
        return Ok((1..=head).contains(&seq).then(|| list("record", &seq.to_string())).flatten());
    }
    if text.starts_with("aims_") {
        let Some(prefix) = text.get(..PREFIX_LEN) else { return Ok(None) };
        let key = names::key_by_prefix(services, caller, prefix).await?;
        return Ok(key.and_then(|key| list("resource_id", &key.to_string())));
    }
    if let Some(id) = ActorId::parse(text) {
        let id_text = id.to_string();
        if names::of_actor(services, caller, id).await? != id_text {
            return Ok(list("agent", &id_text));
        }
        for name in ["request", "resource_id"] {
            if exists(services, caller, &by(name, text)).await? {
                return Ok(list(name, text));
            }
        }
        let is_key = names::of_target(services, caller, id).await? != ApiKeyId(id.0).to_string();
        return Ok(if is_key { list("resource_id", &id_text) } else { None });
    }
    if filters::by_name(services, caller, text).await?.is_some() {
        return Ok(list("agent", text));
    }
    match RequestId::parse(text) {
        Some(id) if exists(services, caller, &by("request", id.as_str())).await? => Ok(list("request", id.as_str())),
        _ => Ok(None),
    }
}

fn by(name: &str, id: &str) -> Filter {
    let id = Some(id.to_owned());
    if name == "request" {
        Filter { request: id, ..Filter::default() }
    } else {
        Filter { resource_id: id, ..Filter::default() }
    }
}

async fn exists(services: &Services, caller: &Caller, filter: &Filter) -> Result<bool> {
    let page = audit::list(services, caller, filter, Start::Before(i64::MAX), Limit::of(1)).await?;
    Ok(!page.items.is_empty())
}

/// Redirects to the record, request, agent or key that a pasted text names. The text is sent in a form body, because a
/// whole API key must not be part of a URL.
pub(in crate::web::console) async fn submit(
    State(services): Shared,
    admin: Admin,
    session: Session,
    form: Form,
) -> Result<Response, Failure> {
    if let Some(path) = locate(&services, &admin, form.get("find")).await? {
        return Ok(see_other(&path));
    }
    let message =
        "Nothing found. Enter a record number, a request ID, the name or ID of an agent, or the prefix of a key.";
    Flash { good: false, ..Flash::done(message) }.redirect(&session, LIST).await
}
