//! What needs attention, in words and with links to exactly what is counted.

use super::numbers::{Period, bounded};
use crate::{
    domain::Timestamp,
    service::backup::Last,
    service::overview::{Item, MANY_REFUSALS, Named, Need},
    web::console::page::{frame::Moment, grouped},
};

/// How many names are shown at once. The others are in a list to open.
const NAMES: usize = 5;

/// Something that needs attention.
pub(super) struct Concern {
    /// The name by which forms send it.
    pub(super) item: &'static str,
    pub(super) count: String,
    pub(super) text: String,
    /// Leads to what is counted; `None` if each of it has a link of its own.
    pub(super) href: Option<String>,
    pub(super) names: Vec<Name>,
    pub(super) more: Vec<Name>,
    /// Explains the count, where the text leaves a question.
    pub(super) hint: Option<String>,
    pub(super) is_dismissed: bool,
}

/// One of those who are counted.
pub(super) struct Name {
    pub(super) text: String,
    pub(super) note: Option<String>,
    pub(super) href: String,
}

/// Describes what needs attention. `today` is the period that refusals are counted in.
pub(super) fn of(need: &Need, backup: &Last, today: Period) -> Concern {
    let is_one = need.count == 1;
    let (one, many) = match need.item {
        Item::Refused => ("request refused in the last 24 hours", "requests refused in the last 24 hours"),
        Item::RefusedAgents => ("agent refused repeatedly", "agents refused repeatedly"),
        Item::Factors => ("owner without a second factor", "owners without a second factor"),
        Item::NeverExpiring => ("key with admin:* never expires", "keys with admin:* never expire"),
        Item::Expiring => ("key expires within 7 days", "keys expire within 7 days"),
        Item::UsedInGrace => ("rotated key still used", "rotated keys still used"),
        Item::Idle => ("key unused for 90 days", "keys unused for 90 days"),
        Item::Suspended => ("agent suspended", "agents suspended"),
        Item::Backups => ("scheduled backup failed or is overdue", "scheduled backups failed or are overdue"),
        Item::Checklist | Item::Backup => ("", ""),
    };
    let href = match need.item {
        Item::Refused => Some(today.audit(&[("outcome", "refused")])),
        Item::NeverExpiring => Some("/console/keys?expiry=never&admin=1".to_owned()),
        Item::Expiring => Some("/console/keys?show=expiring".to_owned()),
        Item::UsedInGrace => Some("/console/keys?grace=used".to_owned()),
        Item::Idle => Some("/console/keys?show=idle".to_owned()),
        Item::Suspended => Some("/console/agents?status=suspended".to_owned()),
        Item::Backups if backup.failed_at.is_some() => Some("/console/audit?action=backup.failed".to_owned()),
        Item::Backups => Some("/console/audit?action=backup.created".to_owned()),
        Item::RefusedAgents | Item::Factors | Item::Checklist | Item::Backup => None,
    };
    let mut names: Vec<_> = need.named.iter().map(|named| name(named, today)).collect();
    let more = names.split_off(names.len().min(NAMES));
    Concern {
        item: need.item.as_str(),
        count: bounded(need.count),
        text: if is_one { one } else { many }.to_owned(),
        href,
        names,
        more,
        hint: match need.item {
            Item::RefusedAgents => Some(format!("{MANY_REFUSALS} times or more in the last 24 hours")),
            Item::Backups => backup.failure.clone(),
            _ => None,
        },
        is_dismissed: need.is_dismissed,
    }
}

/// The dismissed checklist, among what else is dismissed.
pub(super) fn of_checklist() -> Concern {
    Concern {
        item: Item::Checklist.as_str(),
        count: String::new(),
        text: title(Item::Checklist).to_owned(),
        href: None,
        names: Vec::new(),
        more: Vec::new(),
        hint: None,
        is_dismissed: true,
    }
}

fn name(named: &Named, today: Period) -> Name {
    match named {
        Named::Agent(agent) => {
            let id = agent.id.to_string();
            Name {
                text: agent.name.clone().unwrap_or_else(|| format!("Deleted agent {id}")),
                note: Some(format!("{} refused", grouped(agent.activity.refused))),
                href: today.audit(&[("agent", &id), ("outcome", "refused")]),
            }
        }
        Named::Person(id, name) => {
            Name { text: name.clone(), note: None, href: format!("/console/administrators/{id}") }
        }
    }
}

/// Names an item, without a count.
pub(super) const fn title(item: Item) -> &'static str {
    match item {
        Item::Refused => "refused requests",
        Item::RefusedAgents => "agents refused repeatedly",
        Item::Factors => "owners without a second factor",
        Item::NeverExpiring => "keys with admin:* that never expire",
        Item::Expiring => "keys that expire within 7 days",
        Item::UsedInGrace => "rotated keys that are still used",
        Item::Idle => "keys unused for 90 days",
        Item::Suspended => "suspended agents",
        Item::Backups => "scheduled backups",
        Item::Checklist => "setup checklist",
        Item::Backup => "backup plan",
    }
}

/// The last backup.
pub(super) struct LastBackup {
    /// When it was made.
    pub(super) at: Option<Moment>,
    /// What follows: its size, or why there is none.
    pub(super) text: String,
}

/// Says when the last backup was made, and how large it is.
pub(super) fn last_backup(last: &Last, now: Timestamp) -> LastBackup {
    let text = match (last.made_at, last.bytes) {
        (None, _) if last.is_scheduled => "No backup yet. The first one is due.".to_owned(),
        (None, _) => "No backup yet. None is scheduled.".to_owned(),
        (Some(_), Some(bytes)) => format!(", {}.", size(bytes)),
        (Some(_), None) => ".".to_owned(),
    };
    LastBackup { at: last.made_at.map(|at| Moment::at(at, now)), text }
}

/// Returns a number of bytes in the unit that fits it.
fn size(bytes: i64) -> String {
    const KIB: i64 = 1_024;
    match bytes {
        ..KIB => format!("{bytes} bytes"),
        KIB..1_048_576 => format!("{} KiB", bytes / KIB),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes / KIB / KIB),
        _ => format!("{} GiB", grouped(bytes / KIB / KIB / KIB)),
    }
}
