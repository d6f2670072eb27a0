//! Pages for administrators: sign-in, setup, account and administration of other accounts.

pub(super) mod account;
pub(super) mod administrators;
pub(super) mod factors;
pub(super) mod invitations;
pub(super) mod passkeys;
pub(super) mod qr;
pub(super) mod setup;
pub(super) mod sign_in;
