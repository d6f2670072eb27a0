//! The master key, from the environment, its file or the program that prints it.

pub mod backup;
mod command;
mod file;
pub mod rotation;

use std::{error::Error as StdError, io, path::Path};

use futures_util::future::BoxFuture;
use secrecy::ExposeSecret;

use super::StartError;
use crate::{
    clock::Environment,
    config::{Config, MasterKeySource, Signing},
    crypto::{MasterKey, MasterKeys},
    domain::Error,
    service::master_key::{CurrentMasterKeys, KeySource, UnknownMasterKey},
    store::{Db, Store, tokens::sealed},
};

pub use command::CommandError;
pub use file::create_secret_file;

/// Loads the master keys, or creates the file. Returns `None` if the file does not exist and tokens are signed with a
/// shared secret, which needs no master key.
pub(super) async fn load(
    config: &Config,
    store: &Store,
    env: &Environment,
) -> Result<Option<CurrentMasterKeys>, StartError> {
    let source = &config.master_key;
    if let (Signing::SharedSecret(_), MasterKeySource::File { path, may_create: false }) = (&config.signing, source)
        && !path.exists()
    {
        return Ok(None);
    }
    create_if_missing(source, store, env).await?;
    let source = Source { source: source.clone(), db: store.db().clone() };
    let keys = CurrentMasterKeys::new(source.read().await?, Box::new(source));
    match keys.up_to_date(store, env).await {
        Ok(_) => Ok(Some(keys)),
        Err(error) => Err(unknown(&error, &keys.get()).unwrap_or_else(|| error.into())),
    }
}

/// Returns the reason for the operator if `error` says that the database names a key that is not among `given`.
fn unknown(error: &Error, given: &MasterKeys) -> Option<StartError> {
    let Error::Unavailable(Some(cause)) = error else { return None };
    let unknown = cause.downcast_ref::<UnknownMasterKey>()?;
    let given: Vec<_> = given.all().map(|key| key.id().to_string()).collect();
    Some(StartError::MasterKeyReplaced(*unknown, given.join(" and ")))
}

async fn create_if_missing(source: &MasterKeySource, store: &Store, env: &Environment) -> Result<(), StartError> {
    let MasterKeySource::File { path, may_create: true } = source else { return Ok(()) };
    if path.exists() || path.symlink_metadata().is_ok() {
        return Ok(());
    }
    if sealed::any(store.read().await?.conn()).await? {
        return Err(StartError::MasterKeyLost(path.clone()));
    }
    file::create(path, &MasterKey::generate(env)).map_err(|error| StartError::MasterKeyFile(path.clone(), error))
}

/// Where the keys come from, to read them again.
struct Source {
    source: MasterKeySource,
    db: Db,
}

impl Source {
    async fn read(&self) -> Result<MasterKeys, StartError> {
        match &self.source {
            MasterKeySource::Value(keys) => Ok(keys.clone()),
            MasterKeySource::Command(command) => Ok(command::run(command).await?),
            // Closing another descriptor of the database file would drop SQLite's locks on it.
            MasterKeySource::File { path, .. } if self.db.includes_file(path) => {
                Err(StartError::MasterKeyForm(path.clone()))
            }
            MasterKeySource::File { path, .. } => read_file(path),
        }
    }
}

fn read_file(path: &Path) -> Result<MasterKeys, StartError> {
    match file::read_secret(path) {
        Ok(text) => MasterKeys::parse(text.expose_secret()).ok_or_else(|| StartError::MasterKeyForm(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(StartError::MasterKeyForm(path.to_owned())),
        Err(error) => Err(StartError::MasterKeyFile(path.to_owned(), error)),
    }
}

impl KeySource for Source {
    fn read(&self) -> BoxFuture<'_, Result<MasterKeys, Box<dyn StdError + Send + Sync>>> {
        Box::pin(async { Ok(Self::read(self).await?) })
    }
}
