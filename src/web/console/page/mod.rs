//! The parts that every page shares: frame, forms, errors, sessions and assets.

pub mod assets;
pub(super) mod error;
pub(super) mod form;
pub(super) mod frame;
pub(super) mod live;
pub(super) mod palette;
pub(super) mod preferences;
pub(super) mod query;
pub(super) mod session;
