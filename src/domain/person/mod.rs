//! Administrators and their passwords.

pub mod administrator;
pub mod password;
