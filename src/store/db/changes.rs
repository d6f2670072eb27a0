//! What a commit changed, for the caches of this and every other node.

use std::collections::BTreeSet;

use crate::domain::AgentId;

/// The PostgreSQL notification channel for changes.
pub(in crate::store) const CHANNEL: &str = "aims_changes";

/// The agents that a commit changed: their status, details, credentials, grants, delegations or revoked tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    agents: BTreeSet<AgentId>,
    everything: bool,
}

impl Changes {
    /// Every agent and the signing keys may have changed.
    pub const EVERYTHING: Self = Self { agents: BTreeSet::new(), everything: true };

    /// Most agents in one notification. PostgreSQL limits a notification to 8,000 bytes.
    const PER_MESSAGE: usize = 200;
    /// Most agents that are named one by one, in 50 notifications. A commit that changes more invalidates everything.
    const MOST: usize = 10_000;

    pub(in crate::store) fn add(&mut self, agent: AgentId) {
        if !self.everything {
            self.agents.insert(agent);
            if self.agents.len() > Self::MOST {
                self.add_everything();
            }
        }
    }

    pub(in crate::store) fn add_everything(&mut self) {
        *self = Self::EVERYTHING;
    }

    pub(in crate::store) fn absorb(&mut self, other: Self) {
        if other.everything {
            self.add_everything();
        }
        for agent in other.agents {
            self.add(agent);
        }
    }

    /// The agents that changed. `None` if everything may have changed.
    #[must_use]
    pub fn agents(&self) -> Option<&BTreeSet<AgentId>> {
        (!self.everything).then_some(&self.agents)
    }

    /// The notifications to other nodes: `*` for everything, or agent identifiers separated by commas.
    pub(in crate::store) fn to_messages(&self) -> Vec<String> {
        if self.everything {
            return vec!["*".to_owned()];
        }
        let agents: Vec<_> = self.agents.iter().map(ToString::to_string).collect();
        agents.chunks(Self::PER_MESSAGE).map(|agents| agents.join(",")).collect()
    }

    /// Parses a notification. A malformed one is read as [`Changes::EVERYTHING`].
    #[must_use]
    pub fn from_message(message: &str) -> Self {
        match message.split(',').map(AgentId::parse).collect() {
            Some(agents) => Self { agents, everything: false },
            None => Self::EVERYTHING,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents(count: usize) -> Changes {
        let mut changes = Changes::default();
        for number in 0..count {
            changes.add(AgentId(uuid::Uuid::from_u128(number as u128)));
        }
        changes
    }

    #[test]
    fn notifications_name_every_changed_agent() {
        let changes = agents(450);
        let messages = changes.to_messages();
        assert_eq!(messages.len(), 3);
        assert!(messages.iter().all(|message| message.len() < 8_000));
        let mut received = Changes::default();
        for message in messages {
            received.absorb(Changes::from_message(&message));
        }
        assert_eq!(received, changes);
    }

    #[test]
    fn malformed_notifications_invalidate_everything() {
        for message in ["*", "", "junk", "00000000-0000-0000-0000-000000000001,x"] {
            assert_eq!(Changes::from_message(message), Changes::EVERYTHING);
        }
    }

    #[test]
    fn large_commits_invalidate_everything() {
        assert_eq!(agents(Changes::MOST).agents().unwrap().len(), Changes::MOST);
        assert_eq!(agents(Changes::MOST + 1), Changes::EVERYTHING);
        let mut changes = agents(1);
        changes.absorb(Changes::EVERYTHING);
        assert_eq!(changes, Changes::EVERYTHING);
    }
}
