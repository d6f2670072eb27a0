//! Passkey ceremonies (WebAuthn): each has a request for options and a request with the credential.

use axum::{
    Json,
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use serde_json::Value;
use tower_sessions::Session;

use super::sign_in::{continue_request, renew_proof, sign_in_error};
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
                error::{ConfirmPage, SavedForm, SignInPage},
                form::{Form, message},
                frame::{Frame, back_to, back_with_error, html},
                session::{failed, pending, renew},
            },
        },
        failure::Failure,
    },
};

/// Session field: the state of the current ceremony. A session has one ceremony at a time.
const CEREMONY: &str = "passkey_ceremony";

async fn start_ceremony(session: &Session, begun: Begun) -> Result<Json<Value>> {
    session.insert(CEREMONY, begun.state).await.map_err(failed)?;
    Ok(Json(begun.options))
}

/// Takes the state of the current ceremony, so that it cannot be used twice.
async fn take_ceremony(session: &Session) -> Result<String> {
    Ok(session.remove(CEREMONY).await.map_err(failed)?.unwrap_or_default())
}

/// Returns the options for a passkey that replaces the password, or the code of a second factor.
pub(in crate::web::console) async fn sign_in_options(
    State(services): Shared,
    session: Session,
) -> Result<Json<Value>, Failure> {
    let begun = match pending(&services, &session).await? {
        Some(pending) => passkeys::begin_proof(&services, pending.administrator()).await?,
        None => passkeys::begin_sign_in(&services)?,
    };
    Ok(start_ceremony(&session, begun).await?)
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
    let (pending, state) = (pending(&services, &session).await?, take_ceremony(&session).await?);
    let credential = form.get("credential");
    let proved = match pending {
        Some(pending) => passkeys::finish_proof(&services, &origin, pending.administrator(), &state, credential).await,
        None => passkeys::finish_sign_in(&services, &origin, &state, credential).await,
    };
    match proved {
        Ok(proof) => {
            let keys = renew(&session).await?;
            sign_in::begin(&services, &origin, user_agent(&headers), keys, proof).await?;
            Ok(continue_request(&frame, &form))
        }
        Err(error) => {
            let (status, problem) = sign_in_error(error)?;
            let (next, saved_form) = (form.get("next").to_owned(), SavedForm::from_hidden(&form));
            let problem = Some(problem);
            let page = SignInPage { frame, username: String::new(), next, saved_form, problem, needs_setup: false };
            Ok(html(status, &page))
        }
    }
}

/// Returns the options for a passkey that confirms the identity.
pub(in crate::web::console) async fn confirm_options(
    State(services): Shared,
    session: Session,
    admin: Admin,
) -> Result<Json<Value>, Failure> {
    let id = admin.administrator().ok_or(AuthFailure::NoSession)?;
    Ok(start_ceremony(&session, passkeys::begin_proof(&services, id).await?).await?)
}

/// Confirms the identity with a passkey, and continues with the action.
pub(in crate::web::console) async fn confirm(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let id = admin.administrator().ok_or(AuthFailure::NoSession)?;
    let state = take_ceremony(&session).await?;
    match passkeys::finish_proof(&services, &admin.origin, id, &state, form.get("credential")).await {
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

/// Returns to the account page after the identity is confirmed. The script opens this page when the options require a
/// recent proof.
pub(in crate::web::console) async fn ready(session: Session) -> Result<Response, Failure> {
    back_to(&session, "/console/account", "Identity confirmed. You can add the passkey now.").await
}

/// Returns the options for a new passkey.
pub(in crate::web::console) async fn register_options(
    State(services): Shared,
    session: Session,
    admin: Admin,
) -> Result<Json<Value>, Failure> {
    Ok(start_ceremony(&session, passkeys::begin_registration(&services, &admin).await?).await?)
}

/// Stores a new passkey.
pub(in crate::web::console) async fn register(
    State(services): Shared,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    const ACCOUNT: &str = "/console/account";
    let state = take_ceremony(&session).await?;
    let registered = match form.read(|fields| fields.required("name", Passkey::parse_name)) {
        Ok(name) => {
            let credential = form.get("credential");
            passkeys::finish_registration(&services, &admin, &state, name.clone(), credential).await.map(|()| name)
        }
        Err(error) => Err(error),
    };
    match registered {
        Ok(name) => back_to(&session, ACCOUNT, format!("Passkey {name} added. You can sign in with it now.")).await,
        Err(Error::Invalid(fields)) => {
            let reason = fields.first().map_or_else(String::new, |field| message(&field.invalid));
            back_with_error(&session, ACCOUNT, &Error::Conflict(format!("The passkey was not added. {reason}").into()))
                .await
        }
        Err(error @ Error::Conflict(_)) => back_with_error(&session, ACCOUNT, &error).await,
        Err(error) => Err(error.into()),
    }
}

/// Deletes a passkey.
pub(in crate::web::console) async fn delete(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id = PasskeyId::parse(&id).ok_or(Error::NotFound("Passkey"))?;
    let own = passkeys::own(&services, &admin).await?;
    let passkey = own.into_iter().find(|passkey| passkey.id == id).ok_or(Error::NotFound("Passkey"))?;
    passkeys::remove(&services, &admin, id).await?;
    back_to(&session, "/console/account", format!("Passkey {} deleted.", passkey.name)).await
}
