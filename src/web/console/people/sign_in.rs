//! Signing in and out, and proving again who one is.

use askama::Template;
use axum::{
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tower_sessions::Session;

use crate::{
    domain::{AuthFailure, Error, Result},
    service::{
        Origin,
        people::{
            factors,
            sign_in::{self, Outcome, Proof},
        },
    },
    web::{
        console::{
            Shared,
            guard::{Admin, user_agent},
            page::{
                error::{ConfirmPage, SignInPage, Waiting, is_own_path},
                form::Form,
                frame::{Frame, Page, html, see_other},
                session::{await_second_factor, failed, pending, renew},
            },
        },
        failure::Failure,
    },
};

#[derive(Template)]
#[template(path = "sign_in/code.html")]
struct CodePage {
    frame: Frame,
    next: String,
    waiting: Option<Waiting>,
    problem: Option<String>,
}

#[derive(Template)]
#[template(path = "sign_in/carry_on.html")]
struct CarryOnPage {
    frame: Frame,
    path: String,
    fields: Vec<(String, String)>,
}

#[derive(Deserialize, Default)]
pub(in crate::web::console) struct Target {
    #[serde(default)]
    next: String,
}

/// The page that asks for username and password.
pub(in crate::web::console) async fn page(frame: Frame, Query(Target { next }): Query<Target>) -> Response {
    if frame.person.is_some() {
        return see_other("/console");
    }
    Page(SignInPage { frame, username: String::new(), next, waiting: None, problem: None }).into_response()
}

/// Signs in, or asks for the second factor.
pub(in crate::web::console) async fn submit(
    State(services): Shared,
    frame: Frame,
    session: Session,
    origin: Origin,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, Failure> {
    let (username, password) = (form.get("username").to_owned(), form.get("password").to_owned());
    match sign_in::with_password(&services, &origin, &username, password).await {
        Ok(Outcome::Proved(proof)) => {
            let keys = renew(&session).await?;
            sign_in::begin(&services, &origin, user_agent(&headers), keys, proof).await?;
            Ok(carry_on(&frame, &form))
        }
        Ok(Outcome::SecondFactor(pending)) => {
            await_second_factor(&session, pending).await?;
            let (next, waiting) = (form.get("next").to_owned(), Waiting::carried(&form));
            Ok(Page(CodePage { frame, next, waiting, problem: None }).into_response())
        }
        Err(error) => {
            let (status, problem) = in_words(error)?;
            let (next, waiting) = (form.get("next").to_owned(), Waiting::carried(&form));
            Ok(html(status, &SignInPage { frame, username, next, waiting, problem: Some(problem) }))
        }
    }
}

/// Takes the second factor of whoever gave the right password.
pub(in crate::web::console) async fn submit_code(
    State(services): Shared,
    frame: Frame,
    session: Session,
    origin: Origin,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, Failure> {
    let Some(pending) = pending(&services, &session).await? else {
        let (next, waiting) = (form.get("next").to_owned(), Waiting::carried(&form));
        let problem = Some("Give your password again: too much time has passed, or it was changed.".to_owned());
        let page = SignInPage { frame, username: String::new(), next, waiting, problem };
        return Ok(html(StatusCode::UNAUTHORIZED, &page));
    };
    match factors::check_code(&services, &origin, &pending, form.get("code")).await {
        Ok(proof) => {
            let keys = renew(&session).await?;
            sign_in::begin(&services, &origin, user_agent(&headers), keys, proof).await?;
            Ok(carry_on(&frame, &form))
        }
        Err(error) => {
            let (status, problem) = in_words(error)?;
            let (next, waiting) = (form.get("next").to_owned(), Waiting::carried(&form));
            Ok(html(status, &CodePage { frame, next, waiting, problem: Some(problem) }))
        }
    }
}

/// Takes the proof that an act asked for, and goes on with the act.
pub(in crate::web::console) async fn confirm(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    match sign_in::again_with_password(&services, &admin, form.get("password").to_owned()).await {
        Ok(proof) => {
            proved_again(&services, &session, &admin, proof).await?;
            Ok(carry_on(&frame, &form))
        }
        Err(error) => {
            let (status, problem) = in_words(error)?;
            let (next, waiting) = (form.get("next").to_owned(), Waiting::carried(&form));
            Ok(html(status, &ConfirmPage { frame, next, waiting, problem: Some(problem) }))
        }
    }
}

pub(in crate::web::console) async fn proved_again(
    services: &crate::service::Services,
    session: &Session,
    admin: &Admin,
    proof: Proof,
) -> Result<()> {
    let keys = renew(session).await?;
    sign_in::renew(services, admin, keys, proof).await
}

/// Signs out.
pub(in crate::web::console) async fn sign_out(
    State(services): Shared,
    session: Session,
    admin: Admin,
) -> Result<Response, Failure> {
    sign_in::end(&services, &admin).await?;
    session.flush().await.map_err(failed)?;
    Ok(see_other("/console/sign-in"))
}

/// Goes on where somebody was: with the form that waited, or the page that they asked for.
pub(in crate::web::console) fn carry_on(frame: &Frame, form: &Form) -> Response {
    if let Some(waiting) = Waiting::carried(form) {
        let fields = waiting.fields();
        return Page(CarryOnPage { frame: frame.clone(), path: waiting.path, fields }).into_response();
    }
    let next = form.get("next");
    see_other(if is_own_path(next) { next } else { "/console" })
}

/// What whoever signs in is told; an error that they cannot mend goes on as it is.
pub(in crate::web::console) fn in_words(error: Error) -> Result<(StatusCode, String)> {
    match error {
        Error::Unauthenticated(AuthFailure::WrongCredentials) => Ok((StatusCode::UNAUTHORIZED, error.to_string())),
        Error::RateLimited { retry_after } => {
            let wait = if retry_after < 90 {
                format!("{retry_after} second{}", if retry_after == 1 { "" } else { "s" })
            } else {
                format!("{} minutes", retry_after.div_ceil(60))
            };
            Ok((StatusCode::TOO_MANY_REQUESTS, format!("Too many wrong tries. Wait {wait}, then try again.")))
        }
        Error::Invalid(_) => Ok((StatusCode::UNPROCESSABLE_ENTITY, "Check what you entered".to_owned())),
        other => Err(other),
    }
}
