//! Finding the owner of a leaked key. The key is submitted in a form, so that it gets into no URL, log or page.

use axum::{extract::State, response::Response};
use tower_sessions::Session;

use super::fleet::PATH;
use crate::{
    domain::{ApiKey, Error, Result},
    service::{
        Services, agents,
        credentials::fleet::{self, Found},
    },
    web::{
        console::{
            Shared,
            guard::Admin,
            page::{form::Form, frame::Flash},
        },
        failure::Failure,
    },
};

/// Leads to the key that the pasted text contains, or to the keys with its prefix.
pub(in crate::web::console) async fn find_leaked(
    State(services): Shared,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let refused = |message| Flash::failed(&Error::Refused(message));
    match fleet::find(&services, &admin, form.get("leaked_key")).await? {
        Found::Key(key) => lead_to(&services, &session, &admin, &key).await,
        Found::Prefix(prefix) => {
            let query = serde_urlencoded::to_string([("q", &prefix)]).unwrap_or_default();
            let message = "No key has exactly this value. These keys start like it.";
            Flash::done(message).redirect(&session, &format!("{PATH}?{query}")).await
        }
        Found::NoKey => {
            let message = "Paste an API key, or its beginning. API keys start with “aims_”";
            refused(message).redirect(&session, PATH).await
        }
        Found::Unknown => {
            let message = "No agent has this key. It was issued by another installation, or its agent was deleted";
            refused(message).redirect(&session, PATH).await
        }
    }
}

async fn lead_to(services: &Services, session: &Session, admin: &Admin, key: &ApiKey) -> Result<Response, Failure> {
    let agent = agents::get(services, admin, key.agent_id).await?;
    let message = format!("This is the key {} of {}. Its owner is {}.", key.name, agent.name, agent.owner);
    Flash::done(message).redirect(session, &format!("/console/agents/{}/keys/{}", agent.id, key.id)).await
}
