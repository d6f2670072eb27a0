//! Audit records on the wire.

use axum::{
    extract::{OriginalUri, Path, State},
    response::Response,
};
use serde::Serialize;
use utoipa::{
    IntoParams, ToSchema,
    openapi::{KnownFormat, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type},
};
use uuid::Uuid;

use super::{
    Shared,
    agents::agent_id,
    paging::{self, parse_cursor},
};
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
        },
    },
};

/// An audit record.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditRecord)]
pub struct RecordBody {
    /// Identifier.
    #[schema(value_type = String)]
    id: Uuid,
    /// Position in the chain, from 1, without gaps.
    seq: i64,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// Who acted: an agent, or an administrator in the console.
    #[schema(value_type = Option<String>)]
    agent_id: Option<ActorId>,
    /// What happened.
    action: String,
    /// `agent`, `api_key` or `capability`.
    resource_type: Option<String>,
    /// Which one.
    resource_id: Option<String>,
    /// More about it: a string that holds JSON.
    details_json: String,
    /// From where.
    ip_address: Option<String>,
    /// 1 when it was carried out, 0 when it was refused.
    success: u8,
    /// The request that caused it: its `X-Request-Id`.
    request_id: Option<String>,
    /// SHA-256 over this record and the hash of the one before, in hexadecimal digits.
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

/// Which records to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query; `Listing` is what it is read into")]
pub struct ListRecords {
    /// Only what this agent did.
    #[param(pattern = "^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})?$")]
    agent_id: Option<String>,
    /// Only this action.
    #[param(max_length = 128, pattern = "{line}")]
    action: Option<String>,
    /// Only about this kind of resource.
    #[param(max_length = 128, pattern = "{line}")]
    resource_type: Option<String>,
    /// Only at or after this moment (ISO 8601; without an offset, UTC). A date alone is the beginning of its day.
    #[param(schema_with = moment)]
    start_date: Option<String>,
    /// Only at or before this moment (ISO 8601; without an offset, UTC). A date alone includes its day.
    #[param(schema_with = moment)]
    end_date: Option<String>,
    /// Items on a page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u16>,
    /// How many of the newest to leave out. Costs more the larger it is; `cursor` does not.
    #[param(minimum = 0)]
    offset: Option<i64>,
    /// Where the page starts: taken from the `Link` of the page before.
    #[param(pattern = "^([1-9][0-9]{0,17})?$")]
    cursor: Option<String>,
}

/// A date, a date and time, or nothing.
fn moment() -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let format = |format| text().format(Some(SchemaFormat::KnownFormat(format)));
    let builder = OneOfBuilder::new().item(format(KnownFormat::Date)).item(format(KnownFormat::DateTime));
    builder.item(text().max_length(Some(0))).into()
}

/// Which page of an agent's records to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query; `Paging` is what it is read into")]
pub struct ListAgentRecords {
    /// Items on a page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u16>,
    /// Where the page starts: taken from the `Link` of the page before.
    #[param(pattern = "^([1-9][0-9]{0,17})?$")]
    cursor: Option<String>,
}

/// A page as asked for.
pub struct Paging {
    start: Start,
    limit: Limit,
}

impl FromQuery for Paging {
    fn read(fields: &mut Fields) -> Option<Self> {
        let limit = fields.chosen("limit", Limit::parse).unwrap_or(Limit::of(50));
        let offset = fields.chosen("offset", parse_offset).unwrap_or_default();
        let start = fields.optional("cursor", parse_cursor).map_or(Start::Offset(offset), Start::Before);
        Some(Self { start, limit })
    }
}

/// A listing as asked for; `None` for the filter when nothing can match it.
pub struct Listing {
    filter: Filter,
    paging: Paging,
}

impl FromQuery for Listing {
    fn read(fields: &mut Fields) -> Option<Self> {
        let filter = Filter {
            actor: fields.optional("agent_id", |text| ActorId::parse(text).ok_or_else(not_an_id)),
            involving: None,
            action: fields.optional("action", |text| text::line(text, 1, 128)),
            resource_type: fields.optional("resource_type", |text| text::line(text, 1, 128)),
            resource_id: None,
            success: None,
            from: fields.optional("start_date", Filter::parse_from),
            until: fields.optional("end_date", Filter::parse_until),
        };
        Some(Self { filter, paging: Paging::read(fields)? })
    }
}

fn not_an_id() -> Invalid {
    Invalid::new("uuid_parsing", "Input should be an agent's identifier")
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

/// Read the audit log
///
/// Newest first, page by page: `Link` with `rel="next"` (RFC 8288) leads on.
#[utoipa::path(
    get, path = "/audit", tag = "Audit", operation_id = "list_audit_records", params(ListRecords),
    responses(
        (status = 200, description = "The records.", body = [RecordBody]),
        (status = 422, description = "A parameter is not valid."),
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

/// Read an agent's audit records
///
/// What it did and what happened to it, newest first. They stay when the agent is deleted.
#[utoipa::path(
    get, path = "/agents/{id}/audit", tag = "Audit", operation_id = "list_agent_audit_records",
    params(("id" = String, Path), ListAgentRecords),
    responses(
        (status = 200, description = "The records.", body = [RecordBody]),
        (status = 404, description = "There is and was no such agent."),
        (status = 422, description = "A parameter is not valid."),
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
