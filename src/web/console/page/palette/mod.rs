//! Finds pages, objects and actions by what people type or paste: in the command palette, and on a page of its own that
//! works without JavaScript.

mod acts;
mod find;
mod fuzzy;

use askama::Template;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::LOCATION};

use super::{
    form::Form,
    frame::{Frame, Page, see_other},
    query::{Query, shown_part_of_key},
};
use crate::{
    domain::text,
    web::{
        console::{Shared, guard::Admin},
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

/// The path of the form that finds the agent of a complete API key.
const KEY_LOOKUP: &str = "/console/keys/find";
/// The search field. It has the name that the lookup of a key reads, because the browser repeats the form there.
const FIELD: &str = "leaked_key";

/// Something that was found.
struct Entry {
    name: String,
    href: String,
    kind: &'static str,
    icon: &'static str,
    /// What tells it from others with this name.
    note: String,
    rank: u32,
}

#[derive(Template)]
#[template(path = "palette.html")]
struct PaletteFragment {
    entries: Vec<Entry>,
}

#[derive(Template)]
#[template(path = "search.html")]
struct SearchPage {
    frame: Frame,
    text: String,
    entries: Vec<Entry>,
}

/// The search text.
pub(in crate::web::console) struct Search(String);

impl FromQuery for Search {
    fn read(fields: &mut Fields) -> Option<Self> {
        let text = fields.optional("q", |text| text::line(text.trim(), 0, 128)).unwrap_or_default();
        // A complete key does not belong into a URL. Searching for its prefix finds it, and the page does not repeat it.
        Some(Self(match shown_part_of_key(&text) {
            Some((prefix, true)) => prefix.to_owned(),
            _ => text,
        }))
    }
}

/// Lists what matches, for the palette.
pub(in crate::web::console) async fn list(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Query(Search(text), _): Query<Search>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let entries = find::find(&services, &admin, &frame, &text).await?;
    Ok(Page(PaletteFragment { entries }))
}

/// Shows what matches, as a page.
pub(in crate::web::console) async fn page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Query(Search(text), _): Query<Search>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let entries = find::find(&services, &admin, &frame, &text).await?;
    Ok(Page(SearchPage { frame, text, entries }))
}

/// Receives the search field. Unlike a query, the body of a form is not part of a URL, so a pasted API key stays out of
/// the history of the browser and out of logs.
pub(in crate::web::console) async fn submit(form: Form) -> Response {
    let text = form.get(FIELD).trim();
    if shown_part_of_key(text).is_some_and(|(_, has_more)| has_more) {
        // The browser repeats the form there.
        let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
        response.headers_mut().insert(LOCATION, HeaderValue::from_static(KEY_LOOKUP));
        return response;
    }
    see_other(&format!("/console/search?{}", serde_urlencoded::to_string([("q", text)]).unwrap_or_default()))
}
