//! The keys that sign access tokens: generated once, sealed under the master key, kept in the database.

use secrecy::ExposeSecret;
use serde_json::json;

use crate::{
    clock::Environment,
    crypto::{Keyring, MasterKey, PrivateKey},
    domain::{
        Error, Result,
        audit::{AuditAction, Event},
        token::SigningAlgorithm,
    },
    store::{
        Store, Tx,
        signing_keys::{self, SealedKey},
    },
};

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

/// Loads the signing keys, and generates one for `algorithm` where there is none.
///
/// # Errors
/// See [`KeyringError`].
pub async fn load(
    store: &Store,
    env: &Environment,
    master: &MasterKey,
    algorithm: SigningAlgorithm,
) -> Result<Keyring, KeyringError> {
    let present = signing_keys::list(store.read().await?.conn()).await?;
    // Opening what is there before adding to it: a key sealed under a wrong master key must not join the others.
    let keys = open_all(master, &present)?;
    if keys.iter().any(|key| key.public().algorithm() == algorithm) {
        return assemble(algorithm, keys);
    }
    let candidate = generate(master, env, algorithm)?;
    let env = env.clone();
    store.write(move |tx| Box::pin(keep_unless_present(tx, env, candidate))).await?;
    let present = signing_keys::list(store.read().await?.conn()).await?;
    assemble(algorithm, open_all(master, &present)?)
}

/// Whether any signing key is sealed already.
///
/// # Errors
/// When the database fails.
pub async fn any(store: &Store) -> Result<bool> {
    Ok(!signing_keys::list(store.read().await?.conn()).await?.is_empty())
}

/// The newest key of the algorithm signs; the others still verify what they signed.
fn assemble(algorithm: SigningAlgorithm, mut keys: Vec<PrivateKey>) -> Result<Keyring, KeyringError> {
    let current = keys.iter().position(|key| key.public().algorithm() == algorithm);
    let current = current.ok_or_else(|| Error::internal("the signing key that was just made is gone"))?;
    let current = keys.remove(current);
    Ok(Keyring::asymmetric(current, keys.into_iter().map(PrivateKey::into_public)))
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
    })
}

/// Several nodes may start at once: the first one's key is everybody's.
async fn keep_unless_present(tx: &mut Tx, env: Environment, key: SealedKey) -> Result<()> {
    if signing_keys::list(tx.conn()).await?.iter().any(|present| present.algorithm == key.algorithm) {
        return Ok(());
    }
    signing_keys::insert(tx.conn(), &key).await?;
    tx.audit(Event {
        id: env.uuid(),
        at: env.now(),
        actor: None,
        subject: None,
        action: AuditAction::SigningKeyCreated,
        resource: None,
        details: json!({ "kid": key.kid, "algorithm": key.algorithm.as_str() }),
        ip: None,
        success: true,
        request_id: None,
    });
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
