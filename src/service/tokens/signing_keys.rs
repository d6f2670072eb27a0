//! The keys that sign access tokens: generated here, sealed under the master key, kept in the database.
//!
//! Of each algorithm one key signs and the next is published already, so that whoever keeps a copy of the key set knows a
//! key before the first token names it. A key that signed stays published for as long as a token of it may live, unless it is lost
//! to somebody.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{
    clock::Environment,
    crypto::{Keyring, MasterKey, PrivateKey},
    domain::{
        Error, Result, Timestamp,
        audit::{AuditAction, Event},
        token::{LIFE_MAX, SigningAlgorithm},
    },
    service::{
        Services,
        core::{act::Act, caller::Caller, policy::Action},
    },
    store::{
        Store, Tx,
        tokens::signing_keys::{self, SealedKey},
    },
};

/// How long verifiers may keep a copy of the key set: what `Cache-Control` says.
pub const PUBLISHED_FOR: Duration = Duration::from_mins(5);

/// The keyring in force. All clones are one.
#[derive(Clone)]
pub struct CurrentKeyring(Arc<Current>);

struct Current {
    keyring: RwLock<Arc<Keyring>>,
    /// Held while it is read anew, so that what was read before does not come after.
    reading: Mutex<()>,
}

impl CurrentKeyring {
    /// Puts a keyring in force.
    #[must_use]
    pub fn new(keyring: Keyring) -> Self {
        Self(Arc::new(Current { keyring: RwLock::new(Arc::new(keyring)), reading: Mutex::new(()) }))
    }

    /// The keyring in force at this moment.
    #[must_use]
    pub fn get(&self) -> Arc<Keyring> {
        self.0.keyring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, keyring: Keyring) {
        *self.0.keyring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keyring);
    }
}

/// Why no tokens can be signed.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The sealed keys were sealed under another master key.
    #[error("the master key does not open the signing keys in this database; is it the one they were made with?")]
    WrongMasterKey,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Loads the signing keys, and makes those of `algorithm` where there are none at all. What is there stays as it is: a command that was
/// told of another algorithm than the service changes nothing for it.
///
/// # Errors
/// See [`KeyringError`].
pub async fn load(
    store: &Store,
    env: &Environment,
    master: &MasterKey,
    algorithm: SigningAlgorithm,
) -> Result<Keyring, KeyringError> {
    let mut present = signing_keys::list(store.read().await?.conn()).await?;
    if present.is_empty() {
        complete(store, env, master, algorithm).await?;
        present = signing_keys::list(store.read().await?.conn()).await?;
    }
    let opened = open_all(master, &present)?;
    assemble(algorithm, &present, opened)
}

/// Has keys of the algorithm sign that the service is set to, as it begins to serve: makes those that are missing. Those of other
/// algorithms sign no more.
///
/// # Errors
/// When the database fails.
pub async fn begin(services: &Services) -> Result<()> {
    let (Some(algorithm), Some(master)) = (services.settings.signing, &services.master_key) else { return Ok(()) };
    let present = signing_keys::list(services.store.read().await?.conn()).await?;
    if is_complete(&present, algorithm) && given_up(&present, algorithm).next().is_none() {
        return Ok(());
    }
    complete(&services.store, &services.env, master, algorithm).await?;
    reload(services).await
}

/// Whether any signing key is sealed already.
///
/// # Errors
/// When the database fails.
pub async fn any(store: &Store) -> Result<bool> {
    Ok(!signing_keys::list(store.read().await?.conn()).await?.is_empty())
}

/// The key that signs comes first; the others verify.
fn assemble(
    algorithm: SigningAlgorithm,
    present: &[SealedKey],
    mut keys: Vec<PrivateKey>,
) -> Result<Keyring, KeyringError> {
    // A node that was not told yet of another algorithm, as the one that retired its keys was, goes on with what there is.
    let current = current(present, algorithm).or_else(|| {
        let signed = present.iter().filter(|key| key.activated_at.is_some());
        signed.max_by_key(|key| (key.algorithm == algorithm, key.activated_at))
    });
    let current = current.and_then(|current| keys.iter().position(|key| key.public().kid() == current.kid));
    let current = current.ok_or_else(|| Error::internal("the signing key that was just made is gone"))?;
    let current = keys.remove(current);
    Ok(Keyring::asymmetric(current, keys.into_iter().map(PrivateKey::into_public)))
}

/// The key that signs; the one that began last, should there be several.
fn current(keys: &[SealedKey], algorithm: SigningAlgorithm) -> Option<&SealedKey> {
    let signing = keys.iter().filter(|key| key.algorithm == algorithm && key.retired_at.is_none());
    signing.filter(|key| key.activated_at.is_some()).max_by_key(|key| key.activated_at)
}

/// The key that signs after the next rotation.
fn next(keys: &[SealedKey], algorithm: SigningAlgorithm) -> Option<&SealedKey> {
    keys.iter().find(|key| key.algorithm == algorithm && key.activated_at.is_none() && key.retired_at.is_none())
}

/// The keys of other algorithms that nobody told yet to sign no more.
fn given_up(keys: &[SealedKey], algorithm: SigningAlgorithm) -> impl Iterator<Item = &SealedKey> {
    keys.iter().filter(move |key| key.algorithm != algorithm && key.retired_at.is_none())
}

fn is_complete(keys: &[SealedKey], algorithm: SigningAlgorithm) -> bool {
    current(keys, algorithm).is_some() && next(keys, algorithm).is_some()
}

fn generate(master: &MasterKey, env: &Environment, algorithm: SigningAlgorithm) -> Result<SealedKey> {
    let key = PrivateKey::generate(algorithm).map_err(defect)?;
    let kid = key.public().kid().to_owned();
    let private_key = key.to_pkcs8().map_err(defect)?;
    Ok(SealedKey {
        sealed_private_key: master.seal(env, &purpose(&kid), private_key.expose_secret()).map_err(defect)?,
        kid,
        algorithm,
        created_at: env.now(),
        activated_at: None,
        retired_at: None,
    })
}

async fn complete(store: &Store, env: &Environment, master: &MasterKey, algorithm: SigningAlgorithm) -> Result<()> {
    let candidates = [generate(master, env, algorithm)?, generate(master, env, algorithm)?];
    let env = env.clone();
    store.write(move |tx| Box::pin(add_missing(tx, env, algorithm, candidates))).await
}

/// Several nodes may start at once: the first one's keys are everybody's.
async fn add_missing(
    tx: &mut Tx,
    env: Environment,
    algorithm: SigningAlgorithm,
    candidates: [SealedKey; 2],
) -> Result<()> {
    let present = signing_keys::list(tx.conn()).await?;
    let [mut first, second] = candidates;
    let current = current(&present, algorithm).map(|current| current.kid.clone());
    if current.is_none() {
        first.activated_at = Some(first.created_at);
        add(tx, &env, &first).await?;
    }
    if next(&present, algorithm).is_none() {
        add(tx, &env, &second).await?;
    }
    let current = current.unwrap_or(first.kid);
    for key in given_up(&present, algorithm) {
        signing_keys::retire(tx.conn(), &key.kid, env.now()).await?;
        let details = json!({ "from": key.kid, "to": current, "algorithm": algorithm.as_str() });
        record(tx, &env, AuditAction::SigningKeyRotated, details);
    }
    tx.changed_everything();
    Ok(())
}

async fn add(tx: &mut Tx, env: &Environment, key: &SealedKey) -> Result<()> {
    signing_keys::insert(tx.conn(), key).await?;
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

/// A signing key as administrators see it.
#[derive(Clone, Debug)]
pub struct KeyInfo {
    /// Key identifier.
    pub kid: String,
    /// What it signs with.
    pub algorithm: SigningAlgorithm,
    /// Since when it is published.
    pub created_at: Timestamp,
    /// Since when it signs.
    pub activated_at: Option<Timestamp>,
    /// Since when it no longer does.
    pub retired_at: Option<Timestamp>,
    /// Until when it stays published after that.
    pub published_until: Option<Timestamp>,
}

impl KeyInfo {
    /// What the key is for at present, and since when.
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

/// Every signing key, newest first.
///
/// # Errors
/// [`Error::Denied`].
pub async fn list(services: &Services, caller: &Caller) -> Result<Vec<KeyInfo>> {
    services.permit(caller, Action::ListSigningKeys).await?;
    let keys = signing_keys::list(services.store.read().await?.conn()).await?;
    Ok(keys.into_iter().map(KeyInfo::from).collect())
}

/// When a rotation happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Only if the key that signs has done so for this long.
    Due(Duration),
    /// As soon as every verifier knows the next key.
    Known,
    /// At once, with keys that nobody knows: those there are are lost to somebody.
    Lost,
}

/// Has the next key sign from now on, and publishes another next one. With `are_lost`, the keys are lost to somebody, who cannot have
/// got the present one without the others beside it: new ones take the place of all, though verifiers with a copy of the key set
/// cannot know them yet, and no token counts any more that was signed before, whoever had it signed. Other nodes on one PostgreSQL
/// follow as soon as they hear of it, other processes on SQLite within 30 seconds, verifiers with a copy within [`PUBLISHED_FOR`].
///
/// # Errors
/// [`Error::Refused`] when the next key was published less than [`PUBLISHED_FOR`] ago, when a shared secret signs, and when keys of
/// another algorithm than this process was told of do; [`Error::ProofNeeded`].
pub async fn rotate(services: &Services, caller: &Caller, are_lost: bool) -> Result<KeyInfo> {
    let when = if are_lost { When::Lost } else { When::Known };
    let rotated = rotate_when(services, caller, when).await?;
    rotated.ok_or(Error::Refused("Verifiers may not know the next key yet; try again in 5 minutes"))
}

async fn rotate_when(services: &Services, caller: &Caller, when: When) -> Result<Option<KeyInfo>> {
    let (Some(algorithm), Some(master)) = (services.settings.signing, &services.master_key) else {
        return Err(Error::Refused(
            "Tokens are signed with the shared secret JWT_SECRET_KEY, which only its holder can replace",
        ));
    };
    let made = [generate(master, &services.env, algorithm)?, generate(master, &services.env, algorithm)?];
    let rotated = services
        .change(caller, Action::RotateSigningKey, move |act| Box::pin(exchange(act, algorithm, made, when)))
        .await?;
    if rotated.is_some() {
        reload(services).await?;
    }
    Ok(rotated)
}

async fn exchange(
    act: &mut Act<'_>,
    algorithm: SigningAlgorithm,
    [coming, other]: [SealedKey; 2],
    when: When,
) -> Result<Option<KeyInfo>> {
    let present = signing_keys::list(act.conn()).await?;
    let (Some(current), Some(next)) = (current(&present, algorithm), next(&present, algorithm)) else {
        return Err(Error::Refused("Keys of another algorithm sign; set JWT_ALGORITHM as the service has it"));
    };
    let now = act.now;
    let is_known = next.created_at.plus(PUBLISHED_FOR) <= now;
    let is_time = match when {
        When::Due(period) => is_known && current.activated_at.is_some_and(|at| at.plus(period) <= now),
        When::Known => is_known,
        When::Lost => true,
    };
    if !is_time {
        return Ok(None);
    }
    let mut signing = next.clone();
    if when == When::Lost {
        for key in &present {
            withdraw(act, &key.kid).await?;
        }
        signing_keys::insert(act.conn(), &other).await?;
        signing = other;
    } else {
        signing_keys::retire(act.conn(), &current.kid, now).await?;
    }
    signing.activated_at = Some(now);
    signing_keys::activate(act.conn(), &signing.kid, now).await?;
    signing_keys::insert(act.conn(), &coming).await?;
    let details =
        json!({ "from": current.kid, "to": signing.kid, "next": coming.kid, "algorithm": algorithm.as_str() });
    act.audit(AuditAction::SigningKeyRotated, None, None, details);
    act.tx.changed_everything();
    Ok(Some(signing.into()))
}

/// Rotates when it is time, removes keys of which no token can be left, and takes over what other nodes and commands did.
/// For the background.
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
            rotate_when(services, &Caller::system(), When::Due(period)).await?;
        }
    }
    withdraw_ended(services).await?;
    reload(services).await
}

async fn withdraw(act: &mut Act<'_>, kid: &str) -> Result<()> {
    signing_keys::delete(act.conn(), kid).await?;
    act.audit(AuditAction::SigningKeyWithdrawn, None, None, json!({ "kid": kid }));
    Ok(())
}

async fn withdraw_ended(services: &Services) -> Result<()> {
    let ended = |key: &SealedKey, now: Timestamp| key.retired_at.is_some_and(|at| at.plus(LIFE_MAX) <= now);
    let keys = signing_keys::list(services.store.read().await?.conn()).await?;
    let now = services.env.now();
    if !keys.iter().any(|key| ended(key, now)) {
        return Ok(());
    }
    services
        .change(&Caller::system(), Action::RotateSigningKey, move |act| {
            Box::pin(async move {
                let now = act.now;
                for key in signing_keys::list(act.conn()).await?.iter().filter(|key| ended(key, now)) {
                    withdraw(act, &key.kid).await?;
                }
                Ok(())
            })
        })
        .await
}

/// Takes over at once what other nodes on the same PostgreSQL do. For the background.
pub async fn follow(services: &Services) {
    loop {
        services.principals.everything_changed().await;
        if let Err(error) = reload(services).await {
            tracing::warn!(error = error.with_causes(), "signing keys are taken over later");
        }
    }
}

/// Puts in force what the database holds.
async fn reload(services: &Services) -> Result<()> {
    let (Some(algorithm), Some(master)) = (services.settings.signing, &services.master_key) else { return Ok(()) };
    let _reading = services.keyring.0.reading.lock().await;
    let present = signing_keys::list(services.store.read().await?.conn()).await?;
    let state = |keyring: &Keyring| keyring.jwks_tag().to_owned();
    let before = services.keyring.get();
    let opened = open_all(master, &present).map_err(defect)?;
    let keyring = assemble(algorithm, &present, opened).map_err(defect)?;
    if state(&before) == state(&keyring) {
        return Ok(());
    }
    services.keyring.set(keyring);
    // What a withdrawn key signed was verified, perhaps, and counts no more.
    services.verified_tokens.forget_all();
    Ok(())
}

fn open_all(master: &MasterKey, sealed: &[SealedKey]) -> Result<Vec<PrivateKey>, KeyringError> {
    let open = |key: &SealedKey| {
        let der = master.open(&purpose(&key.kid), &key.sealed_private_key).map_err(|_| KeyringError::WrongMasterKey)?;
        Ok(PrivateKey::from_pkcs8(key.algorithm, &der).map_err(defect)?)
    };
    sealed.iter().map(open).collect()
}

/// Binds a sealed key to its identifier, so that it cannot be put in another's place.
fn purpose(kid: &str) -> String {
    format!("signing-key:{kid}")
}

fn defect(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Internal(Box::new(error))
}
