//! The caller of an operation: its identity, its authority and the origin of its request.

use std::{
    iter,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use crate::domain::{
    ActorId, AdministratorId, AgentId, ApiKeyId, CapabilitySet, RequestId, Role, SessionId, Timestamp,
    token::{Credential, Link},
};

/// The origin of a request, known before the sender is authenticated.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The client's IP address; `None` for work that no request started.
    pub ip: Option<IpAddr>,
    /// The ID of the request.
    pub request_id: Option<RequestId>,
    /// Who sent the request, once that is known.
    pub identity: Identity,
}

/// Who sent a request, for its line in the access log. It is noted when the sender has authenticated, and stays known if
/// the request is then refused or cancelled. Copies share it. Nothing is decided by it.
#[derive(Clone, Debug, Default)]
pub struct Identity(Arc<OnceLock<Identified>>);

#[derive(Debug)]
struct Identified {
    actor: ActorId,
    on_behalf_of: Option<AgentId>,
}

impl Identity {
    /// Notes who acts, and for which other agent. Only the first note counts: what a client authenticates with.
    pub(in crate::service) fn note(&self, actor: impl Into<ActorId>, on_behalf_of: Option<AgentId>) {
        // Nothing to do if it is noted already.
        let _ = self.0.set(Identified { actor: actor.into(), on_behalf_of });
    }

    /// Returns the ID of the agent or administrator that acts.
    #[must_use]
    pub fn actor(&self) -> Option<String> {
        self.0.get().map(|identified| identified.actor.to_string())
    }

    /// Returns the ID of the agent that it acts for, if that is another one.
    #[must_use]
    pub fn on_behalf_of(&self) -> Option<String> {
        self.0.get()?.on_behalf_of.map(|agent| agent.to_string())
    }
}

/// An authenticated caller. Only [`crate::service::tokens::authenticate`],
/// [`crate::service::tokens::clients::authenticate`], [`crate::service::people::sessions::authenticate`] and commands
/// on the host create one.
#[derive(Clone, Debug)]
pub struct Caller {
    pub(in crate::service) principal: Principal,
    /// The origin of the request.
    pub origin: Origin,
}

#[derive(Clone, Debug)]
pub(in crate::service) enum Principal {
    /// AIMS itself, on behalf of the operator of the host.
    System,
    Agent(AgentCaller),
    Administrator(AdministratorCaller),
}

/// An agent that presented an access token or another credential.
#[derive(Clone, Debug)]
pub(in crate::service) struct AgentCaller {
    /// The capabilities that the token allows and that its agents held when it was checked.
    pub(in crate::service) authority: CapabilitySet,
    /// The agent that the authority belongs to.
    pub(in crate::service) subject: Link,
    /// The agents that act for the subject, the current actor last.
    pub(in crate::service) actors: Arc<[Link]>,
}

impl AgentCaller {
    /// Creates the caller of a token with this chain, the subject first. Returns `None` for an empty chain.
    pub(in crate::service) fn from_chain(authority: CapabilitySet, links: Vec<Link>) -> Option<Self> {
        let mut links = links.into_iter();
        Some(Self { authority, subject: links.next()?, actors: links.collect() })
    }

    /// Returns the current actor: the subject itself if no other agent acts for it.
    pub(in crate::service) fn actor(&self) -> &Link {
        self.actors.last().unwrap_or(&self.subject)
    }

    /// Returns every agent of the chain, the subject first.
    pub(in crate::service) fn links(&self) -> impl Iterator<Item = &Link> {
        iter::once(&self.subject).chain(self.actors.iter())
    }
}

/// An administrator who is signed in to the console.
#[derive(Clone, Debug)]
pub(in crate::service) struct AdministratorCaller {
    pub(in crate::service) id: AdministratorId,
    pub(in crate::service) session: SessionId,
    pub(in crate::service) role: Role,
    /// When the administrator last proved their identity.
    pub(in crate::service) proved_at: Timestamp,
}

impl Caller {
    /// AIMS itself, for bootstrap and for commands on the host.
    #[must_use]
    pub fn system() -> Self {
        Self { principal: Principal::System, origin: Origin::default() }
    }

    /// AIMS itself, for a request whose sender proved that they control the host.
    #[must_use]
    pub(in crate::service) const fn host(origin: Origin) -> Self {
        Self { principal: Principal::System, origin }
    }

    /// Returns the agent whose authority the caller uses; `None` unless the caller is an agent.
    #[must_use]
    pub const fn subject(&self) -> Option<AgentId> {
        match &self.principal {
            Principal::Agent(agent) => Some(agent.subject.agent),
            Principal::System | Principal::Administrator(_) => None,
        }
    }

    /// Returns the subject if another agent acts for it.
    #[must_use]
    pub fn on_behalf_of(&self) -> Option<AgentId> {
        self.subject().filter(|&subject| self.actor() != Some(subject.into()))
    }

    /// Returns true if the agent is the subject or one of the actors of this call.
    #[must_use]
    pub fn involves(&self, id: AgentId) -> bool {
        matches!(&self.principal, Principal::Agent(agent) if agent.links().any(|link| link.agent == id))
    }

    /// Returns the agents of this call, the subject first; none unless the caller is an agent.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentId> {
        match &self.principal {
            Principal::Agent(agent) => agent.links().map(|link| link.agent).collect(),
            Principal::System | Principal::Administrator(_) => Vec::new(),
        }
    }

    /// Returns true if the caller is this agent and no other agent acts for it.
    pub(in crate::service) fn is_agent(&self, id: AgentId) -> bool {
        matches!(&self.principal, Principal::Agent(agent) if agent.subject.agent == id && agent.actors.is_empty())
    }

    /// Returns the API key through which the caller has this agent's authority, if any.
    pub(in crate::service) fn key_of(&self, id: AgentId) -> Option<ApiKeyId> {
        let Principal::Agent(agent) = &self.principal else { return None };
        agent.links().filter(|link| link.agent == id).find_map(|link| match link.credential {
            Credential::ApiKey(key) => Some(key),
            Credential::PublicKey(_) | Credential::FederatedIdentity(_) => None,
        })
    }

    /// Returns the administrator, if the caller is one.
    #[must_use]
    pub const fn administrator(&self) -> Option<AdministratorId> {
        match &self.principal {
            Principal::Administrator(person) => Some(person.id),
            Principal::System | Principal::Agent(_) => None,
        }
    }

    /// Returns the session of the administrator, if the caller is one.
    #[must_use]
    pub const fn session(&self) -> Option<SessionId> {
        match &self.principal {
            Principal::Administrator(person) => Some(person.session),
            Principal::System | Principal::Agent(_) => None,
        }
    }

    /// Notes the caller as the sender of its request.
    pub(in crate::service) fn identified(self) -> Self {
        if let Some(actor) = self.actor() {
            self.origin.identity.note(actor, self.on_behalf_of());
        }
        self
    }

    /// Returns the actor for audit records; `None` for the system.
    #[must_use]
    pub fn actor(&self) -> Option<ActorId> {
        match &self.principal {
            Principal::System => None,
            Principal::Agent(agent) => Some(agent.actor().agent.into()),
            Principal::Administrator(person) => Some(person.id.into()),
        }
    }
}
