//! What an operation on many agents changes, as its page shows it.

use std::collections::BTreeMap;

use crate::{
    domain::{AgentId, agent::Brief},
    service::agents::bulk::{Bulk, preview::Preview},
    web::console::page::grouped,
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
    /// The agents that would change, if they are few.
    pub(super) expected: String,
    /// What is different from what the administrator confirmed.
    pub(super) differences: Vec<String>,
}

impl Effect {
    pub(super) fn of(kind: Kind, bulk: &Bulk, preview: &Preview) -> Self {
        let (changing, all) = (preview.changes.len(), preview.changes.len() + preview.unchanged.len());
        let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (id, brief, reason) in &preview.unchanged {
            reasons.entry(reason.to_string()).or_default().push(name(*id, brief.as_ref()));
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
        let ids: Vec<_> = preview.changes.iter().map(|brief| brief.id.to_string()).collect();
        Self {
            title: format!("{} of {} will change", grouped(changing), grouped(all)),
            changes: Group::of(String::new(), preview.changes.iter().map(|brief| brief.name.to_string()).collect()),
            unchanged: unchanged.collect(),
            numbers,
            button,
            seen: preview.fingerprint(bulk),
            expected: if ids.len() <= REMEMBERED { ids.join(" ") } else { String::new() },
            differences: Vec::new(),
        }
    }

    /// Says what is different from the agents that the administrator confirmed.
    pub(super) fn name_differences(&mut self, preview: &Preview, confirmed: &[AgentId]) {
        self.differences = vec!["The agents have changed since you saw this page, so nothing was changed.".to_owned()];
        if confirmed.is_empty() {
            return;
        }
        for (id, brief, reason) in &preview.unchanged {
            if confirmed.contains(id) {
                self.differences.push(format!("{}: {reason}.", name(*id, brief.as_ref())));
            }
        }
        let known = |id: &AgentId| {
            preview.changes.iter().any(|brief| brief.id == *id) || preview.unchanged.iter().any(|(one, ..)| one == id)
        };
        let gone = confirmed.iter().filter(|id| !known(id)).count();
        if gone > 0 {
            self.differences.push(format!("{} no longer match the filter.", grouped(gone)));
        }
        let new: Vec<_> = preview.changes.iter().filter(|brief| !confirmed.contains(&brief.id)).collect();
        if let Some(first) = new.first() {
            self.differences.push(format!("{} would change in addition, such as {}.", grouped(new.len()), first.name));
        }
        self.differences.truncate(NAMES + 1);
    }
}

fn name(id: AgentId, brief: Option<&Brief>) -> String {
    brief.map_or_else(|| id.to_string(), |brief| brief.name.to_string())
}
