//! The frame around the content of every page: navigation, theme and flash message.

use askama::Template;
use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, COOKIE, LOCATION},
    request::Parts,
};
use serde::{Deserialize, Serialize};
use tower_sessions::Session;

use super::{query::shown_part_of_key, session::failed};
use crate::{
    domain::{Administrator, Error, Result, Role, Timestamp},
    service::{Action, people::sessions::SignedIn},
    web::failure::Failure,
};

/// The cookie that stores the theme.
pub(in crate::web::console) const THEME_COOKIE: &str = "aims_theme";
/// The cookie that stores whether exact times are shown in the time zone of the browser.
pub(in crate::web::console) const TIMES_COOKIE: &str = "aims_times";
const FLASH: &str = "flash";
/// The page with which an invited person creates their account. Only the query of an invitation link is a secret.
pub(in crate::web::console) const INVITATION: &str = "/console/invitation";

/// The state that every page needs.
#[derive(Clone, Debug, Default)]
pub(in crate::web::console) struct Frame {
    /// The administrator who is signed in.
    pub(in crate::web::console) person: Option<Administrator>,
    /// The chosen theme; `None` follows the system.
    pub(in crate::web::console) theme: Option<&'static str>,
    /// True if the script shows exact times in the time zone of the browser instead of UTC.
    pub(in crate::web::console) local_times: bool,
    /// The outcome of the previous action.
    pub(in crate::web::console) flash: Option<Flash>,
    /// Path and query of the page, to return to after the theme is changed.
    pub(in crate::web::console) here: String,
    /// The navigation section of the page.
    pub(in crate::web::console) section: &'static str,
}

impl Frame {
    /// Returns true if the role of the administrator allows an action. Pages hide actions that would be denied.
    pub(in crate::web::console) fn may(&self, action: Action) -> bool {
        self.person.as_ref().is_some_and(|person| person.role >= action.demands_role())
    }

    pub(in crate::web::console) fn may_operate(&self) -> bool {
        self.person.as_ref().is_some_and(|person| person.role >= Role::Operator)
    }

    pub(in crate::web::console) fn is_owner(&self) -> bool {
        self.person.as_ref().is_some_and(|person| person.role == Role::Owner)
    }

    /// Sets the navigation section.
    pub(in crate::web::console) fn at(self, section: &'static str) -> Self {
        Self { section, ..self }
    }

    /// Builds a frame without reading the session.
    pub(in crate::web::console) fn of(parts: &Parts) -> Self {
        Self {
            person: parts.extensions.get::<SignedIn>().map(|signed_in| signed_in.administrator.clone()),
            theme: theme(&parts.headers),
            local_times: cookies(&parts.headers, TIMES_COOKIE).any(|value| value == "local"),
            flash: None,
            here: path_and_query(parts),
            section: "",
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Frame {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let mut frame = Self::of(parts);
        // Without a session there is no message, and reading one must not create a session.
        if let Some(session) = parts.extensions.get::<Session>().filter(|session| session.id().is_some())
            && session.get_value(FLASH).await.map_err(failed)?.is_some()
        {
            frame.flash = session.remove(FLASH).await.map_err(failed)?;
        }
        Ok(frame)
    }
}

fn path_and_query(parts: &Parts) -> String {
    let uri = parts.extensions.get::<axum::extract::OriginalUri>().map_or(&parts.uri, |original| &original.0);
    // The query of an invitation is the token of the link. A key that was pasted into the URL must not be repeated in
    // the page either.
    let has_key = || uri.query().and_then(shown_part_of_key).is_some_and(|(_, has_more)| has_more);
    if uri.path() == INVITATION || has_key() {
        return uri.path().to_owned();
    }
    uri.path_and_query().map_or_else(|| uri.path().to_owned(), ToString::to_string)
}

/// Returns the values of the cookies with this name.
fn cookies<'h>(headers: &'h HeaderMap, name: &'static str) -> impl Iterator<Item = &'h str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(move |(key, _)| *key == name).map(|(_, value)| value)
}

fn theme(headers: &HeaderMap) -> Option<&'static str> {
    cookies(headers, THEME_COOKIE).find_map(|value| match value {
        "light" => Some("light"),
        "dark" => Some("dark"),
        _ => None,
    })
}

/// The outcome of an action, shown once on the next page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::web::console) struct Flash {
    /// What happened, and what to do next.
    pub(in crate::web::console) message: String,
    /// True for success.
    pub(in crate::web::console) good: bool,
    /// A link to the object: its name and path.
    #[serde(default)]
    pub(in crate::web::console) link: Option<(String, String)>,
    #[serde(default)]
    pub(in crate::web::console) undo: Option<Undo>,
}

/// A form that reverses an action.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::web::console) struct Undo {
    /// The path that the form is posted to.
    pub(in crate::web::console) path: String,
    /// The hidden fields of the form.
    pub(in crate::web::console) fields: Vec<(String, String)>,
}

impl Flash {
    /// Reports success.
    pub(in crate::web::console) fn done(message: impl Into<String>) -> Self {
        Self { message: message.into(), good: true, link: None, undo: None }
    }

    /// Reports a failure.
    pub(in crate::web::console) fn failed(error: &Error) -> Self {
        Self { good: false, ..Self::done(sentence(error.to_string())) }
    }

    /// Adds a link to the object.
    pub(in crate::web::console) fn link(self, name: impl Into<String>, path: impl Into<String>) -> Self {
        Self { link: Some((name.into(), path.into())), ..self }
    }

    /// Adds an undo button.
    pub(in crate::web::console) fn undo(self, path: impl Into<String>, fields: Vec<(String, String)>) -> Self {
        Self { undo: Some(Undo { path: path.into(), fields }), ..self }
    }

    /// Redirects to `path` and shows this there.
    pub(in crate::web::console) async fn redirect(self, session: &Session, path: &str) -> Result<Response, Failure> {
        session.insert(FLASH, self).await.map_err(failed)?;
        Ok(see_other(path))
    }
}

/// Redirects to `path` and shows a success message there.
pub(in crate::web::console) async fn back_to(
    session: &Session,
    path: &str,
    message: impl Into<String>,
) -> Result<Response, Failure> {
    Flash::done(message).redirect(session, path).await
}

/// Redirects to `path` and shows an error there.
pub(in crate::web::console) async fn back_with_error(
    session: &Session,
    path: &str,
    error: &Error,
) -> Result<Response, Failure> {
    Flash::failed(error).redirect(session, path).await
}

/// Ends a message with a period. Most error messages have none.
pub(in crate::web::console) fn sentence(mut message: String) -> String {
    if !message.ends_with('.') {
        message.push('.');
    }
    message
}

/// Redirects with status 303.
pub(in crate::web::console) fn see_other(path: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let path = HeaderValue::try_from(path).unwrap_or(HeaderValue::from_static("/console"));
    response.headers_mut().insert(LOCATION, path);
    response
}

/// A template as a response.
pub(in crate::web::console) struct Page<T>(pub(in crate::web::console) T);

impl<T: Template> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        html(StatusCode::OK, &self.0)
    }
}

pub(in crate::web::console) fn html(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => {
            let mut response = (status, text).into_response();
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, html);
            response
        }
        Err(error) => Failure(Error::Internal(Box::new(error))).into_response(),
    }
}

/// Renders a form with errors, with status 422.
pub(in crate::web::console) fn unprocessable(page: &impl Template) -> Response {
    html(StatusCode::UNPROCESSABLE_ENTITY, page)
}

/// A point in time as pages show it.
#[derive(Clone, Debug)]
pub(in crate::web::console) struct Moment {
    /// RFC 3339, for the `datetime` attribute.
    pub(in crate::web::console) iso: String,
    pub(in crate::web::console) exact: String,
    /// Relative to now.
    pub(in crate::web::console) relative: String,
}

impl Moment {
    pub(in crate::web::console) fn at(time: Timestamp, now: Timestamp) -> Self {
        let iso = time.to_string();
        let date = iso.get(..10).unwrap_or_default();
        let clock = iso.get(11..19).unwrap_or_default();
        Self { exact: format!("{date} {clock} UTC"), relative: relative(time, now), iso }
    }
}

/// Formats a time relative to now: "3 min ago", "in 7 days".
fn relative(time: Timestamp, now: Timestamp) -> String {
    let seconds = (time.as_micros() - now.as_micros()).div_euclid(1_000_000);
    let distance = seconds.unsigned_abs();
    let (count, unit) = match distance {
        0..45 => return if seconds > 0 { "in a moment".to_owned() } else { "just now".to_owned() },
        45..2_700 => (distance.saturating_add(30) / 60, "min"),
        2_700..79_200 => (distance.saturating_add(1_800) / 3_600, "h"),
        79_200..3_888_000 => ((distance + 43_200) / 86_400, "day"),
        3_888_000..31_536_000 => ((distance + 1_296_000) / 2_592_000, "month"),
        _ => ((distance + 15_768_000) / 31_536_000, "year"),
    };
    let plural = if count > 1 && !["min", "h"].contains(&unit) { "s" } else { "" };
    if seconds > 0 { format!("in {count} {unit}{plural}") } else { format!("{count} {unit}{plural} ago") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_formatted_relative_to_now() {
        let now = Timestamp::from_secs(1_800_000_000);
        let ago = |seconds: i64| relative(Timestamp::from_secs(1_800_000_000 - seconds), now);
        assert_eq!(ago(0), "just now");
        assert_eq!(ago(50), "1 min ago");
        assert_eq!(ago(180), "3 min ago");
        assert_eq!(ago(7_200), "2 h ago");
        assert_eq!(ago(86_400), "1 day ago");
        assert_eq!(ago(3 * 86_400), "3 days ago");
        assert_eq!(ago(90 * 86_400), "3 months ago");
        assert_eq!(ago(2 * 31_536_000), "2 years ago");
        assert_eq!(ago(-7 * 86_400), "in 7 days");
        assert_eq!(ago(-3_600), "in 1 h");
    }
}
