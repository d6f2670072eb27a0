//! The master key as a part of a backup.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{command, file, read_file};
use crate::{
    app::StartError,
    config::MasterKeySource,
    crypto::{MasterKey, MasterKeys},
};

/// Returns the master keys that are already there; `None` if their file does not exist. Opens the file, so the caller
/// must not have opened a database yet.
///
/// # Errors
/// If the keys cannot be read.
pub async fn existing(source: &MasterKeySource) -> Result<Option<MasterKeys>, StartError> {
    match source {
        MasterKeySource::Value(keys) => Ok(Some(keys.clone())),
        MasterKeySource::Command(command) => Ok(Some(command::run(command).await?)),
        MasterKeySource::File { path, .. } => match read_file(path) {
            Err(StartError::MasterKeyFile(_, error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        },
    }
}

/// The master keys that a restored database will have.
#[derive(Default)]
pub struct Restored {
    /// The keys; `None` if there are none.
    pub keys: Option<MasterKeys>,
    /// The key of the backup, and the file that it belongs to, if that file does not exist.
    pub to_write: Option<(PathBuf, MasterKey)>,
}

/// Returns the master keys that are already there, or that of the backup.
///
/// # Errors
/// [`StartError::OtherMasterKey`] if there is another master key than that of the backup.
pub async fn restored(source: &MasterKeySource, backup: Option<&MasterKey>) -> Result<Restored, StartError> {
    match (existing(source).await?, backup) {
        (Some(present), Some(key)) if present.find(key.id()).is_none() => Err(StartError::OtherMasterKey),
        (None, Some(key)) => {
            let file = if let MasterKeySource::File { path, .. } = source { Some(path.clone()) } else { None };
            Ok(Restored { keys: Some(MasterKeys::one(key.clone())), to_write: file.map(|path| (path, key.clone())) })
        }
        (keys, _) => Ok(Restored { keys, to_write: None }),
    }
}

/// Creates the master key file with a key from a backup. Never overwrites a file.
///
/// # Errors
/// If the file exists or cannot be written.
pub fn put_back(path: &Path, key: &MasterKey) -> Result<(), StartError> {
    file::create(path, key).map_err(|error| StartError::MasterKeyFile(path.to_owned(), error))
}
