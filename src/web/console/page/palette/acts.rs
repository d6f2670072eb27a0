//! Actions that are asked for by name, such as "suspend planner-us". They lead to the page that shows what the action
//! affects, and never act by themselves.

use AgentStatus::{Active, Revoked, Suspended};

use super::{Entry, fuzzy};
use crate::{
    domain::{Agent, AgentStatus},
    service::Action,
    web::console::page::frame::Frame,
};

/// An action on an agent.
pub(super) struct Act {
    /// The word to ask for it.
    pub(super) verb: &'static str,
    action: Action,
    label: &'static str,
    /// The page below the page of the agent.
    path: &'static str,
    icon: &'static str,
    statuses: &'static [AgentStatus],
}

/// The verb of [`ACTS`] that may also name a capability.
pub(super) const GRANT: &str = "grant";
/// The verb of [`ACTS`] that may also name a key.
pub(super) const REVOKE: &str = "revoke";
/// The verb of [`ACTS`] that is about the keys of an agent.
pub(super) const ROTATE: &str = "rotate";

#[rustfmt::skip]
const ACTS: [Act; 7] = [
    Act { verb: "suspend", action: Action::SuspendAgent, label: "Suspend", path: "/suspend", icon: "suspended", statuses: &[Active] },
    Act { verb: "reactivate", action: Action::ReactivateAgent, label: "Reactivate", path: "", icon: "active", statuses: &[Suspended] },
    Act { verb: REVOKE, action: Action::RevokeAgent, label: "Revoke", path: "/revoke", icon: "revoked", statuses: &[Active, Suspended] },
    Act { verb: ROTATE, action: Action::RotateKey, label: "Rotate a key of", path: "/keys", icon: "rotated", statuses: &[Active, Suspended] },
    Act { verb: GRANT, action: Action::GrantCapability, label: "Grant a capability to", path: "/grants", icon: "capability", statuses: &[Active, Suspended] },
    Act { verb: "edit", action: Action::UpdateAgent, label: "Edit", path: "/edit", icon: "edit", statuses: &[Active, Suspended] },
    Act { verb: "delete", action: Action::DeleteAgent, label: "Delete", path: "/delete", icon: "delete", statuses: &[Active, Suspended, Revoked] },
];

impl Act {
    /// Reads an action and the name of its object. The action may be abbreviated or mistyped.
    pub(super) fn parse(text: &str) -> Option<(&'static Self, &str)> {
        let (verb, object) = text.split_once(char::is_whitespace)?;
        let verb_is = |known: &str| verb.chars().count() >= 3 && known.starts_with(&verb.to_lowercase());
        let is_like = |known: &str| verb.len() > 4 && fuzzy::rank(known, verb).is_some();
        let named = ACTS.iter().find(|act| verb_is(act.verb));
        let act = named.or_else(|| ACTS.iter().find(|act| is_like(act.verb)))?;
        Some((act, object.trim())).filter(|(_, object)| !object.is_empty())
    }

    pub(super) fn is_allowed(&self, frame: &Frame) -> bool {
        frame.may(self.action)
    }

    /// Returns the action on an agent, if its status allows it.
    pub(super) fn on(&self, agent: &Agent, rank: u32) -> Option<Entry> {
        self.statuses.contains(&agent.status).then(|| Entry {
            name: format!("{} {}", self.label, agent.name),
            href: format!("/console/agents/{}{}", agent.id, self.path),
            kind: "Action",
            icon: self.icon,
            note: String::new(),
            rank,
        })
    }
}

/// Returns every action on an agent that the role and the status of the agent allow.
pub(super) fn all<'f>(frame: &'f Frame, agent: &'f Agent, rank: u32) -> impl Iterator<Item = Entry> + 'f {
    ACTS.iter().filter(|act| act.is_allowed(frame)).filter_map(move |act| act.on(agent, rank))
}
