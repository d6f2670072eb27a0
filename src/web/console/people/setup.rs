//! Creation of the first owner, through the setup link that AIMS prints on the host.

use askama::Template;
use axum::{
    extract::{Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tower_sessions::Session;

use crate::{
    domain::{Administrator, Invalid, Result, Role, Username, person::password::NewPassword},
    service::{
        Origin,
        people::{administrators::NewAdministrator, setup, sign_in},
    },
    web::{
        console::{
            Shared,
            guard::user_agent,
            page::{
                form::{Form, Problems},
                frame::{Frame, Page, see_other, unprocessable},
                session::renew,
            },
        },
        failure::Failure,
        request::fields::Fields,
    },
};

#[derive(Template)]
#[template(path = "sign_in/setup.html")]
struct SetupPage {
    frame: Frame,
    token: String,
    form: Form,
    problems: Problems,
}

#[derive(Deserialize, Default)]
pub(in crate::web::console) struct Link {
    #[serde(default)]
    token: String,
}

/// Shows the setup form if the link is valid.
pub(in crate::web::console) async fn page(
    State(services): Shared,
    frame: Frame,
    origin: Origin,
    Query(Link { token }): Query<Link>,
) -> Result<Response, Failure> {
    setup::check(&services, &origin, &token).await?;
    Ok(Page(SetupPage { frame, token, form: Form::default(), problems: Problems::default() }).into_response())
}

/// Creates the first owner and signs them in.
pub(in crate::web::console) async fn submit(
    State(services): Shared,
    frame: Frame,
    session: Session,
    origin: Origin,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, Failure> {
    let token = form.get("token").to_owned();
    setup::check(&services, &origin, &token).await?;
    let new = match form.read(|fields| read_new(fields, &form, Some(Role::Owner))) {
        Ok(new) => new,
        Err(error) => {
            let problems = Problems::from_error(error, "username")?;
            return Ok(unprocessable(&SetupPage { frame, token, form, problems }));
        }
    };
    let proof = setup::complete(&services, origin.clone(), &token, new).await?;
    let keys = renew(&session).await?;
    sign_in::begin(&services, &origin, user_agent(&headers), keys, proof).await?;
    Ok(see_other("/console"))
}

/// Reads the fields of a new administrator. `role` overrides the form.
pub(in crate::web::console) fn read_new(
    fields: &mut Fields,
    form: &Form,
    role: Option<Role>,
) -> Option<NewAdministrator> {
    let username = fields.required("username", Username::parse);
    let display_name = fields.required("display_name", Administrator::parse_display_name);
    let role = role.or_else(|| fields.required("role", Role::parse));
    let password = read_password(fields, form, username.as_ref());
    Some(NewAdministrator { username: username?, display_name: display_name?, role: role?, password: password? })
}

/// Reads a new password and its confirmation.
pub(in crate::web::console) fn read_password(
    fields: &mut Fields,
    form: &Form,
    username: Option<&Username>,
) -> Option<NewPassword> {
    let placeholder = Username::parse("-").ok()?;
    let password = fields.secret("new_password", |text| NewPassword::parse(text, username.unwrap_or(&placeholder)));
    if password.is_some() && form.get("new_password") != form.get("repeat_password") {
        return fields.secret("repeat_password", |_| Err(Invalid::new("mismatch", "The passwords do not match")));
    }
    password
}
