//! The master key: which one seals new values, and how a running process learns of another one.
//!
//! A process may know two master keys, the newest and the previous one. Values that either of them sealed can be
//! opened. New values are sealed with the key that the database names, chosen inside the transaction that stores the
//! value. So no value is sealed with a key that a rotation has already replaced, whatever a process has in memory.
//!
//! A process reads its keys again, from the file or the command that they come from, when it meets a value or a key ID
//! that none of its keys explains.

pub mod rotation;
pub mod status;

use std::{
    error::Error as StdError,
    future,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use crate::{
    clock::Environment,
    crypto::{MasterKey, MasterKeyId, MasterKeys, NonceKey, SealError},
    domain::{Error, Result, Timestamp},
    service::{Services, tokens::nonces::DpopNonces},
    store::{
        Conn, Store,
        tokens::sealed::{self, Kind},
    },
};

/// How long a source that had nothing new is not read again. Keeps requests from running the command each time.
const PAUSE: Duration = Duration::from_secs(5);

/// Where the master keys come from.
pub trait KeySource: Send + Sync {
    /// Reads the keys.
    ///
    /// # Errors
    /// If they cannot be read. The message contains no key.
    fn read(&self) -> BoxFuture<'_, Result<MasterKeys, Box<dyn StdError + Send + Sync>>>;
}

impl KeySource for MasterKeys {
    fn read(&self) -> BoxFuture<'_, Result<MasterKeys, Box<dyn StdError + Send + Sync>>> {
        Box::pin(future::ready(Ok(self.clone())))
    }
}

/// None of the known master keys is the one that the database names.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the secrets in this database are encrypted with the master key {0}, which AIMS was not given")]
pub struct UnknownMasterKey(pub MasterKeyId);

/// The master keys of this process. All clones share them.
#[derive(Clone)]
pub struct CurrentMasterKeys(Arc<Current>);

struct Current {
    keys: RwLock<Arc<MasterKeys>>,
    source: Box<dyn KeySource>,
    /// When the source was read in vain. Held while the source is read.
    read_in_vain: Mutex<Option<Timestamp>>,
}

impl CurrentMasterKeys {
    /// Starts with these keys, which came from `source`.
    #[must_use]
    pub fn new(keys: MasterKeys, source: Box<dyn KeySource>) -> Self {
        let keys = RwLock::new(Arc::new(keys));
        Self(Arc::new(Current { keys, source, read_in_vain: Mutex::new(None) }))
    }

    /// Returns the keys in memory.
    #[must_use]
    pub fn get(&self) -> Arc<MasterKeys> {
        self.0.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, keys: MasterKeys) {
        *self.0.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// Reads the source again, whatever it holds. For commands that have changed it.
    ///
    /// # Errors
    /// If the source cannot be read.
    pub async fn reload(&self) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let _reading = self.0.read_in_vain.lock().await;
        self.set(self.0.source.read().await?);
        Ok(())
    }

    /// Reads the source again, and takes its keys if they are what the caller needs.
    async fn look_for(&self, env: &Environment, is_needed: impl Fn(&MasterKeys) -> bool) {
        let mut in_vain = self.0.read_in_vain.lock().await;
        let now = env.now();
        let is_too_soon = in_vain.is_some_and(|at| at <= now && now < at.plus(PAUSE));
        // Another caller may have found the keys in the meantime.
        if is_too_soon || is_needed(&self.get()) {
            return;
        }
        let read = self.0.source.read().await;
        // A program may have taken longer than the pause, which begins when it ends.
        *in_vain = Some(env.now());
        match read {
            Ok(keys) if is_needed(&keys) => {
                tracing::info!(newest = %keys.newest().id(), "the master key was read again");
                self.set(keys);
                *in_vain = None;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error, "the master key cannot be read again"),
        }
    }

    /// Opens values with the keys in memory or, if that fails, with those of the source.
    ///
    /// # Errors
    /// The error of `open`.
    pub async fn open<T>(
        &self,
        env: &Environment,
        open: impl Fn(&MasterKeys) -> Result<T, SealError>,
    ) -> Result<T, SealError> {
        if let Ok(opened) = open(&self.get()) {
            return Ok(opened);
        }
        self.look_for(env, |keys| open(keys).is_ok()).await;
        open(&self.get())
    }

    /// Returns the keys, among them the one that the database names.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with [`UnknownMasterKey`], or if the database fails.
    pub async fn up_to_date(&self, store: &Store, env: &Environment) -> Result<Arc<MasterKeys>> {
        let Some(rotation) = sealed::last_rotation(store.read().await?.conn()).await? else { return Ok(self.get()) };
        let is_known = |keys: &MasterKeys| keys.find(rotation.key).is_some();
        if !is_known(&self.get()) {
            self.look_for(env, is_known).await;
        }
        let keys = self.get();
        if is_known(&keys) { Ok(keys) } else { Err(unknown(rotation.key)) }
    }
}

fn unknown(key: MasterKeyId) -> Error {
    Error::Unavailable(Some(Box::new(UnknownMasterKey(key))))
}

/// Returns true if the keys open every sealed value.
///
/// # Errors
/// If the database fails.
pub async fn open_everything(conn: Conn<'_>, keys: &MasterKeys) -> Result<bool> {
    Ok(status::count(conn, keys).await?.iter().all(|tally| tally.unknown == 0))
}

/// Returns the key that seals new values. Call it in the transaction that stores the value.
///
/// # Errors
/// [`Error::Unavailable`] if the database names a key that is not among these, or fails.
pub async fn sealing_key(mut conn: Conn<'_>, keys: &MasterKeys) -> Result<MasterKey> {
    if let Some(rotation) = sealed::last_rotation(conn.reborrow()).await? {
        return keys.find(rotation.key).cloned().ok_or_else(|| unknown(rotation.key));
    }
    let Some(previous) = keys.previous() else { return Ok(keys.newest().clone()) };
    // No rotation has begun. Nodes that know only one key must be able to open what this one seals.
    for kind in Kind::ALL {
        if let Some(sealed) = sealed::page(conn.reborrow(), kind, None, 1).await?.first()
            && let Some(key) = keys.opener(&sealed.purpose(), &sealed.value)
        {
            return Ok(key.clone());
        }
    }
    Ok(previous.clone())
}

/// Loads a change of the master key, and changes the `DPoP` nonces accordingly. For a background task.
///
/// # Errors
/// [`Error::Unavailable`] if this process does not know the current key and cannot read it, or the database fails.
pub async fn maintain(services: &Services) -> Result<()> {
    let Some(current) = &services.master_key else { return Ok(()) };
    let keys = current.up_to_date(&services.store, &services.env).await?;
    if services.settings.signing.is_some() {
        let sealing = sealing_key(services.store.read().await?.conn(), &keys).await?;
        services.dpop_nonces.follow(&keys, &sealing, services.env.now());
    }
    Ok(())
}

/// Returns the `DPoP` nonces of a process that starts with these keys.
///
/// # Errors
/// See [`sealing_key`].
pub async fn nonces(store: &Store, keys: &MasterKeys, now: Timestamp) -> Result<DpopNonces> {
    let sealing = sealing_key(store.read().await?.conn(), keys).await?;
    let nonces = DpopNonces::new(NonceKey::of_master_key(&sealing));
    nonces.follow(keys, &sealing, now);
    Ok(nonces)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

    use super::*;
    use crate::clock::{Clock, SystemRng};

    #[derive(Default)]
    struct Stopped(AtomicI64);

    impl Stopped {
        fn advance(&self, by: Duration) {
            self.0.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
        }
    }

    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(self.0.load(Ordering::SeqCst))
        }
    }

    /// A program that fails after a while.
    struct Failing {
        clock: Arc<Stopped>,
        runs: Arc<AtomicUsize>,
    }

    impl KeySource for Failing {
        fn read(&self) -> BoxFuture<'_, Result<MasterKeys, Box<dyn StdError + Send + Sync>>> {
            self.runs.fetch_add(1, Ordering::SeqCst);
            self.clock.advance(PAUSE * 2);
            Box::pin(future::ready(Err("failed".into())))
        }
    }

    #[tokio::test]
    async fn a_program_that_fails_slowly_runs_again_only_after_the_pause() {
        let (clock, runs) = (Arc::new(Stopped::default()), Arc::new(AtomicUsize::new(0)));
        let env = Environment::new(clock.clone(), Arc::new(SystemRng));
        let source = Failing { clock: clock.clone(), runs: runs.clone() };
        let keys = CurrentMasterKeys::new(MasterKeys::one(MasterKey::generate(&env)), Box::new(source));
        for (pause, expected) in [(Duration::ZERO, 1), (Duration::ZERO, 1), (PAUSE, 2)] {
            clock.advance(pause);
            keys.look_for(&env, |_| false).await;
            assert_eq!(runs.load(Ordering::SeqCst), expected);
        }
    }
}
