//! Pages for agents.

pub(super) mod bulk;
pub(super) mod confirm;
pub(super) mod create;
pub(super) mod edit;
pub(super) mod export;
pub(super) mod grants;
pub(super) mod impact;
pub(super) mod list;
pub(super) mod show;
pub(super) mod stop;
pub(super) mod tokens;

use super::{guard::Admin, page::frame::Moment};
use crate::{
    domain::{Agent, AgentId, AgentType, Denial, Error, Result, Role},
    service::{
        Caller, Services,
        agents::{
            self, impact as impact_of,
            past::{self, Stopped},
        },
        core::power,
    },
};

/// Returns the agent with the ID in a path.
pub(super) async fn find(services: &Services, caller: &Caller, id: &str) -> Result<Agent> {
    agents::get(services, caller, parse_id(id)?).await
}

/// Returns the label of an agent type.
const fn type_name(kind: AgentType) -> &'static str {
    match kind {
        AgentType::Llm => "LLM",
        AgentType::Tool => "Tool",
        AgentType::Orchestrator => "Orchestrator",
        AgentType::Custom => "Custom",
    }
}

/// Returns value and label of every agent type.
fn type_options() -> impl Iterator<Item = (&'static str, &'static str)> {
    AgentType::ALL.iter().map(|kind| (kind.as_str(), type_name(*kind)))
}

pub(super) fn parse_id(id: &str) -> Result<AgentId> {
    AgentId::parse(id).ok_or(Error::NotFound("Agent"))
}

/// The header of the pages of an agent.
pub(super) struct Head {
    pub(super) id: AgentId,
    pub(super) name: String,
    pub(super) owner: String,
    pub(super) status: &'static str,
    pub(super) agent_type: &'static str,
    pub(super) created: Moment,
    pub(super) updated: Moment,
    pub(super) suspended: Option<Moment>,
    pub(super) revoked: Option<Moment>,
    pub(super) last_used: Option<Moment>,
    /// Who suspended or revoked the agent, and why.
    pub(super) stopped: Option<Stopped>,
    /// The active tab.
    pub(super) tab: &'static str,
    /// True if the administrator may suspend, revoke or delete the agent, and change its credentials.
    pub(super) may_manage: bool,
    /// A capability of the agent that the administrator does not hold.
    pub(super) lacking: Option<String>,
}

impl Head {
    pub(super) async fn of(services: &Services, admin: &Admin, agent: &Agent, tab: &'static str) -> Result<Self> {
        let now = services.env.now();
        let moment = |at| Moment::at(at, now);
        let lacking = power::lacking(services, admin, agent.id).await?;
        let stopped = past::stopped(services, admin, agent).await?;
        Ok(Self {
            id: agent.id,
            name: agent.name.to_string(),
            owner: agent.owner.clone(),
            status: agent.status.as_str(),
            agent_type: type_name(agent.agent_type),
            created: moment(agent.created_at),
            updated: moment(agent.updated_at),
            suspended: agent.suspended_at.map(moment),
            revoked: agent.revoked_at.map(moment),
            last_used: impact_of::last_used(services, admin, agent.id).await?.map(moment),
            stopped,
            tab,
            may_manage: lacking.is_none() && admin.0.administrator.role >= Role::Operator,
            lacking,
        })
    }

    /// Rejects a form whose submission would be denied.
    ///
    /// # Errors
    /// [`Denial::MoreAuthority`].
    pub(super) fn manageable(self) -> Result<Self> {
        match self.lacking {
            Some(lacking) => Err(Denial::MoreAuthority(lacking).into()),
            None => Ok(self),
        }
    }

    /// The tabs: name, path and label.
    pub(super) fn tabs(&self) -> [(&'static str, String, &'static str); 6] {
        let below = |rest: &str| format!("/console/agents/{}{rest}", self.id);
        [
            ("overview", below(""), "Overview"),
            ("keys", below("/keys"), "API keys"),
            ("tokens", below("/tokens"), "Tokens"),
            ("grants", below("/grants"), "Grants"),
            ("timeline", below("/timeline"), "Timeline"),
            ("connect", below("/connect"), "Connect"),
        ]
    }
}
