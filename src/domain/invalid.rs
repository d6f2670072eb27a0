//! The failure of one value, without where it came from.

use std::borrow::Cow;

/// Why a value is invalid. [`Invalid::kind`] and [`Invalid::message`] derive the `type` and `msg` of the API from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// A required field is absent.
    Missing,
    /// The text has fewer than this number of characters.
    TooShort(usize),
    /// The text has more than this number of characters.
    TooLong(usize),
    /// The text has no visible character.
    Blank,
    /// The text has control, bidirectional or invisible characters.
    ForbiddenCharacters,
    /// The text has characters that an agent name cannot have.
    AgentName,
    /// The text has characters that a capability name cannot have.
    CapabilityName,
    /// The text is none of these words.
    NotOneOf(&'static [&'static str]),
    /// The text is not JSON; says what it should be.
    NotJson(&'static str),
    /// The text is not an absolute URI without a fragment.
    Uri,
    /// The text is not an HTTPS URL.
    HttpsUrl,
    /// A part of the text is neither an IP address nor a network.
    Network(String),
    /// The time is not in the future.
    NotInFuture,
    /// Any other reason.
    Other {
        /// Stable identifier for programs.
        kind: &'static str,
        /// One sentence for people.
        message: String,
    },
}

impl Invalid {
    /// A reason without a variant of its own.
    #[must_use]
    pub fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self::Other { kind, message: message.into() }
    }

    /// Returns the stable identifier that API clients know (`missing`, `string_too_long`, …).
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::TooShort(_) => "string_too_short",
            Self::TooLong(_) => "string_too_long",
            Self::Blank => "string_blank",
            Self::ForbiddenCharacters => "string_characters",
            Self::AgentName | Self::CapabilityName => "string_pattern_mismatch",
            Self::NotOneOf(_) => "enum",
            Self::NotJson(_) => "json_invalid",
            Self::Uri => "uri",
            Self::HttpsUrl => "url",
            Self::Network(_) => "network",
            Self::NotInFuture => "datetime_future",
            Self::Other { kind, .. } => kind,
        }
    }

    /// Returns the sentence that API clients receive.
    #[must_use]
    pub fn message(&self) -> Cow<'_, str> {
        let text: &str = match self {
            Self::Missing => "Field required",
            Self::TooShort(min) => {
                return format!("String should have at least {min} character{}", plural(*min)).into();
            }
            Self::TooLong(max) => {
                return format!("String should have at most {max} character{}", plural(*max)).into();
            }
            Self::Blank => "String should contain a visible character",
            Self::ForbiddenCharacters => "String should not contain control, bidirectional or invisible characters",
            Self::AgentName => "String should match pattern '^[a-zA-Z0-9_-]+$'",
            Self::CapabilityName => {
                "String should hold only visible ASCII characters without '\"' and '\\' (RFC 6749 section 3.3)"
            }
            Self::NotOneOf(words) => return format!("Input should be one of: {}", words.join(", ")).into(),
            Self::NotJson(message) => message,
            Self::Uri => "String should be an absolute URI without fragment (RFC 8707 section 2)",
            Self::HttpsUrl => "Input should be an https URL",
            Self::Network(part) => {
                return format!("Input should hold addresses and networks; {part:?} is neither").into();
            }
            Self::NotInFuture => "Input should be in the future",
            Self::Other { message, .. } => message,
        };
        text.into()
    }
}

const fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}
