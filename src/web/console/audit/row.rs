//! Rows of tables of audit records.

use super::{
    filters::{self, LIST},
    sentence::sentence,
};
use crate::{
    domain::{AgentId, ApiKeyId, Result, audit::Record},
    service::{
        Caller, Services,
        audit::names::{self, Names},
    },
    web::console::page::{frame::Moment, query::Params},
};

/// A record in a table.
pub(in crate::web::console) struct Row {
    pub(in crate::web::console) seq: i64,
    /// The page of the record.
    pub(in crate::web::console) href: String,
    pub(in crate::web::console) at: Moment,
    pub(in crate::web::console) actor: Option<Link>,
    pub(in crate::web::console) target: Option<Link>,
    pub(in crate::web::console) action: String,
    /// What happened, without a period at the end.
    pub(in crate::web::console) sentence: String,
    pub(in crate::web::console) success: bool,
    pub(in crate::web::console) ip: Option<String>,
}

/// A link with a name.
pub(in crate::web::console) struct Link {
    pub(in crate::web::console) name: String,
    pub(in crate::web::console) href: String,
}

/// Converts records to table rows, with the names of actors and targets.
pub(in crate::web::console) async fn rows(
    services: &Services,
    caller: &Caller,
    records: Vec<Record>,
) -> Result<Vec<Row>> {
    rows_of(services, caller, records, &Params::default()).await
}

/// Converts records to rows of the list whose filters are `params`. Its links keep the filters.
pub(super) async fn rows_of(
    services: &Services,
    caller: &Caller,
    records: Vec<Record>,
    params: &Params,
) -> Result<Vec<Row>> {
    let names = names::of(services, caller, &records).await?;
    let now = services.env.now();
    let filters = filters::filters(params);
    let row = |record: Record| Row {
        seq: record.seq,
        href: filters.href(&format!("{LIST}/{}", record.seq)),
        at: Moment::at(record.at, now),
        actor: record
            .actor
            .map(|id| Link { name: names.actor_or_id(id), href: filters.with("actor", &id.to_string()).href(LIST) }),
        target: target(&record, &names),
        sentence: sentence(&record, &names),
        action: record.action,
        success: record.success,
        ip: record.ip,
    };
    Ok(records.into_iter().map(row).collect())
}

/// Returns the page of what a record is about. Its name is the last one that is known.
pub(super) fn target(record: &Record, names: &Names) -> Option<Link> {
    let id = record.resource_id.as_deref();
    let name = names.target(record);
    let of_subject = || {
        let id = record.subject?;
        Some(Link { name: names.actor_or_id(id.into()), href: agent(id) })
    };
    let (Some(id), Some(kind)) = (id, record.resource_type.as_deref()) else { return of_subject() };
    let path = match kind {
        "agent" => AgentId::parse(id).map(agent),
        "api_key" => {
            let key = ApiKeyId::parse(id)?;
            let agent_id = names.key(key).map(|key| key.agent).or(record.subject);
            agent_id.map(|agent_id| format!("{}/keys/{key}", agent(agent_id)))
        }
        "capability" => Some(format!("/console/capabilities/{id}")),
        "administrator" => Some(format!("/console/administrators/{id}")),
        "resource" => Some(format!("/console/resources/{id}")),
        _ => None,
    };
    match (path, name) {
        (Some(href), Some(name)) => Some(Link { name, href }),
        (Some(href), None) if record.subject.is_none() => Some(Link { name: id.to_owned(), href }),
        _ => of_subject(),
    }
}

/// Returns the page of an agent.
pub(super) fn agent(id: AgentId) -> String {
    format!("/console/agents/{id}")
}
