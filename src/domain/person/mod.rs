//! Administrators, their passwords, and invitations of new ones.

pub mod administrator;
pub mod invitation;
pub mod password;
