//! The keys that sign access tokens. They are generated here, encrypted with the master key and stored in the database.
//!
//! One key signs, and the next one is already published. So verifiers that cache the key set know a key before the
//! first token uses it. A retired key stays published until every token that it signed has expired, unless it is
//! compromised.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use secrecy::SecretSlice;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{
    clock::Environment,
    crypto::{Keyring, MasterKeys, PrivateKey, SealError, seal::signing_key_purpose},
    domain::{
        Error, Result, Timestamp,
        audit::{AuditAction, Event},
        token::{LIFE_MAX, SigningAlgorithm},
    },
    service::{
        Services,
        core::{act::Act, caller::Caller, policy::Action},
        master_key::CurrentMasterKeys,
        tokens::new_signing_keys::Candidates,
    },
    store::{
        Store, Tx,
        tokens::signing_keys::{self, SealedKey},
    },
};

/// How long verifiers may cache the key set. Sent as `Cache-Control`.
pub const PUBLISHED_FOR: Duration = Duration::from_mins(5);

/// Why there are no signing keys to rotate.
pub const SHARED_SECRET: Error =
    Error::Refused("Tokens are signed with the shared secret JWT_SECRET_KEY. Change that setting to replace it");

/// The current keyring. All clones share it.
#[derive(Clone)]
pub struct CurrentKeyring(Arc<Current>);

struct Current {
    keyring: RwLock<Arc<Keyring>>,
    /// Held during a reload, so that an older result cannot replace a newer one.
    reloading: Mutex<()>,
}

impl CurrentKeyring {
    /// Starts with this keyring.
    #[must_use]
    pub fn new(keyring: Keyring) -> Self {
        Self(Arc::new(Current { keyring: RwLock::new(Arc::new(keyring)), reloading: Mutex::new(()) }))
    }

    /// Returns the current keyring.
    #[must_use]
    pub fn get(&self) -> Arc<Keyring> {
        self.0.keyring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, keyring: Keyring) {
        *self.0.keyring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keyring);
    }
}

/// Why the signing keys cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The keys were encrypted with another master key.
    #[error(
        "the master key does not decrypt the secrets in this database; use the master key that encrypted them. If it is \
         lost for good, make a backup and restore it with --lost-master-key"
    )]
    WrongMasterKey,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Loads the signing keys. Creates keys of `algorithm` if there are none at all. Does not change existing keys, so a
/// command that is configured with another algorithm does not affect the service.
///
/// # Errors
/// See [`KeyringError`].
pub async fn load(
    store: &Store,
    env: &Environment,
    master: &CurrentMasterKeys,
    algorithm: SigningAlgorithm,
) -> Result<Keyring, KeyringError> {
    let mut present = signing_keys::list(store.read().await?.conn()).await?;
    if present.is_empty() {
        complete(store, env, master, algorithm).await?;
        present = signing_keys::list(store.read().await?.conn()).await?;
    }
    let opened = open_all(master, env, &present).await?;
    assemble(algorithm, &present, opened)
}

/// Makes keys of the configured algorithm sign. Creates missing keys and retires the keys of other algorithms. Called
/// when the service starts.
///
/// # Errors
/// When the database fails.
pub async fn activate(services: &Services) -> Result<()> {
    let (Some(algorithm), Some(master)) = (services.settings.signing, &services.master_key) else { return Ok(()) };
    let present = signing_keys::list(services.store.read().await?.conn()).await?;
    if is_complete(&present, algorithm) && of_other_algorithms(&present, algorithm).next().is_none() {
        return Ok(());
    }
    complete(&services.store, &services.env, master, algorithm).await?;
    reload(services).await
}

/// Returns true if the database has any signing key.
///
/// # Errors
/// When the database fails.
pub async fn any(store: &Store) -> Result<bool> {
    Ok(!signing_keys::list(store.read().await?.conn()).await?.is_empty())
}

/// Builds a keyring of the current key, which signs, and all other keys, which verify.
fn assemble(
    algorithm: SigningAlgorithm,
    present: &[SealedKey],
    mut keys: Vec<PrivateKey>,
) -> Result<Keyring, KeyringError> {
    // If another node has already switched to another algorithm, this node continues with the keys that exist.
    let current = current(present, algorithm).or_else(|| {
        let signed = present.iter().filter(|key| key.activated_at.is_some());
        signed.max_by_key(|key| (key.algorithm == algorithm, key.activated_at))
    });
    let current = current.and_then(|current| keys.iter().position(|key| key.public().kid() == current.kid));
    let current = current.ok_or_else(|| Error::internal("the signing key that was just created is missing"))?;
    let current = keys.remove(current);
    Ok(Keyring::asymmetric(current, keys.into_iter().map(PrivateKey::into_public)))
}

/// Returns the key that signs: the one that was activated last if there are several.
fn current(keys: &[SealedKey], algorithm: SigningAlgorithm) -> Option<&SealedKey> {
    let signing = keys.iter().filter(|key| key.algorithm == algorithm && key.retired_at.is_none());
    signing.filter(|key| key.activated_at.is_some()).max_by_key(|key| key.activated_at)
}

/// Returns the key that signs after the next rotation.
fn next(keys: &[SealedKey], algorithm: SigningAlgorithm) -> Option<&SealedKey> {
    keys.iter().find(|key| key.algorithm == algorithm && key.activated_at.is_none() && key.retired_at.is_none())
}

/// Returns the keys of other algorithms that are not retired yet.
fn of_other_algorithms(keys: &[SealedKey], algorithm: SigningAlgorithm) -> impl Iterator<Item = &SealedKey> {
    keys.iter().filter(move |key| key.algorithm != algorithm && key.retired_at.is_none())
}

fn is_complete(keys: &[SealedKey], algorithm: SigningAlgorithm) -> bool {
    current(keys, algorithm).is_some() && next(keys, algorithm).is_some()
}

async fn complete(
    store: &Store,
    env: &Environment,
    master: &CurrentMasterKeys,
    algorithm: SigningAlgorithm,
) -> Result<()> {
    let candidates = Candidates::generate(store, env, master, algorithm).await?;
    let env = env.clone();
    store.write(move |tx| Box::pin(add_missing(tx, env, algorithm, candidates))).await
}

/// Adds the keys that are missing. Several nodes may start at once; all of them use the keys of the first one.
async fn add_missing(tx: &mut Tx, env: Environment, algorithm: SigningAlgorithm, candidates: Candidates) -> Result<()> {
    let present = signing_keys::list(tx.conn()).await?;
    let [mut first, second] = candidates.seal(tx.conn()).await?;
    let current = current(&present, algorithm).map(|current| current.kid.clone());
    if current.is_none() {
        first.activated_at = Some(first.created_at);
        add(tx, &env, &first).await?;
    }
    if next(&present, algorithm).is_none() {
        add(tx, &env, &second).await?;
    }
    let current = current.unwrap_or(first.kid);
    for key in of_other_algorithms(&present, algorithm) {
        signing_keys::retire(tx, &key.kid, env.now()).await?;
        let details = json!({ "from": key.kid, "to": current, "algorithm": algorithm.as_str() });
        record(tx, &env, AuditAction::SigningKeyRotated, details);
    }
    Ok(())
}

async fn add(tx: &mut Tx, env: &Environment, key: &SealedKey) -> Result<()> {
    signing_keys::insert(tx, key).await?;
    let details = json!({ "kid": key.kid, "algorithm": key.algorithm.as_str() });
    record(tx, env, AuditAction::SigningKeyCreated, details);
    Ok(())
}

fn record(tx: &mut Tx, env: &Environment, action: AuditAction, details: Value) {
    tx.audit(Event {
        id: env.uuid(),
        at: env.now(),
        actor: None,
        subject: None,
        action,
        resource: None,
        details,
        ip: None,
        success: true,
        request_id: None,
    });
}

/// A signing key without its private part.
#[derive(Clone, Debug)]
pub struct KeyInfo {
    /// The key ID.
    pub kid: String,
    /// The signature algorithm.
    pub algorithm: SigningAlgorithm,
    /// When it was created and published.
    pub created_at: Timestamp,
    /// When it began to sign.
    pub activated_at: Option<Timestamp>,
    /// When it stopped signing.
    pub retired_at: Option<Timestamp>,
    /// When it stops being published.
    pub published_until: Option<Timestamp>,
}

impl KeyInfo {
    /// Returns the state of the key, and since when it has that state.
    #[must_use]
    pub fn state(&self) -> (&'static str, Timestamp) {
        match (self.retired_at, self.activated_at) {
            (Some(at), _) => ("retired", at),
            (None, Some(at)) => ("signs", at),
            (None, None) => ("next", self.created_at),
        }
    }
}

impl From<SealedKey> for KeyInfo {
    fn from(key: SealedKey) -> Self {
        Self {
            kid: key.kid,
            algorithm: key.algorithm,
            created_at: key.created_at,
            activated_at: key.activated_at,
            retired_at: key.retired_at,
            published_until: key.retired_at.map(|at| at.plus(LIFE_MAX)),
        }
    }
}

/// Returns all signing keys, newest first.
///
/// # Errors
/// [`Error::Denied`].
pub async fn list(services: &Services, caller: &Caller) -> Result<Vec<KeyInfo>> {
    services.permit(caller, Action::ListSigningKeys).await?;
    let keys = signing_keys::list(services.store.read().await?.conn()).await?;
    Ok(keys.into_iter().map(KeyInfo::from).collect())
}

/// Why keys are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// The current key has signed for this long. Happens only if it has, and verifiers know the next key.
    Schedule(Duration),
    /// An administrator asked for it. Happens only if verifiers know the next key.
    Request,
    /// The keys are compromised. Happens at once.
    Compromise,
}

/// Rotates the signing keys: the next key signs from now on, and another next key is published.
///
/// If the keys are `compromised`, new keys replace all existing ones, because an attacker who has one probably has them all.
/// Then every token that was issued before is invalid, and verifiers that cache the key set do not know the new keys
/// yet.
///
/// Other nodes on the same PostgreSQL follow as soon as they are notified, other processes on the same SQLite file
/// within 30 seconds, and verifiers that cache the key set within [`PUBLISHED_FOR`].
///
/// # Errors
/// [`Error::Refused`] if the next key was published less than [`PUBLISHED_FOR`] ago, if tokens are signed with a shared
/// secret, or if this process is configured with another algorithm than the service; [`Error::ProofNeeded`].
pub async fn rotate(services: &Services, caller: &Caller, compromised: bool) -> Result<KeyInfo> {
    let reason = if compromised { Reason::Compromise } else { Reason::Request };
    let rotated = rotate_for(services, caller, reason).await?;
    rotated.ok_or(Error::Refused("Verifiers may not know the next key yet. Try again in 5 minutes"))
}

async fn rotate_for(services: &Services, caller: &Caller, reason: Reason) -> Result<Option<KeyInfo>> {
    let (Some(algorithm), Some(master)) = (services.settings.signing, &services.master_key) else {
        return Err(SHARED_SECRET);
    };
    let candidates = Candidates::generate(&services.store, &services.env, master, algorithm).await?;
    let rotated = services
        .change(caller, Action::RotateSigningKey, move |act| Box::pin(replace(act, algorithm, candidates, reason)))
        .await?;
    if rotated.is_some() {
        reload(services).await?;
    }
    Ok(rotated)
}

async fn replace(
    act: &mut Act<'_>,
    algorithm: SigningAlgorithm,
    candidates: Candidates,
    reason: Reason,
) -> Result<Option<KeyInfo>> {
    let [new_next, new_current] = candidates.seal(act.conn()).await?;
    let present = signing_keys::list(act.conn()).await?;
    let (Some(current), Some(next)) = (current(&present, algorithm), next(&present, algorithm)) else {
        return Err(Error::Refused(
            "The service signs with another algorithm. Set JWT_ALGORITHM to the same value as for the service",
        ));
    };
    let now = act.now;
    let is_known = next.created_at.plus(PUBLISHED_FOR) <= now;
    let is_time = match reason {
        Reason::Schedule(period) => is_known && current.activated_at.is_some_and(|at| at.plus(period) <= now),
        Reason::Request => is_known,
        Reason::Compromise => true,
    };
    if !is_time {
        return Ok(None);
    }
    let mut signing = next.clone();
    if reason == Reason::Compromise {
        withdraw_all(act).await?;
        signing_keys::insert(act.tx, &new_current).await?;
        signing = new_current;
    } else {
        signing_keys::retire(act.tx, &current.kid, now).await?;
    }
    signing.activated_at = Some(now);
    signing_keys::activate(act.tx, &signing.kid, now).await?;
    signing_keys::insert(act.tx, &new_next).await?;
    let details =
        json!({ "from": current.kid, "to": signing.kid, "next": new_next.kid, "algorithm": algorithm.as_str() });
    act.audit(AuditAction::SigningKeyRotated, None, None, details);
    Ok(Some(signing.into()))
}

/// Rotates keys on schedule, removes keys whose tokens have all expired, and loads the changes of other nodes and
/// commands. For a background task.
///
/// # Errors
/// When the database fails.
pub async fn maintain(services: &Services) -> Result<()> {
    if services.settings.signing.is_none() {
        return Ok(());
    }
    if let Some(period) = services.settings.signing_key_rotation {
        let keys = signing_keys::list(services.store.read().await?.conn()).await?;
        let now = services.env.now();
        let current = services.settings.signing.and_then(|algorithm| current(&keys, algorithm));
        if current.and_then(|current| current.activated_at).is_some_and(|at| at.plus(period) <= now) {
            rotate_for(services, &Caller::system(), Reason::Schedule(period)).await?;
        }
    }
    withdraw_expired(services).await?;
    reload(services).await
}

/// Withdraws every key, so that every token that they signed ends. Keys that take their place are created with the new
/// ones of a rotation, or when the service starts.
pub(in crate::service) async fn withdraw_all(act: &mut Act<'_>) -> Result<()> {
    for key in signing_keys::list(act.conn()).await? {
        withdraw(act, &key.kid).await?;
    }
    Ok(())
}

async fn withdraw(act: &mut Act<'_>, kid: &str) -> Result<()> {
    signing_keys::delete(act.tx, kid).await?;
    act.audit(AuditAction::SigningKeyWithdrawn, None, None, json!({ "kid": kid }));
    Ok(())
}

async fn withdraw_expired(services: &Services) -> Result<()> {
    let is_expired = |key: &SealedKey, now: Timestamp| key.retired_at.is_some_and(|at| at.plus(LIFE_MAX) <= now);
    let keys = signing_keys::list(services.store.read().await?.conn()).await?;
    let now = services.env.now();
    if !keys.iter().any(|key| is_expired(key, now)) {
        return Ok(());
    }
    services
        .change(&Caller::system(), Action::RotateSigningKey, move |act| {
            Box::pin(async move {
                let now = act.now;
                for key in signing_keys::list(act.conn()).await?.iter().filter(|key| is_expired(key, now)) {
                    withdraw(act, &key.kid).await?;
                }
                Ok(())
            })
        })
        .await
}

/// Loads the changes of other nodes on the same PostgreSQL as soon as they are notified. For a background task.
pub async fn follow(services: &Services) {
    loop {
        services.principals.everything_changed().await;
        if let Err(error) = reload(services).await {
            tracing::warn!(error = error.with_causes(), "cannot reload the signing keys; will try again later");
        }
    }
}

/// Replaces the current keyring if the keys in the database have changed.
async fn reload(services: &Services) -> Result<()> {
    let (Some(algorithm), Some(master)) = (services.settings.signing, &services.master_key) else { return Ok(()) };
    let _reloading = services.keyring.0.reloading.lock().await;
    let present = signing_keys::list(services.store.read().await?.conn()).await?;
    let state = |keyring: &Keyring| keyring.jwks_tag().to_owned();
    let before = services.keyring.get();
    let opened = open_all(master, &services.env, &present).await.map_err(defect)?;
    let keyring = assemble(algorithm, &present, opened).map_err(defect)?;
    if state(&before) == state(&keyring) {
        return Ok(());
    }
    services.keyring.set(keyring);
    // Tokens that a withdrawn key signed may be cached.
    services.verified_tokens.forget_all();
    Ok(())
}

/// Returns true if the master key opens the signing keys in the database. Another node may have sealed them with another
/// one since this service started.
///
/// # Errors
/// When the database fails.
pub async fn are_readable(services: &Services) -> Result<bool> {
    let (Some(_), Some(master)) = (services.settings.signing, &services.master_key) else { return Ok(true) };
    let present = signing_keys::list(services.store.read().await?.conn()).await?;
    Ok(master.open(&services.env, |keys| open_sealed(keys, &present)).await.is_ok())
}

async fn open_all(
    master: &CurrentMasterKeys,
    env: &Environment,
    sealed: &[SealedKey],
) -> Result<Vec<PrivateKey>, KeyringError> {
    let opened = master.open(env, |keys| open_sealed(keys, sealed)).await.map_err(|_| KeyringError::WrongMasterKey)?;
    let parsed = sealed.iter().zip(&opened).map(|(key, der)| PrivateKey::from_pkcs8(key.algorithm, der));
    Ok(parsed.collect::<Result<_, _>>().map_err(defect)?)
}

fn open_sealed(keys: &MasterKeys, sealed: &[SealedKey]) -> Result<Vec<SecretSlice<u8>>, SealError> {
    sealed.iter().map(|key| keys.open(&signing_key_purpose(&key.kid), &key.sealed_private_key)).collect()
}

fn defect(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Internal(Box::new(error))
}
