//! Pages for owners to manage administrators.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use tower_sessions::Session;

use super::{invitations, setup::read_password};
use crate::{
    domain::{Administrator, AdministratorId, Error, Invalid, Result, Role, Timestamp},
    service::{
        Action, Services,
        people::{self, administrators, sessions},
    },
    web::{
        console::{
            Shared,
            guard::Admin,
            page::{
                form::{Form, Problems},
                frame::{Frame, Moment, Page, back_to, back_with_error, unprocessable},
                query::{Params, Query},
            },
        },
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

struct Row {
    id: String,
    username: String,
    display_name: String,
    role: Role,
    status: &'static str,
    created: Moment,
    last_sign_in: Option<Moment>,
    totp: bool,
    passkeys: i64,
}

impl Row {
    fn of(person: &Administrator, passkeys: i64, now: Timestamp) -> Self {
        Self {
            id: person.id.to_string(),
            username: person.username.to_string(),
            display_name: person.display_name.clone(),
            role: person.role,
            status: if person.is_enabled() { "active" } else { "disabled" },
            created: Moment::at(person.created_at, now),
            last_sign_in: person.last_sign_in_at.map(|at| Moment::at(at, now)),
            totp: person.totp_enabled_at.is_some(),
            passkeys,
        }
    }

    /// Returns true if the administrator can sign in and has no second factor.
    fn lacks_factor(&self) -> bool {
        self.status == "active" && !self.totp && self.passkeys == 0
    }
}

/// The query of the list.
pub(in crate::web::console) struct Listing {
    role: Option<Role>,
    /// Only administrators without a second factor.
    without_factor: bool,
}

impl FromQuery for Listing {
    fn read(fields: &mut Fields) -> Option<Self> {
        let none = |text: &str| if text == "none" { Ok(()) } else { Err(Invalid::NotOneOf(&["none"])) };
        Some(Self {
            role: fields.optional("role", Role::parse),
            without_factor: fields.optional("factor", none).is_some(),
        })
    }
}

#[derive(Template)]
#[template(path = "administrators/list.html")]
struct ListPage {
    frame: Frame,
    people: Vec<Row>,
    invitations: Vec<invitations::Row>,
    /// Number of enabled administrators without a second factor.
    without_factor: usize,
    params: Params,
}

/// Lists administrators and invitations.
pub(in crate::web::console) async fn list(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Query(listing, params): Query<Listing>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let now = services.env.now();
    let people = administrators::list(&services, &admin).await?;
    let passkeys = administrators::passkey_counts(&services, &admin).await?;
    let passkeys_of = |person: &Administrator| passkeys.get(&person.id).copied().unwrap_or_default();
    let mut people: Vec<_> = people.iter().map(|person| Row::of(person, passkeys_of(person), now)).collect();
    let without_factor = people.iter().filter(|person| person.lacks_factor()).count();
    people.retain(|person| listing.role.is_none_or(|role| person.role == role));
    people.retain(|person| !listing.without_factor || person.lacks_factor());
    let invitations = people::invitations::list(&services, &admin).await?;
    let invitations = invitations.into_iter().map(|invited| invitations::Row::of(invited, now)).collect();
    Ok(Page(ListPage { frame: frame.at("administrators"), people, invitations, without_factor, params }))
}

#[derive(Template)]
#[template(path = "administrators/show.html")]
struct ShowPage {
    frame: Frame,
    person: Row,
    sessions: usize,
    /// True if this is the account of the signed-in administrator.
    own: bool,
    problems: Problems,
}

impl ShowPage {
    async fn of(services: &Services, admin: &Admin, frame: Frame, id: AdministratorId) -> Result<Self> {
        let person = administrators::get(services, admin, id).await?;
        let passkeys = administrators::passkey_counts(services, admin).await?.get(&id).copied().unwrap_or_default();
        Ok(Self {
            frame: frame.at("administrators"),
            person: Row::of(&person, passkeys, services.env.now()),
            sessions: sessions::count_of(services, admin, id).await?,
            own: admin.administrator() == Some(id),
            problems: Problems::default(),
        })
    }
}

/// Shows an administrator.
pub(in crate::web::console) async fn show(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    Ok(Page(ShowPage::of(&services, &admin, frame, parse_id(&id)?).await?))
}

/// Edits the name and the role of an administrator.
pub(in crate::web::console) async fn update(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let id = parse_id(&id)?;
    let read = form.read(|fields| {
        let display_name = fields.required("display_name", Administrator::parse_display_name);
        let role = fields.required("role", Role::parse);
        Some((display_name?, role?))
    });
    let role = read.as_ref().ok().map(|(_, role)| *role);
    let updated = match read {
        Ok((display_name, role)) => administrators::update(&services, &admin, id, display_name, role).await,
        Err(error) => Err(error),
    };
    let may_view = role.is_none_or(|role| role >= Action::ListAdministrators.demands_role());
    if updated.is_ok() && admin.administrator() == Some(id) && !may_view {
        return back_to(&session, "/console", "Changes saved. You are no longer an owner.").await;
    }
    respond(&services, &admin, frame, &session, id, updated, "Changes saved. A new role takes effect immediately.")
        .await
}

/// Disables an administrator.
pub(in crate::web::console) async fn disable(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id = parse_id(&id)?;
    let path = format!("/console/administrators/{id}");
    match administrators::disable(&services, &admin, id).await {
        Ok(()) => back_to(&session, &path, "Administrator disabled and signed out everywhere.").await,
        Err(error @ Error::Refused(_)) => back_with_error(&session, &path, &error).await,
        Err(error) => Err(error.into()),
    }
}

/// Enables a disabled administrator.
pub(in crate::web::console) async fn enable(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let id = parse_id(&id)?;
    administrators::enable(&services, &admin, id).await?;
    back_to(&session, &format!("/console/administrators/{id}"), "Administrator enabled. They can sign in again.").await
}

/// Resets the password of another administrator.
pub(in crate::web::console) async fn reset_password(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let id = parse_id(&id)?;
    let person = administrators::get(&services, &admin, id).await?;
    let reset = match form.read(|fields| read_password(fields, &form, Some(&person.username))) {
        Ok(password) => {
            administrators::reset_password(&services, &admin, id, password, form.is_checked("every_factor")).await
        }
        Err(error) => Err(error),
    };
    respond(&services, &admin, frame, &session, id, reset, "Password reset. They are signed out everywhere.").await
}

async fn respond(
    services: &Services,
    admin: &Admin,
    frame: Frame,
    session: &Session,
    id: AdministratorId,
    outcome: Result<()>,
    message: &str,
) -> Result<Response, Failure> {
    match outcome {
        Ok(()) => back_to(session, &format!("/console/administrators/{id}"), message).await,
        Err(error) => {
            let problems = Problems::from_error(error, "")?;
            let page = ShowPage::of(services, admin, frame, id).await?;
            Ok(unprocessable(&ShowPage { problems, ..page }))
        }
    }
}

pub(super) fn parse_id(id: &str) -> Result<AdministratorId> {
    AdministratorId::parse(id).ok_or(Error::NotFound("Administrator"))
}
