//! The page for owners to reset one second factor of another administrator.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use tower_sessions::Session;

use super::administrators::parse_id;
use crate::{
    domain::{Administrator, AdministratorId, Error, Result},
    service::{
        Services,
        people::{
            administrators,
            factors::{self, Kind},
            sessions,
        },
    },
    web::{
        console::{
            Shared,
            guard::Admin,
            page::frame::{Flash, Frame, Page, back_with_error},
        },
        failure::Failure,
    },
};

#[derive(Template)]
#[template(path = "administrators/reset_factor.html")]
struct ResetPage {
    frame: Frame,
    id: AdministratorId,
    name: String,
    username: String,
    kind: Kind,
    /// The last part of the path.
    path: String,
    totp: bool,
    passkeys: i64,
    sessions: usize,
}

/// Shows what resetting a second factor changes.
pub(in crate::web::console) async fn page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path((id, path)): Path<(String, String)>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let (id, kind) = (parse_id(&id)?, parse_kind(&path)?);
    let (person, passkeys) = load(&services, &admin, id).await?;
    Ok(Page(ResetPage {
        frame: frame.at("administrators"),
        id,
        name: person.display_name,
        username: person.username.to_string(),
        kind,
        path,
        totp: person.totp_enabled_at.is_some(),
        passkeys,
        sessions: sessions::count_of(&services, &admin, id).await?,
    }))
}

async fn load(services: &Services, admin: &Admin, id: AdministratorId) -> Result<(Administrator, i64)> {
    let person = administrators::get(services, admin, id).await?;
    let passkeys = administrators::passkey_counts(services, admin).await?.get(&id).copied().unwrap_or_default();
    Ok((person, passkeys))
}

/// Resets a second factor.
pub(in crate::web::console) async fn reset(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path((id, path)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let (id, kind) = (parse_id(&id)?, parse_kind(&path)?);
    let person = administrators::get(&services, &admin, id).await?;
    let back = format!("/console/administrators/{id}");
    match factors::reset(&services, &admin, id, kind).await {
        Ok(()) => {
            let what = if kind == Kind::Authenticator { "Authenticator app" } else { "Passkeys" };
            let message = format!("{what} removed, all sessions ended:");
            Flash::done(message).link(person.display_name, &back).redirect(&session, &back).await
        }
        Err(error @ Error::Refused(_)) => back_with_error(&session, &back, &error).await,
        Err(error) => Err(error.into()),
    }
}

fn parse_kind(path: &str) -> Result<Kind> {
    match path {
        "authenticator" => Ok(Kind::Authenticator),
        "passkeys" => Ok(Kind::Passkeys),
        _ => Err(Error::NotFound("Page")),
    }
}
