//! The files with the keys of backups.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use secrecy::zeroize::Zeroizing;

use crate::{cli::Failure, service::backup::Decryption};

/// What decrypts a backup.
#[derive(Args)]
pub(super) struct Key {
    /// Decrypt with the age identities in this file.
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    identity: Option<PathBuf>,
    /// Decrypt with the passphrase in this file.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Key {
    pub(super) fn read(&self) -> Result<Decryption, Failure> {
        match (&self.identity, &self.passphrase_file) {
            (Some(path), _) => {
                Decryption::with_identities(&read(path)?).map_err(|wrong| format!("{} {wrong}", path.display()).into())
            }
            (None, Some(path)) => Ok(Decryption::with_passphrase(&read(path)?)),
            (None, None) => Ok(Decryption::None),
        }
    }
}

/// Reads a file before any database is opened.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(Zeroizing::new(text))
}
