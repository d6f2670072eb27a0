//! Export of agents: those that match the filter of the list, or selected ones. The file is streamed.

use std::{collections::VecDeque, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde_json::json;

use super::list::Listing;
use crate::{
    domain::{
        Agent, AgentId, AuthFailure, Error, Invalid, Limit, Result,
        agent::{Filter, Position, Sort},
    },
    service::{
        Services,
        agents::{
            self,
            listing::{self, Facts},
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

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Csv,
    JsonLines,
}

impl Format {
    pub(super) fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "csv" => Ok(Self::Csv),
            "jsonl" => Ok(Self::JsonLines),
            _ => Err(Invalid::NotOneOf(&["csv", "jsonl"])),
        }
    }
}

/// The query of an export.
pub(in crate::web::console) struct Export {
    listing: Listing,
    format: Format,
}

impl FromQuery for Export {
    fn read(fields: &mut Fields) -> Option<Self> {
        let format = fields.optional("format", Format::parse).unwrap_or(Format::Csv);
        Some(Self { listing: Listing::read(fields)?, format })
    }
}

/// The agents of a file.
pub(super) enum Source {
    Selected(VecDeque<AgentId>),
    Matching { filter: Filter, sort: Sort, after: Option<Position> },
}

const COLUMNS: &str =
    "id,name,status,type,owner,description,capabilities,capability_ids,keys,last_used_at,created_at,labels\r\n";

struct Download {
    services: Arc<Services>,
    admin: Admin,
    source: Source,
    format: Format,
}

/// Streams the agents that match the query, in its order.
pub(in crate::web::console) async fn download(
    State(services): Shared,
    admin: Admin,
    Query(Export { listing, format }, _): Query<Export>,
) -> Result<Response, Failure> {
    let sort = listing.sort;
    let filter = listing.wanted.resolve(&services, &admin).await?;
    Ok(file(services, admin, Source::Matching { filter, sort, after: None }, format))
}

/// Returns a file of agents.
pub(super) fn file(services: Arc<Services>, admin: Admin, source: Source, format: Format) -> Response {
    let (kind, name, head) = match format {
        Format::Csv => ("text/csv; charset=utf-8", "agents.csv", COLUMNS),
        Format::JsonLines => ("application/jsonl; charset=utf-8", "agents.jsonl", ""),
    };
    let download = Download { services, admin, source, format };
    let pages = stream::unfold((Some(download), Some(head)), |(download, head)| async move {
        if let Some(head) = head {
            return Some((Ok(Bytes::from_static(head.as_bytes())), (download, None)));
        }
        let mut download = download?;
        match download.next().await {
            Ok((page, true)) => Some((Ok(page), (Some(download), None))),
            Ok((page, false)) => Some((Ok(page), (None, None))),
            // The status is already sent, so closing the connection is the only way to signal an incomplete file.
            Err(error) => Some((Err(error), (None, None))),
        }
    });
    let headers = [(CONTENT_TYPE, kind.to_owned()), (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\""))];
    (headers, Body::from_stream(pages)).into_response()
}

impl Download {
    /// Returns the next part of the file, and whether there is more.
    async fn next(&mut self) -> Result<(Bytes, bool), Error> {
        let (agents, more) = match &mut self.source {
            Source::Selected(ids) => {
                let part: Vec<_> = ids.drain(..ids.len().min(usize::from(Limit::MAX))).collect();
                (listing::those(&self.services, &self.admin, &part).await?, !ids.is_empty())
            }
            Source::Matching { filter, sort, after } => {
                let limit = Limit::of(Limit::MAX);
                let page = agents::list(&self.services, &self.admin, filter, *sort, after.take(), limit).await?;
                let more = page.next.is_some();
                *after = page.next;
                (page.items, more)
            }
        };
        if !may_watch(&self.services, &self.admin).await {
            return Err(AuthFailure::NoSession.into());
        }
        let ids: Vec<_> = agents.iter().map(|agent| agent.id).collect();
        let facts = listing::facts(&self.services, &self.admin, &ids).await?;
        let line = match self.format {
            Format::Csv => csv_line,
            Format::JsonLines => json_line,
        };
        let text: String = agents.iter().map(|agent| line(agent, &facts)).collect();
        Ok((text.into(), more))
    }
}

fn csv_line(agent: &Agent, facts: &Facts) -> String {
    let held = facts.held.get(&agent.id).map(Vec::as_slice).unwrap_or_default();
    let names: Vec<_> = held.iter().map(|(name, _)| name.as_str()).collect();
    let ids: Vec<_> = held.iter().map(|(_, id)| id.to_string()).collect();
    csv::row(&[
        agent.id.to_string(),
        agent.name.to_string(),
        agent.status.as_str().to_owned(),
        agent.agent_type.as_str().to_owned(),
        agent.owner.clone(),
        agent.description.clone(),
        names.join(" "),
        ids.join(" "),
        facts.keys.get(&agent.id).copied().unwrap_or_default().to_string(),
        facts.last_uses.get(&agent.id).map(ToString::to_string).unwrap_or_default(),
        agent.created_at.to_string(),
        agent.labels.to_string(),
    ])
}

fn json_line(agent: &Agent, facts: &Facts) -> String {
    let held = facts.held.get(&agent.id).map(Vec::as_slice).unwrap_or_default();
    let capabilities: Vec<_> = held.iter().map(|(name, id)| json!({ "id": id, "name": name })).collect();
    let line = json!({
        "id": agent.id,
        "name": agent.name.as_str(),
        "status": agent.status.as_str(),
        "type": agent.agent_type.as_str(),
        "owner": agent.owner,
        "description": agent.description,
        "capabilities": capabilities,
        "keys": facts.keys.get(&agent.id).copied().unwrap_or_default(),
        "last_used_at": facts.last_uses.get(&agent.id),
        "created_at": agent.created_at,
        "labels": agent.labels,
    });
    format!("{line}\n")
}
