//! Cryptography: API keys, access tokens, assertions, passwords, and the encryption of secrets at rest.
//!
//! Depends on [`crate::domain`] only, not on storage or transport. Each secret has a type that neither prints nor
//! serializes it.

pub mod api_key;
pub mod assertion;
pub mod dpop;
pub mod envelope;
pub(crate) mod hex;
pub mod jwt;
pub mod opaque;
pub mod password;
pub mod public_key;
pub mod seal;
pub mod signing;
pub mod totp;

pub use api_key::{KeyHash, RawApiKey};
pub use assertion::UnverifiedAssertion;
pub use dpop::NonceKey;
pub use jwt::{JwtError, Keyring};
pub use opaque::OpaqueSecret;
pub use password::{PasswordHash, PasswordPlace, PasswordQueue};
pub use public_key::AssertionKey;
pub use seal::{AnswerKeys, MasterKey, MasterKeyId, MasterKeys, SealError};
pub use signing::{KeyError, PrivateKey, PublicKey};
pub use totp::TotpSecret;
