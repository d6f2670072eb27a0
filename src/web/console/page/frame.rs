//! What every page shows around its content.

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

use super::session::failed;
use crate::{
    domain::{Administrator, Error, Result, Role, Timestamp},
    service::{Action, people::sessions::SignedIn},
    web::failure::Failure,
};

/// The cookie that keeps the chosen colours.
pub(in crate::web::console) const THEME_COOKIE: &str = "aims_theme";
const FLASH: &str = "flash";

/// What a page needs to know of whoever looks at it.
#[derive(Clone, Debug, Default)]
pub(in crate::web::console) struct Frame {
    /// Who is signed in.
    pub(in crate::web::console) person: Option<Administrator>,
    /// The colours that were chosen; nothing for those of the system.
    pub(in crate::web::console) theme: Option<&'static str>,
    /// What the last act led to.
    pub(in crate::web::console) flash: Option<Flash>,
    /// Where the page is, so that the choice of colours leads back to it.
    pub(in crate::web::console) here: String,
    /// Where the page is in the navigation.
    pub(in crate::web::console) section: &'static str,
}

impl Frame {
    /// Whether the one who looks may do this, so that no page offers what it would refuse.
    pub(in crate::web::console) fn may(&self, action: Action) -> bool {
        self.person.as_ref().is_some_and(|person| person.role >= action.demands_role())
    }

    pub(in crate::web::console) fn may_operate(&self) -> bool {
        self.person.as_ref().is_some_and(|person| person.role >= Role::Operator)
    }

    pub(in crate::web::console) fn is_owner(&self) -> bool {
        self.person.as_ref().is_some_and(|person| person.role == Role::Owner)
    }

    /// Marks where the page is in the navigation.
    pub(in crate::web::console) fn at(self, section: &'static str) -> Self {
        Self { section, ..self }
    }

    /// What can be known without reading the session.
    pub(in crate::web::console) fn of(parts: &Parts) -> Self {
        Self {
            person: parts.extensions.get::<SignedIn>().map(|signed_in| signed_in.administrator.clone()),
            theme: theme(&parts.headers),
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
        // Whoever has no session yet has no message waiting, and is not given a session for having looked.
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
    uri.path_and_query().map_or_else(|| uri.path().to_owned(), ToString::to_string)
}

fn theme(headers: &HeaderMap) -> Option<&'static str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == THEME_COOKIE).find_map(|(_, value)| match value {
        "light" => Some("light"),
        "dark" => Some("dark"),
        _ => None,
    })
}

/// What an act led to, told on the next page, once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::web::console) struct Flash {
    /// What happened, and what to do where something is to be done.
    pub(in crate::web::console) message: String,
    /// Whether it went well.
    pub(in crate::web::console) good: bool,
}

/// Tells `message` on the page that the browser is sent to.
pub(in crate::web::console) async fn back_to(
    session: &Session,
    path: &str,
    message: impl Into<String>,
) -> Result<Response, Failure> {
    tell(session, true, message.into()).await?;
    Ok(see_other(path))
}

/// Tells that something was refused, on the page that the browser is sent to.
pub(in crate::web::console) async fn refused(
    session: &Session,
    path: &str,
    error: &Error,
) -> Result<Response, Failure> {
    tell(session, false, error.to_string()).await?;
    Ok(see_other(path))
}

async fn tell(session: &Session, good: bool, message: String) -> Result<()> {
    session.insert(FLASH, Flash { message, good }).await.map_err(failed)
}

/// Sends the browser on with a GET.
pub(in crate::web::console) fn see_other(path: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let path = HeaderValue::try_from(path).unwrap_or(HeaderValue::from_static("/console"));
    response.headers_mut().insert(LOCATION, path);
    response
}

/// A page to be rendered.
pub(in crate::web::console) struct Page<T>(pub(in crate::web::console) T);

impl<T: Template> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        html(StatusCode::OK, &self.0)
    }
}

/// Renders a page.
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

/// A page for a form that has to be mended.
pub(in crate::web::console) fn unprocessable(page: &impl Template) -> Response {
    html(StatusCode::UNPROCESSABLE_ENTITY, page)
}

/// A moment as pages show it.
#[derive(Clone, Debug)]
pub(in crate::web::console) struct Moment {
    /// For programs.
    pub(in crate::web::console) iso: String,
    /// For the tooltip.
    pub(in crate::web::console) exact: String,
    /// As a distance from now.
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

/// "3 min ago", "in 7 days".
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
    fn distances_are_told_as_people_do() {
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
