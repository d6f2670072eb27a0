//! Commands that print a text generated from the code.

pub(super) mod completions;
pub(super) mod docs;
pub(super) mod man;
pub(super) mod openapi;
