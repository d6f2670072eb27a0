//! Commands for the keys of the service.

pub(super) mod master;
pub(super) mod signing;
