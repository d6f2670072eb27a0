//! The closed sets of label values. No value comes from a request.

/// A label whose values are known.
pub trait Label: Copy {
    /// The values as they are shown, in the order of [`Label::index`].
    const TEXTS: &'static [&'static str];

    /// Returns the place of this value in [`Label::TEXTS`].
    fn index(self) -> usize;
}

macro_rules! labels {
    ($($(#[$about:meta])* $type:ident { $($value:ident = $text:literal),+ $(,)? })+) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $(#[doc = concat!("`", $text, "`")] $value),+
        }

        impl Label for $type {
            const TEXTS: &'static [&'static str] = &[$($text),+];

            fn index(self) -> usize {
                self as usize
            }
        }
    )+};
}

labels! {
    /// The class of a response's status.
    StatusClass {
        Success = "2xx",
        Redirection = "3xx",
        ClientError = "4xx",
        ServerError = "5xx",
    }

    /// How a client got an access token.
    Grant {
        ApiKey = "api_key",
        ClientCredentials = "client_credentials",
        JwtBearer = "jwt_bearer",
        TokenExchange = "token_exchange",
    }

    /// Why a request was refused.
    Refusal {
        AgentRevoked = "agent_revoked",
        AgentSuspended = "agent_suspended",
        CrossSite = "cross_site",
        InvalidAssertion = "invalid_assertion",
        InvalidClient = "invalid_client",
        InvalidDpopProof = "invalid_dpop_proof",
        InvalidGrant = "invalid_grant",
        InvalidInvitation = "invalid_invitation",
        InvalidKey = "invalid_key",
        InvalidRequest = "invalid_request",
        InvalidScope = "invalid_scope",
        InvalidSetupLink = "invalid_setup_link",
        InvalidTarget = "invalid_target",
        InvalidToken = "invalid_token",
        KeyExpired = "key_expired",
        KeyNotFromHere = "key_not_from_here",
        KeyRevoked = "key_revoked",
        KeyUsedUp = "key_used_up",
        MissingCapability = "missing_capability",
        MissingRole = "missing_role",
        MissingToken = "missing_token",
        MoreAuthority = "more_authority",
        NoSession = "no_session",
        OverlappingIdentity = "overlapping_identity",
        Overloaded = "overloaded",
        RateLimited = "rate_limited",
        RotatedKeyExpired = "rotated_key_expired",
        UnauthorizedClient = "unauthorized_client",
        UnsupportedGrantType = "unsupported_grant_type",
        WrongBinding = "wrong_binding",
        WrongCredentials = "wrong_credentials",
    }

    /// How an attempt to sign in to the console ended.
    SignIn {
        Succeeded = "succeeded",
        Failed = "failed",
        Throttled = "throttled",
    }

    /// A cache.
    Cache {
        Agents = "agents",
        AgentDetails = "agent_details",
        ApiKeys = "api_keys",
        VerifiedTokens = "verified_tokens",
    }

    /// The result of a look-up in a cache.
    Lookup {
        Hit = "hit",
        Miss = "miss",
    }

    /// A pool of database connections.
    Pool {
        Read = "read",
        Write = "write",
        Shared = "shared",
    }

    /// What a database connection does.
    ConnectionState {
        Idle = "idle",
        InUse = "in_use",
    }

    /// The status of an agent.
    AgentStatus {
        Active = "active",
        Suspended = "suspended",
        Revoked = "revoked",
    }

    /// A period that begins now.
    Within {
        Week = "7d",
        Month = "30d",
    }
}

impl StatusClass {
    /// Returns the class of the status of a final response.
    #[must_use]
    pub const fn of(status: u16) -> Self {
        match status {
            0..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}
