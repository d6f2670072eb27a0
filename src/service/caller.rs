//! Who asks, with what authority, from where.

use std::net::IpAddr;

use crate::domain::{
    ActorId, AdministratorId, AgentId, CapabilitySet, RequestId, Role, SessionId, Timestamp, TokenId, token::Credential,
};

/// Where a request came from, known before who sent it is.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The client's address; `None` for work that no request asked for.
    pub ip: Option<IpAddr>,
    /// The request.
    pub request_id: Option<RequestId>,
}

/// An authenticated caller. Made only by [`super::tokens::authenticate`], [`super::clients::authenticate`],
/// [`super::sessions::authenticate`] and by commands on the host.
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
    Administrator(AdministratorCaller),
}

/// An agent that presented an access token, or its key.
#[derive(Clone, Debug)]
pub(super) struct AgentCaller {
    pub(super) id: AgentId,
    /// What the token allows and the agent still held when it was checked.
    pub(super) authority: CapabilitySet,
    /// What the token was issued for.
    pub(super) credential: Credential,
    /// The generation of tokens that the token belongs to.
    pub(super) token_epoch: i64,
    /// The token; `None` for a client that presented its key itself.
    pub(super) token: Option<TokenId>,
}

/// An administrator with a session of the console.
#[derive(Clone, Debug)]
pub(super) struct AdministratorCaller {
    pub(super) id: AdministratorId,
    pub(super) session: SessionId,
    pub(super) role: Role,
    /// When they last proved who they are.
    pub(super) proved_at: Timestamp,
}

impl Caller {
    /// AIMS itself: bootstrap and commands of the host's operator.
    #[must_use]
    pub fn system() -> Self {
        Self { principal: Principal::System, origin: Origin::default() }
    }

    /// AIMS itself, at the word of a request whose sender proved to control the host.
    #[must_use]
    pub(super) const fn host(origin: Origin) -> Self {
        Self { principal: Principal::System, origin }
    }

    /// The agent that calls, if it is one.
    #[must_use]
    pub const fn agent(&self) -> Option<AgentId> {
        match &self.principal {
            Principal::Agent(agent) => Some(agent.id),
            Principal::System | Principal::Administrator(_) => None,
        }
    }

    /// The administrator who calls, if it is one.
    #[must_use]
    pub const fn administrator(&self) -> Option<AdministratorId> {
        match &self.principal {
            Principal::Administrator(person) => Some(person.id),
            Principal::System | Principal::Agent(_) => None,
        }
    }

    /// The session that the administrator who calls uses.
    #[must_use]
    pub const fn session(&self) -> Option<SessionId> {
        match &self.principal {
            Principal::Administrator(person) => Some(person.session),
            Principal::System | Principal::Agent(_) => None,
        }
    }

    /// What records name as the one who acted; `None` for the system.
    #[must_use]
    pub fn actor(&self) -> Option<ActorId> {
        match &self.principal {
            Principal::System => None,
            Principal::Agent(agent) => Some(agent.id.into()),
            Principal::Administrator(person) => Some(person.id.into()),
        }
    }
}
