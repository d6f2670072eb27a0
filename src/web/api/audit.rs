//! The audit endpoints.

use axum::{
    extract::{OriginalUri, Path, State},
    response::Response,
};
use serde::Serialize;
use utoipa::{ToSchema, openapi::OneOfBuilder};
use uuid::Uuid;

use super::{Shared, agents::agent_id, paging};
use crate::{
    domain::{
        ActorId, Invalid, Limit, Timestamp,
        audit::{Filter, Record, Start},
        text,
    },
    service::audit,
    web::{
        failure::Failure,
        guard::Authorized,
        request::{
            extract::{FromQuery, Query},
            fields::Fields,
            schema::{self, query_parameters},
        },
    },
};

/// An audit record.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditRecord)]
pub struct RecordBody {
    /// ID.
    #[schema(value_type = String)]
    id: Uuid,
    /// Position in the log. Starts at 1 and has no gaps.
    seq: i64,
    /// Time of the event.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// ID of the actor: an agent, or an administrator who used the console. Null if the actor is unknown.
    #[schema(value_type = Option<String>)]
    agent_id: Option<ActorId>,
    /// Event, such as `agent.created`.
    action: String,
    /// Type of the target, such as `agent`, `api_key` or `capability`.
    resource_type: Option<String>,
    /// ID of the target.
    resource_id: Option<String>,
    /// Details of the event: a string that contains JSON.
    details_json: String,
    /// IP address that the request came from.
    ip_address: Option<String>,
    /// 1 if the action was performed, 0 if it was denied.
    success: u8,
    /// `X-Request-Id` of the request.
    request_id: Option<String>,
    /// SHA-256 of this record and the previous record's hash, in hexadecimal.
    hash: String,
}

impl From<Record> for RecordBody {
    fn from(record: Record) -> Self {
        Self {
            id: record.id,
            seq: record.seq,
            timestamp: record.at,
            agent_id: record.actor,
            action: record.action,
            resource_type: record.resource_type,
            resource_id: record.resource_id,
            details_json: record.details,
            ip_address: record.ip,
            success: u8::from(record.success),
            request_id: record.request_id,
            hash: crate::domain::audit::hex(&record.hash),
        }
    }
}

query_parameters!(Listing, Paging);

/// Maximum length of an event or a target type in a filter, in characters.
const WORD_MAX: usize = 128;

/// A date, a date and time, or nothing.
fn moment() -> OneOfBuilder {
    let builder = OneOfBuilder::new().item(schema::format("date")).item(schema::format("date-time"));
    builder.item(schema::string().max_length(Some(0)))
}

/// The query parameters that select a page.
pub struct Paging {
    start: Start,
    limit: Limit,
}

impl FromQuery for Paging {
    fn read(fields: &mut Fields) -> Option<Self> {
        const OFFSET: &str = "Number of newest records to skip. Large offsets are slow; use `cursor` instead.";
        let limit = paging::read_limit(fields, Limit::of(50));
        let offset = fields
            .doc(OFFSET, || schema::integer("int64").minimum(Some(0)))
            .chosen("offset", parse_offset)
            .unwrap_or_default();
        let start = paging::read_cursor(fields).map_or(Start::Offset(offset), Start::Before);
        Some(Self { start, limit })
    }
}

/// The query parameters of a listing.
pub struct Listing {
    filter: Filter,
    paging: Paging,
}

impl FromQuery for Listing {
    fn read(fields: &mut Fields) -> Option<Self> {
        const FROM: &str = "Only events at or after this time (ISO 8601, UTC unless it has an offset). A date means \
            the start of that day.";
        const UNTIL: &str =
            "Only events at or before this time (ISO 8601, UTC unless it has an offset). A date includes that day.";
        let word = || schema::optional_line(WORD_MAX);
        let filter = Filter {
            actor: fields
                .doc("Only events with this actor.", || schema::pattern(paging::UUID))
                .optional("agent_id", |text| ActorId::parse(text).ok_or_else(not_an_id)),
            action: fields.doc("Only this event.", word).optional("action", |text| text::line(text, 1, WORD_MAX)),
            resource_type: fields
                .doc("Only events with this type of target.", word)
                .optional("resource_type", |text| text::line(text, 1, WORD_MAX)),
            from: fields.doc(FROM, moment).optional("start_date", Filter::parse_from),
            until: fields.doc(UNTIL, moment).optional("end_date", Filter::parse_until),
            ..Filter::default()
        };
        Some(Self { filter, paging: Paging::read(fields)? })
    }
}

fn not_an_id() -> Invalid {
    Invalid::new("uuid_parsing", "Input should be the ID of an actor")
}

fn parse_offset(text: &str) -> Result<i64, Invalid> {
    let count: i64 = text.parse().map_err(|_| {
        Invalid::new("int_parsing", "Input should be a valid integer, unable to parse string as an integer")
    })?;
    if count < 0 {
        return Err(Invalid::new("greater_than_equal", "Input should be greater than or equal to 0"));
    }
    Ok(count)
}

/// List audit records
///
/// Returns audit records, newest first, one page at a time. The header `Link` with `rel="next"` (RFC 8288) leads to the
/// next page.
#[utoipa::path(
    get, path = "/audit", tag = "Audit", operation_id = "list_audit_records", params(Listing),
    responses(
        (status = 200, description = "The records.", body = [RecordBody]),
        (status = 422, description = "A query parameter is not valid."),
    )
)]
pub async fn list(
    State(services): Shared,
    caller: Authorized,
    OriginalUri(uri): OriginalUri,
    Query(Listing { filter, paging: Paging { start, limit } }): Query<Listing>,
) -> Result<Response, Failure> {
    let page = audit::list(&services, &caller, &filter, start, limit).await?;
    Ok(paging::respond(&uri, page, RecordBody::from))
}

/// List an agent's audit records
///
/// Returns the audit records of which the agent is the actor or the target, newest first. They are kept when the agent
/// is deleted.
#[utoipa::path(
    get, path = "/agents/{id}/audit", tag = "Audit", operation_id = "list_agent_audit_records",
    params(("id" = String, Path), Paging),
    responses(
        (status = 200, description = "The records.", body = [RecordBody]),
        (status = 404, description = "The agent has never existed."),
        (status = 422, description = "A query parameter is not valid."),
    )
)]
pub async fn of_agent(
    State(services): Shared,
    caller: Authorized,
    OriginalUri(uri): OriginalUri,
    Path(agent): Path<String>,
    Query(Paging { start, limit }): Query<Paging>,
) -> Result<Response, Failure> {
    let page = audit::of_agent(&services, &caller, agent_id(&agent)?, start, limit).await?;
    Ok(paging::respond(&uri, page, RecordBody::from))
}
