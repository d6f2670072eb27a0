//! Counting which capabilities agents use, so that grants that nobody uses can be found.

use super::{
    caller::{Caller, Principal},
    policy::Action,
};
use crate::{
    domain::{AgentId, Result},
    service::Services,
};

impl Services {
    /// Does the same as [`Services::permit`], and counts a use of the capability that allows the action by every agent
    /// whose authority the caller needs. Call it once per request.
    ///
    /// # Errors
    /// As [`Services::permit`].
    pub async fn admit(&self, caller: &Caller, action: Action) -> Result<()> {
        self.permit(caller, action).await?;
        if let Principal::Agent(agent) = &caller.principal {
            for link in agent.links() {
                self.count_uses(link.agent, [action.demands()]).await;
            }
        }
        Ok(())
    }

    /// Counts uses of capabilities by an agent. A use belongs to the grant that allows it, which may be a wildcard.
    pub(in crate::service) async fn count_uses(&self, agent: AgentId, used: impl IntoIterator<Item = &str> + Send) {
        let now = self.env.now();
        // A count is not worth an error.
        let Ok(Some(principal)) = self.principals.agent(&self.store, agent, now).await else { return };
        for capability in used {
            if let Some(held) = principal.capabilities.covering(capability) {
                self.store.used_capability(agent, held, now);
            }
        }
    }
}
