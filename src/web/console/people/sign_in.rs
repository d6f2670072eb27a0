//! Signing in, signing out, and confirming the identity for sensitive actions.

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
            factors, setup,
            sign_in::{self, Outcome, Proof},
        },
    },
    web::{
        console::{
            Shared,
            guard::{Admin, user_agent},
            page::{
                error::{ConfirmPage, SavedForm, SignInPage, is_own_path},
                form::Form,
                frame::{Frame, Page, html, see_other, sentence},
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
    saved_form: Option<SavedForm>,
    problem: Option<String>,
}

#[derive(Template)]
#[template(path = "sign_in/resend.html")]
struct ResendPage {
    frame: Frame,
    path: String,
    fields: Vec<(String, String)>,
}

#[derive(Deserialize, Default)]
pub(in crate::web::console) struct Target {
    #[serde(default)]
    next: String,
}

/// Shows the sign-in form.
pub(in crate::web::console) async fn page(
    State(services): Shared,
    frame: Frame,
    Query(Target { next }): Query<Target>,
) -> Result<Response, Failure> {
    if frame.person.is_some() {
        return Ok(see_other("/console"));
    }
    let needs_setup = !setup::is_done(&services).await?;
    let page = SignInPage { frame, username: String::new(), next, saved_form: None, problem: None, needs_setup };
    Ok(Page(page).into_response())
}

/// Checks the password. Signs in, or asks for the second factor.
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
            Ok(continue_request(&frame, &form))
        }
        Ok(Outcome::SecondFactor(pending)) => {
            await_second_factor(&session, pending).await?;
            let (next, saved_form) = (form.get("next").to_owned(), SavedForm::from_hidden(&form));
            Ok(Page(CodePage { frame, next, saved_form, problem: None }).into_response())
        }
        Err(error) => {
            let (status, problem) = sign_in_error(error)?;
            let (next, saved_form) = (form.get("next").to_owned(), SavedForm::from_hidden(&form));
            let needs_setup = !setup::is_done(&services).await?;
            let page = SignInPage { frame, username, next, saved_form, problem: Some(problem), needs_setup };
            Ok(html(status, &page))
        }
    }
}

/// Checks the second factor and signs in.
pub(in crate::web::console) async fn submit_code(
    State(services): Shared,
    frame: Frame,
    session: Session,
    origin: Origin,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, Failure> {
    let Some(pending) = pending(&services, &session).await? else {
        let (next, saved_form) = (form.get("next").to_owned(), SavedForm::from_hidden(&form));
        let problem =
            Some("Enter your password again. The sign-in has expired, or the password was changed.".to_owned());
        let page = SignInPage { frame, username: String::new(), next, saved_form, problem, needs_setup: false };
        return Ok(html(StatusCode::UNAUTHORIZED, &page));
    };
    match factors::check_code(&services, &origin, &pending, form.get("code")).await {
        Ok(proof) => {
            let keys = renew(&session).await?;
            sign_in::begin(&services, &origin, user_agent(&headers), keys, proof).await?;
            Ok(continue_request(&frame, &form))
        }
        Err(error) => {
            let (status, problem) = sign_in_error(error)?;
            let (next, saved_form) = (form.get("next").to_owned(), SavedForm::from_hidden(&form));
            Ok(html(status, &CodePage { frame, next, saved_form, problem: Some(problem) }))
        }
    }
}

/// Confirms the identity with the password, and continues with the action.
pub(in crate::web::console) async fn confirm(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    match sign_in::confirm_with_password(&services, &admin, form.get("password").to_owned()).await {
        Ok(proof) => {
            renew_proof(&services, &session, &admin, proof).await?;
            Ok(continue_request(&frame, &form))
        }
        Err(error) => {
            let (status, problem) = sign_in_error(error)?;
            let (next, saved_form) = (form.get("next").to_owned(), SavedForm::from_hidden(&form));
            Ok(html(status, &ConfirmPage { frame, next, saved_form, problem: Some(problem) }))
        }
    }
}

pub(in crate::web::console) async fn renew_proof(
    services: &crate::service::Services,
    session: &Session,
    admin: &Admin,
    proof: Proof,
) -> Result<()> {
    let keys = renew(session).await?;
    sign_in::renew(services, admin, keys, proof).await
}

pub(in crate::web::console) async fn sign_out(
    State(services): Shared,
    session: Session,
    admin: Admin,
) -> Result<Response, Failure> {
    sign_in::end(&services, &admin).await?;
    session.flush().await.map_err(failed)?;
    Ok(see_other("/console/sign-in"))
}

/// Continues with the saved form, or with the requested page.
pub(in crate::web::console) fn continue_request(frame: &Frame, form: &Form) -> Response {
    if let Some(saved) = SavedForm::from_hidden(form) {
        let fields = saved.fields();
        return Page(ResendPage { frame: frame.clone(), path: saved.path, fields }).into_response();
    }
    let next = form.get("next");
    see_other(if is_own_path(next) { next } else { "/console" })
}

/// Returns status and message for a failed sign-in attempt, or the error itself if the user cannot fix it.
pub(in crate::web::console) fn sign_in_error(error: Error) -> Result<(StatusCode, String)> {
    match error {
        Error::Unauthenticated(AuthFailure::WrongCredentials) => {
            Ok((StatusCode::UNAUTHORIZED, sentence(error.to_string())))
        }
        Error::RateLimited { retry_after } => {
            let wait = if retry_after < 90 {
                format!("{retry_after} second{}", if retry_after == 1 { "" } else { "s" })
            } else {
                format!("{} minutes", retry_after.div_ceil(60))
            };
            Ok((StatusCode::TOO_MANY_REQUESTS, format!("Too many failed attempts. Wait {wait} and try again.")))
        }
        Error::Invalid(_) => Ok((StatusCode::UNPROCESSABLE_ENTITY, "Check what you entered.".to_owned())),
        other => Err(other),
    }
}
