//! Credentials and the keys behind them: API keys, access tokens, and the sealing of what must stay secret at rest.
//!
//! Knows the field's types and nothing of storage or transport. Every secret is a type that neither prints nor
//! serializes itself.

pub mod api_key;
pub mod assertion;
pub mod dpop;
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
pub use password::{PasswordHash, PasswordLine, PasswordPlace};
pub use public_key::AssertionKey;
pub use seal::{MasterKey, SealError};
pub use signing::{KeyError, PrivateKey, PublicKey};
pub use totp::TotpSecret;
