//! Commands that look and change nothing.

pub(super) mod health;
pub(super) mod settings;
