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
            confirm::{ConfirmPage, Fact},
            guard::Admin,
            page::{
                form::{Form, Problems},
                frame::{Flash, Frame, Moment, Page, back_with_error, unprocessable},
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
    let updated = match read {
        Ok((name, role)) => {
            administrators::update(&services, &admin, id, name.clone(), role).await.map(|()| (name, role))
        }
        Err(error) => Err(error),
    };
    let may_view = |role: Role| role >= Action::ListAdministrators.demands_role();
    match updated {
        Ok((name, role)) if admin.administrator() == Some(id) && !may_view(role) => {
            Flash::done(format!("{name} saved. You are no longer an owner."))
                .link("View account", "/console/account")
                .redirect(&session, "/console")
                .await
        }
        updated => {
            let message = updated.map(|(name, _)| format!("{name} saved. A new role takes effect immediately."));
            respond(&services, &admin, frame, &session, id, message).await
        }
    }
}

/// Asks for confirmation before an administrator is disabled.
pub(in crate::web::console) async fn disable_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let person = administrators::get(&services, &admin, parse_id(&id)?).await?;
    if !person.is_enabled() {
        return Err(Error::Refused("This administrator is already disabled").into());
    }
    if admin.administrator() == Some(person.id) {
        return Err(Error::Refused("You cannot disable yourself").into());
    }
    let sessions = sessions::count_of(&services, &admin, person.id).await?;
    let last_sign_in = person.last_sign_in_at.map(|at| Moment::at(at, services.env.now()));
    let path = path_of(person.id);
    Ok(Page(ConfirmPage {
        frame: frame.at("administrators"),
        parents: vec![
            ("Administrators".to_owned(), "/console/administrators".to_owned()),
            (person.display_name.clone(), path.clone()),
        ],
        verb: "Disable",
        object: person.display_name,
        rest: String::new(),
        note: "They are signed out everywhere immediately, and cannot sign in until you enable the account again."
            .to_owned(),
        facts: vec![
            ("Username", Fact::Text(person.username.to_string())),
            ("Role", Fact::Role(person.role)),
            ("Active sessions that end", Fact::Text(sessions.to_string())),
            ("Last sign-in", Fact::time(last_sign_in, "Never")),
        ],
        action: format!("{path}/disable"),
        fields: Vec::new(),
        button: "Disable administrator",
        cancel: path,
    }))
}

/// Disables an administrator.
pub(in crate::web::console) async fn disable(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let Administrator { id, display_name, .. } = administrators::get(&services, &admin, parse_id(&id)?).await?;
    match administrators::disable(&services, &admin, id).await {
        Ok(()) => back_to_person(&session, id, format!("{display_name} disabled and signed out everywhere.")).await,
        Err(error @ Error::Refused(_)) => back_with_error(&session, &path_of(id), &error).await,
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
    let Administrator { id, display_name, .. } = administrators::get(&services, &admin, parse_id(&id)?).await?;
    administrators::enable(&services, &admin, id).await?;
    back_to_person(&session, id, format!("{display_name} enabled. They can sign in again.")).await
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
    let name = person.display_name;
    let message = reset.map(|()| format!("Password of {name} reset. They are signed out everywhere."));
    respond(&services, &admin, frame, &session, id, message).await
}

fn path_of(id: AdministratorId) -> String {
    format!("/console/administrators/{id}")
}

/// Returns to the page of an administrator, with a message that links to it.
async fn back_to_person(session: &Session, id: AdministratorId, message: String) -> Result<Response, Failure> {
    let path = path_of(id);
    Flash::done(message).link("View administrator", &path).redirect(session, &path).await
}

/// Shows the message of a change that was made, or the page with the problems of one that was not.
async fn respond(
    services: &Services,
    admin: &Admin,
    frame: Frame,
    session: &Session,
    id: AdministratorId,
    outcome: Result<String>,
) -> Result<Response, Failure> {
    match outcome {
        Ok(message) => back_to_person(session, id, message).await,
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
