//! The reason of a refusal in the metrics. Coarser than the reason in the audit log, because each one is a series.

use crate::{
    domain::{AuthFailure, Denial, token::TokenRefusal},
    telemetry::metrics::labels::Refusal,
};

/// Why authentication failed.
pub(in crate::service) const fn of_failure(failure: AuthFailure) -> Refusal {
    match failure {
        AuthFailure::InvalidKey => Refusal::InvalidKey,
        AuthFailure::KeyRevoked => Refusal::KeyRevoked,
        AuthFailure::RotatedKeyExpired => Refusal::RotatedKeyExpired,
        AuthFailure::KeyExpired => Refusal::KeyExpired,
        AuthFailure::KeyNotFromHere => Refusal::KeyNotFromHere,
        AuthFailure::KeyUsedUp => Refusal::KeyUsedUp,
        AuthFailure::AgentSuspended => Refusal::AgentSuspended,
        AuthFailure::AgentRevoked => Refusal::AgentRevoked,
        AuthFailure::InvalidClient => Refusal::InvalidClient,
        AuthFailure::InvalidAssertion(_) | AuthFailure::AssertionLivesTooLong => Refusal::InvalidAssertion,
        AuthFailure::MissingToken => Refusal::MissingToken,
        AuthFailure::InvalidToken => Refusal::InvalidToken,
        AuthFailure::InvalidDpopProof(_) | AuthFailure::DpopNonceNeeded => Refusal::InvalidDpopProof,
        AuthFailure::WrongBinding(_) => Refusal::WrongBinding,
        AuthFailure::NoSession => Refusal::NoSession,
        AuthFailure::WrongCredentials => Refusal::WrongCredentials,
    }
}

/// Why the token endpoint refused a request.
pub(in crate::service) const fn of_token_refusal(refusal: &TokenRefusal) -> Refusal {
    match refusal {
        TokenRefusal::InvalidRequest(_) => Refusal::InvalidRequest,
        TokenRefusal::UnauthorizedClient(_) => Refusal::UnauthorizedClient,
        TokenRefusal::UnsupportedGrantType | TokenRefusal::UnsupportedResponseType => Refusal::UnsupportedGrantType,
        TokenRefusal::InvalidScope(_) => Refusal::InvalidScope,
        TokenRefusal::InvalidDpopProof(_) | TokenRefusal::DpopNonceNeeded => Refusal::InvalidDpopProof,
        TokenRefusal::InvalidGrant(_) => Refusal::InvalidGrant,
        TokenRefusal::InvalidTarget(_) => Refusal::InvalidTarget,
    }
}

/// Which authority a caller lacks.
pub(in crate::service) const fn of_denial(denial: &Denial) -> Refusal {
    match denial {
        Denial::MissingCapability(_) => Refusal::MissingCapability,
        Denial::MissingRole(_) => Refusal::MissingRole,
        Denial::SetupLink => Refusal::InvalidSetupLink,
        Denial::InvitationLink => Refusal::InvalidInvitation,
        Denial::MoreAuthority(_) => Refusal::MoreAuthority,
        Denial::OverlappingIdentity(_) => Refusal::OverlappingIdentity,
    }
}
