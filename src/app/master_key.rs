//! The master key, from the environment or its file, and creation of secret files.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use secrecy::ExposeSecret;

use super::StartError;
use crate::{
    clock::Environment,
    config::{Config, MasterKeySource, Signing},
    crypto::MasterKey,
    service::tokens::signing_keys,
    store::Store,
};

/// Loads the master key, or creates its file. Returns `None` if the file does not exist and tokens are signed with a
/// shared secret, which needs no master key.
pub(super) async fn load(config: &Config, store: &Store, env: &Environment) -> Result<Option<MasterKey>, StartError> {
    let source = &config.master_key;
    if let (Signing::SharedSecret(_), MasterKeySource::File { path, may_create: false }) = (&config.signing, source)
        && !path.exists()
    {
        return Ok(None);
    }
    open(source, store, env).await.map(Some)
}

async fn open(source: &MasterKeySource, store: &Store, env: &Environment) -> Result<MasterKey, StartError> {
    match source {
        MasterKeySource::Value(key) => Ok(key.clone()),
        // Closing another descriptor of the database file would drop SQLite's locks on it.
        MasterKeySource::File { path, .. } if store.db().includes_file(path) => {
            Err(StartError::MasterKeyForm(path.clone()))
        }
        MasterKeySource::File { path, may_create } => match read_secret(path) {
            Ok(text) => MasterKey::from_hex(text.trim_end()).ok_or_else(|| StartError::MasterKeyForm(path.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound && *may_create => {
                if signing_keys::any(store).await? {
                    return Err(StartError::MasterKeyLost(path.clone()));
                }
                let key = MasterKey::generate(env);
                write(path, &key).map_err(|error| StartError::MasterKeyFile(path.clone(), error))?;
                Ok(key)
            }
            Err(error) => Err(StartError::MasterKeyFile(path.clone(), error)),
        },
    }
}

/// Reads a secret file. Warns if users other than its owner can read it.
fn read_secret(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    if mode & 0o044 != 0 {
        let mode = format!("{mode:04o}");
        tracing::warn!(path = %path.display(), mode, "other users can read the master key file; set its mode to 0600");
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Creates a file that only its owner can read. Never overwrites a file.
///
/// # Errors
/// If the file exists or cannot be created.
pub fn create_secret_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn write(path: &Path, key: &MasterKey) -> io::Result<()> {
    let mut file = create_secret_file(path)?;
    writeln!(file, "{}", key.to_hex().expose_secret())?;
    // Sync before anything is sealed with the key, because losing the key in a crash would lose the sealed values.
    file.sync_all()
}
