//! Pages for the audit log: filtered list, single record and verification of the hash chain.

mod chart;
pub(super) mod export;
mod filters;
pub(super) mod find;
pub(super) mod record;
mod row;
mod sentence;
pub(super) mod tail;
pub(super) mod views;

use askama::Template;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};

pub(super) use record::Ending;
pub(super) use row::{Row, rows};

use super::{
    Shared,
    guard::Admin,
    page::{
        chart::Chart,
        form::message,
        frame::{Frame, Moment, Page, see_other, sentence, unprocessable},
        query::{Chip, Params, Query},
    },
};
use crate::{
    domain::{
        Error, Limit, Result,
        audit::{AuditAction, Resource, hex},
    },
    service::{
        Caller, Services,
        audit::{self, Check, views::View},
    },
    web::{api::paging::Cursor, failure::Failure},
};
use filters::{LIST, Listing, Period, RANGES};
use record::Opened;
use row::rows_of;

const PER_PAGE: Limit = Limit::of(50);

#[derive(Template)]
#[template(path = "audit/list.html")]
struct ListPage {
    frame: Frame,
    records: Vec<Row>,
    params: Params,
    chips: Vec<Chip>,
    periods: Vec<Period>,
    next: Option<String>,
    /// Path and start of the live view; `None` except on the first page of a period that has not ended.
    tail: Option<(String, i64)>,
    /// Paths of the exports.
    exports: [(&'static str, String); 2],
    views: Vec<View>,
    chain: Chain,
    /// The record beside the list.
    open: Option<Opened>,
    ending: Option<Ending>,
    /// The records of the period by time, and a note if not all of them are counted.
    chart: Option<(Chart, Option<Moment>)>,
    problem: Option<String>,
}

impl ListPage {
    const ACTIONS: &'static [AuditAction] = AuditAction::ALL;
    const KINDS: [&'static str; 8] = Resource::KINDS;
    const OUTCOMES: [(&'static str, &'static str, &'static str); 2] =
        [("success", "done", "Success"), ("failure", "refused", "Failure")];

    fn has(&self, name: &str, value: &str) -> bool {
        self.params.get(name) == value
    }

    /// A time of the query, in the form that its field takes.
    fn time(&self, name: &str) -> String {
        filters::field_time(self.params.get(name))
    }

    /// The end of the period, in the form that its field takes. A date without a time includes the day.
    fn until(&self) -> String {
        let text = self.params.get("until");
        if text.len() == 10 { format!("{text}T23:59:59") } else { filters::field_time(text) }
    }

    /// The filters as a query string.
    fn query(&self) -> String {
        filters::query(&self.params)
    }

    /// A page without records.
    fn empty(frame: Frame, params: Params, chain: Chain, views: Vec<View>) -> Self {
        Self {
            frame: frame.at("audit"),
            records: Vec::new(),
            chips: filters::filters(&params).chips(LIST, &filters::LABELS),
            periods: filters::periods(&params),
            next: None,
            tail: None,
            exports: exports(&filters::filters(&params)),
            views,
            chain,
            open: None,
            ending: None,
            chart: None,
            problem: None,
            params,
        }
    }
}

fn exports(params: &Params) -> [(&'static str, String); 2] {
    let path = format!("{LIST}/export");
    [("CSV", "csv"), ("JSON Lines", "jsonl")].map(|(name, format)| (name, params.with("format", format).href(&path)))
}

/// Shows the list of records.
pub(super) async fn list(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Query(listing, params): Query<Listing>,
) -> Result<Response, Failure> {
    let chain = Chain::of(&services, &admin).await?;
    let views = audit::views::list(&services, &admin).await?;
    let page = ListPage::empty(frame, params, chain, views);
    let (filter, start) = match listing.resolve(&services, &admin).await {
        Ok(resolved) => resolved,
        Err(Error::Invalid(fields)) => {
            let problem = fields.first().map(|field| sentence(message(&field.invalid)));
            return Ok(unprocessable(&ListPage { problem, ..page }));
        }
        Err(error) => return Err(error.into()),
    };
    let ListPage { frame, params, views, chain, periods, .. } = page;
    let first = params.get("cursor").is_empty();
    let head = audit::head(&services, &admin).await?;
    let found = audit::list(&services, &admin, &filter, start, PER_PAGE).await?;
    let newest = found.items.first().map_or(head.seq, |record| record.seq.max(head.seq));
    let filters = filters::filters(&params);
    let is_open = filter.until.is_none_or(|until| until > services.env.now());
    let tail = (first && is_open).then(|| (filters.href("/console/audit/tail"), newest));
    // What is on the screen is what is exported: until the newest record, and since the same time.
    let from = filter.from.filter(|_| !params.get("range").is_empty()).map(|from| from.to_string());
    let shown = match &from {
        Some(from) => filters.with("range", "").with("from", from),
        None => filters.clone(),
    };
    let exports = exports(&shown.with("cursor", &newest.saturating_add(1).encode()));
    let ending = match found.next {
        Some(_) => None,
        None => Ending::of(&services, &admin, filter.from).await?,
    };
    let chart = chart::of(&services, &admin, &filter, &filters).await?;
    let open = match listing.record {
        Some(seq) => Some(Opened::of(&services, &admin, &filter, &params, seq).await?),
        None => None,
    };
    let page = ListPage {
        chips: filters::chips(&services, &admin, &params).await?,
        next: found.next.map(|next| filters.with("cursor", &next.encode()).href(LIST)),
        records: rows_of(&services, &admin, found.items, &params).await?,
        frame,
        params,
        periods,
        tail,
        exports,
        views,
        chain,
        open,
        ending,
        chart,
        problem: None,
    };
    Ok(Page(page).into_response())
}

#[derive(Template)]
#[template(path = "audit/chain.html")]
struct ChainFragment {
    chain: Chain,
}

/// The state of the hash chain.
struct Chain {
    records: i64,
    state: ChainState,
}

enum ChainState {
    Never,
    Running,
    Intact { records: i64, at: Moment, head: String },
    Broken { seq: i64, reason: &'static str, at: Moment },
    Failed { at: Moment },
}

impl Chain {
    async fn of(services: &Services, caller: &Caller) -> Result<Self> {
        let now = services.env.now();
        let state = match services.checker.state() {
            Check::Never => ChainState::Never,
            Check::Running { .. } => ChainState::Running,
            Check::Failed { at } => ChainState::Failed { at: Moment::at(at, now) },
            Check::Done { at, verification } => match verification.broken {
                Some(broken) => ChainState::Broken { seq: broken.seq, reason: broken.reason, at: Moment::at(at, now) },
                None => ChainState::Intact {
                    records: verification.head.seq,
                    at: Moment::at(at, now),
                    head: hex(&verification.head.hash),
                },
            },
        };
        Ok(Self { records: audit::head(services, caller).await?.seq, state })
    }
}

/// Renders the state of the hash chain. The page polls it while a verification is running.
pub(super) async fn chain(State(services): Shared, admin: Admin) -> Result<impl IntoResponse + use<>, Failure> {
    Ok(Page(ChainFragment { chain: Chain::of(&services, &admin).await? }))
}

/// Starts a verification of the hash chain.
pub(super) async fn verify(State(services): Shared, admin: Admin) -> Result<Response, Failure> {
    audit::begin_check(&services, &admin).await?;
    Ok(see_other(LIST))
}
