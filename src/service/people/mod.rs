//! Administrators: setup, invitations, sign-in, sessions, second factors and accounts.

pub mod account;
pub mod administrators;
pub mod factors;
pub mod invitations;
pub mod passkeys;
pub mod sessions;
pub mod setup;
pub mod sign_in;
pub(super) mod throttle;
