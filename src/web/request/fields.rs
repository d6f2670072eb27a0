//! Reads the fields of a JSON body or a query string into domain types, and collects all errors.
//!
//! The OpenAPI document is generated from the same code. In that case nothing is read; each call declares the field it
//! would read, with the documentation from the preceding `Fields::doc`.

use std::{collections::HashSet, ops::RangeInclusive};

use serde_json::{Map, Value, json};
use utoipa::openapi::Schema;

use crate::domain::{Error, Invalid, Result, error::FieldError};

/// Maximum number of characters of an invalid value that the error repeats.
const ECHO_MAX: usize = 256;

/// The fields of a body or a query.
#[derive(Default)]
pub struct Fields {
    location: &'static str,
    values: Map<String, Value>,
    /// Query parameters that are repeated. Reading one is an error, because which value is meant would be a guess.
    repeated: HashSet<String>,
    /// Query parameters without a value.
    empty: HashSet<String>,
    problems: Vec<FieldError>,
    /// Set when a schema is generated.
    declarations: Option<Vec<Declared>>,
    next: Option<(&'static str, Schema)>,
}

/// A field and its documentation.
pub(in crate::web) struct Declared {
    pub(in crate::web) name: String,
    pub(in crate::web) description: &'static str,
    pub(in crate::web) schema: Schema,
    pub(in crate::web) is_required: bool,
}

impl Fields {
    /// Wraps the members of a JSON body.
    pub(in crate::web) fn of_body(values: Map<String, Value>) -> Self {
        Self { location: "body", values, ..Self::default() }
    }

    /// Parses the parameters of a query string.
    pub(in crate::web) fn of_query(query: &str) -> Result<Self> {
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query)
            .map_err(|_| Error::field(&["query"], Invalid::new("query_invalid", "The query is not valid encoding")))?;
        let mut fields = Self { location: "query", ..Self::default() };
        for (name, value) in pairs {
            if value.is_empty() {
                fields.empty.insert(name);
            } else if fields.values.insert(name.clone(), Value::String(value)).is_some() {
                fields.repeated.insert(name);
            }
        }
        Ok(fields)
    }

    /// Returns the fields that `read` reads.
    pub(in crate::web) fn declared_by<T>(read: impl FnOnce(&mut Self) -> Option<T>) -> Vec<Declared> {
        let mut fields = Self { declarations: Some(Vec::new()), ..Self::default() };
        read(&mut fields);
        fields.declarations.unwrap_or_default()
    }

    /// Documents the field that is read next. The schema is evaluated only for the OpenAPI document.
    pub(in crate::web) fn doc<S: Into<Schema>>(
        &mut self,
        description: &'static str,
        schema: impl FnOnce() -> S,
    ) -> &mut Self {
        if self.declarations.is_some() {
            self.next = Some((description, schema().into()));
        }
        self
    }

    fn declare(&mut self, name: &str, is_required: bool) {
        if let Some(declarations) = &mut self.declarations {
            let (description, schema) = self.next.take().unwrap_or_default();
            declarations.push(Declared { name: name.to_owned(), description, schema, is_required });
        }
    }

    /// Returns all fields as they were sent.
    pub fn take_all(&mut self) -> Value {
        Value::Object(std::mem::take(&mut self.values))
    }

    /// Reads a required string.
    pub fn required<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Option<T> {
        self.declare(name, true);
        let Some(value) = self.values.get(name).cloned() else {
            self.problem(name, Invalid::Missing, None);
            return None;
        };
        self.text(name, &value, parse)
    }

    /// Reads a required value of any type.
    pub fn required_value<T>(&mut self, name: &str, parse: impl FnOnce(&Value) -> Result<T, Invalid>) -> Option<T> {
        self.declare(name, true);
        let parsed = match self.values.get(name) {
            Some(value) => parse(value),
            None => Err(Invalid::Missing),
        };
        parsed.map_err(|invalid| self.problem(name, invalid, None)).ok()
    }

    /// Reads an optional value of any type, which may be `null`.
    pub fn optional_value<T>(&mut self, name: &str, parse: impl FnOnce(&Value) -> Result<T, Invalid>) -> Option<T> {
        self.declare(name, false);
        let value = self.values.get(name).filter(|value| !value.is_null())?;
        let parsed = parse(value);
        parsed.map_err(|invalid| self.problem(name, invalid, None)).ok()
    }

    /// Reads a required string that errors do not repeat.
    pub fn secret<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Option<T> {
        self.declare(name, true);
        let parsed = parse(self.values.get(name).and_then(Value::as_str).unwrap_or_default());
        parsed.map_err(|invalid| self.problem(name, invalid, None)).ok()
    }

    /// Reads an optional query parameter for which an empty value is an error, such as a number or a keyword.
    pub fn chosen<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Option<T> {
        if self.empty.contains(name) {
            return self.text(name, &json!(""), parse);
        }
        self.optional(name, parse)
    }

    /// Reads an optional string, which may be `null`. An empty query parameter is treated as absent.
    pub fn optional<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Option<T> {
        self.declare(name, false);
        let value = self.values.get(name).filter(|value| !value.is_null()).cloned()?;
        self.text(name, &value, parse)
    }

    /// Reads an optional integer, which may be `null`.
    pub fn optional_integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Option<i64> {
        if let Some((_, Schema::Object(schema))) = &mut self.next {
            schema.minimum = Some((*range.start()).into());
            schema.maximum = Some((*range.end()).into());
        }
        self.declare(name, false);
        let value = self.values.get(name).filter(|value| !value.is_null()).cloned()?;
        // JSON does not distinguish 1.0 from 1.
        let whole = || {
            value.as_f64().filter(|number| number.fract() == 0.0).and_then(|number| format!("{number:.0}").parse().ok())
        };
        let invalid = match value.as_i64().or_else(whole) {
            Some(number) if range.contains(&number) => return Some(number),
            Some(number) if number < *range.start() => Invalid::new(
                "greater_than_equal",
                format!("Input should be greater than or equal to {}", range.start()),
            ),
            Some(_) => {
                Invalid::new("less_than_equal", format!("Input should be less than or equal to {}", range.end()))
            }
            None => Invalid::new("int_type", "Input should be a valid integer"),
        };
        self.problem(name, invalid, Some(&value));
        None
    }

    fn text<T>(&mut self, name: &str, value: &Value, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Option<T> {
        let parsed = match value.as_str() {
            _ if self.repeated.contains(name) => Err(Invalid::new("duplicate", "Parameter should be given once")),
            Some(text) => parse(text),
            None => Err(Invalid::new("string_type", "Input should be a valid string")),
        };
        parsed.map_err(|invalid| self.problem(name, invalid, Some(value))).ok()
    }

    fn problem(&mut self, name: &str, invalid: Invalid, input: Option<&Value>) {
        let location = vec![self.location.to_owned(), name.to_owned()];
        self.problems.push(FieldError { location, invalid, input: input.and_then(echo) });
    }

    /// Returns the value that was read, or all errors.
    pub(in crate::web) fn finish<T>(self, read: Option<T>) -> Result<T> {
        match read {
            Some(read) if self.problems.is_empty() => Ok(read),
            _ => Err(Error::Invalid(self.problems)),
        }
    }
}

/// Returns the part of an invalid value that the error repeats: the beginning of a string, and nothing of an array or
/// an object.
fn echo(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => Some(json!(text.chars().take(ECHO_MAX).collect::<String>())),
        Value::Array(_) | Value::Object(_) => None,
        other => Some(other.clone()),
    }
}
