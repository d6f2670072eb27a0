//! Invitations: links with which people create their own account.

use crate::domain::{
    ids::{AdministratorId, InvitationId},
    invalid::Invalid,
    person::administrator::{Administrator, Role},
    text,
    timestamp::Timestamp,
};

/// An invitation that was neither accepted nor withdrawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Unique identifier. It is not the token of the link.
    pub id: InvitationId,
    /// Who it is for: a unique note of the owner who invited them.
    pub recipient: String,
    /// The role of the new administrator.
    pub role: Role,
    /// The owner who created or last renewed the link.
    pub invited_by: AdministratorId,
    /// Time the link was created or last renewed.
    pub created_at: Timestamp,
    /// Time from which the link is no longer valid.
    pub expires_at: Timestamp,
}

impl Invitation {
    /// Validates the name of the recipient: one line of 1 to 128 characters.
    ///
    /// # Errors
    /// See [`text::name`].
    pub fn parse_recipient(text: &str) -> Result<String, Invalid> {
        text::name(text.trim(), Administrator::DISPLAY_NAME_MAX)
    }
}
