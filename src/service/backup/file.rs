//! The file that a backup is written to.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Stdout, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use uuid::Uuid;

/// How the name of an unfinished file ends.
pub(super) const PART: &str = ".part";

/// Where a backup goes.
pub(super) enum Sink {
    Stdout(Stdout),
    File(NewFile),
}

impl Sink {
    /// Makes the backup durable, and gives it its name.
    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Stdout(mut output) => output.flush(),
            Self::File(file) => file.finish(),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(output) => output.write(bytes),
            Self::File(file) => file.file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(output) => output.flush(),
            Self::File(file) => file.file.flush(),
        }
    }
}

/// A file that only its owner can read. It takes its name when it is complete, and is deleted if it is dropped before.
pub(super) struct NewFile {
    file: File,
    part: PathBuf,
    path: PathBuf,
}

impl NewFile {
    /// Begins a file. `unique` distinguishes it from other unfinished ones.
    pub(super) fn create(path: &Path, unique: Uuid) -> io::Result<Self> {
        if path.try_exists()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
        let part = path.with_file_name(format!(".{name}.{unique}{PART}"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        Ok(Self { file, part, path: path.to_owned() })
    }

    fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        // A link does not replace a file that came into being in the meantime, as a rename does.
        match fs::hard_link(&self.part, &self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) if self.path.try_exists()? => return Err(io::ErrorKind::AlreadyExists.into()),
            // Some file systems have no links.
            Err(_) => fs::rename(&self.part, &self.path)?,
            Ok(()) => {}
        }
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Gone already if the file was renamed.
        let _ = fs::remove_file(&self.part);
    }
}

/// Opens a backup to read it. It must be no database: closing a file drops the locks that SQLite holds on it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}
