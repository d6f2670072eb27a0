//! `aims master-key rotate`: the steps of [`rotation`] and, around them, those that change the master key file.
//!
//! 1. A new key is written to the first line of the file, and the present one to the second.
//! 2. The new key seals new values from now on, and all values are sealed with it anew.
//! 3. The previous key moves to a file of its own.
//!
//! AIMS changes the file only with SQLite. With PostgreSQL other nodes may have copies of it, so the operator does.

use std::{error::Error as StdError, io, path::PathBuf};

use super::file::KeyFile;
use crate::{
    app::App,
    config::MasterKeySource,
    crypto::{MasterKey, MasterKeyId, MasterKeys},
    domain::Error,
    service::{
        Caller, Services,
        master_key::rotation::{self, RotationError, Stage},
    },
    store::tokens::sealed::Kind,
};

/// Why the rotation did not complete. The messages are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The database could not be changed.
    #[error(transparent)]
    Rotation(#[from] RotationError),
    /// There is only one key, and AIMS does not make another one.
    #[error(
        "there is no new master key: {0} is the only one and encrypts everything. Make the new key the first one and \
         {0} the previous one on every node, restart the nodes, and run this command again; docs/operations.md has the \
         steps"
    )]
    NoNewKey(MasterKeyId),
    /// Another rotation is running.
    #[error("another rotation of the master key is running")]
    Busy,
    /// The master key file cannot be changed.
    #[error("cannot change the master key file {0}: {1}")]
    File(PathBuf, #[source] io::Error),
    /// The keys cannot be read again.
    #[error("{0}")]
    Source(Box<dyn StdError + Send + Sync>),
}

/// A rotation that is complete.
#[derive(Debug)]
pub struct Rotated {
    /// The key that encrypts everything now.
    pub newest: MasterKeyId,
    /// How many values this run sealed anew.
    pub resealed: Vec<(Kind, u64)>,
    /// The file that holds the previous key, if AIMS wrote one.
    pub kept: Option<PathBuf>,
}

/// Rotates the master key, or completes a rotation that was interrupted.
///
/// # Errors
/// See [`RotateError`].
pub async fn rotate(app: &App) -> Result<Rotated, RotateError> {
    let caller = Caller::system();
    let services = app.services();
    let file = prepare(app).await?;
    rotation::begin(services, &caller).await?;
    let resealed = rotation::reseal(services, &caller).await?;
    rotation::complete(services, &caller).await?;
    let keys = master_keys(services)?;
    let kept = match (&file, keys.previous()) {
        (Some(file), Some(previous)) => Some(file.retire(keys.newest(), previous)?),
        _ => None,
    };
    Ok(Rotated { newest: keys.newest().id(), resealed, kept })
}

/// The master key file that AIMS changes. Keeps other rotations out until it is dropped.
#[derive(Debug)]
pub struct ManagedFile {
    path: PathBuf,
    file: KeyFile,
}

/// Makes sure that there are two keys, the one in use and another one to replace it. Creates the new key if AIMS
/// changes the file.
///
/// # Errors
/// See [`RotateError`].
pub async fn prepare(app: &App) -> Result<Option<ManagedFile>, RotateError> {
    let (services, caller) = (app.services(), Caller::system());
    let current = services.master_key.as_ref().ok_or(RotationError::NoMasterKey)?;
    let file = match &app.config.master_key {
        MasterKeySource::File { path, may_create: true } => Some(ManagedFile::lock(path.clone())?),
        _ => None,
    };
    // Another rotation may have changed the file before the lock was taken.
    current.reload().await.map_err(RotateError::Source)?;
    let stage = rotation::stage(services, &caller).await?;
    let Stage::OneKey(id) = stage else { return Ok(file) };
    let Some(file) = file else { return Err(RotateError::NoNewKey(id)) };
    let keys = MasterKeys::two(MasterKey::generate(&services.env), current.get().newest().clone());
    file.write(&keys.ok_or_else(|| RotationError::from(Error::internal("two random keys are equal")))?)?;
    current.reload().await.map_err(RotateError::Source)?;
    Ok(Some(file))
}

impl ManagedFile {
    fn lock(path: PathBuf) -> Result<Self, RotateError> {
        match KeyFile::lock(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(RotateError::Busy),
            Err(error) => Err(RotateError::File(path, error)),
        }
    }

    fn write(&self, keys: &MasterKeys) -> Result<(), RotateError> {
        self.file.write(keys).map_err(|error| RotateError::File(self.path.clone(), error))
    }

    /// Moves the previous key to a file of its own, because backups that were made before need it.
    fn retire(&self, newest: &MasterKey, previous: &MasterKey) -> Result<PathBuf, RotateError> {
        let kept = self.file.keep(previous).map_err(|error| RotateError::File(self.path.clone(), error))?;
        self.write(&MasterKeys::one(newest.clone()))?;
        Ok(kept)
    }
}

fn master_keys(services: &Services) -> Result<std::sync::Arc<MasterKeys>, RotationError> {
    Ok(services.master_key.as_ref().ok_or(RotationError::NoMasterKey)?.get())
}
