//! What an operation on many agents changes, as its page shows it.

use std::collections::{BTreeMap, HashSet};

use crate::{
    domain::{AgentId, Result, agent::Brief},
    service::{
        Caller, Services,
        agents::bulk::{Bulk, preview::Preview},
        audit::names::{self, Names},
    },
    web::console::page::{form::Form, grouped},
};

/// How many names are shown of a group of agents.
const NAMES: usize = 10;
/// Up to this many agents, the page can name those that changed since it was shown.
const REMEMBERED: usize = 200;

/// The operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Suspend,
    Reactivate,
    Grant,
    Ungrant,
    Transfer,
    Label,
}

impl Kind {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "suspend" => Self::Suspend,
            "reactivate" => Self::Reactivate,
            "grant" => Self::Grant,
            "ungrant" => Self::Ungrant,
            "transfer" => Self::Transfer,
            "label" => Self::Label,
            _ => return None,
        })
    }

    pub(super) const fn needs_target(self) -> bool {
        matches!(self, Self::Grant | Self::Ungrant | Self::Transfer | Self::Label)
    }

    /// What happens to the agents, after their number.
    pub(super) const fn consequence(self) -> &'static str {
        match self {
            Self::Suspend => "Their keys and tokens stop working immediately. You can undo this.",
            Self::Reactivate => "Their keys work again. Tokens issued before the suspension stay revoked.",
            Self::Grant => "Their next tokens include the capability. You can undo this.",
            Self::Ungrant => "Their active tokens lose the capability immediately.",
            Self::Transfer => "Only the owner changes. Keys, tokens and capabilities stay. You can undo this.",
            Self::Label => "Only these labels change. All other labels stay. You can undo this.",
        }
    }
}

/// A group of agents, with the names of the first.
pub(super) struct Group {
    pub(super) title: String,
    pub(super) names: Vec<String>,
    pub(super) more: String,
}

impl Group {
    fn of(title: String, mut names: Vec<String>) -> Self {
        names.sort_unstable();
        let more = names.len().saturating_sub(NAMES);
        names.truncate(NAMES);
        let more = if more == 0 { String::new() } else { format!("and {} more", grouped(more)) };
        Self { title, names, more }
    }
}

/// What an operation changes.
pub(super) struct Effect {
    /// "18 of 20 will change".
    pub(super) title: String,
    pub(super) changes: Group,
    /// Why the others do not change.
    pub(super) unchanged: Vec<Group>,
    /// Numbers with their labels.
    pub(super) numbers: Vec<(&'static str, String)>,
    /// The text of the button; empty if nothing would change.
    pub(super) button: String,
    /// Identifies the agents and the operation.
    pub(super) seen: String,
    /// See [`Confirmed::field`].
    pub(super) expected: String,
    /// What is different from what the administrator confirmed.
    pub(super) differences: Vec<String>,
}

impl Effect {
    pub(super) fn of(kind: Kind, bulk: &Bulk, preview: &Preview, names: &Names) -> Self {
        let (changing, all) = (preview.changes.len(), preview.changes.len() + preview.unchanged.len());
        let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (id, brief, reason) in &preview.unchanged {
            reasons.entry(reason.to_string()).or_default().push(name(*id, brief.as_ref(), names));
        }
        let unchanged = reasons.into_iter().map(|(reason, names)| {
            let title = format!("{}: {reason}", grouped(names.len()));
            Group::of(title, names)
        });
        let number = if changing == 1 { "1 agent".to_owned() } else { format!("{} agents", grouped(changing)) };
        let button = match kind {
            _ if changing == 0 => String::new(),
            Kind::Suspend => format!("Suspend {number}"),
            Kind::Reactivate => format!("Reactivate {number}"),
            Kind::Grant => format!("Grant to {number}"),
            Kind::Ungrant => format!("Revoke from {number}"),
            Kind::Transfer => format!("Transfer {number}"),
            Kind::Label => format!("Label {number}"),
        };
        let mut numbers = Vec::new();
        let tokens =
            format!("{}{}", grouped(preview.tokens.tokens), if preview.tokens.may_be_more { " or more" } else { "" });
        let keys = grouped(preview.keys);
        match kind {
            Kind::Suspend => numbers = vec![("API keys that stop working", keys), ("Active tokens that end", tokens)],
            Kind::Reactivate => numbers = vec![("API keys that work again", keys)],
            Kind::Ungrant => numbers = vec![("Active tokens of these agents", tokens)],
            Kind::Grant | Kind::Transfer | Kind::Label => {}
        }
        let owners: BTreeMap<_, usize> = preview.changes.iter().fold(BTreeMap::new(), |mut owners, brief| {
            *owners.entry(brief.owner.as_str()).or_default() += 1;
            owners
        });
        if let (1, Some((owner, _))) = (owners.len(), owners.first_key_value()) {
            numbers.push(("Owner", (*owner).to_owned()));
        } else if owners.len() > 1 {
            numbers.push(("Owners", grouped(owners.len())));
        }
        Self {
            title: format!("{} of {} will change", grouped(changing), grouped(all)),
            changes: Group::of(String::new(), preview.changes.iter().map(|brief| brief.name.to_string()).collect()),
            unchanged: unchanged.collect(),
            numbers,
            button,
            seen: preview.fingerprint(bulk),
            expected: Confirmed::field(preview),
            differences: Vec::new(),
        }
    }
}

/// How an administrator selected agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::web::console) enum Selected {
    ByFilter,
    OneByOne,
}

/// The agents that would change according to the page that an administrator confirmed. Empty if they are too many to
/// remember.
#[derive(Debug, Default)]
pub(in crate::web::console) struct Confirmed(HashSet<AgentId>);

impl Confirmed {
    /// Returns the hidden field `expected`, with which the form of the page remembers the agents.
    pub(in crate::web::console) fn field(preview: &Preview) -> String {
        if preview.changes.len() > REMEMBERED {
            return String::new();
        }
        preview.changes.iter().map(|brief| brief.id.to_string()).collect::<Vec<_>>().join(" ")
    }

    /// Reads what [`Confirmed::field`] wrote.
    pub(in crate::web::console) fn of(form: &Form) -> Self {
        Self(form.get("expected").split(' ').take(REMEMBERED).filter_map(AgentId::parse).collect())
    }

    /// Returns the names of the agents that a preview does not name: those that were deleted, and those that were
    /// confirmed but are no longer selected.
    pub(in crate::web::console) async fn names(
        &self,
        services: &Services,
        caller: &Caller,
        preview: &Preview,
    ) -> Result<Names> {
        let deleted = preview.unchanged.iter().filter(|(_, brief, _)| brief.is_none()).map(|(id, ..)| *id);
        let nameless: Vec<_> = self.missing(preview).into_iter().chain(deleted).collect();
        if nameless.is_empty() {
            return Ok(Names::default());
        }
        names::of_agents(services, caller, &nameless).await
    }

    /// Says in sentences how the agents that would change now differ from these. Says nothing if these are not
    /// remembered.
    pub(in crate::web::console) fn differences(
        &self,
        preview: &Preview,
        names: &Names,
        selected: Selected,
    ) -> Vec<String> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (id, brief, reason) in preview.unchanged.iter().filter(|(id, ..)| self.0.contains(id)) {
            reasons.entry(reason.to_string()).or_default().push(name(*id, brief.as_ref(), names));
        }
        let kept = reasons.into_iter().map(|(reason, names)| format!("{}: {reason}.", listed(names)));
        let gone = self.missing(preview).into_iter().map(|id| name(id, None, names)).collect();
        let gone = match selected {
            Selected::ByFilter => sentence(gone, "no longer matches the filter", "no longer match the filter"),
            Selected::OneByOne => sentence(gone, "no longer exists", "no longer exist"),
        };
        let new = preview.changes.iter().filter(|brief| !self.0.contains(&brief.id));
        let new = new.map(|brief| brief.name.to_string()).collect();
        let new = sentence(new, "would change in addition", "would change in addition");
        kept.chain(gone).chain(new).collect()
    }

    /// Returns those of these agents that are no longer selected.
    fn missing(&self, preview: &Preview) -> Vec<AgentId> {
        let changing = preview.changes.iter().map(|brief| brief.id);
        let selected: HashSet<_> = changing.chain(preview.unchanged.iter().map(|(id, ..)| *id)).collect();
        self.0.difference(&selected).copied().collect()
    }
}

/// "2 agents no longer exist: mail-1, mail-2."; nothing without names.
fn sentence(names: Vec<String>, one: &str, many: &str) -> Option<String> {
    let subject = match names.len() {
        0 => return None,
        1 => format!("1 agent {one}"),
        count => format!("{} agents {many}", grouped(count)),
    };
    Some(format!("{subject}: {}.", listed(names)))
}

/// Lists the first names: "mail-1, mail-2 and 3 more".
fn listed(names: Vec<String>) -> String {
    let Group { names, more, .. } = Group::of(String::new(), names);
    let names = names.join(", ");
    if more.is_empty() { names } else { format!("{names} {more}") }
}

/// Returns the name of an agent: its last one if it was deleted, and its identifier if no name is known.
fn name(id: AgentId, brief: Option<&Brief>, names: &Names) -> String {
    brief.map_or_else(|| names.actor_or_id(id.into()), |brief| brief.name.to_string())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        domain::{AgentName, AgentStatus},
        service::tokens::live_tokens::Count,
    };

    /// Returns a preview in which these agents would change.
    fn preview(numbers: impl Iterator<Item = usize>) -> Preview {
        let brief = |number: usize| Brief {
            id: AgentId(Uuid::from_u128(number as u128)),
            name: AgentName::parse(&format!("agent-{number:03}")).unwrap(),
            owner: "tests".to_owned(),
            status: AgentStatus::Active,
        };
        let tokens = Count { tokens: 0, may_be_more: false };
        Preview { changes: numbers.map(brief).collect(), unchanged: Vec::new(), keys: 0, tokens }
    }

    fn confirmed(before: &Preview) -> Confirmed {
        Confirmed::of(&Form::parse(format!("expected={}", Confirmed::field(before)).as_bytes()).unwrap())
    }

    #[test]
    fn agents_that_changed_are_named_up_to_a_number() {
        let selected = Selected::ByFilter;
        let (before, names) = (preview(0..REMEMBERED), Names::default());
        let differences = |before: &Preview, now| confirmed(before).differences(&preview(now), &names, selected);
        assert!(differences(&before, 0..REMEMBERED).is_empty());
        assert_eq!(differences(&before, 0..201), ["1 agent would change in addition: agent-200."]);
        let lines = differences(&before, 0..188);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("12 agents no longer match the filter: 00000000-"), "{lines:?}");
        assert!(lines[0].ends_with(" and 2 more."), "{lines:?}");
        // More are not remembered, so none is named.
        assert!(differences(&preview(0..201), 0..1).is_empty());
    }
}
