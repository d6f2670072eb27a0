//! Invitations: the pages for owners, and the page with which an invited person creates their account.
//!
//! The address that an owner hands over contains the token. Opening it keeps the token's hash in the session and
//! redirects to an address without it, so that the token gets into no `Referer`, no bookmark and no page.

use askama::Template;
use axum::{
    extract::{Path, Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tower_sessions::Session;

use super::setup::read_new;
use crate::{
    domain::{Denial, Error, Invitation, InvitationId, Result, Role, Timestamp},
    service::{
        Origin, Services,
        people::{
            invitations::{self, Invited, TokenHash},
            sign_in,
        },
    },
    web::{
        console::{
            Shared,
            confirm::{ConfirmPage, Fact},
            guard::{Admin, user_agent},
            page::{
                form::{Form, Problems},
                frame::{Frame, INVITATION, Moment, Page, back_to, see_other, unprocessable},
                session::{failed, renew},
            },
        },
        failure::Failure,
    },
};

/// Session field: the hash of the token in the link that this browser opened.
const OPENED: &str = "invitation";

/// An invitation in the list of administrators.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) recipient: String,
    pub(super) role: Role,
    pub(super) inviter: String,
    pub(super) expires: Moment,
    pub(super) is_expired: bool,
    pub(super) inviter_is_owner: bool,
}

impl Row {
    pub(super) fn of(invited: Invited, now: Timestamp) -> Self {
        let Invited { invitation, inviter, inviter_is_owner } = invited;
        Self {
            id: invitation.id.to_string(),
            recipient: invitation.recipient,
            role: invitation.role,
            inviter: inviter.to_string(),
            expires: Moment::at(invitation.expires_at, now),
            is_expired: invitation.expires_at <= now,
            inviter_is_owner,
        }
    }
}

#[derive(Template)]
#[template(path = "invitations/new.html")]
struct NewPage {
    frame: Frame,
    form: Form,
    problems: Problems,
}

#[derive(Template)]
#[template(path = "invitations/created.html")]
struct CreatedPage {
    frame: Frame,
    recipient: String,
    role: Role,
    link: String,
    expires: Moment,
    /// Whether the link replaces an earlier one.
    is_renewed: bool,
}

impl CreatedPage {
    fn of(services: &Services, frame: Frame, invitation: Invitation, link: String, is_renewed: bool) -> Self {
        let expires = Moment::at(invitation.expires_at, services.env.now());
        let Invitation { recipient, role, .. } = invitation;
        Self { frame: frame.at("administrators"), recipient, role, link, expires, is_renewed }
    }
}

/// Shows the form for an invitation.
pub(in crate::web::console) async fn new_page(frame: Frame) -> impl IntoResponse {
    Page(NewPage { frame: frame.at("administrators"), form: Form::default(), problems: Problems::default() })
}

/// Creates an invitation and shows its link.
pub(in crate::web::console) async fn create(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let read = form.read(|fields| {
        let recipient = fields.required("recipient", Invitation::parse_recipient);
        let role = fields.required("role", Role::parse);
        Some((recipient?, role?))
    });
    let created = match read {
        Ok((recipient, role)) => invitations::create(&services, &admin, recipient, role).await,
        Err(error) => Err(error),
    };
    match created {
        Ok((invitation, token)) => {
            let link = invitations::link(&services, &token);
            Ok(Page(CreatedPage::of(&services, frame, invitation, link, false)).into_response())
        }
        Err(error) => {
            let problems = Problems::from_error(error, "recipient")?;
            Ok(unprocessable(&NewPage { frame: frame.at("administrators"), form, problems }))
        }
    }
}

/// Replaces the link of an invitation and shows the new one.
pub(in crate::web::console) async fn renew_link(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let (invitation, token) = invitations::renew(&services, &admin, parse_id(&id)?).await?;
    let link = invitations::link(&services, &token);
    Ok(Page(CreatedPage::of(&services, frame, invitation, link, true)))
}

/// Asks for confirmation before an invitation is withdrawn.
pub(in crate::web::console) async fn withdraw_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let (id, all) = (parse_id(&id)?, invitations::list(&services, &admin).await?);
    let found = all.into_iter().find(|invited| invited.invitation.id == id);
    let row = Row::of(found.ok_or(Error::NotFound("Invitation"))?, services.env.now());
    let cancel = "/console/administrators".to_owned();
    Ok(Page(ConfirmPage {
        frame: frame.at("administrators"),
        parents: vec![("Administrators".to_owned(), cancel.clone())],
        verb: "Withdraw the invitation for",
        object: row.recipient,
        rest: String::new(),
        note: "Its link stops working immediately. You can invite the person again.".to_owned(),
        facts: vec![
            ("Role", Fact::Role(row.role)),
            ("Invited by", Fact::Text(row.inviter)),
            (if row.is_expired { "Link expired" } else { "Link expires" }, Fact::Time(row.expires)),
        ],
        action: format!("{cancel}/invitations/{id}/withdraw"),
        fields: Vec::new(),
        button: "Withdraw invitation",
        cancel,
    }))
}

/// Withdraws an invitation.
pub(in crate::web::console) async fn withdraw(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let Invitation { recipient, .. } = invitations::withdraw(&services, &admin, parse_id(&id)?).await?;
    let message = format!("Invitation for {recipient} withdrawn. Its link no longer works.");
    back_to(&session, "/console/administrators", message).await
}

fn parse_id(id: &str) -> Result<InvitationId> {
    InvitationId::parse(id).ok_or(Error::NotFound("Invitation"))
}

#[derive(Deserialize, Default)]
pub(in crate::web::console) struct Link {
    #[serde(default)]
    token: String,
}

#[derive(Template)]
#[template(path = "invitations/accept.html")]
struct AcceptPage {
    frame: Frame,
    inviter: String,
    role: Role,
    expires: Moment,
    form: Form,
    problems: Problems,
}

impl AcceptPage {
    fn of(services: &Services, frame: Frame, invited: &Invited) -> Self {
        let expires = Moment::at(invited.invitation.expires_at, services.env.now());
        Self {
            frame,
            inviter: invited.inviter.to_string(),
            role: invited.invitation.role,
            expires,
            form: Form::default(),
            problems: Problems::default(),
        }
    }
}

#[derive(Template)]
#[template(path = "invitations/signed_in.html")]
struct SignedInPage {
    frame: Frame,
}

/// Opens an invitation link, or shows the form of the one that was opened.
pub(in crate::web::console) async fn page(
    State(services): Shared,
    frame: Frame,
    session: Session,
    origin: Origin,
    Query(Link { token }): Query<Link>,
) -> Result<Response, Failure> {
    if frame.person.is_some() {
        return Ok(Page(SignedInPage { frame }).into_response());
    }
    if !token.is_empty() {
        return open(&services, &session, &origin, &token).await;
    }
    let invited = invitations::check(&services, &origin, opened(&session).await?).await?;
    Ok(Page(AcceptPage::of(&services, frame, &invited)).into_response())
}

async fn open(services: &Services, session: &Session, origin: &Origin, token: &str) -> Result<Response, Failure> {
    let hash = invitations::hash_of(token);
    // A session begins only with a valid link, so that guessing does not fill the database.
    invitations::check(services, origin, hash).await?;
    session.insert(OPENED, hash).await.map_err(failed)?;
    Ok(see_other(INVITATION))
}

async fn opened(session: &Session) -> Result<TokenHash> {
    let stored = session.get_value(OPENED).await.map_err(failed)?;
    let hash = stored.and_then(|stored| serde_json::from_value(stored).ok());
    Ok(hash.ok_or(Denial::InvitationLink)?)
}

/// Creates the account of an invited person, signs them in, and offers them a second factor.
pub(in crate::web::console) async fn accept(
    State(services): Shared,
    frame: Frame,
    session: Session,
    origin: Origin,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, Failure> {
    if frame.person.is_some() {
        return Ok(see_other(INVITATION));
    }
    let hash = opened(&session).await?;
    let invited = invitations::check(&services, &origin, hash).await?;
    let role = invited.invitation.role;
    let accepted = match form.read(|fields| read_new(fields, &form, Some(role))) {
        Ok(new) => invitations::accept(&services, origin.clone(), hash, new).await,
        Err(error) => Err(error),
    };
    match accepted {
        Ok(proof) => {
            session.remove_value(OPENED).await.map_err(failed)?;
            let keys = renew(&session).await?;
            sign_in::begin(&services, &origin, user_agent(&headers), keys, proof).await?;
            let message = "Your account is ready. Protect it with a second factor: add an authenticator app or a \
                passkey below.";
            back_to(&session, "/console/account", message).await
        }
        Err(error) => {
            let problems = Problems::from_error(error, "username")?;
            let page = AcceptPage::of(&services, frame, &invited);
            Ok(unprocessable(&AcceptPage { form, problems, ..page }))
        }
    }
}
