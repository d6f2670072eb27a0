//! Errors as pages; and what somebody typed survives when they must sign in, or prove themselves, first.

use std::sync::Arc;

use askama::Template;
use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::request::Parts,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header::RETRY_AFTER};

use super::{
    form::Form,
    frame::{Frame, html, see_other},
};
use crate::{
    domain::{AuthFailure, Denial, Error, RequestId},
    service::people::sessions::SignedIn,
    web::{
        console::{credentials::public_keys, guard::is_htmx},
        failure::{self, Failure},
        server::admission::TimeLimit,
    },
};

/// Most bytes of a form.
const FORM_BYTES: usize = 256 * 1_024;
/// Fields that are never given back: a page must not hold what was typed as a secret.
const SECRET_FIELDS: [&str; 6] = ["password", "present_password", "new_password", "repeat_password", "code", "token"];

/// A form that waits while its sender signs in or proves who they are.
#[derive(Clone, Debug, Default)]
pub(in crate::web::console) struct Waiting {
    /// Where it was posted to.
    pub(in crate::web::console) path: String,
    /// What it held, encoded.
    pub(in crate::web::console) body: String,
}

impl Waiting {
    /// Reads a waiting form from the fields of the form that carries it.
    pub(in crate::web::console) fn carried(form: &Form) -> Option<Self> {
        let path = form.get("waiting_path");
        is_own_path(path).then(|| Self { path: path.to_owned(), body: form.get("waiting_body").to_owned() })
    }

    /// Its fields.
    pub(in crate::web::console) fn fields(&self) -> Vec<(String, String)> {
        Form::parse(self.body.as_bytes()).map(|form| form.pairs().to_vec()).unwrap_or_default()
    }

    fn of(path: String, body: &[u8]) -> Self {
        let form = Form::parse(body).unwrap_or_default();
        // A private key that was pasted for a public one is a secret as well.
        let is_secret = |(name, text): &&(String, String)| {
            SECRET_FIELDS.contains(&name.as_str()) || (name == "jwk" && public_keys::parse(text).is_err())
        };
        let kept = form.pairs().iter().filter(|field| !is_secret(field));
        Self { path, body: serde_urlencoded::to_string(kept.collect::<Vec<_>>()).unwrap_or_default() }
    }
}

/// Whether a path that a request names leads to this console and nowhere else.
pub(in crate::web::console) fn is_own_path(path: &str) -> bool {
    crate::web::console::is_page(path.split('?').next().unwrap_or_default())
        && !path.contains("//")
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    frame: Frame,
    title: &'static str,
    message: String,
    advice: &'static str,
    status: u16,
    request_id: String,
}

#[derive(Template)]
#[template(path = "sign_in/password.html")]
pub(in crate::web::console) struct SignInPage {
    pub(in crate::web::console) frame: Frame,
    pub(in crate::web::console) username: String,
    pub(in crate::web::console) next: String,
    pub(in crate::web::console) waiting: Option<Waiting>,
    pub(in crate::web::console) problem: Option<String>,
}

#[derive(Template)]
#[template(path = "sign_in/confirm.html")]
pub(in crate::web::console) struct ConfirmPage {
    pub(in crate::web::console) frame: Frame,
    pub(in crate::web::console) next: String,
    pub(in crate::web::console) waiting: Option<Waiting>,
    pub(in crate::web::console) problem: Option<String>,
}

/// Renders every error below it as a page.
pub(in crate::web::console) async fn render(limit: TimeLimit, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let asked = parts.clone();
    let answered = async {
        let (body, kept) = keep(&parts, body).await?;
        Ok((kept, next.run(Request::from_parts(parts, body)).await))
    };
    let answered = limit.run(answered).await.flatten();
    let (kept, response) = answered.unwrap_or_else(|error| (Bytes::new(), Failure(error).into_response()));
    describe(&asked, response, &kept)
}

/// Renders an error as a page, with the form that may have to wait.
pub(in crate::web::console) fn describe(asked: &Parts, response: Response, kept: &[u8]) -> Response {
    let status = response.status();
    let described = response.headers().contains_key(http::header::CONTENT_TYPE);
    let error = response.extensions().get::<Arc<Error>>().cloned();
    if !(status.is_client_error() || status.is_server_error()) || (error.is_none() && described && status != 415) {
        return response;
    }
    if let Some(error) = &error {
        failure::log(error, asked.extensions.get(), &asked.method, &asked.uri);
    }
    let person = response.extensions().get::<SignedIn>().map(|signed_in| signed_in.administrator.clone());
    let frame = Frame { person, ..Frame::of(asked) };
    let mut rendered = page(asked, frame, status, error.as_deref(), kept);
    for name in [RETRY_AFTER, http::header::ALLOW] {
        if let Some(value) = response.headers().get(&name) {
            rendered.headers_mut().insert(name, value.clone());
        }
    }
    if is_htmx(&asked.headers) {
        // Whatever the request meant to change, an error takes the place of the content.
        for (name, value) in [("hx-retarget", "#main"), ("hx-reselect", "#main"), ("hx-reswap", "outerHTML")] {
            rendered.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
    }
    rendered
}

/// Reads a form that may have to wait; it is small.
async fn keep(parts: &Parts, body: Body) -> Result<(Body, Bytes), Error> {
    if parts.method != Method::POST {
        return Ok((body, Bytes::new()));
    }
    let bytes = to_bytes(body, FORM_BYTES).await.map_err(|_| Error::TooLarge)?;
    Ok((Body::from(bytes.clone()), bytes))
}

fn page(asked: &Parts, frame: Frame, status: StatusCode, error: Option<&Error>, form: &[u8]) -> Response {
    let path = frame.here.clone();
    let posted = asked.method == Method::POST;
    match error {
        Some(Error::Unauthenticated(AuthFailure::NoSession)) if !posted => {
            let target = format!("/console/sign-in?{}", encode(&path));
            let mut response = see_other(&target);
            if is_htmx(&asked.headers) {
                // htmx would follow the redirect and swap a page for signing in into a corner of this one.
                *response.status_mut() = StatusCode::OK;
                let target = "/console/sign-in";
                response.headers_mut().insert("hx-redirect", HeaderValue::from_static(target));
            }
            response
        }
        Some(Error::Unauthenticated(AuthFailure::NoSession)) => {
            let problem = "Your session has ended. Sign in to carry on: what you typed is kept.".to_owned();
            let (username, next) = (String::new(), String::new());
            let waiting = Some(Waiting::of(path, form));
            html(status, &SignInPage { frame, username, next, waiting, problem: Some(problem) })
        }
        Some(Error::ProofNeeded) => {
            let waiting = posted.then(|| Waiting::of(path.clone(), form));
            html(status, &ConfirmPage { frame, next: path, waiting, problem: None })
        }
        _ => {
            let request_id = asked.extensions.get::<RequestId>().map_or("", RequestId::as_str).to_owned();
            let (title, advice) = match error {
                Some(Error::Denied(Denial::SetupLink)) => ("This link does not work", "Nothing was changed."),
                _ => in_words(status),
            };
            let message = error.map_or_else(|| title.to_owned(), ToString::to_string);
            html(status, &ErrorPage { frame, title, message, advice, status: status.as_u16(), request_id })
        }
    }
}

fn encode(path: &str) -> String {
    serde_urlencoded::to_string([("next", path)]).unwrap_or_default()
}

const fn in_words(status: StatusCode) -> (&'static str, &'static str) {
    match status {
        StatusCode::BAD_REQUEST => ("That is not possible", "Nothing was changed."),
        StatusCode::UNAUTHORIZED => ("Sign in", "Sign in and try again."),
        StatusCode::FORBIDDEN => ("Not allowed", "Nothing was changed. Ask an owner if you need this."),
        StatusCode::NOT_FOUND => ("Not found", "It may have been deleted, or the link is wrong."),
        StatusCode::METHOD_NOT_ALLOWED => ("Not possible that way", "Go back and use the page's own buttons."),
        StatusCode::CONFLICT => ("Changed meanwhile", "Go back, reload the page, and try again."),
        StatusCode::PAYLOAD_TOO_LARGE => ("Too large", "Nothing was changed. Send less text."),
        StatusCode::UNPROCESSABLE_ENTITY => ("That is not valid", "Go back and check what you entered."),
        StatusCode::TOO_MANY_REQUESTS => ("Too many tries", "Wait a little, then try again."),
        StatusCode::SERVICE_UNAVAILABLE => ("Not available now", "Try again in a moment."),
        _ => ("Something went wrong", "It was noted. If it happens again, give the request id to whoever runs AIMS."),
    }
}
