//! The account page: sessions, password, authenticator app and passkeys.

use askama::Template;
use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use secrecy::ExposeSecret;
use tower_sessions::Session;

use super::{qr, setup::read_password};
use crate::{
    domain::{AuthFailure, Error, Result, SessionId, Timestamp, person::administrator},
    service::{
        Services,
        people::{
            account,
            factors::{self, Overview},
            passkeys,
            sessions::{self, Ending},
            sign_in,
        },
    },
    web::{
        console::{
            Shared,
            guard::{Admin, user_agent},
            page::{
                form::{Form, Problems},
                frame::{Frame, Moment, Page, back_to, see_other, unprocessable},
                session::{failed, renew},
            },
        },
        failure::Failure,
    },
};

/// Session field: the encrypted secret of an authenticator app that is not confirmed yet.
const NEW_SECRET: &str = "new_totp_secret";

#[derive(Template)]
#[template(path = "account/page.html")]
struct AccountPage {
    frame: Frame,
    sessions: Vec<SessionRow>,
    factors: Overview,
    passkeys: Vec<PasskeyRow>,
    passkeys_available: bool,
    password_changed: Option<Moment>,
    problems: Problems,
}

struct PasskeyRow {
    id: String,
    name: String,
    created: Moment,
    last_used: Option<Moment>,
}

impl PasskeyRow {
    fn of(passkey: &administrator::Passkey, now: Timestamp) -> Self {
        Self {
            id: passkey.id.to_string(),
            name: passkey.name.clone(),
            created: Moment::at(passkey.created_at, now),
            last_used: passkey.last_used_at.map(|at| Moment::at(at, now)),
        }
    }
}

struct SessionRow {
    id: String,
    this: bool,
    ip: Option<String>,
    browser: String,
    signed_in: Moment,
    last_seen: Moment,
}

impl SessionRow {
    fn of(session: &administrator::Session, this: Option<SessionId>, now: Timestamp) -> Self {
        Self {
            id: session.id.to_string(),
            this: this == Some(session.id),
            ip: session.ip.clone(),
            browser: browser(session.user_agent.as_deref().unwrap_or_default()),
            signed_in: Moment::at(session.signed_in_at, now),
            last_seen: Moment::at(session.last_seen_at, now),
        }
    }
}

/// Returns the name of a browser and its operating system, to tell sessions apart.
fn browser(user_agent: &str) -> String {
    const BROWSERS: [(&str, &str); 6] = [
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ];
    const SYSTEMS: [(&str, &str); 6] = [
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
    ];
    let find = |names: &[(&str, &'static str)]| {
        names.iter().find(|(mark, _)| user_agent.contains(mark)).map(|(_, name)| *name)
    };
    match (find(&BROWSERS), find(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(name), None) | (None, Some(name)) => name.to_owned(),
        (None, None) => "Unknown browser".to_owned(),
    }
}

impl AccountPage {
    async fn of(services: &Services, admin: &Admin, frame: Frame) -> Result<Self> {
        let now = services.env.now();
        let sessions = sessions::own(services, admin).await?;
        let frame = frame.at("account");
        Ok(Self {
            sessions: sessions.iter().map(|session| SessionRow::of(session, admin.session(), now)).collect(),
            factors: factors::own(services, admin).await?,
            passkeys: passkeys::own(services, admin).await?.iter().map(|key| PasskeyRow::of(key, now)).collect(),
            passkeys_available: passkeys::are_available(services),
            password_changed: frame.person.as_ref().map(|person| Moment::at(person.password_changed_at, now)),
            frame,
            problems: Problems::default(),
        })
    }
}

/// Shows the account page.
pub(in crate::web::console) async fn page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
) -> Result<impl IntoResponse + use<>, Failure> {
    Ok(Page(AccountPage::of(&services, &admin, frame).await?))
}

/// Changes the password. Ends every other session, and continues this one under a new cookie.
pub(in crate::web::console) async fn change_password(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, Failure> {
    let username = admin.0.administrator.username.clone();
    let changed = match form.read(|fields| read_password(fields, &form, Some(&username))) {
        Ok(password) => {
            account::change_password(&services, &admin, form.get("present_password").to_owned(), password).await
        }
        Err(error) => Err(error),
    };
    match changed {
        Ok(proof) => {
            let keys = renew(&session).await?;
            sign_in::begin(&services, &admin.origin, user_agent(&headers), keys, proof).await?;
            back_to(&session, "/console/account", "Password changed. Your other sessions are signed out.").await
        }
        Err(error) => {
            let problems = match error {
                Error::Unauthenticated(AuthFailure::WrongCredentials) => {
                    Problems::one("present_password", "The current password is incorrect")
                }
                Error::RateLimited { .. } => {
                    Problems::one("present_password", "Too many attempts. Wait a moment and try again")
                }
                other => Problems::from_error(other, "")?,
            };
            let page = AccountPage::of(&services, &admin, frame).await?;
            Ok(unprocessable(&AccountPage { problems, ..page }))
        }
    }
}

/// Ends sessions: one, all others, or all.
pub(in crate::web::console) async fn end_sessions(
    State(services): Shared,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let own = admin.session().ok_or(AuthFailure::NoSession)?;
    let ending = match (form.get("end"), SessionId::parse(form.get("end"))) {
        ("others", _) => Ending::AllBut(own),
        ("all", _) => Ending::All,
        (_, Some(id)) => Ending::One(id),
        _ => return Err(Error::NotFound("Session").into()),
    };
    let ended = match sessions::end_own(&services, &admin, ending).await {
        Err(Error::NotFound(_)) if ending == Ending::AllBut(own) => 0,
        ended => ended?,
    };
    if matches!(ending, Ending::All) || ending == Ending::One(own) {
        session.flush().await.map_err(failed)?;
        return Ok(see_other("/console/sign-in"));
    }
    let message = match ended {
        0 => "There are no other sessions.".to_owned(),
        1 => "1 session signed out.".to_owned(),
        more => format!("{more} sessions signed out."),
    };
    back_to(&session, "/console/account", message).await
}

#[derive(Template)]
#[template(path = "account/authenticator.html")]
struct AuthenticatorPage {
    frame: Frame,
    secret: String,
    /// The QR code as an SVG path, and its size in modules.
    qr: (String, i32),
    problems: Problems,
}

#[derive(Template)]
#[template(path = "account/recovery_codes.html")]
struct RecoveryCodesPage {
    frame: Frame,
    codes: Vec<String>,
}

/// Shows the secret of a new authenticator app.
pub(in crate::web::console) async fn authenticator_page(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
) -> Result<impl IntoResponse + use<>, Failure> {
    let (secret, sealed) = factors::new_totp(&services, &admin).await?;
    session.insert(NEW_SECRET, sealed).await.map_err(failed)?;
    Ok(Page(show_secret(frame, &admin, &secret, Problems::default())?))
}

fn show_secret(
    frame: Frame,
    admin: &Admin,
    secret: &factors::TotpSecret,
    problems: Problems,
) -> Result<AuthenticatorPage> {
    let uri = secret.to_uri(admin.0.administrator.username.as_str());
    Ok(AuthenticatorPage {
        frame: frame.at("account"),
        secret: secret.to_base32().expose_secret().to_owned(),
        qr: qr::path(uri.expose_secret())?,
        problems,
    })
}

/// Turns on the authenticator app, and shows the recovery codes.
pub(in crate::web::console) async fn enable_authenticator(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let stored = session.get_value(NEW_SECRET).await.map_err(failed)?;
    let sealed: Option<Vec<u8>> = stored.and_then(|stored| serde_json::from_value(stored).ok());
    let Some(secret) = sealed.and_then(|sealed| factors::open_new_totp(&services, &admin, &sealed)) else {
        return Ok(see_other("/console/account/authenticator"));
    };
    match factors::enable_totp(&services, &admin, &secret, form.get("code")).await {
        Ok(codes) => {
            session.remove_value(NEW_SECRET).await.map_err(failed)?;
            let codes = codes.iter().map(|code| code.expose().to_owned()).collect();
            Ok(Page(RecoveryCodesPage { frame: frame.at("account"), codes }).into_response())
        }
        Err(error) => {
            let problems = Problems::from_error(error, "")?;
            Ok(unprocessable(&show_secret(frame, &admin, &secret, problems)?))
        }
    }
}

/// Turns off the authenticator app.
pub(in crate::web::console) async fn disable_authenticator(
    State(services): Shared,
    session: Session,
    admin: Admin,
) -> Result<Response, Failure> {
    factors::disable_totp(&services, &admin).await?;
    back_to(&session, "/console/account", "Authenticator app turned off.").await
}

/// Creates new recovery codes.
pub(in crate::web::console) async fn renew_recovery_codes(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
) -> Result<Response, Failure> {
    let codes = factors::renew_recovery_codes(&services, &admin).await?;
    let codes = codes.iter().map(|code| code.expose().to_owned()).collect();
    Ok(Page(RecoveryCodesPage { frame: frame.at("account"), codes }).into_response())
}
