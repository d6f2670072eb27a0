//! Encryption of backups, in the format of age (age-encryption.org/v1): to public keys, or with a passphrase.

use std::io::{self, BufRead, Write};

use age::{
    DecryptError, Decryptor, Encryptor, scrypt,
    stream::{StreamReader, StreamWriter},
    x25519,
};
use secrecy::SecretString;

/// The first bytes of an encrypted file.
pub const MAGIC: &[u8] = b"age-encryption.org/";
/// Least number of characters in a passphrase that encrypts. A backup can be guessed at offline, without any limit.
pub const PASSPHRASE_MIN: usize = 12;

/// A public key that a backup is encrypted to: `age1…`.
#[derive(Clone, Debug)]
pub struct Recipient(x25519::Recipient);

impl Recipient {
    /// Parses a recipient. The error does not repeat the text, which may be a private key.
    ///
    /// # Errors
    /// A message that continues a sentence, such as "is a private key".
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            return Err("is a private key; give the public one, which begins with age1");
        }
        text.parse().map(Self).map_err(|_| "is not an age recipient, which begins with age1")
    }
}

/// How a backup is encrypted.
#[derive(Clone)]
pub enum Encryption {
    /// It is not.
    None,
    /// To the holders of any of these keys.
    To(Vec<Recipient>),
    /// With a passphrase.
    Passphrase(SecretString),
}

impl Encryption {
    /// Reads a passphrase: the text without the line break at its end.
    ///
    /// # Errors
    /// A message that continues a sentence.
    pub fn with_passphrase(text: &str) -> Result<Self, String> {
        let passphrase = passphrase(text);
        if passphrase.chars().count() < PASSPHRASE_MIN {
            return Err(format!("must hold a passphrase of at least {PASSPHRASE_MIN} characters"));
        }
        Ok(Self::Passphrase(passphrase.into()))
    }

    /// Returns how a record names it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::To(_) => "recipients",
            Self::Passphrase(_) => "passphrase",
        }
    }

    /// Returns a writer that encrypts what is written to it.
    ///
    /// # Errors
    /// If `output` fails.
    pub fn wrap<W: Write>(&self, output: W) -> io::Result<Encrypted<W>> {
        let encryptor = match self {
            Self::None => return Ok(Encrypted::Plain(output)),
            Self::To(recipients) => {
                let recipients = recipients.iter().map(|recipient| &recipient.0 as &dyn age::Recipient);
                Encryptor::with_recipients(recipients).map_err(io::Error::other)?
            }
            Self::Passphrase(passphrase) => Encryptor::with_user_passphrase(passphrase.clone()),
        };
        encryptor.wrap_output(output).map(Encrypted::Age)
    }
}

/// A writer that encrypts.
pub enum Encrypted<W: Write> {
    /// Not encrypted.
    Plain(W),
    /// Encrypted.
    Age(StreamWriter<W>),
}

impl<W: Write> Encrypted<W> {
    /// Writes the end, without which the file cannot be decrypted, and returns the output.
    ///
    /// # Errors
    /// If the output fails.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(output) => Ok(output),
            Self::Age(output) => output.finish(),
        }
    }
}

impl<W: Write> Write for Encrypted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(output) => output.write(bytes),
            Self::Age(output) => output.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(output) => output.flush(),
            Self::Age(output) => output.flush(),
        }
    }
}

/// What decrypts a backup.
#[derive(Clone)]
pub enum Decryption {
    /// Nothing: the backup is not encrypted.
    None,
    /// Private keys, of which one must fit.
    Identities(Vec<x25519::Identity>),
    /// A passphrase.
    Passphrase(SecretString),
}

/// Why a file cannot be decrypted.
#[derive(Debug, thiserror::Error)]
pub enum DecryptionError {
    /// The file is encrypted to others.
    #[error("the backup is encrypted to other recipients: none of the identities decrypts it")]
    WrongIdentity,
    /// The passphrase is wrong.
    #[error("the passphrase does not decrypt the backup")]
    WrongPassphrase,
    /// The file is encrypted in the other way.
    #[error("the backup is encrypted {0}")]
    OtherWay(&'static str),
    /// The file is damaged.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] io::Error),
}

impl Decryption {
    /// Reads a file of identities: one `AGE-SECRET-KEY-1…` per line, and comments that begin with `#`.
    ///
    /// # Errors
    /// A message that continues a sentence. It repeats nothing of the file.
    pub fn with_identities(text: &str) -> Result<Self, &'static str> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let identities: Result<Vec<_>, _> = lines.map(str::parse).collect();
        match identities {
            Ok(identities) if !identities.is_empty() => Ok(Self::Identities(identities)),
            _ => Err("does not hold age identities, one AGE-SECRET-KEY-1… per line"),
        }
    }

    /// Reads a passphrase: the text without the line break at its end.
    #[must_use]
    pub fn with_passphrase(text: &str) -> Self {
        Self::Passphrase(passphrase(text).into())
    }

    /// Returns true if there is nothing to decrypt with.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Returns a reader that decrypts `input`, which begins with [`MAGIC`].
    ///
    /// # Errors
    /// See [`DecryptionError`].
    pub fn unwrap<R: BufRead>(&self, input: R) -> Result<StreamReader<R>, DecryptionError> {
        let decryptor = Decryptor::new_buffered(input).map_err(why)?;
        match self {
            Self::Passphrase(passphrase) if decryptor.is_scrypt() => {
                let identity = scrypt::Identity::new(passphrase.clone());
                decryptor.decrypt([&identity as &dyn age::Identity].into_iter()).map_err(|error| match error {
                    DecryptError::DecryptionFailed
                    | DecryptError::NoMatchingKeys
                    | DecryptError::KeyDecryptionFailed => DecryptionError::WrongPassphrase,
                    other => why(other),
                })
            }
            Self::Identities(identities) if !decryptor.is_scrypt() => {
                let identities = identities.iter().map(|identity| identity as &dyn age::Identity);
                decryptor.decrypt(identities).map_err(why)
            }
            _ if decryptor.is_scrypt() => Err(DecryptionError::OtherWay("with a passphrase: pass --passphrase-file")),
            _ => Err(DecryptionError::OtherWay("to age recipients: pass --identity")),
        }
    }
}

fn why(error: DecryptError) -> DecryptionError {
    match error {
        DecryptError::NoMatchingKeys => DecryptionError::WrongIdentity,
        DecryptError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => DecryptionError::File(error),
        other => DecryptionError::Damaged(other.to_string()),
    }
}

fn passphrase(text: &str) -> String {
    text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line)).to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use secrecy::ExposeSecret;

    use super::*;

    const TEXT: &[u8] = b"what nobody else may read";

    fn encrypted(encryption: &Encryption) -> Vec<u8> {
        let mut writer = encryption.wrap(Vec::new()).unwrap();
        writer.write_all(TEXT).unwrap();
        writer.finish().unwrap()
    }

    fn decrypted(decryption: &Decryption, bytes: &[u8]) -> Result<Vec<u8>, DecryptionError> {
        let mut text = Vec::new();
        decryption.unwrap(bytes)?.read_to_end(&mut text)?;
        Ok(text)
    }

    fn generate() -> (SecretString, String) {
        let identity = x25519::Identity::generate();
        (identity.to_string(), identity.to_public().to_string())
    }

    fn pair() -> (Decryption, Recipient) {
        let (identity, recipient) = generate();
        let file = format!("# a comment\n\n{}\n", identity.expose_secret());
        (Decryption::with_identities(&file).unwrap(), Recipient::parse(&recipient).unwrap())
    }

    #[test]
    fn every_recipient_and_nobody_else_decrypts() {
        let (ada, zoe, eve) = (pair(), pair(), pair());
        let file = encrypted(&Encryption::To(vec![ada.1, zoe.1]));
        assert!(file.starts_with(MAGIC));
        assert_eq!(decrypted(&ada.0, &file).unwrap(), TEXT);
        assert_eq!(decrypted(&zoe.0, &file).unwrap(), TEXT);
        assert!(matches!(decrypted(&eve.0, &file), Err(DecryptionError::WrongIdentity)));
        let passphrase = Decryption::with_passphrase("correct horse battery");
        assert!(matches!(decrypted(&passphrase, &file), Err(DecryptionError::OtherWay(_))));
    }

    #[test]
    fn altered_and_truncated_files_are_refused() {
        let (identity, recipient) = pair();
        let file = encrypted(&Encryption::To(vec![recipient]));
        for place in 0..file.len() {
            let mut altered = file.clone();
            altered[place] ^= 1;
            assert!(decrypted(&identity, &altered).is_err(), "byte {place}");
            assert!(decrypted(&identity, &file[..place]).is_err(), "first {place} bytes");
        }
    }

    #[test]
    fn recipients_and_identities_are_checked_without_repeating_them() {
        let (identity, recipient) = generate();
        for wrong in ["", "age1", &recipient[..20], identity.expose_secret()] {
            let error = Recipient::parse(wrong).map(drop).unwrap_err();
            assert!(wrong.is_empty() || !error.contains(wrong) || wrong == "age1", "{error}");
        }
        assert!(Recipient::parse(identity.expose_secret()).unwrap_err().contains("private key"));
        for wrong in ["", "# only a comment", &recipient, "AGE-SECRET-KEY-1"] {
            assert!(Decryption::with_identities(wrong).is_err());
        }
    }

    #[test]
    fn short_passphrases_are_refused() {
        assert!(Encryption::with_passphrase("elevenchars\n").is_err());
        assert!(Encryption::with_passphrase("twelve chars\r\n").is_ok());
    }
}
