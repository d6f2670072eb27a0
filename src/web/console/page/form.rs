//! Forms: read into domain types, and given back with their values and what is wrong with them.

use axum::{
    RequestExt,
    body::Bytes,
    extract::{FromRequest, Request},
};
use http::StatusCode;
use serde_json::{Map, Value};

use crate::{
    domain::{Denial, Error, Invalid, Result, error::FieldError},
    web::{failure::Failure, request::fields::Fields},
};

/// The fields of a form as they were sent.
#[derive(Clone, Debug, Default)]
pub(in crate::web::console) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads `application/x-www-form-urlencoded`.
    pub(in crate::web::console) fn parse(text: &[u8]) -> Result<Self> {
        let invalid = |_| Error::field(&["body"], Invalid::new("form_invalid", "The form is no valid encoding"));
        serde_urlencoded::from_bytes(text).map(Self).map_err(invalid)
    }

    /// A field's value; nothing for one that was not sent.
    pub(in crate::web::console) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Every value of a field that may come more than once.
    pub(in crate::web::console) fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Every field.
    pub(in crate::web::console) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// Whether a box was ticked.
    pub(in crate::web::console) fn is_on(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }

    /// Reads the fields into a domain type; says everything that is wrong with them.
    pub(in crate::web::console) fn read<T>(&self, read: impl FnOnce(&mut Fields) -> Option<T>) -> Result<T> {
        // Browsers send text areas with CR LF; what was typed is LF.
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

/// What is wrong with a form, for the page that shows it again.
#[derive(Debug, Default)]
pub(in crate::web::console) struct Problems {
    fields: Vec<(String, String)>,
    /// What is wrong with all of it.
    pub(in crate::web::console) general: Option<String>,
}

impl Problems {
    /// What is wrong with a field.
    pub(in crate::web::console) fn of(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, message)| message.as_str())
    }

    /// Whether anything is wrong.
    pub(in crate::web::console) fn any(&self) -> bool {
        self.general.is_some() || !self.fields.is_empty()
    }

    /// Turns an error that the form's sender can mend into problems; any other goes on as it is. A conflict is one of
    /// the field `unique`.
    pub(in crate::web::console) fn from_error(error: Error, unique: &str) -> Result<Self> {
        match error {
            Error::Invalid(fields) => {
                let field =
                    |field: FieldError| (field.location.last().cloned().unwrap_or_default(), in_words(&field.invalid));
                Ok(Self { fields: fields.into_iter().map(field).collect(), general: None })
            }
            Error::Conflict(message) if !unique.is_empty() => {
                Ok(Self { fields: vec![(unique.to_owned(), message.into_owned())], general: None })
            }
            Error::Conflict(_)
            | Error::Refused(_)
            | Error::Denied(Denial::MoreAuthority(_) | Denial::OverlappingIdentity(_)) => {
                Ok(Self { fields: Vec::new(), general: Some(error.to_string()) })
            }
            other => Err(other),
        }
    }

    /// What a form that comes back because of `error` is answered with.
    pub(in crate::web::console) const fn status(error: &Error) -> StatusCode {
        if matches!(error, Error::Denied(_)) { StatusCode::FORBIDDEN } else { StatusCode::UNPROCESSABLE_ENTITY }
    }

    /// One problem of one field.
    pub(in crate::web::console) fn one(name: &str, message: &str) -> Self {
        Self { fields: vec![(name.to_owned(), message.to_owned())], general: None }
    }

    /// A problem of the whole form.
    pub(in crate::web::console) fn general(message: impl Into<String>) -> Self {
        Self { fields: Vec::new(), general: Some(message.into()) }
    }
}

/// The API's sentences are for programmers; these are for whoever fills in the form.
fn in_words(invalid: &Invalid) -> String {
    match invalid.kind {
        "missing" => "Fill this in".to_owned(),
        "string_too_short" if invalid.message.ends_with("at least 1 character") => "Fill this in".to_owned(),
        "string_pattern_mismatch" if invalid.message.contains("^[a-zA-Z0-9_-]+$") => {
            "Use letters, digits, - and _ only".to_owned()
        }
        "string_pattern_mismatch" if invalid.message.contains("RFC 6749") => {
            "Use visible ASCII characters without spaces, quotes and backslashes, such as documents:read".to_owned()
        }
        "string_blank" => "Enter at least one visible character".to_owned(),
        "string_characters" => "Remove control and invisible characters".to_owned(),
        "json_invalid" => "This is not valid JSON".to_owned(),
        "uri" => "Use the whole URL, such as https://mcp.example/tools, without a # part".to_owned(),
        "datetime_future" => "Choose a moment in the future".to_owned(),
        "enum" => invalid.message.replace("Input should be one of", "Choose one of"),
        _ => invalid.message.replace("String should have", "Use").replace("Input should be", "Must be"),
    }
}
