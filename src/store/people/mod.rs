//! Administrators, their second factors and their sessions.

pub mod administrators;
pub mod factors;
pub mod invitations;
pub mod overview;
pub mod sessions;
