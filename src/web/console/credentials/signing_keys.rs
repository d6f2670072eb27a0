//! The page for the keys that sign access tokens.

use askama::Template;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use tower_sessions::Session;

use crate::{
    domain::{Error, Timestamp},
    service::{
        Action,
        tokens::signing_keys::{self, KeyInfo},
    },
    web::{
        console::{
            Shared,
            guard::Admin,
            page::{
                form::Form,
                frame::{Frame, Moment, Page, back_to, back_with_error},
            },
        },
        failure::Failure,
    },
};

const PATH: &str = "/console/signing-keys";

struct Row {
    kid: String,
    algorithm: &'static str,
    state: &'static str,
    since: Moment,
    published_until: Option<Moment>,
}

impl Row {
    fn of(key: &KeyInfo, now: Timestamp) -> Self {
        let (state, since) = key.state();
        Self {
            kid: key.kid.clone(),
            algorithm: key.algorithm.as_str(),
            state,
            since: Moment::at(since, now),
            published_until: key.published_until.map(|at| Moment::at(at, now)),
        }
    }
}

#[derive(Template)]
#[template(path = "signing_keys/list.html")]
struct ListPage {
    frame: Frame,
    keys: Vec<Row>,
    rotation_days: Option<u64>,
    uses_shared_secret: bool,
}

/// Lists the signing keys.
pub(in crate::web::console) async fn list(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
) -> Result<impl IntoResponse + use<>, Failure> {
    let now = services.env.now();
    let keys = signing_keys::list(&services, &admin).await?;
    Ok(Page(ListPage {
        frame: frame.at("signing-keys"),
        keys: keys.iter().map(|key| Row::of(key, now)).collect(),
        rotation_days: services.settings.signing_key_rotation.map(|period| period.as_secs() / 86_400),
        uses_shared_secret: services.settings.signing.is_none(),
    }))
}

/// Rotates the signing keys.
pub(in crate::web::console) async fn rotate(
    State(services): Shared,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    match signing_keys::rotate(&services, &admin, form.get("when") == "at_once").await {
        Ok(key) => back_to(&session, PATH, format!("Signing keys rotated. AIMS now signs with {}.", key.kid)).await,
        Err(error @ Error::Refused(_)) => back_with_error(&session, PATH, &error).await,
        Err(error) => Err(error.into()),
    }
}
