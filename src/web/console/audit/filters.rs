//! The filters of the audit log: reading them from the URL, and showing them.

use std::time::Duration;

use crate::{
    domain::{
        ActorId, AgentId, AgentName, Error, Invalid, RequestId, Result, Timestamp, Username,
        audit::{Filter, Start},
        text,
    },
    service::{Caller, Services, agents, audit::names, people::administrators},
    web::{
        api::paging::parse_cursor,
        console::page::query::{Chip, Params},
        request::{extract::FromQuery, fields::Fields},
    },
};

/// The path of the list.
pub(super) const LIST: &str = "/console/audit";

/// Periods that end now: the value in the URL, the length and the name.
pub(super) const RANGES: [(&str, Duration, &str); 4] = [
    ("1h", Duration::from_hours(1), "Last hour"),
    ("24h", Duration::from_hours(24), "Last 24 hours"),
    ("7d", Duration::from_hours(7 * 24), "Last 7 days"),
    ("30d", Duration::from_hours(30 * 24), "Last 30 days"),
];

/// Each filter's parameter and its name.
pub(super) const LABELS: [(&str, &str); 12] = [
    ("agent", "Actor or target"),
    ("actor", "Actor"),
    ("action", "Event"),
    ("outcome", "Outcome"),
    ("reason", "Reason"),
    ("resource_type", "Target type"),
    ("resource_id", "Target ID"),
    ("request", "Request ID"),
    ("ip", "IP address"),
    ("range", "Period"),
    ("from", "After"),
    ("until", "Before"),
];

/// The query of the list. Agents and administrators may be given by name, which [`Listing::resolve`] looks up.
pub(in crate::web::console) struct Listing {
    filter: Filter,
    actor: Option<String>,
    agent: Option<String>,
    range: Option<Duration>,
    before: Option<i64>,
    /// The record that is open beside the list.
    pub(super) record: Option<i64>,
}

impl FromQuery for Listing {
    fn read(fields: &mut Fields) -> Option<Self> {
        let line = |text: &str| text::line(text.trim(), 1, 128);
        let filter = Filter {
            actor: None,
            involving: None,
            action: fields.optional("action", line),
            resource_type: fields.optional("resource_type", line),
            resource_id: fields.optional("resource_id", line),
            success: fields.optional("outcome", |text| match text {
                "success" | "done" => Ok(true),
                "failure" | "refused" => Ok(false),
                _ => Err(Invalid::NotOneOf(&["success", "failure"])),
            }),
            request: fields.optional("request", |text| {
                let id = RequestId::parse(text.trim()).map(|id| id.as_str().to_owned());
                id.ok_or_else(|| {
                    Invalid::new("request_id", "Enter the request ID as it was sent: letters, digits, . _ -")
                })
            }),
            reason: fields.optional("reason", line),
            ip: fields.optional("ip", |text| {
                let ip: Result<std::net::IpAddr, _> = text.trim().parse();
                ip.map(|ip| ip.to_string()).map_err(|_| Invalid::new("ip", "Enter an IP address"))
            }),
            from: fields.optional("from", Filter::parse_from),
            until: fields.optional("until", parse_until),
        };
        let range = fields.optional("range", |text| {
            let known = RANGES.iter().find(|(value, ..)| *value == text);
            known.map(|(_, length, _)| *length).ok_or(Invalid::NotOneOf(&["1h", "24h", "7d", "30d"]))
        });
        let number = |text: &str| text.parse().map_err(|_| Invalid::new("int_parsing", "Enter the number of a record"));
        Some(Self {
            filter,
            actor: fields.optional("actor", line),
            agent: fields.optional("agent", line),
            range,
            before: fields.optional("cursor", parse_cursor),
            record: fields.optional("record", number),
        })
    }
}

/// Parses the end of a period. A time with seconds and without a fraction includes that second.
fn parse_until(text: &str) -> Result<Timestamp, Invalid> {
    let until = Filter::parse_until(text)?;
    let is_second = text.rsplit_once('T').is_some_and(|(_, time)| time.len() == "00:00:00".len());
    Ok(if is_second { until.plus(Duration::from_micros(999_999)) } else { until })
}

impl Listing {
    /// Looks up agents and administrators by name or ID. An ID also finds records of a deleted agent.
    pub(super) async fn resolve(&self, services: &Services, caller: &Caller) -> Result<(Filter, Start)> {
        let mut filter = self.filter.clone();
        if let Some(range) = self.range {
            let from = services.env.now().minus(range);
            filter.from = Some(filter.from.map_or(from, |earlier| earlier.max(from)));
        }
        if let Some(text) = &self.actor {
            let unknown = || unknown("actor", format!("No agent or administrator is named {text}"));
            filter.actor = Some(actor(services, caller, text).await?.ok_or_else(unknown)?);
        }
        if let Some(text) = &self.agent {
            let unknown = || unknown("agent", format!("No agent or administrator is named {text}"));
            let found = actor(services, caller, text).await?.ok_or_else(unknown)?;
            filter.involving = Some(AgentId(found.0));
        }
        Ok((filter, Start::Before(self.before.unwrap_or(i64::MAX))))
    }
}

fn unknown(field: &str, message: String) -> Error {
    Error::field(&[field], Invalid::new("unknown", message))
}

async fn actor(services: &Services, caller: &Caller, text: &str) -> Result<Option<ActorId>> {
    match ActorId::parse(text) {
        Some(id) => Ok(Some(id)),
        None => by_name(services, caller, text).await,
    }
}

pub(super) async fn by_name(services: &Services, caller: &Caller, text: &str) -> Result<Option<ActorId>> {
    if let Ok(name) = AgentName::parse(text) {
        match agents::by_name(services, caller, &name).await {
            Ok(agent) => return Ok(Some(agent.id.into())),
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let Ok(username) = Username::parse(text) else { return Ok(None) };
    administrators::id_of(services, caller, &username).await.map(|id| id.map(Into::into))
}

/// Returns the filters alone, without the position in the list and the open record.
pub(super) fn filters(params: &Params) -> Params {
    params.with("cursor", "").with("record", "").with("after", "").with("format", "")
}

/// Returns the active filters, each with a link that removes it. Identifiers of agents are shown as names.
pub(super) async fn chips(services: &Services, caller: &Caller, params: &Params) -> Result<Vec<Chip>> {
    let mut chips = filters(params).chips(LIST, &LABELS);
    for chip in &mut chips {
        match chip.label {
            "Actor or target" | "Actor" => {
                if let Some(id) = ActorId::parse(&chip.value) {
                    chip.value = names::of_actor(services, caller, id).await?;
                }
            }
            "Target ID" => {
                if let Some(id) = ActorId::parse(&chip.value) {
                    chip.value = names::of_target(services, caller, id).await?;
                }
            }
            "Outcome" => {
                let is_success = matches!(chip.value.as_str(), "success" | "done");
                if is_success { "Success" } else { "Failure" }.clone_into(&mut chip.value);
            }
            "Period" => {
                let name = RANGES.iter().find(|(value, ..)| *value == chip.value).map(|(.., name)| *name);
                name.unwrap_or_default().clone_into(&mut chip.value);
            }
            "After" | "Before" => chip.value = format!("{} UTC", field_time(&chip.value).replacen('T', " ", 1)),
            "Reason" => chip.value = chip.value.replace('_', " "),
            _ => {}
        }
    }
    Ok(chips)
}

/// A period to choose.
pub(super) struct Period {
    pub(super) name: &'static str,
    pub(super) short: &'static str,
    pub(super) href: String,
    pub(super) is_current: bool,
}

/// Returns the periods that end now, as links that keep the other filters.
pub(super) fn periods(params: &Params) -> Vec<Period> {
    let others = filters(params).with("from", "").with("until", "");
    let has_times = !params.get("from").is_empty() || !params.get("until").is_empty();
    let all = [("", "All time", "All")].into_iter();
    let ranges = RANGES.iter().map(|(value, _, name)| (*value, *name, *value));
    let period = |(value, name, short): (&str, &'static str, &'static str)| Period {
        name,
        short,
        href: others.with("range", value).href(LIST),
        is_current: params.get("range") == value && !has_times,
    };
    all.chain(ranges).map(period).collect()
}

/// Converts a time to the form that a field for times takes: without fraction and offset.
pub(super) fn field_time(text: &str) -> String {
    Filter::parse_from(text).map_or_else(
        |_| text.to_owned(),
        |at| {
            let iso = at.to_string();
            iso.get(..19).unwrap_or(&iso).to_owned()
        },
    )
}

/// Returns the filters as a query string.
pub(super) fn query(params: &Params) -> String {
    serde_urlencoded::to_string(filters(params).pairs()).unwrap_or_default()
}
