//! Commands that create, migrate or fill a database.

pub(super) mod bootstrap;
pub(super) mod import_seed;
pub(super) mod migrate;
