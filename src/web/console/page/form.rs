//! HTML forms: reading fields into domain types, and redisplaying a form with its values and errors.

use axum::{
    RequestExt,
    body::Bytes,
    extract::{FromRequest, Request},
};
use http::StatusCode;
use serde_json::{Map, Value};

use super::frame::sentence;
use crate::{
    domain::{Denial, Error, Invalid, Result, error::FieldError, text::json},
    service::credentials::public_keys,
    web::{failure::Failure, request::fields::Fields},
};

/// The submitted fields of a form.
#[derive(Clone, Debug, Default)]
pub(in crate::web::console) struct Form(Vec<(String, String)>);

impl Form {
    /// Parses an `application/x-www-form-urlencoded` body.
    pub(in crate::web::console) fn parse(text: &[u8]) -> Result<Self> {
        let invalid = |_| {
            Error::field(
                &["body"],
                Invalid::new("form_invalid", "The form is not valid application/x-www-form-urlencoded"),
            )
        };
        serde_urlencoded::from_bytes(text).map(Self).map_err(invalid)
    }

    /// Returns the value of a field, or an empty string if it is absent.
    pub(in crate::web::console) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Returns every value of a repeated field.
    pub(in crate::web::console) fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(in crate::web::console) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// Returns true if a checkbox is checked.
    pub(in crate::web::console) fn is_checked(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }

    /// Reads the fields into a domain type. The error lists every invalid field.
    pub(in crate::web::console) fn read<T>(&self, read: impl FnOnce(&mut Fields) -> Option<T>) -> Result<T> {
        // Browsers submit line breaks in text areas as CR LF.
        let value = |value: &str| Value::String(value.replace("\r\n", "\n"));
        let members: Map<_, _> = self.0.iter().map(|(name, text)| (name.clone(), value(text))).collect();
        let mut fields = Fields::of_body(members);
        let read = read(&mut fields);
        fields.finish(read)
    }
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let bytes: Bytes = request.extract().await.map_err(|_| Error::TooLarge)?;
        Ok(Self::parse(&bytes)?)
    }
}

/// The errors of a form, for the page that shows it again.
#[derive(Debug, Default)]
pub(in crate::web::console) struct Problems {
    fields: Vec<(String, String)>,
    /// An error of the form as a whole.
    pub(in crate::web::console) general: Option<String>,
}

impl Problems {
    /// Returns the error of a field.
    pub(in crate::web::console) fn of(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, message)| message.as_str())
    }

    /// Returns true if there is any error.
    pub(in crate::web::console) fn any(&self) -> bool {
        self.general.is_some() || !self.fields.is_empty()
    }

    /// Converts an error that the user can fix; returns any other error as it is. A conflict belongs to the field
    /// `unique`, or to the whole form if that is empty.
    pub(in crate::web::console) fn from_error(error: Error, unique: &str) -> Result<Self> {
        match error {
            Error::Invalid(fields) => {
                let field =
                    |field: FieldError| (field.location.last().cloned().unwrap_or_default(), message(&field.invalid));
                Ok(Self { fields: fields.into_iter().map(field).collect(), general: None })
            }
            Error::Conflict(message) if !unique.is_empty() => {
                Ok(Self { fields: vec![(unique.to_owned(), message.into_owned())], general: None })
            }
            Error::Conflict(_)
            | Error::Refused(_)
            | Error::Denied(Denial::MoreAuthority(_) | Denial::OverlappingIdentity(_)) => {
                Ok(Self { fields: Vec::new(), general: Some(sentence(error.to_string())) })
            }
            other => Err(other),
        }
    }

    /// Returns the status of a page that shows a form again because of `error`.
    pub(in crate::web::console) const fn status(error: &Error) -> StatusCode {
        if matches!(error, Error::Denied(_)) { StatusCode::FORBIDDEN } else { StatusCode::UNPROCESSABLE_ENTITY }
    }

    /// An error of one field.
    pub(in crate::web::console) fn one(name: &str, message: impl Into<String>) -> Self {
        Self { fields: vec![(name.to_owned(), message.into())], general: None }
    }

    /// An error of the form as a whole.
    pub(in crate::web::console) fn general(message: impl Into<String>) -> Self {
        Self { fields: Vec::new(), general: Some(message.into()) }
    }
}

/// Returns an error message for people, where the API has one for programmers.
pub(in crate::web::console) fn message(invalid: &Invalid) -> String {
    let text: &str = match invalid {
        Invalid::Missing | Invalid::TooShort(1) => "This field is required",
        Invalid::TooShort(min) => return format!("Use at least {min} characters"),
        Invalid::TooLong(max) => return format!("Use at most {max} characters"),
        Invalid::Blank => "Enter at least one visible character",
        Invalid::ForbiddenCharacters => "Remove control characters and invisible characters",
        Invalid::AgentName => "Use only letters, digits, hyphens and underscores",
        Invalid::CapabilityName => {
            "Use visible ASCII characters without spaces, quotes and backslashes, for example documents:read"
        }
        Invalid::NotOneOf(words) => return format!("Choose one of: {}", words.join(", ")),
        Invalid::NotJson(_) => "Enter valid JSON",
        Invalid::Uri => "Enter a full URL without a fragment, for example https://mcp.example/tools",
        Invalid::HttpsUrl => "Enter an HTTPS URL",
        Invalid::Network(part) => return format!("{part:?} is neither an IP address nor a CIDR range"),
        Invalid::NotInFuture => "Choose a date in the future",
        Invalid::Other { message, .. } => message,
    };
    text.to_owned()
}

/// Parses public keys. A private key is an error.
pub(in crate::web::console) fn parse_public_keys(text: &str) -> Result<Vec<public_keys::AssertionKey>> {
    let read = json::read(text.as_bytes());
    let keys = read.map_err(|error| Error::field(&["jwk"], json::invalid(&error, "Input should be a JSON Web Key")))?;
    public_keys::parse(&keys)
}
