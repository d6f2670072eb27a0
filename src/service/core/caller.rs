//! Who asks, with what authority, from where.

use std::{iter, net::IpAddr, sync::Arc};

use crate::domain::{
    ActorId, AdministratorId, AgentId, ApiKeyId, CapabilitySet, RequestId, Role, SessionId, Timestamp,
    token::{Credential, Link},
};

/// Where a request came from, known before who sent it is.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The client's address; `None` for work that no request asked for.
    pub ip: Option<IpAddr>,
    /// The request.
    pub request_id: Option<RequestId>,
}

/// An authenticated caller. Made only by [`crate::service::tokens::authenticate`], [`crate::service::tokens::clients::authenticate`],
/// [`crate::service::people::sessions::authenticate`] and by commands on the host.
#[derive(Clone, Debug)]
pub struct Caller {
    pub(in crate::service) principal: Principal,
    /// Where the request came from.
    pub origin: Origin,
}

#[derive(Clone, Debug)]
pub(in crate::service) enum Principal {
    /// AIMS itself, at the word of whoever controls the host.
    System,
    Agent(AgentCaller),
    Administrator(AdministratorCaller),
}

/// An agent that presented an access token, or its key.
#[derive(Clone, Debug)]
pub(in crate::service) struct AgentCaller {
    /// What the token allows and its agents still held when it was checked.
    pub(in crate::service) authority: CapabilitySet,
    /// Whose authority it is.
    pub(in crate::service) subject: Link,
    /// Who acts for the subject, the present one last.
    pub(in crate::service) actors: Arc<[Link]>,
}

impl AgentCaller {
    /// The bearer of a token with this chain, the subject first; `None` for a chain without links.
    pub(in crate::service) fn of_chain(authority: CapabilitySet, links: Vec<Link>) -> Option<Self> {
        let mut links = links.into_iter();
        Some(Self { authority, subject: links.next()?, actors: links.collect() })
    }

    /// The agent that acts: the subject, where nobody does so for it.
    pub(in crate::service) fn acting(&self) -> &Link {
        self.actors.last().unwrap_or(&self.subject)
    }

    /// Every agent of the chain, the subject first.
    pub(in crate::service) fn links(&self) -> impl Iterator<Item = &Link> {
        iter::once(&self.subject).chain(self.actors.iter())
    }
}

/// An administrator with a session of the console.
#[derive(Clone, Debug)]
pub(in crate::service) struct AdministratorCaller {
    pub(in crate::service) id: AdministratorId,
    pub(in crate::service) session: SessionId,
    pub(in crate::service) role: Role,
    /// When they last proved who they are.
    pub(in crate::service) proved_at: Timestamp,
}

impl Caller {
    /// AIMS itself: bootstrap and commands of the host's operator.
    #[must_use]
    pub fn system() -> Self {
        Self { principal: Principal::System, origin: Origin::default() }
    }

    /// AIMS itself, at the word of a request whose sender proved to control the host.
    #[must_use]
    pub(in crate::service) const fn host(origin: Origin) -> Self {
        Self { principal: Principal::System, origin }
    }

    /// The agent whose authority the caller has, if it is an agent's.
    #[must_use]
    pub const fn subject(&self) -> Option<AgentId> {
        match &self.principal {
            Principal::Agent(agent) => Some(agent.subject.agent),
            Principal::System | Principal::Administrator(_) => None,
        }
    }

    /// The agent that another acts for in this call, if one does.
    #[must_use]
    pub fn on_behalf_of(&self) -> Option<AgentId> {
        self.subject().filter(|&subject| self.actor() != Some(subject.into()))
    }

    /// Whether an agent calls, or another acts for it or through it.
    #[must_use]
    pub fn involves(&self, id: AgentId) -> bool {
        matches!(&self.principal, Principal::Agent(agent) if agent.links().any(|link| link.agent == id))
    }

    /// Returns true if the caller is this agent, and no other agent acts for it.
    pub(in crate::service) fn is(&self, id: AgentId) -> bool {
        matches!(&self.principal, Principal::Agent(agent) if agent.subject.agent == id && agent.actors.is_empty())
    }

    /// The API key by which the caller has this agent's authority, if it has it by one.
    pub(in crate::service) fn key_of(&self, id: AgentId) -> Option<ApiKeyId> {
        let Principal::Agent(agent) = &self.principal else { return None };
        agent.links().filter(|link| link.agent == id).find_map(|link| match link.credential {
            Credential::ApiKey(key) => Some(key),
            Credential::PublicKey(_) | Credential::FederatedIdentity(_) => None,
        })
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
            Principal::Agent(agent) => Some(agent.acting().agent.into()),
            Principal::Administrator(person) => Some(person.id.into()),
        }
    }
}
