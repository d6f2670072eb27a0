//! The overview page.

mod attention;
mod kinds;
mod numbers;
mod steps;

use askama::Template;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use tower_sessions::Session;

use super::{
    Shared,
    audit::{Row, rows},
    guard::Admin,
    page::{
        chart::Chart,
        error::is_own_path,
        form::Form,
        frame::{Flash, Frame, Page},
        grouped,
        query::Query,
        range::{self, Choice, Range},
    },
};
use crate::{
    domain::{AgentId, Error},
    service::{
        Action,
        overview::{self, Item, Overview, Ranked},
    },
    web::{
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};
pub(super) use numbers::bounded;

use attention::Concern;
use kinds::Kinds;
use numbers::Period;
use steps::Step;

/// The ranges that the page offers.
const RANGES: [Range; 3] = [Range::Day, Range::Week, Range::Month];

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    /// Each status of agents: its name, a link to them, and their number.
    tiles: [(&'static str, &'static str, String); 3],
    chart: Chart,
    ranges: Vec<Choice>,
    kinds: Kinds,
    rankings: [Ranking; 2],
    concerns: Vec<Concern>,
    dismissed: Vec<Concern>,
    /// The age and the result of the last backup.
    last_backup: attention::LastBackup,
    steps: Vec<Step>,
    latest: Vec<Row>,
}

/// A ranking of agents.
struct Ranking {
    id: &'static str,
    title: &'static str,
    /// What the agents are ranked by.
    column: &'static str,
    agents: Vec<RankedAgent>,
}

struct RankedAgent {
    /// `None` if the agent was deleted.
    name: Option<String>,
    id: AgentId,
    href: String,
    count: String,
    /// Leads to what is counted.
    count_href: String,
}

/// The query of the page.
pub(super) struct Asked {
    range: Range,
}

impl FromQuery for Asked {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self { range: range::read(fields, &RANGES) })
    }
}

pub(super) async fn page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Query(asked, params): Query<Asked>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let overview = overview::read(&services, &admin, asked.range).await?;
    let latest = rows(&services, &admin, overview.latest.clone()).await?;
    let period = Period::of(&overview.buckets);
    let today = Period::of(&Range::Day.buckets(services.env.now()));
    let (dismissed, concerns): (Vec<_>, Vec<_>) = overview
        .attention
        .iter()
        .map(|need| attention::of(need, &overview.last_backup, today))
        .partition(|concern| concern.is_dismissed);
    let dismissed = dismissed.into_iter().chain(overview.steps_dismissed.then(attention::of_checklist)).collect();
    Ok(Page(OverviewPage {
        frame: frame.at("overview"),
        tiles: tiles(&overview),
        chart: Chart::of_activity("activity", asked.range, &overview.buckets, |from, until, refused| {
            let outcome = if refused { &[("outcome", "refused")][..] } else { &[] };
            Some(Period { from, until }.audit(outcome))
        }),
        ranges: range::choices("/console", &params, &RANGES, asked.range),
        kinds: Kinds::of(&overview.kinds, period),
        rankings: [
            ranking("busiest", "Busiest agents", "Tokens issued", &overview.busiest, |agent| {
                (agent.activity.issued, format!("/console/agents/{}?range={}", agent.id, asked.range.as_str()))
            }),
            ranking("refused", "Most refused agents", "Requests refused", &overview.most_refused, |agent| {
                let id = agent.id.to_string();
                (agent.activity.refused, period.audit(&[("agent", &id), ("outcome", "refused")]))
            }),
        ],
        concerns,
        dismissed,
        last_backup: attention::last_backup(&overview.last_backup, services.env.now()),
        steps: overview.steps.as_ref().map(steps::of).unwrap_or_default(),
        latest,
    }))
}

fn tiles(overview: &Overview) -> [(&'static str, &'static str, String); 3] {
    [
        ("Active agents", "/console/agents?status=active", grouped(overview.active)),
        ("Suspended agents", "/console/agents?status=suspended", grouped(overview.suspended)),
        ("Revoked agents", "/console/agents?status=revoked", grouped(overview.revoked)),
    ]
}

fn ranking(
    id: &'static str,
    title: &'static str,
    column: &'static str,
    agents: &[Ranked],
    count: impl Fn(&Ranked) -> (i64, String),
) -> Ranking {
    let agent = |agent: &Ranked| {
        let (number, count_href) = count(agent);
        RankedAgent {
            name: agent.name.clone(),
            id: agent.id,
            href: format!("/console/agents/{}", agent.id),
            count: grouped(number),
            count_href,
        }
    };
    Ranking { id, title, column, agents: agents.iter().map(agent).collect() }
}

/// Dismisses what needs attention for a week, the checklist for good, or ticks the step that cannot tick itself.
pub(super) async fn dismiss(
    State(services): Shared,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let item = item(&form)?;
    overview::dismiss(&services, &admin, item).await?;
    let message = match item {
        Item::Checklist => "Checklist dismissed.".to_owned(),
        Item::Backup => "Backup marked as planned.".to_owned(),
        _ => format!("Dismissed for a week: {}.", attention::title(item)),
    };
    let fields = vec![("item".to_owned(), item.as_str().to_owned()), ("back".to_owned(), back(&form).to_owned())];
    Flash::done(message).undo("/console/overview/restore", fields).redirect(&session, back(&form)).await
}

/// Shows again what was dismissed.
pub(super) async fn restore(
    State(services): Shared,
    session: Session,
    admin: Admin,
    form: Form,
) -> Result<Response, Failure> {
    let item = item(&form)?;
    overview::restore(&services, &admin, item).await?;
    let message = match item {
        Item::Checklist => "Checklist shown again.".to_owned(),
        Item::Backup => "Backup marked as not planned.".to_owned(),
        _ => format!("Shown again: {}.", attention::title(item)),
    };
    Flash::done(message).redirect(&session, back(&form)).await
}

fn item(form: &Form) -> Result<Item, Failure> {
    Item::parse(form.get("item")).ok_or(Failure(Error::NotFound("Item")))
}

/// The page to return to.
fn back(form: &Form) -> &str {
    let back = form.get("back");
    if is_own_path(back) { back } else { "/console" }
}
