//! The page for the keys that sign access tokens.

use askama::Template;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use tower_sessions::Session;

use crate::{
    domain::{AgentStatus, Error, Timestamp, agent::Filter},
    service::{
        Action,
        agents::listing,
        tokens::signing_keys::{self, KeyInfo, PUBLISHED_FOR, SHARED_SECRET},
    },
    web::{
        console::{
            Shared,
            confirm::{ConfirmPage, Fact},
            guard::Admin,
            page::{
                form::Form,
                frame::{Frame, Moment, Page, back_to, back_with_error},
                grouped,
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

/// Asks for confirmation before compromised keys are replaced.
pub(in crate::web::console) async fn replace_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
) -> Result<impl IntoResponse + use<>, Failure> {
    if services.settings.signing.is_none() {
        return Err(SHARED_SECRET.into());
    }
    let keys = signing_keys::list(&services, &admin).await?;
    let active = Filter { status: Some(AgentStatus::Active), ..Filter::default() };
    let agents = listing::estimate(&services, &admin, &active).await?;
    let more = if agents.may_be_more { " or more" } else { "" };
    let mut facts = vec![
        ("Active agents, which need new tokens", Fact::Text(format!("{}{more}", grouped(agents.found)))),
        ("Keys that stop working", Fact::Text(grouped(keys.len()))),
    ];
    if let Some(key) = keys.into_iter().find(|key| key.state().0 == "signs") {
        facts.push(("Signs now", Fact::Code(key.kid)));
    }
    Ok(Page(ConfirmPage {
        frame: frame.at("signing-keys"),
        parents: vec![("Signing keys".to_owned(), PATH.to_owned())],
        verb: "Replace",
        object: "all signing keys".to_owned(),
        rest: String::new(),
        note: format!(
            "Every access token ends immediately, and agents must request new ones. A service that caches the public \
             keys may refuse valid tokens and accept forged ones for up to {} minutes. This cannot be undone.",
            PUBLISHED_FOR.as_secs() / 60
        ),
        facts,
        action: format!("{PATH}/rotate"),
        fields: vec![("when", "at_once")],
        button: "Replace all signing keys",
        cancel: PATH.to_owned(),
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
