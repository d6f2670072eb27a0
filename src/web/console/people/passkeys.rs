//! The two halves of every ceremony with a passkey: what the browser is asked, and what it answers.

use axum::{
    Json,
    extract::{Path, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tower_sessions::Session;

use super::sign_in::{carry_on, in_words, proved_again};
use crate::{
    domain::{AuthFailure, Error, PasskeyId, Result, person::administrator::Passkey},
    service::{
        Origin,
        people::{
            passkeys::{self, Begun},
            sign_in,
        },
    },
    web::{
        console::{
            Shared,
            guard::{Admin, user_agent},
            page::{
                error::{ConfirmPage, SignInPage, Waiting},
                form::Form,
                frame::{Frame, back_to, html, refused},
                session::{failed, pending, renew},
            },
        },
        failure::Failure,
    },
};

/// The state of the one ceremony that a session may have under way.
const CEREMONY: &str = "passkey_ceremony";

async fn ask(session: &Session, begun: Begun) -> Result<Json<Value>> {
    session.insert(CEREMONY, begun.state).await.map_err(failed)?;
    Ok(Json(begun.options))
}

/// The state of the ceremony under way, which counts once.
async fn answered(session: &Session) -> Result<String> {
    Ok(session.remove(CEREMONY).await.map_err(failed)?.unwrap_or_default())
}

/// Asks for a passkey in the place of a password, or of a code.
pub(in crate::web::console) async fn sign_in_options(
    State(services): Shared,
    session: Session,
) -> Result<Json<Value>, Failure> {
    let begun = match pending(&services, &session).await? {
        Some(pending) => passkeys::begin_proof(&services, pending.administrator()).await?,
        None => passkeys::begin_sign_in(&services)?,
    };
    Ok(ask(&session, begun).await?)
}

/// Signs in with a passkey.
pub(in crate::web::console) async fn sign_in(
    State(services): Shared,
    frame: Frame,
    session: Session,
    origin: Origin,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, Failure> {
    let (pending, state) = (pending(&services, &session).await?, answered(&session).await?);
    let answer = form.get("credential");
    let proved = match pending {
        Some(pending) => passkeys::finish_proof(&services, &origin, pending.administrator(), &state, answer).await,
        None => passkeys::finish_sign_in(&services, &origin, &state, answer).await,
    };
    match proved {
        Ok(proof) => {
            let keys = renew(&session).await?;
            sign_in::begin(&services, &origin, user_agent(&headers), keys, proof).await?;
            Ok(carry_on(&frame, &form))
        }
        Err(error) => {
            let (status, problem) = in_words(error)?;
            let (next, waiting) = (form.get("next").to_owned(), Waiting::carried(&form));
            let page = SignInPage { frame, username: String::new(), next, waiting, problem: Some(problem) };
            Ok(html(status, &page))
        }
    }
}

/// Asks for a passkey as the proof that an act wants.
pub(in crate::web::console) async fn confirm_options(
    State(services): Shared,
    session: Session,
    admin: Admin,
) -> Result<Json<Value>, Failure> {
    let id = admin.administrator().ok_or(AuthFailure::NoSession)?;
    Ok(ask(&session, passkeys::begin_proof(&services, id).await?).await?)
}

/// Takes a passkey as the proof that an act wants, and goes on with the act.
pub(in crate::web::console) async fn confirm(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let id = admin.administrator().ok_or(AuthFailure::NoSession)?;
    let state = answered(&session).await?;
    match passkeys::finish_proof(&services, &admin.origin, id, &state, form.get("credential")).await {
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

/// Returns to the account page after the guard has asked for a recent proof. The script learns only that the options are refused,
/// and sends the browser here.
pub(in crate::web::console) async fn ready(session: Session) -> Result<Response, Failure> {
    back_to(&session, "/console/account", "Confirmed. Add the passkey now.").await
}

/// Asks the browser to make a passkey.
pub(in crate::web::console) async fn register_options(
    State(services): Shared,
    session: Session,
    admin: Admin,
) -> Result<Json<Value>, Failure> {
    Ok(ask(&session, passkeys::begin_registration(&services, &admin).await?).await?)
}

/// Keeps the passkey that the browser made.
pub(in crate::web::console) async fn register(
    State(services): Shared,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    const ACCOUNT: &str = "/console/account";
    let state = answered(&session).await?;
    let registered = match form.read(|fields| fields.required("name", Passkey::parse_name)) {
        Ok(name) => passkeys::finish_registration(&services, &admin, &state, name, form.get("credential")).await,
        Err(error) => Err(error),
    };
    match registered {
        Ok(()) => back_to(&session, ACCOUNT, "The passkey signs you in from now on.").await,
        Err(Error::Invalid(fields)) => {
            let told = fields.first().map_or_else(String::new, |field| field.invalid.message.clone());
            refused(&session, ACCOUNT, &Error::Conflict(format!("The passkey was not kept. {told}.").into())).await
        }
        Err(error @ Error::Conflict(_)) => refused(&session, ACCOUNT, &error).await,
        Err(error) => Err(error.into()),
    }
}

/// Removes a passkey.
pub(in crate::web::console) async fn remove(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id = PasskeyId::parse(&id).ok_or(Error::NotFound("Passkey"))?;
    passkeys::remove(&services, &admin, id).await?;
    Ok(back_to(&session, "/console/account", "The passkey is removed.").await?.into_response())
}
