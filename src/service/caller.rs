//! Who asks, with what authority, from where.

use std::net::IpAddr;

use crate::domain::{AgentId, ApiKeyId, CapabilitySet, RequestId};

/// Where a request came from, known before who sent it is.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The client's address; `None` for work that no request asked for.
    pub ip: Option<IpAddr>,
    /// The request.
    pub request_id: Option<RequestId>,
}

/// An authenticated caller. Made only by [`super::tokens::authenticate`] and by commands on the host.
#[derive(Clone, Debug)]
pub struct Caller {
    pub(super) principal: Principal,
    /// Where the request came from.
    pub origin: Origin,
}

#[derive(Clone, Debug)]
pub(super) enum Principal {
    /// AIMS itself, at the word of whoever controls the host.
    System,
    Agent(AgentCaller),
}

/// An agent that presented an access token.
#[derive(Clone, Debug)]
pub(super) struct AgentCaller {
    pub(super) id: AgentId,
    /// What the token allows and the agent still held when it was checked.
    pub(super) authority: CapabilitySet,
    /// The API key the token was issued for.
    pub(super) key: ApiKeyId,
    /// The generation of tokens that the token belongs to.
    pub(super) token_epoch: i64,
}

impl Caller {
    /// AIMS itself: bootstrap and commands of the host's operator.
    #[must_use]
    pub fn system() -> Self {
        Self { principal: Principal::System, origin: Origin::default() }
    }

    /// The agent that calls; `None` for the system.
    #[must_use]
    pub const fn agent(&self) -> Option<AgentId> {
        match &self.principal {
            Principal::System => None,
            Principal::Agent(agent) => Some(agent.id),
        }
    }
}
