//! What a commit changed, as far as memory elsewhere must forget it.

use crate::domain::AgentId;

/// The agents whose status, keys or grants a commit changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    agents: Vec<AgentId>,
    everything: bool,
}

impl Changes {
    /// Everything may have changed.
    pub const EVERYTHING: Self = Self { agents: Vec::new(), everything: true };

    /// Largest number of agents named in one notification: PostgreSQL carries at most 8,000 bytes.
    const PER_MESSAGE: usize = 200;

    pub(in crate::store) fn add(&mut self, agent: AgentId) {
        self.agents.push(agent);
    }

    pub(in crate::store) fn add_everything(&mut self) {
        self.everything = true;
    }

    pub(in crate::store) fn absorb(&mut self, other: Self) {
        self.agents.extend(other.agents);
        self.everything |= other.everything;
    }

    /// The agents that changed; `None` when everything may have.
    #[must_use]
    pub fn agents(&self) -> Option<&[AgentId]> {
        (!self.everything).then_some(&self.agents)
    }

    /// As notifications to other nodes: `*`, or identifiers separated by commas.
    pub(in crate::store) fn to_messages(&self) -> Vec<String> {
        if self.everything {
            return vec!["*".to_owned()];
        }
        let message = |agents: &[AgentId]| agents.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        self.agents.chunks(Self::PER_MESSAGE).map(message).collect()
    }

    /// Reads a notification. One that is not understood means that everything may have changed.
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

    #[test]
    fn a_notification_says_what_the_commit_changed() {
        let agents: Vec<_> = (0..450).map(|n| AgentId(uuid::Uuid::from_u128(n))).collect();
        let changes = Changes { agents: agents.clone(), everything: false };
        let messages = changes.to_messages();
        assert!(messages.iter().all(|message| message.len() < 8_000));
        let heard: Vec<_> = messages.iter().flat_map(|m| Changes::from_message(m).agents().unwrap().to_vec()).collect();
        assert_eq!(heard, agents);
    }

    #[test]
    fn what_is_not_understood_invalidates_everything() {
        for message in ["*", "", "junk", "00000000-0000-0000-0000-000000000001,x"] {
            assert_eq!(Changes::from_message(message), Changes::EVERYTHING);
        }
    }
}
