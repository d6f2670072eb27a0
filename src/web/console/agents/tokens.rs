//! The active tokens of an agent, the tokens derived from them, and the delegates of the agent.

use std::collections::{BTreeSet, HashMap};

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use tower_sessions::Session;

use super::{
    Head,
    confirm::{ConfirmPage, Question, impact::Loss},
    find, parse_id,
    show::Place,
};
use crate::{
    domain::{
        Agent, AgentId, AgentName, Error, Invalid, Limit, Result, Timestamp,
        token::{DelegatedToken, delegation::Delegation},
    },
    service::{
        Once, Services,
        agents::{self, delegates, impact},
        tokens::{
            live_tokens::{self, Count, LiveToken},
            revocation,
        },
    },
    web::{
        api::paging::Cursor,
        console::{
            Shared,
            guard::Admin,
            page::{
                form::{Form, Problems},
                frame::{Flash, Frame, Moment, Page, back_to, html},
                query::{Params, Query},
            },
        },
        failure::Failure,
    },
};

const LIMIT: u16 = 50;
/// Maximum number of derived tokens to show per token.
const SHOWN: usize = 20;

struct Row {
    jti: String,
    audience: String,
    /// The agent that the bearer acts for, if it acts on behalf of another.
    on_behalf_of: Option<(AgentId, String)>,
    issued: Moment,
    expires: Moment,
    ip: Option<String>,
    descendants: Vec<Descendant>,
    /// The number of derived tokens that are not shown.
    more: usize,
}

/// A token that was issued in exchange for another.
struct Descendant {
    jti: String,
    /// The agent that uses the token.
    actor: Option<(AgentId, String)>,
    depth: usize,
    expires: Moment,
}

impl Row {
    fn of(token: LiveToken, names: &HashMap<AgentId, AgentName>, now: Timestamp) -> Self {
        let with_name = |id: AgentId| (id, names.get(&id).map_or_else(|| id.to_string(), ToString::to_string));
        let descendant = |token: &DelegatedToken| Descendant {
            jti: token.jti.to_string(),
            actor: token.links.last().map(|link| with_name(link.agent)),
            depth: token.links.len().saturating_sub(1),
            expires: Moment::at(token.expires_at, now),
        };
        Self {
            jti: token.jti.to_string(),
            audience: token.audience,
            on_behalf_of: (!token.actors.is_empty()).then(|| with_name(token.subject)),
            issued: Moment::at(token.issued_at, now),
            expires: Moment::at(token.expires_at, now),
            ip: token.ip,
            more: token.descendants.len().saturating_sub(SHOWN),
            descendants: token.descendants.iter().take(SHOWN).map(descendant).collect(),
        }
    }
}

struct Delegate {
    id: AgentId,
    name: String,
    since: Moment,
}

impl Delegate {
    fn of(delegation: Delegation, now: Timestamp) -> Self {
        Self { id: delegation.delegate, name: delegation.delegate_name, since: Moment::at(delegation.created_at, now) }
    }
}

#[derive(Template)]
#[template(path = "tokens/of_agent.html")]
struct TokensPage {
    frame: Frame,
    head: Head,
    tokens: Vec<Row>,
    next: Option<String>,
    delegates: Vec<Delegate>,
    form: Form,
    problems: Problems,
}

impl TokensPage {
    async fn of(
        services: &Services,
        admin: &Admin,
        frame: Frame,
        agent: &Agent,
        before: Option<i64>,
        params: &Params,
    ) -> Result<Self> {
        let now = services.env.now();
        let page = live_tokens::list(services, admin, agent.id, before, Limit::of(LIMIT)).await?;
        let involved = page.items.iter().flat_map(|token| {
            let actors = token.descendants.iter().take(SHOWN).filter_map(|one| one.links.last().map(|link| link.agent));
            actors.chain([token.subject])
        });
        let involved: BTreeSet<_> = involved.collect();
        let names = agents::names(services, admin, &involved.into_iter().collect::<Vec<_>>()).await?;
        let delegates = delegates::list(services, admin, agent.id).await?;
        Ok(Self {
            frame: frame.at("agents"),
            head: Head::of(services, admin, agent, "tokens").await?,
            tokens: page.items.into_iter().map(|token| Row::of(token, &names, now)).collect(),
            next: page.next.map(|next| params.with("cursor", &next.encode()).href(&path_of(agent.id))),
            delegates: delegates.into_iter().map(|delegation| Delegate::of(delegation, now)).collect(),
            form: Form::default(),
            problems: Problems::default(),
        })
    }
}

fn path_of(agent: AgentId) -> String {
    format!("/console/agents/{agent}/tokens")
}

/// Shows the tokens of an agent, newest first, and its delegates.
pub(in crate::web::console) async fn of_agent(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
    Query(Place(before), params): Query<Place>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &id).await?;
    Ok(Page(TokensPage::of(&services, &admin, frame, &agent, before, &params).await?))
}

/// Asks for confirmation before every token of an agent is revoked.
pub(in crate::web::console) async fn revoke_all_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let impact = impact::of(&services, &admin, agent.id).await?;
    let question = Question {
        button: "Revoke all tokens",
        verb: "Revoke all tokens of",
        object: agent.name.to_string(),
        rest: String::new(),
        note: "Its tokens, and the tokens derived from them, stop working immediately. This cannot be undone."
            .to_owned(),
        action: "tokens/end".to_owned(),
        cancel: path_of(agent.id),
        asks_reason: false,
        asks_name: false,
    };
    Ok(ConfirmPage::of(&services, &admin, frame, &agent, question, &impact, Loss::Tokens).await?.if_manageable()?)
}

/// Revokes every token of an agent, and the tokens derived from them.
pub(in crate::web::console) async fn revoke_all(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let agent = find(&services, &admin, &id).await?;
    let revoked = match revocation::revoke_all(&services, &admin, agent.id).await? {
        Count { tokens, may_be_more: true } => format!("All tokens of {} revoked ({tokens} or more).", agent.name),
        Count { tokens: 1, .. } => format!("1 token of {} revoked.", agent.name),
        Count { tokens, .. } => format!("{tokens} tokens of {} revoked.", agent.name),
    };
    Flash::done(format!("{revoked} Its keys still work."))
        .link("View agent", format!("/console/agents/{}", agent.id))
        .redirect(&session, &path_of(agent.id))
        .await
}

/// Adds a delegate.
pub(in crate::web::console) async fn add_delegate(
    State(services): Shared,
    frame: Frame,
    session: Session,
    admin: Admin,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let agent = find(&services, &admin, &id).await?;
    match add(&services, &admin, agent.id, form.get("delegate").trim()).await {
        Ok(added) => {
            let message = format!("{} can act on behalf of {} now.", added.delegate_name, agent.name);
            back_to(&session, &path_of(agent.id), message).await
        }
        Err(error) => {
            let status = Problems::status(&error);
            let problems = Problems::from_error(error, "delegate")?;
            let page = TokensPage::of(&services, &admin, frame, &agent, None, &Params::default()).await?;
            Ok(html(status, &TokensPage { form, problems, ..page }))
        }
    }
}

async fn add(services: &Services, admin: &Admin, agent: AgentId, name: &str) -> Result<Delegation> {
    let unknown = || Error::field(&["delegate"], Invalid::new("unknown", "No agent with this name exists"));
    let name = AgentName::parse(name).map_err(|_| unknown())?;
    let delegate = match agents::by_name(services, admin, &name).await {
        Err(Error::NotFound(_)) => return Err(unknown()),
        found => found?,
    };
    delegates::add(services, admin, agent, delegate.id, Once::each_time()).await
}

/// Asks for confirmation before a delegate is removed.
pub(in crate::web::console) async fn remove_delegate_page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path((agent, delegate)): Path<(String, String)>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let agent = find(&services, &admin, &agent).await?;
    let delegate = find_delegate(&services, &admin, &agent, parse_id(&delegate)?).await?;
    let impact = impact::of_delegate(&services, &admin, agent.id, delegate.delegate).await?;
    let question = Question {
        button: "Remove delegate",
        verb: "Remove delegate",
        object: delegate.delegate_name,
        rest: String::new(),
        note: format!(
            "It can no longer act for {}. Tokens with which it does stop working immediately. You can add it again.",
            agent.name
        ),
        action: format!("delegates/{}/remove", delegate.delegate),
        cancel: path_of(agent.id),
        asks_reason: false,
        asks_name: false,
    };
    let page = ConfirmPage::of(&services, &admin, frame, &agent, question, &impact, Loss::Delegation).await?;
    Ok(page.if_manageable()?)
}

async fn find_delegate(services: &Services, admin: &Admin, agent: &Agent, delegate: AgentId) -> Result<Delegation> {
    let all = delegates::list(services, admin, agent.id).await?;
    all.into_iter().find(|one| one.delegate == delegate).ok_or(Error::NotFound("Delegate"))
}

/// Removes a delegate.
pub(in crate::web::console) async fn remove_delegate(
    State(services): Shared,
    session: Session,
    admin: Admin,
    Path((agent, delegate)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let agent = find(&services, &admin, &agent).await?;
    let delegate = find_delegate(&services, &admin, &agent, parse_id(&delegate)?).await?;
    delegates::remove(&services, &admin, agent.id, delegate.delegate).await?;
    let name = delegate.delegate_name;
    Flash::done(format!("{name} can no longer act for {}. Its tokens for it are revoked.", agent.name))
        .undo(format!("/console/agents/{}/delegates", agent.id), vec![("delegate".to_owned(), name)])
        .redirect(&session, &path_of(agent.id))
        .await
}
