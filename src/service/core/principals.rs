//! The live view: the current authority and description of each agent, cached in memory.
//!
//! A commit invalidates what it changed before its caller gets a response. A load that races with a commit serves its
//! own request and is not cached: see the module `cache`. On a shared database, other nodes' commits arrive as
//! notifications. While notifications cannot arrive, the view is bypassed and every request reads the database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quick_cache::{Weighter, sync::Cache};
use tokio::sync::Notify;

use super::cache::get_or_load_counted;
use crate::{
    crypto::KeyHash,
    domain::{Agent, AgentId, ApiKeyId, Result, Timestamp},
    store::{
        Changes, Store, agents,
        principals::{self, Principal},
    },
    telemetry::metrics::{Metrics, labels},
};

/// Memory for descriptions, in bytes for each agent of the capacity.
const DETAILS_BYTES: usize = 256;
/// Time to wait before listening again after the connection was lost.
const RELISTEN: Duration = Duration::from_millis(250);

/// The live view. All clones share one view.
#[derive(Clone)]
pub struct Principals(Arc<Inner>);

struct Inner {
    agents: Cache<AgentId, Arc<Principal>>,
    details: Cache<AgentId, Arc<Agent>, Bytes>,
    /// The agent of each key. It never changes, so these entries need no invalidation: a key that was revoked or
    /// deleted is no longer among its agent's keys.
    owners: Cache<KeyHash, (ApiKeyId, AgentId)>,
    bypassed: AtomicBool,
    /// Notified when another node may have changed anything.
    everything_changed: Notify,
}

impl Principals {
    /// A view of at most `capacity` agents and as many keys. It evicts those that are used least.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let details = u64::try_from(capacity.saturating_mul(DETAILS_BYTES)).unwrap_or(u64::MAX);
        Self(Arc::new(Inner {
            agents: Cache::new(capacity),
            details: Cache::with_weighter(capacity, details, Bytes),
            owners: Cache::new(capacity),
            bypassed: AtomicBool::new(false),
            everything_changed: Notify::new(),
        }))
    }

    /// Returns an agent's authority, or `None` if the agent does not exist.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn agent(&self, store: &Store, id: AgentId, now: Timestamp) -> Result<Option<Arc<Principal>>> {
        let counted = (store.metrics().as_ref(), labels::Cache::Agents);
        self.cached(counted, &self.0.agents, id, async { principals::load(store.read().await?.conn(), id, now).await })
            .await
    }

    /// Returns an agent's description, or `None` if the agent does not exist.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn details(&self, store: &Store, id: AgentId) -> Result<Option<Arc<Agent>>> {
        let counted = (store.metrics().as_ref(), labels::Cache::AgentDetails);
        self.cached(counted, &self.0.details, id, async { agents::find(store.read().await?.conn(), id).await }).await
    }

    async fn cached<T, W: Weighter<AgentId, Arc<T>> + Clone>(
        &self,
        counted: (&Metrics, labels::Cache),
        cache: &Cache<AgentId, Arc<T>, W>,
        id: AgentId,
        load: impl Future<Output = Result<Option<T>>>,
    ) -> Result<Option<Arc<T>>> {
        let load = async { Ok(load.await?.map(Arc::new)) };
        if self.is_bypassed() {
            counted.0.cache_misses.increment(counted.1);
            load.await
        } else {
            get_or_load_counted(counted, cache, &id, load).await
        }
    }

    /// Returns the key with this hash, even if it has ended, and the authority of its agent.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn by_key(
        &self,
        store: &Store,
        hash: &KeyHash,
        now: Timestamp,
    ) -> Result<Option<(ApiKeyId, Arc<Principal>)>> {
        let metrics = store.metrics();
        if let Some((key, agent)) = self.0.owners.get(hash) {
            metrics.cache_hits.increment(labels::Cache::ApiKeys);
            return Ok(self.agent(store, agent, now).await?.map(|principal| (key, principal)));
        }
        metrics.cache_misses.increment(labels::Cache::ApiKeys);
        let loaded = principals::load_by_key(store.read().await?.conn(), hash, now).await?;
        // Unknown keys are not cached: guesses must not fill the memory.
        let Some((key, principal)) = loaded else { return Ok(None) };
        self.0.owners.insert(*hash, (key, principal.id));
        // The authority is cached on the next use: it cannot be reserved before the agent is known.
        Ok(Some((key, Arc::new(principal))))
    }

    /// Invalidates what `changes` changed.
    pub fn forget(&self, changes: &Changes) {
        let Some(agents) = changes.agents() else { return self.forget_everything() };
        for id in agents {
            self.0.agents.remove(id);
            self.0.details.remove(id);
        }
    }

    fn forget_everything(&self) {
        self.0.agents.clear();
        self.0.details.clear();
    }

    /// Follows other nodes' changes for as long as it is polled. Returns at once if the database cannot be shared.
    pub async fn follow(&self, store: &Store) {
        let mut has_failed = false;
        while store.db().is_shared() {
            if let Err(error) = self.listen(store, &mut has_failed).await
                && !has_failed
            {
                has_failed = true;
                let error = error.with_causes();
                tracing::warn!(%error, "cannot receive changes from other nodes; every request reads the database");
            }
            tokio::time::sleep(RELISTEN).await;
        }
    }

    async fn listen(&self, store: &Store, has_failed: &mut bool) -> Result<()> {
        let _bypass = BypassOnDrop(self);
        let Some(mut listener) = store.db().listen().await? else { return Ok(()) };
        if std::mem::take(has_failed) {
            tracing::info!("receiving changes from other nodes again");
        }
        self.forget_everything();
        self.0.everything_changed.notify_one();
        self.0.bypassed.store(false, Ordering::SeqCst);
        loop {
            let changes = listener.next().await?;
            self.forget(&changes);
            if changes.agents().is_none() {
                self.0.everything_changed.notify_one();
            }
        }
    }

    /// Waits until another node may have changed anything, including what is not an agent.
    pub async fn everything_changed(&self) {
        self.0.everything_changed.notified().await;
    }

    /// Makes every request read the database until [`Principals::follow`] receives other nodes' changes.
    pub fn bypass(&self) {
        self.0.bypassed.store(true, Ordering::SeqCst);
    }

    fn is_bypassed(&self) -> bool {
        self.0.bypassed.load(Ordering::SeqCst)
    }
}

/// Bypasses the view when the listener ends, for whatever reason.
struct BypassOnDrop<'p>(&'p Principals);

impl Drop for BypassOnDrop<'_> {
    fn drop(&mut self) {
        self.0.bypass();
    }
}

/// Weighs agents by their approximate size in memory.
#[derive(Clone)]
struct Bytes;

impl Weighter<AgentId, Arc<Agent>> for Bytes {
    fn weight(&self, _: &AgentId, agent: &Arc<Agent>) -> u64 {
        let texts = [agent.name.as_str(), &agent.description, &agent.owner, &agent.metadata_json];
        let bytes = texts.map(str::len).iter().sum::<usize>() + size_of::<Agent>();
        bytes.try_into().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{AgentName, AgentStatus, AgentType, agent::labels::Labels};

    fn agent() -> Agent {
        let at = Timestamp::from_micros(1);
        Agent {
            id: AgentId(Uuid::from_u128(1)),
            name: AgentName::parse("agent").unwrap(),
            description: String::new(),
            owner: "tests".to_owned(),
            status: AgentStatus::Active,
            agent_type: AgentType::ALL[0],
            metadata_json: "{}".to_owned(),
            labels: Labels::default(),
            created_at: at,
            updated_at: at,
            suspended_at: None,
            revoked_at: None,
            token_epoch: 0,
        }
    }

    /// Loads an agent into `view` while `meanwhile` happens. Returns true if the agent is cached afterwards.
    async fn is_cached(view: &Principals, meanwhile: impl FnOnce(&Principals)) -> bool {
        let agent = agent();
        let id = agent.id;
        let load = async {
            meanwhile(view);
            Ok(Some(agent))
        };
        let counted = (&Metrics::off(), labels::Cache::AgentDetails);
        let loaded = view.cached(counted, &view.0.details, id, load).await.unwrap();
        assert!(loaded.is_some(), "the caller gets what it loaded");
        view.0.details.get(&id).is_some()
    }

    #[tokio::test]
    async fn a_load_that_races_with_a_change_is_not_cached() {
        let one = |id: u128| Changes::from_message(&Uuid::from_u128(id).to_string());
        assert!(is_cached(&Principals::new(16), |_| {}).await);
        assert!(is_cached(&Principals::new(16), |view| view.forget(&one(2))).await);
        assert!(!is_cached(&Principals::new(16), |view| view.forget(&one(1))).await);
        assert!(!is_cached(&Principals::new(16), |view| view.forget(&Changes::EVERYTHING)).await);
    }

    #[tokio::test]
    async fn a_bypassed_view_neither_caches_nor_serves_what_is_cached() {
        let view = Principals::new(16);
        view.bypass();
        assert!(!is_cached(&view, |_| {}).await);

        let view = Principals::new(16);
        assert!(is_cached(&view, Principals::bypass).await);
        let counted = (&Metrics::off(), labels::Cache::AgentDetails);
        let loaded = view.cached(counted, &view.0.details, agent().id, async { Ok(None) }).await.unwrap();
        assert!(loaded.is_none(), "the database is read");
    }
}
