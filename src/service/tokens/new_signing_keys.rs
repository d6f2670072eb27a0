//! New signing keys, generated before the transaction that stores them and sealed in it.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretSlice};

use crate::{
    clock::Environment,
    crypto::{MasterKey, MasterKeys, PrivateKey, seal::signing_key_purpose},
    domain::{Error, Result, Timestamp, token::SigningAlgorithm},
    service::master_key::{CurrentMasterKeys, sealing_key},
    store::{Conn, Store, tokens::signing_keys::SealedKey},
};

/// A new key whose private part is not sealed yet.
struct NewKey {
    kid: String,
    algorithm: SigningAlgorithm,
    private_key: SecretSlice<u8>,
    created_at: Timestamp,
}

impl NewKey {
    fn generate(env: &Environment, algorithm: SigningAlgorithm) -> Result<Self> {
        let key = PrivateKey::generate(algorithm).map_err(defect)?;
        let kid = key.public().kid().to_owned();
        Ok(Self { kid, algorithm, private_key: key.to_pkcs8().map_err(defect)?, created_at: env.now() })
    }

    fn seal(self, master: &MasterKey, env: &Environment) -> Result<SealedKey> {
        let purpose = signing_key_purpose(&self.kid);
        Ok(SealedKey {
            sealed_private_key: master.seal(env, &purpose, self.private_key.expose_secret()).map_err(defect)?,
            kid: self.kid,
            algorithm: self.algorithm,
            created_at: self.created_at,
            activated_at: None,
            retired_at: None,
        })
    }
}

/// Two new keys, and what seals them once the transaction shows which master key does so.
pub(super) struct Candidates {
    keys: [NewKey; 2],
    masters: Arc<MasterKeys>,
    env: Environment,
}

impl Candidates {
    pub(super) async fn generate(
        store: &Store,
        env: &Environment,
        master: &CurrentMasterKeys,
        algorithm: SigningAlgorithm,
    ) -> Result<Self> {
        let keys = [NewKey::generate(env, algorithm)?, NewKey::generate(env, algorithm)?];
        Ok(Self { keys, masters: master.up_to_date(store, env).await?, env: env.clone() })
    }

    pub(super) async fn seal(self, conn: Conn<'_>) -> Result<[SealedKey; 2]> {
        let master = sealing_key(conn, &self.masters).await?;
        let [first, second] = self.keys;
        Ok([first.seal(&master, &self.env)?, second.seal(&master, &self.env)?])
    }
}

fn defect(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Internal(Box::new(error))
}
