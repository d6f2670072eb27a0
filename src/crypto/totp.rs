//! One-time codes of authenticator apps (RFC 6238). SHA-1, 6 digits and 30 seconds, because every app supports these.

use std::fmt;

use secrecy::{ExposeSecret, SecretSlice, SecretString};
use totp_rs::{Algorithm, Builder, Totp};

use super::{MasterKey, MasterKeys, SealError, seal::authenticator_purpose};
use crate::{clock::Environment, domain::Timestamp};

/// The secret that AIMS shares with an authenticator app.
#[derive(Clone)]
pub struct TotpSecret(SecretSlice<u8>);

impl TotpSecret {
    const BYTES: usize = 20;

    /// Generates a new secret of 160 bits (RFC 4226 §4).
    #[must_use]
    pub fn generate(env: &Environment) -> Self {
        Self(env.random::<{ Self::BYTES }>().to_vec().into())
    }

    /// Decrypts what [`Self::seal`] returned for the same `owner`.
    ///
    /// # Errors
    /// If it was sealed with another key or for another owner.
    pub fn open(keys: &MasterKeys, owner: &str, sealed: &[u8]) -> Result<Self, SealError> {
        keys.open(&authenticator_purpose(owner), sealed).map(Self)
    }

    /// Encrypts the secret for the database.
    ///
    /// # Errors
    /// Never, for a secret of this size.
    pub fn seal(&self, master: &MasterKey, env: &Environment, owner: &str) -> Result<Vec<u8>, SealError> {
        master.seal(env, &authenticator_purpose(owner), self.0.expose_secret())
    }

    /// Returns the secret in the form in which people type it into an app.
    #[must_use]
    pub fn to_base32(&self) -> SecretString {
        totp_rs::Secret::new(self.0.expose_secret().into()).to_base32().into()
    }

    /// Returns the secret as an `otpauth:` URI, which apps scan as a QR code.
    #[must_use]
    pub fn to_uri(&self, account: &str) -> SecretString {
        let text = self.to_base32();
        format!("otpauth://totp/AIMS:{account}?secret={}&issuer=AIMS", text.expose_secret()).into()
    }

    /// Returns the 30-second step of a code, if it is the current step or one next to it. The clock of a phone can be
    /// one step off.
    #[must_use]
    pub fn step_of(&self, code: &str, now: Timestamp) -> Option<i64> {
        let digits: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        let now = u64::try_from(now.as_secs()).ok()?;
        i64::try_from(self.totp()?.check(&digits, now)?).ok()
    }

    fn totp(&self) -> Option<Totp> {
        let builder = Builder::new().with_algorithm(Algorithm::SHA1).with_digits(6).with_skew(1).with_step_duration(30);
        builder.with_secret(self.0.expose_secret().to_vec()).build().ok()
    }
}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSecret([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_match_the_test_vectors_of_rfc_6238() {
        // Appendix B, the last six of eight digits.
        let secret = TotpSecret(b"12345678901234567890".to_vec().into());
        for (at, code) in [(59, "287082"), (1_111_111_109, "081804"), (2_000_000_000, "279037")] {
            assert_eq!(secret.step_of(code, Timestamp::from_secs(at)), Some(at / 30), "{code}");
            assert_eq!(secret.step_of(code, Timestamp::from_secs(at + 30)), Some(at / 30), "a step late");
            assert_eq!(secret.step_of(code, Timestamp::from_secs(at + 90)), None, "too late");
        }
        for junk in ["", "28708", "2870821", "28708a", "２８７０８２"] {
            assert_eq!(secret.step_of(junk, Timestamp::from_secs(59)), None, "{junk:?}");
        }
        assert_eq!(secret.step_of("287 082", Timestamp::from_secs(59)), Some(1));
    }

    #[test]
    fn a_sealed_secret_opens_for_its_owner_only() {
        let (env, secret) = (Environment::system(), TotpSecret::generate(&Environment::system()));
        let master = MasterKey::generate(&env);
        let sealed = secret.seal(&master, &env, "zoe").unwrap();
        let keys = MasterKeys::one(master);
        let opened = TotpSecret::open(&keys, "zoe", &sealed).unwrap();
        assert_eq!(opened.to_base32().expose_secret(), secret.to_base32().expose_secret());
        assert!(TotpSecret::open(&keys, "eve", &sealed).is_err());
    }
}
