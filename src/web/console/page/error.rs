//! Error pages. A submitted form is kept while its sender signs in or confirms their identity.

use std::sync::Arc;

use askama::Template;
use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::request::Parts,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{ALLOW, RETRY_AFTER},
};

use super::{
    form::{Form, message, parse_public_keys},
    frame::{Frame, html, see_other, sentence},
    query::shown_part_of_key,
};
use crate::{
    domain::{AuthFailure, Denial, Error, RequestId},
    service::people::sessions::SignedIn,
    web::{
        console::guard::{is_htmx, page_of_htmx},
        failure::{self, Failure},
        server::timeouts::RequestTimeout,
    },
};

/// Maximum size of a form in bytes.
const FORM_BYTES: usize = 256 * 1_024;
/// Fields that are never rendered again, because they contain secrets.
const SECRET_FIELDS: [&str; 8] =
    ["password", "present_password", "new_password", "repeat_password", "code", "token", "leaked_key", "find"];

/// A submitted form, kept while its sender signs in or confirms their identity.
#[derive(Clone, Debug, Default)]
pub(in crate::web::console) struct SavedForm {
    /// The path that the form was submitted to.
    pub(in crate::web::console) path: String,
    /// The URL-encoded fields.
    pub(in crate::web::console) body: String,
}

impl SavedForm {
    /// Reads a saved form from the hidden fields of another form.
    pub(in crate::web::console) fn from_hidden(form: &Form) -> Option<Self> {
        let path = form.get("waiting_path");
        is_own_path(path).then(|| Self { path: path.to_owned(), body: form.get("waiting_body").to_owned() })
    }

    pub(in crate::web::console) fn fields(&self) -> Vec<(String, String)> {
        Form::parse(self.body.as_bytes()).map(|form| form.pairs().to_vec()).unwrap_or_default()
    }

    fn of(path: String, body: &[u8]) -> Self {
        let form = Form::parse(body).unwrap_or_default();
        // A key that was pasted by mistake is a secret, too.
        let is_secret = |(name, text): &&(String, String)| {
            SECRET_FIELDS.contains(&name.as_str())
                || (name == "jwk" && parse_public_keys(text).is_err())
                || shown_part_of_key(text).is_some_and(|(_, has_more)| has_more)
        };
        let kept = form.pairs().iter().filter(|field| !is_secret(field));
        Self { path, body: serde_urlencoded::to_string(kept.collect::<Vec<_>>()).unwrap_or_default() }
    }
}

/// Returns true if a path is `/console` or below it.
pub(in crate::web::console) fn is_page(path: &str) -> bool {
    path.strip_prefix("/console").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns true if a path from a request leads to a console page, which prevents open redirects.
pub(in crate::web::console) fn is_own_path(path: &str) -> bool {
    is_page(path.split('?').next().unwrap_or_default())
        && !path.contains("//")
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    frame: Frame,
    title: &'static str,
    message: Option<String>,
    advice: &'static str,
    status: u16,
    request_id: String,
    /// Label and path of the button.
    way_on: (&'static str, String),
}

/// An address that only accepts a form, and the page with that form. Both are patterns of the route table.
#[derive(Clone, Copy)]
pub(in crate::web::console) struct FormAddress {
    pub(in crate::web::console) path: &'static str,
    pub(in crate::web::console) page: &'static str,
}

/// Explains an address that only accepts a form to somebody who opened it.
pub(in crate::web::console) fn explain_form(frame: Frame, form: &FormAddress) -> Response {
    let depth = form.page.matches('/').count();
    let own = frame.here.split('?').next().unwrap_or_default();
    let page: Vec<&str> = own.split('/').take(depth + 1).collect();
    let page = page.join("/");
    if frame.person.is_none() {
        return see_other(&page);
    }
    // A signed-in administrator does not need the sign-in page.
    let page = if page == "/console/sign-in" { "/console".to_owned() } else { page };
    let what = form.path.rsplit('/').next().unwrap_or_default().replace('-', " ");
    let explanation = ErrorPage {
        frame,
        title: "This address only accepts form submissions",
        message: Some(format!("It belongs to a form of the console ({what}). Opening it directly does nothing.")),
        advice: "Use the form on its page.",
        status: StatusCode::METHOD_NOT_ALLOWED.as_u16(),
        request_id: String::new(),
        way_on: ("Go to its page", page),
    };
    let mut response = html(StatusCode::METHOD_NOT_ALLOWED, &explanation);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

#[derive(Template)]
#[template(path = "sign_in/password.html")]
pub(in crate::web::console) struct SignInPage {
    pub(in crate::web::console) frame: Frame,
    pub(in crate::web::console) username: String,
    pub(in crate::web::console) next: String,
    pub(in crate::web::console) saved_form: Option<SavedForm>,
    pub(in crate::web::console) problem: Option<String>,
    /// Whether there is no administrator yet, so that nobody can sign in.
    pub(in crate::web::console) needs_setup: bool,
}

#[derive(Template)]
#[template(path = "sign_in/confirm.html")]
pub(in crate::web::console) struct ConfirmPage {
    pub(in crate::web::console) frame: Frame,
    pub(in crate::web::console) next: String,
    pub(in crate::web::console) saved_form: Option<SavedForm>,
    pub(in crate::web::console) problem: Option<String>,
}

/// Renders the errors of the inner layers as pages.
pub(in crate::web::console) async fn render(limit: RequestTimeout, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let request = parts.clone();
    let responded = async {
        let (body, form) = buffer_form(&parts, body).await?;
        Ok((form, next.run(Request::from_parts(parts, body)).await))
    };
    let responded = limit.run(responded).await.flatten();
    let (form, response) = responded.unwrap_or_else(|error| (Bytes::new(), Failure(error).into_response()));
    describe(&request, response, &form)
}

/// Renders an error response as a page. `form` is the submitted form, which the page may have to save.
pub(in crate::web::console) fn describe(request: &Parts, response: Response, form: &[u8]) -> Response {
    let status = response.status();
    let has_body = response.headers().contains_key(http::header::CONTENT_TYPE);
    let error = response.extensions().get::<Arc<Error>>().cloned();
    if !(status.is_client_error() || status.is_server_error()) || (error.is_none() && has_body && status != 415) {
        return response;
    }
    if let Some(error) = &error {
        failure::log(error, request.extensions.get(), &request.method, &request.uri);
    }
    let person = response.extensions().get::<SignedIn>().map(|signed_in| signed_in.administrator.clone());
    let frame = Frame { person, ..Frame::of(request) };
    let mut rendered = page(request, frame, status, error.as_deref(), form);
    for name in [RETRY_AFTER, ALLOW] {
        if let Some(value) = response.headers().get(&name) {
            rendered.headers_mut().insert(name, value.clone());
        }
    }
    if is_htmx(&request.headers) {
        // An error replaces the content of the page, whatever the request was meant to replace.
        for (name, value) in [("hx-retarget", "#main"), ("hx-reselect", "#main"), ("hx-reswap", "outerHTML")] {
            rendered.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
    }
    rendered
}

/// Reads the body of a form, so that it is still available if the request fails.
async fn buffer_form(parts: &Parts, body: Body) -> Result<(Body, Bytes), Error> {
    if parts.method != Method::POST {
        return Ok((body, Bytes::new()));
    }
    let bytes = to_bytes(body, FORM_BYTES).await.map_err(|_| Error::TooLarge)?;
    Ok((Body::from(bytes.clone()), bytes))
}

fn page(request: &Parts, frame: Frame, status: StatusCode, error: Option<&Error>, form: &[u8]) -> Response {
    let path = frame.here.clone();
    let posted = request.method == Method::POST;
    match error {
        Some(Error::Unauthenticated(AuthFailure::NoSession)) if !posted => {
            let target = |path: &str| format!("/console/sign-in?{}", encode(path));
            if !is_htmx(&request.headers) {
                return see_other(&target(&path));
            }
            // htmx would follow a redirect and insert the sign-in page into a part of this page.
            let mut response = StatusCode::OK.into_response();
            if let Ok(target) = HeaderValue::try_from(target(&page_to_return_to(request, &path))) {
                response.headers_mut().insert("hx-redirect", target);
            }
            response
        }
        Some(Error::Unauthenticated(AuthFailure::NoSession)) => {
            let problem =
                "Your session has expired. Sign in to continue. What you entered in the form is kept.".to_owned();
            let (username, next) = (String::new(), String::new());
            let saved_form = Some(SavedForm::of(path, form));
            html(status, &SignInPage { frame, username, next, saved_form, problem: Some(problem), needs_setup: false })
        }
        Some(Error::ProofNeeded) => {
            let saved_form = posted.then(|| SavedForm::of(path.clone(), form));
            html(status, &ConfirmPage { frame, next: path, saved_form, problem: None })
        }
        _ => {
            let request_id = request.extensions.get::<RequestId>().map_or("", RequestId::as_str).to_owned();
            let (title, advice) = match error {
                Some(Error::Denied(Denial::SetupLink)) => ("Setup link not valid", "Nothing was changed."),
                Some(Error::Denied(Denial::InvitationLink)) => (
                    "Invitation link not valid",
                    "Ask an owner to send you a new link. If you have created your account already, sign in.",
                ),
                _ => describe_status(status),
            };
            let message = error.map(|error| match error {
                // Most forms show their errors themselves. This is for addresses, and for fields that a page repeats.
                Error::Invalid(fields) if !fields.is_empty() => {
                    sentence(fields.iter().map(|field| message(&field.invalid)).collect::<Vec<_>>().join(". "))
                }
                error => sentence(error.to_string()),
            });
            let way_on = way_on(&frame, status);
            html(status, &ErrorPage { frame, title, message, advice, status: status.as_u16(), request_id, way_on })
        }
    }
}

/// Returns the page to show after signing in again, when htmx requested `path`: a list with the filter that was just
/// typed, or the page that contains the fragment.
fn page_to_return_to(request: &Parts, path: &str) -> String {
    let without_query = |path: &str| path.split('?').next().unwrap_or_default().to_owned();
    let page = page_of_htmx(&request.headers).filter(|page| is_own_path(page)).unwrap_or(path);
    if without_query(page) == without_query(path) { path.to_owned() } else { page.to_owned() }
}

/// Returns label and path of an error page's button. If the request failed before its sender was known, the overview
/// asks them to sign in only if they have to.
fn way_on(frame: &Frame, status: StatusCode) -> (&'static str, String) {
    let is_unknown = status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS
        );
    if frame.person.is_some() || is_unknown {
        ("Go to overview", "/console".to_owned())
    } else {
        ("Sign in", "/console/sign-in".to_owned())
    }
}

fn encode(path: &str) -> String {
    serde_urlencoded::to_string([("next", path)]).unwrap_or_default()
}

const fn describe_status(status: StatusCode) -> (&'static str, &'static str) {
    match status {
        StatusCode::BAD_REQUEST => ("Action not possible", "Nothing was changed."),
        StatusCode::UNAUTHORIZED => ("Sign-in required", "Sign in and try again."),
        StatusCode::FORBIDDEN => ("Permission denied", "Nothing was changed. Ask an owner if you need access."),
        StatusCode::NOT_FOUND => ("Not found", "It may have been deleted, or the link may be wrong."),
        StatusCode::METHOD_NOT_ALLOWED => ("Method not allowed", "Go back and use the buttons on the page."),
        StatusCode::CONFLICT => ("Conflict", "Nothing was changed. Go back, reload the page and try again."),
        StatusCode::PAYLOAD_TOO_LARGE => ("Request too large", "Nothing was changed. Shorten the text and try again."),
        StatusCode::UNPROCESSABLE_ENTITY => ("Invalid input", "Go back and check what you entered."),
        StatusCode::TOO_MANY_REQUESTS => ("Too many requests", "Wait a moment and try again."),
        StatusCode::SERVICE_UNAVAILABLE => ("Temporarily unavailable", "Try again in a moment."),
        _ => {
            ("Something went wrong", "The error was logged. If it happens again, send the request ID to your operator.")
        }
    }
}
