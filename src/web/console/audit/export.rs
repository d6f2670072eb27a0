//! Export of the audit log. The file contains the records that match the filter of the page, and is streamed.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde_json::{Value, json};

use super::{filters::Listing, sentence::sentence};
use crate::{
    domain::{
        ActorId, AuthFailure, Error, Invalid, Limit,
        audit::{Filter, Record, Start, hex},
    },
    service::{
        Services,
        audit::{
            self,
            names::{self, Names},
        },
    },
    web::{
        console::{
            Shared,
            guard::Admin,
            page::{csv, live::may_watch, query::Query},
        },
        failure::Failure,
        request::{extract::FromQuery, fields::Fields},
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Csv,
    JsonLines,
}

/// The query of an export.
pub(in crate::web::console) struct Export {
    listing: Listing,
    format: Format,
}

impl FromQuery for Export {
    fn read(fields: &mut Fields) -> Option<Self> {
        let format = fields.optional("format", |text| match text {
            "csv" => Ok(Format::Csv),
            "jsonl" => Ok(Format::JsonLines),
            _ => Err(Invalid::NotOneOf(&["csv", "jsonl"])),
        });
        Some(Self { listing: Listing::read(fields)?, format: format.unwrap_or(Format::Csv) })
    }
}

const COLUMNS: &str = "seq,timestamp,action,outcome,actor,actor_name,subject,subject_name,resource_type,resource_id,\
    resource_name,ip_address,request_id,sentence,details,hash\r\n";

struct Download {
    services: Arc<Services>,
    admin: Admin,
    filter: Filter,
    format: Format,
    start: Option<Start>,
}

/// Streams the records that match the query, newest first, as the list shows them.
pub(in crate::web::console) async fn download(
    State(services): Shared,
    admin: Admin,
    Query(Export { listing, format }, _): Query<Export>,
) -> Result<Response, Failure> {
    let (filter, start) = listing.resolve(&services, &admin).await?;
    let (kind, name, head) = match format {
        Format::Csv => ("text/csv; charset=utf-8", "audit.csv", COLUMNS),
        Format::JsonLines => ("application/jsonl; charset=utf-8", "audit.jsonl", ""),
    };
    let download = Download { services, admin, filter, format, start: Some(start) };
    let pages = stream::unfold((Some(download), Some(head)), |(download, head)| async move {
        if let Some(head) = head {
            return Some((Ok(Bytes::from_static(head.as_bytes())), (download, None)));
        }
        let mut download = download?;
        match download.next().await {
            Ok(Some(page)) => Some((Ok(page), (Some(download), None))),
            Ok(None) => None,
            // The status is already sent, so closing the connection is the only way to signal an incomplete file.
            Err(error) => Some((Err(error), (None, None))),
        }
    });
    let headers = [(CONTENT_TYPE, kind.to_owned()), (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\""))];
    Ok((headers, Body::from_stream(pages)).into_response())
}

impl Download {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(start) = self.start else { return Ok(None) };
        let limit = Limit::of(Limit::MAX);
        let page = audit::list(&self.services, &self.admin, &self.filter, start, limit).await?;
        if !may_watch(&self.services, &self.admin).await {
            return Err(AuthFailure::NoSession.into());
        }
        self.start = page.next.map(Start::Before);
        let write = match self.format {
            Format::Csv => row,
            Format::JsonLines => json_line,
        };
        let names = names::of(&self.services, &self.admin, &page.items).await?;
        let text: String = page.items.iter().map(|record| write(record, &names)).collect();
        Ok(Some(text.into()))
    }
}

fn json_line(record: &Record, names: &Names) -> String {
    let details: Value = serde_json::from_str(&record.details).unwrap_or_else(|_| json!(record.details));
    let line = json!({
        "seq": record.seq,
        "id": record.id.to_string(),
        "timestamp": record.at,
        "action": record.action,
        "success": record.success,
        "actor": record.actor,
        "actor_name": record.actor.and_then(|id| names.actor(id)),
        "subject": record.subject,
        "subject_name": record.subject.and_then(|id| names.actor(id.into())),
        "resource_type": record.resource_type,
        "resource_id": record.resource_id,
        "resource_name": names.target(record),
        "ip_address": record.ip,
        "request_id": record.request_id,
        "sentence": sentence(record, names),
        "details": details,
        "prev_hash": hex(&record.prev_hash),
        "hash": hex(&record.hash),
    });
    format!("{line}\n")
}

fn row(record: &Record, names: &Names) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let name = |id: Option<ActorId>| id.and_then(|id| names.actor(id)).unwrap_or_default().to_owned();
    let cells = [
        record.seq.to_string(),
        record.at.to_string(),
        record.action.clone(),
        if record.success { "success" } else { "failure" }.to_owned(),
        record.actor.map(|id| id.to_string()).unwrap_or_default(),
        name(record.actor),
        record.subject.map(|id| id.to_string()).unwrap_or_default(),
        name(record.subject.map(Into::into)),
        text(&record.resource_type),
        text(&record.resource_id),
        names.target(record).unwrap_or_default(),
        text(&record.ip),
        text(&record.request_id),
        sentence(record, names),
        record.details.clone(),
        hex(&record.hash),
    ];
    csv::row(&cells)
}
