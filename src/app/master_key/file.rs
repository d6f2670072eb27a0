//! The master key file, and other files that only their owner can read.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

use crate::{
    crypto::{MasterKey, MasterKeys},
    store::give_to_service,
};

/// Longest content that is read. More is not a master key.
const MOST: u64 = 1_024;

/// Reads a secret file. Warns if users other than its owner can read it.
pub(super) fn read_secret(path: &Path) -> io::Result<SecretString> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    if mode & 0o044 != 0 {
        let mode = format!("{mode:04o}");
        tracing::warn!(path = %path.display(), mode, "other users can read the master key file; set its mode to 0600");
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MOST).read_to_string(&mut text)?;
    Ok(text.as_str().into())
}

/// Creates a file that only its owner can read. Never overwrites a file.
///
/// # Errors
/// If the file exists or cannot be created.
pub fn create_secret_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Creates the master key file.
pub(super) fn create(path: &Path, key: &MasterKey) -> io::Result<()> {
    let mut file = create_secret_file(path)?;
    give_to_service(&file, path.parent().unwrap_or(path));
    file.write_all(MasterKeys::one(key.clone()).to_text().expose_secret().as_bytes())?;
    // Sync before anything is sealed with the key, because losing the key in a crash would lose the sealed values.
    file.sync_all()
}

/// The master key file during a rotation. Holds the lock against another rotation.
#[derive(Debug)]
pub(super) struct KeyFile {
    /// The file itself, also if the setting names a symbolic link.
    path: PathBuf,
    folder: File,
}

impl KeyFile {
    /// Opens the folder of an existing file and locks it. Fails with [`io::ErrorKind::WouldBlock`] if another rotation
    /// holds the lock.
    pub(super) fn lock(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let folder = File::open(path.parent().ok_or(io::ErrorKind::IsADirectory)?)?;
        match folder.try_lock() {
            Ok(()) => Ok(Self { path, folder }),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Replaces the content: after a crash, the file has either the old or the new one.
    pub(super) fn write(&self, keys: &MasterKeys) -> io::Result<()> {
        self.replace(&self.path, keys)
    }

    /// Writes a key that was replaced to a file of its own, whose name ends with the key's ID.
    pub(super) fn keep(&self, replaced: &MasterKey) -> io::Result<PathBuf> {
        let kept = with_suffix(&self.path, &format!(".{}", replaced.id()));
        self.replace(&kept, &MasterKeys::one(replaced.clone()))?;
        Ok(kept)
    }

    fn replace(&self, path: &Path, keys: &MasterKeys) -> io::Result<()> {
        let temporary = with_suffix(&self.path, ".new");
        // One that a crash left behind was never used.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let written = self.write_like_present(&temporary, keys).and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        self.folder.sync_all()
    }

    /// Creates a file with the owner and the mode of the present file: the service must be able to read it, also if
    /// `root` runs the command.
    fn write_like_present(&self, path: &Path, keys: &MasterKeys) -> io::Result<()> {
        let present = fs::metadata(&self.path)?;
        let mut file = create_secret_file(path)?;
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (present.uid(), present.gid()) {
            fchown(&file, Some(present.uid()), Some(present.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(present.mode() & 0o777))?;
        file.write_all(keys.to_text().expose_secret().as_bytes())?;
        file.sync_all()
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
