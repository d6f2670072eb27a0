//! The audit log as it grows: every record once, in order, also after the connection broke.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use askama::Template;
use axum::{
    extract::State,
    http::HeaderMap,
    response::sse::{Event, Sse},
};
use futures_util::{Stream, stream};

use super::{Listing, Row, rows};
use crate::{
    domain::{Error, Invalid, Limit, Result, audit::Filter},
    service::{Services, audit, core::updates::Updates},
    web::{
        console::{
            Shared,
            guard::Admin,
            page::{
                live::{answer, may_watch},
                query::Query,
            },
        },
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

/// Records that are read at a time.
const AT_A_TIME: Limit = Limit::of(100);

#[derive(Template)]
#[template(path = "audit/row.html")]
struct RowFragment {
    record: Row,
}

/// Which records to follow, and from where on.
pub(in crate::web::console) struct Following {
    listing: Listing,
    after: Option<i64>,
}

impl FromQuery for Following {
    fn read(fields: &mut Fields) -> Option<Self> {
        let not_a_place = |_| Invalid::new("int_parsing", "Input should be a place in the chain");
        let after = fields.optional("after", |text| text.parse().map_err(not_a_place));
        Some(Self { listing: Listing::read(fields)?, after })
    }
}

struct Tail {
    services: Arc<Services>,
    admin: Admin,
    filter: Filter,
    updates: Updates,
    /// The place of the last record that was looked at.
    seen: i64,
    ready: VecDeque<Row>,
}

/// Follows the log. `Last-Event-ID`, which browsers send when they connect again, counts before the URL.
pub(in crate::web::console) async fn stream(
    State(services): Shared,
    admin: Admin,
    headers: HeaderMap,
    Query(Following { listing, after }, _): Query<Following>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>, Failure> {
    let (filter, _) = listing.resolve(&services, &admin).await?;
    let updates = Updates::of(&services);
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let seen = match resumed.or(after) {
        Some(seen) => seen,
        None => audit::head(&services, &admin).await?.seq,
    };
    let tail = Tail { services, admin, filter, updates, seen, ready: VecDeque::new() };
    Ok(answer(stream::unfold(Some(tail), |tail| async move {
        let mut tail = tail?;
        let event = tail.next().await?;
        Some((Ok(event), Some(tail)))
    })))
}

impl Tail {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                let id = record.seq.to_string();
                let row = RowFragment { record }.render().ok()?;
                return Some(Event::default().id(id).data(row));
            }
            // Asked after the records were read: none of them may be later than the end of the session.
            if self.read().await.is_err() || !may_watch(&self.services, &self.admin).await {
                return None;
            }
            if self.ready.is_empty() && !self.updates.next().await {
                return None;
            }
        }
    }

    /// Reads what is beyond the last record that was looked at.
    async fn read(&mut self) -> Result<(), Error> {
        let found = audit::after(&self.services, &self.admin, &self.filter, self.seen, AT_A_TIME).await?;
        if let Some(last) = found.last() {
            self.seen = last.seq;
        }
        self.ready = rows(&self.services, &self.admin, found).await?.into();
        Ok(())
    }
}
