//! Live view of the audit log. Delivers every record once and in order, also after a reconnect.

use std::{collections::VecDeque, sync::Arc};

use askama::Template;
use axum::{
    extract::State,
    http::HeaderMap,
    response::{Response, sse::Event},
};
use futures_util::stream;

use super::{
    filters::{self, Listing},
    row::{Row, rows_of},
};
use crate::{
    domain::{Error, Invalid, Limit, Result, audit::Filter},
    service::{Services, audit, core::updates::Updates},
    web::{
        console::{
            Shared,
            guard::Admin,
            page::{
                live::{may_watch, stream_events},
                query::{Params, Query},
            },
        },
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

/// Maximum number of records per read.
const BATCH: Limit = Limit::of(100);

#[derive(Template)]
#[template(path = "audit/row.html")]
struct RowFragment {
    record: Row,
}

/// The query of the live view.
pub(in crate::web::console) struct Following {
    listing: Listing,
    after: Option<i64>,
}

impl FromQuery for Following {
    fn read(fields: &mut Fields) -> Option<Self> {
        let invalid = |_| Invalid::new("int_parsing", "Input should be the number of a record");
        let after = fields.optional("after", |text| text.parse().map_err(invalid));
        Some(Self { listing: Listing::read(fields)?, after })
    }
}

struct Tail {
    services: Arc<Services>,
    admin: Admin,
    filter: Filter,
    /// The filters as parameters, which the links of the rows keep.
    params: Params,
    updates: Updates,
    /// Number of the last record that was read.
    seen: i64,
    ready: VecDeque<Row>,
}

/// Streams new records. `Last-Event-ID`, which browsers send on a reconnect, takes precedence over the URL.
pub(in crate::web::console) async fn stream(
    State(services): Shared,
    admin: Admin,
    headers: HeaderMap,
    Query(Following { listing, after }, params): Query<Following>,
) -> Result<Response, Failure> {
    let (filter, _) = listing.resolve(&services, &admin).await?;
    let updates = Updates::of(&services);
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let seen = match resumed.or(after) {
        Some(seen) => seen,
        None => audit::head(&services, &admin).await?.seq,
    };
    let tail =
        Tail { services, admin, filter, params: filters::filters(&params), updates, seen, ready: VecDeque::new() };
    Ok(stream_events(stream::unfold(Some(tail), |tail| async move {
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
            // Checked after the records are read, so that no record is delivered after the session ends.
            if self.read().await.is_err() || !may_watch(&self.services, &self.admin).await {
                return None;
            }
            if self.ready.is_empty() && !self.updates.next().await {
                return None;
            }
        }
    }

    /// Reads the records after the last one that was read.
    async fn read(&mut self) -> Result<(), Error> {
        let found = audit::after(&self.services, &self.admin, &self.filter, self.seen, BATCH).await?;
        if let Some(last) = found.last() {
            self.seen = last.seq;
        }
        self.ready = rows_of(&self.services, &self.admin, found, &self.params).await?.into();
        Ok(())
    }
}
