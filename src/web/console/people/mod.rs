//! Pages for administrators: sign-in, setup, the own account and the accounts of others.

pub(super) mod account;
pub(super) mod administrators;
pub(super) mod passkeys;
pub(super) mod qr;
pub(super) mod setup;
pub(super) mod sign_in;
