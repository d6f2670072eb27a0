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

/// Returns the master key of a backup with the file that it belongs to, if that file does not exist.
///
/// # Errors
/// [`StartError::OtherMasterKey`] if there is another master key.
pub async fn missing(
    source: &MasterKeySource,
    backup: Option<&MasterKey>,
) -> Result<Option<(PathBuf, MasterKey)>, StartError> {
    let Some(key) = backup else { return Ok(None) };
    match (existing(source).await?, source) {
        (Some(present), _) if present.find(key.id()).is_some() => Ok(None),
        (Some(_), _) => Err(StartError::OtherMasterKey),
        (None, MasterKeySource::File { path, .. }) => Ok(Some((path.clone(), key.clone()))),
        (None, MasterKeySource::Value(_) | MasterKeySource::Command(_)) => Ok(None),
    }
}

/// Creates the master key file with a key from a backup. Never overwrites a file.
///
/// # Errors
/// If the file exists or cannot be written.
pub fn put_back(path: &Path, key: &MasterKey) -> Result<(), StartError> {
    file::create(path, key).map_err(|error| StartError::MasterKeyFile(path.to_owned(), error))
}
