//! The live view: what every agent is and may do now, in memory, true the moment a change is answered.
//!
//! A commit forgets what it changed before its caller is answered. A load that raced with a commit answers its own
//! request and is not kept. On a shared database other nodes' commits arrive as notifications; while none can arrive,
//! nothing is kept at all.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use quick_cache::{Weighter, sync::Cache};
use tokio::sync::Notify;

use crate::{
    crypto::KeyHash,
    domain::{Agent, AgentId, ApiKeyId, Result, Timestamp},
    store::{
        Changes, Store, agents,
        principals::{self, Principal},
    },
};

/// Most memory for what agents are described by: bytes for each agent that may be held.
const DETAILS_BYTES: usize = 256;
/// How many counters tell loads that they raced; more of them mean fewer false alarms.
const STRIPES: usize = 64;
/// How long to wait before listening again after the connection was lost.
const RELISTEN: Duration = Duration::from_millis(250);

/// The live view. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Principals(Arc<Inner>);

struct Inner {
    agents: Cache<AgentId, Arc<Principal>>,
    details: Cache<AgentId, Arc<Agent>, Bytes>,
    /// Which agent a key hash belongs to never changes, so these need no invalidation: a key that was revoked or
    /// deleted is no longer among its agent's keys.
    owners: Cache<KeyHash, (ApiKeyId, AgentId)>,
    /// Counts invalidations; held while an entry is kept or forgotten, so that neither can overtake the other.
    generations: [Mutex<u64>; STRIPES],
    hasher: RandomState,
    /// Counts invalidations for loads that do not know whom they load. It is first to change.
    forgotten: AtomicU64,
    bypassed: AtomicBool,
    /// Told when another node may have changed anything.
    everything_changed: Notify,
}

impl Principals {
    /// A view of at most `capacity` agents, and as many keys; those used least are loaded again when needed.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let details = u64::try_from(capacity.saturating_mul(DETAILS_BYTES)).unwrap_or(u64::MAX);
        Self(Arc::new(Inner {
            agents: Cache::new(capacity),
            details: Cache::with_weighter(capacity, details, Bytes),
            owners: Cache::new(capacity),
            generations: std::array::from_fn(|_| Mutex::new(0)),
            hasher: RandomState::new(),
            forgotten: AtomicU64::new(0),
            bypassed: AtomicBool::new(false),
            everything_changed: Notify::new(),
        }))
    }

    /// An agent's authority, from memory where it is known.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn agent(&self, store: &Store, id: AgentId, now: Timestamp) -> Result<Option<Arc<Principal>>> {
        self.known(&self.0.agents, id, async { principals::load(store.read().await?.conn(), id, now).await }).await
    }

    /// An agent's description, from memory where it is known.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn details(&self, store: &Store, id: AgentId) -> Result<Option<Arc<Agent>>> {
        self.known(&self.0.details, id, async { agents::find(store.read().await?.conn(), id).await }).await
    }

    async fn known<T: Send + Sync + 'static, W: Weighter<AgentId, Arc<T>> + Clone>(
        &self,
        cache: &Cache<AgentId, Arc<T>, W>,
        id: AgentId,
        load: impl Future<Output = Result<Option<T>>>,
    ) -> Result<Option<Arc<T>>> {
        if !self.is_bypassed()
            && let Some(known) = cache.get(&id)
        {
            return Ok(Some(known));
        }
        let generation = *self.generation(id);
        let Some(loaded) = load.await? else { return Ok(None) };
        let loaded = Arc::new(loaded);
        let current = self.generation(id);
        if *current == generation && !self.is_bypassed() {
            cache.insert(id, loaded.clone());
        }
        drop(current);
        Ok(Some(loaded))
    }

    /// The key with this hash, which may have ended, and the authority of its agent.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn by_key(
        &self,
        store: &Store,
        hash: &KeyHash,
        now: Timestamp,
    ) -> Result<Option<(ApiKeyId, Arc<Principal>)>> {
        if let Some((key, agent)) = self.0.owners.get(hash) {
            return Ok(self.agent(store, agent, now).await?.map(|principal| (key, principal)));
        }
        let forgotten = self.0.forgotten.load(Ordering::SeqCst);
        let loaded = principals::load_by_key(store.read().await?.conn(), hash, now).await?;
        // Unknown keys are not remembered: whoever guesses must not fill the memory.
        let Some((key, principal)) = loaded else { return Ok(None) };
        let principal = Arc::new(principal);
        self.0.owners.insert(*hash, (key, principal.id));
        let keeping = self.generation(principal.id);
        if self.0.forgotten.load(Ordering::SeqCst) == forgotten && !self.is_bypassed() {
            self.0.agents.insert(principal.id, principal.clone());
        }
        drop(keeping);
        Ok(Some((key, principal)))
    }

    /// Forgets what `changes` made untrue.
    pub fn forget(&self, changes: &Changes) {
        let Some(agents) = changes.agents() else { return self.forget_everything() };
        if !agents.is_empty() {
            self.0.forgotten.fetch_add(1, Ordering::SeqCst);
        }
        for &id in agents {
            let mut generation = self.generation(id);
            *generation += 1;
            self.0.agents.remove(&id);
            self.0.details.remove(&id);
        }
    }

    fn forget_everything(&self) {
        self.0.forgotten.fetch_add(1, Ordering::SeqCst);
        for stripe in &self.0.generations {
            *lock(stripe) += 1;
        }
        self.0.agents.clear();
        self.0.details.clear();
    }

    /// Follows other nodes' changes for as long as it is polled; returns at once where there can be no other node.
    pub async fn follow(&self, store: &Store) {
        let mut is_deaf = false;
        while store.db().is_shared() {
            if let Err(error) = self.hear(store, &mut is_deaf).await
                && !is_deaf
            {
                is_deaf = true;
                let error = error.with_causes();
                tracing::warn!(%error, "not hearing other nodes: reading the database for every request");
            }
            tokio::time::sleep(RELISTEN).await;
        }
    }

    async fn hear(&self, store: &Store, is_deaf: &mut bool) -> Result<()> {
        let _deaf_again = Bypass(self);
        let Some(mut listener) = store.db().listen().await? else { return Ok(()) };
        if std::mem::take(is_deaf) {
            tracing::info!("hearing other nodes again");
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

    /// Returns when another node has said that anything may have changed, and so what is not agents, too.
    pub async fn everything_changed(&self) {
        self.0.everything_changed.notified().await;
    }

    /// Keeps nothing until [`Principals::follow`] hears the other nodes.
    pub fn bypass(&self) {
        self.0.bypassed.store(true, Ordering::SeqCst);
    }

    fn is_bypassed(&self) -> bool {
        self.0.bypassed.load(Ordering::SeqCst)
    }

    fn generation(&self, id: AgentId) -> MutexGuard<'_, u64> {
        let stripe = usize::try_from(self.0.hasher.hash_one(id) % STRIPES as u64).unwrap_or_default();
        #[expect(clippy::indexing_slicing, reason = "a remainder by the array's own length")]
        lock(&self.0.generations[stripe])
    }
}

/// Has nothing kept from its end on, however that comes.
struct Bypass<'p>(&'p Principals);

impl Drop for Bypass<'_> {
    fn drop(&mut self) {
        self.0.bypass();
    }
}

/// Weighs agents by about how much memory they take.
#[derive(Clone)]
struct Bytes;

impl Weighter<AgentId, Arc<Agent>> for Bytes {
    fn weight(&self, _: &AgentId, agent: &Arc<Agent>) -> u64 {
        let texts = [agent.name.as_str(), &agent.description, &agent.owner, &agent.metadata_json];
        let bytes = texts.map(str::len).iter().sum::<usize>() + size_of::<Agent>();
        bytes.try_into().unwrap_or(u64::MAX)
    }
}

/// A counter is never left half-changed, so a panic elsewhere does not spoil it.
fn lock(counter: &Mutex<u64>) -> MutexGuard<'_, u64> {
    counter.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{AgentName, AgentStatus, AgentType};

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
            created_at: at,
            updated_at: at,
            suspended_at: None,
            revoked_at: None,
            token_epoch: 0,
        }
    }

    /// Whether an agent is kept that was loaded while `meanwhile` happened.
    async fn is_kept(meanwhile: impl FnOnce(&Principals)) -> bool {
        let (view, agent) = (Principals::new(16), agent());
        let id = agent.id;
        let load = async {
            meanwhile(&view);
            Ok(Some(agent))
        };
        let loaded = view.known(&view.0.details, id, load).await.unwrap();
        assert!(loaded.is_some(), "whoever asked is answered");
        view.0.details.get(&id).is_some()
    }

    #[tokio::test]
    async fn what_raced_with_a_change_is_not_kept() {
        assert!(is_kept(|_| {}).await);
        assert!(!is_kept(|view| view.forget(&Changes::from_message(&agent().id.to_string()))).await);
        assert!(!is_kept(|view| view.forget(&Changes::EVERYTHING)).await);
        assert!(!is_kept(Principals::bypass).await);
    }
}
