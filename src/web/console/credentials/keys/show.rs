//! The page of one key: its use, its limits, its live tokens and its events.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response, sse::Event},
};
use futures_util::stream;

use super::{
    find_key,
    row::{Holder, Row},
};
use crate::{
    domain::{AgentStatus, ApiKey, Limit, Result, Timestamp},
    service::{
        Services, agents,
        core::updates::Updates,
        credentials::{api_keys, key_facts},
        tokens::live_tokens::{Count, LiveToken},
    },
    web::{
        api::paging::{Cursor, parse_cursor},
        console::{
            Shared,
            agents::Head,
            audit::{self, rows},
            guard::Admin,
            page::{
                chart::{Chart, Column, Series},
                frame::{Frame, Moment, Page},
                live::{may_watch, stream_events},
                query::Query,
            },
        },
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

const EVENTS: Limit = Limit::of(20);

#[derive(Template)]
#[template(path = "keys/show.html")]
struct KeyPage {
    frame: Frame,
    head: Head,
    key: Row,
    /// The uses per day.
    chart: Chart,
    total: i64,
    addresses: Vec<AddressRow>,
    has_earlier_requests: bool,
    tokens: Vec<TokenRow>,
    ends: Count,
    records: Vec<audit::Row>,
    next: Option<String>,
}

struct AddressRow {
    ip: String,
    uses: usize,
    last: Moment,
}

struct TokenRow {
    jti: String,
    audience: String,
    issued: Moment,
    expires: Moment,
    ip: Option<String>,
}

impl TokenRow {
    fn of(token: LiveToken, now: Timestamp) -> Self {
        Self {
            jti: token.jti.to_string(),
            audience: token.audience,
            issued: Moment::at(token.issued_at, now),
            expires: Moment::at(token.expires_at, now),
            ip: token.ip,
        }
    }
}

/// The cursor of the events.
pub(in crate::web::console) struct Place(Option<i64>);

impl FromQuery for Place {
    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self(fields.optional("cursor", parse_cursor)))
    }
}

/// Shows a key.
pub(in crate::web::console) async fn page(
    State(services): Shared,
    frame: Frame,
    admin: Admin,
    Path((id, key)): Path<(String, String)>,
    Query(Place(before), params): Query<Place>,
) -> Result<impl IntoResponse + use<>, Failure> {
    let (agent, key) = find_key(&services, &admin, &id, &key).await?;
    let facts = key_facts::read(&services, &admin, agent.id, key.id).await?;
    let events = key_facts::events(&services, &admin, key.id, before, EVENTS).await?;
    let now = services.env.now();
    let head = Head::of(&services, &admin, &agent, "keys").await?;
    let holder = Holder { name: &head.name, status: agent.status, may_manage: head.may_manage };
    let total = facts.days.iter().map(|(_, uses)| uses).sum();
    let row = Row::of(&key, &holder, total, now);
    let address = |address: key_facts::Address| AddressRow {
        ip: address.ip,
        uses: address.uses,
        last: Moment::at(address.last, now),
    };
    Ok(Page(KeyPage {
        frame: frame.at("agents"),
        chart: draw(&facts.days),
        total,
        addresses: facts.addresses.into_iter().map(address).collect(),
        has_earlier_requests: facts.has_earlier_requests,
        tokens: facts.tokens.into_iter().map(|token| TokenRow::of(token, now)).collect(),
        ends: facts.ends,
        next: events.next.map(|next| params.with("cursor", &next.encode()).href(&row.path(""))),
        records: rows(&services, &admin, events.items).await?,
        key: row,
        head,
    }))
}

/// Draws the uses per day.
fn draw(days: &[(Timestamp, i64)]) -> Chart {
    let column = |&(start, uses): &(Timestamp, i64)| {
        let date = start.to_string().get(..10).unwrap_or_default().to_owned();
        Column {
            label: date.get(5..).unwrap_or_default().to_owned(),
            name: date,
            href: None,
            values: vec![(uses, None)],
        }
    };
    let series = vec![Series::new("Uses", None)];
    Chart::new(
        "key-uses",
        "Uses of the key per day, last 90 days",
        "Day (UTC)",
        series,
        days.iter().map(column).collect(),
    )
}

#[derive(Template)]
#[template(path = "keys/meter.html")]
struct Meter {
    key: Row,
}

/// Streams the last use of a rotated key each time that it changes, until the key has ended.
pub(in crate::web::console) async fn watch(
    State(services): Shared,
    admin: Admin,
    Path((id, key)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let (agent, key) = find_key(&services, &admin, &id, &key).await?;
    let (agent, id) = (agent.id, key.id);
    let updates = Updates::of(&services);
    let events = stream::unfold(Some((services, updates, None)), move |state| {
        let admin = admin.clone();
        async move {
            let (services, mut updates, mut seen) = state?;
            loop {
                let key = api_keys::get(&services, &admin, agent, id).await.ok()?;
                let status = agents::get(&services, &admin, agent).await.ok()?.status;
                if !may_watch(&services, &admin).await {
                    return None;
                }
                let state = key.state(status, services.env.now());
                if seen != Some((key.last_used_at, state)) {
                    seen = Some((key.last_used_at, state));
                    let event = Event::default().event("use").data(meter(&services, &key, status)?);
                    let next = (!state.has_ended()).then_some((services, updates, seen));
                    return Some((Ok(event), next));
                }
                if !updates.next().await {
                    return None;
                }
            }
        }
    });
    Ok(stream_events(events))
}

fn meter(services: &Services, key: &ApiKey, status: AgentStatus) -> Option<String> {
    let holder = Holder { name: "", status, may_manage: false };
    Meter { key: Row::of(key, &holder, 0, services.env.now()) }.render().ok()
}
