//! Reads a body's or a query's fields into domain types, and collects everything that is wrong with them.

use std::{collections::HashSet, ops::RangeInclusive};

use serde_json::{Map, Value, json};

use crate::domain::{Error, Invalid, Result, error::FieldError};

/// Most of an offending text that is echoed to its sender, in characters.
const ECHO_MAX: usize = 256;

/// Fields that are being read.
pub struct Fields {
    location: &'static str,
    values: Map<String, Value>,
    /// Parameters given more than once: which one counts would be a guess, so whoever reads one is refused.
    repeated: HashSet<String>,
    /// Parameters without a value.
    empty: HashSet<String>,
    problems: Vec<FieldError>,
}

impl Fields {
    /// The members of a JSON body.
    pub(in crate::web) fn of_body(values: Map<String, Value>) -> Self {
        Self { location: "body", values, repeated: HashSet::new(), empty: HashSet::new(), problems: Vec::new() }
    }

    /// The parameters of a query string.
    pub(in crate::web) fn of_query(query: &str) -> Result<Self> {
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query)
            .map_err(|_| Error::field(&["query"], Invalid::new("query_invalid", "The query is no valid encoding")))?;
        let mut fields = Self { location: "query", ..Self::of_body(Map::new()) };
        for (name, value) in pairs {
            if value.is_empty() {
                fields.empty.insert(name);
            } else if fields.values.insert(name.clone(), Value::String(value)).is_some() {
                fields.repeated.insert(name);
            }
        }
        Ok(fields)
    }

    /// Everything, as it was sent.
    pub fn take_all(&mut self) -> Value {
        Value::Object(std::mem::take(&mut self.values))
    }

    /// A text that must be there.
    pub fn required<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Option<T> {
        let Some(value) = self.values.get(name).cloned() else {
            self.problem(name, Invalid::new("missing", "Field required"), None);
            return None;
        };
        self.text(name, &value, parse)
    }

    /// A value of any kind that must be there.
    pub fn required_value<T>(&mut self, name: &str, parse: impl FnOnce(&Value) -> Result<T, Invalid>) -> Option<T> {
        let parsed = match self.values.get(name) {
            Some(value) => parse(value),
            None => Err(Invalid::new("missing", "Field required")),
        };
        parsed.map_err(|invalid| self.problem(name, invalid, None)).ok()
    }

    /// A text that must be there and is not echoed.
    pub fn secret<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Option<T> {
        let parsed = parse(self.values.get(name).and_then(Value::as_str).unwrap_or_default());
        parsed.map_err(|invalid| self.problem(name, invalid, None)).ok()
    }

    /// An optional query parameter that must not be empty: an empty text is possible, but an empty number or keyword is not.
    pub fn chosen<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Option<T> {
        if self.empty.contains(name) {
            return self.text(name, &json!(""), parse);
        }
        self.optional(name, parse)
    }

    /// A text that may be left out, or be `null`; a parameter of a query may also be empty.
    pub fn optional<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Option<T> {
        let value = self.values.get(name).filter(|value| !value.is_null()).cloned()?;
        self.text(name, &value, parse)
    }

    /// A whole number that may be left out, or be `null`.
    pub fn optional_integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.values.get(name).filter(|value| !value.is_null()).cloned()?;
        // A number with a fraction of zero is a whole one.
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

    /// What was read, if nothing was wrong.
    pub(in crate::web) fn finish<T>(self, read: Option<T>) -> Result<T> {
        match read {
            Some(read) if self.problems.is_empty() => Ok(read),
            _ => Err(Error::Invalid(self.problems)),
        }
    }
}

/// What is sent back of an offending value: enough to recognise it, and nothing where that could be much.
fn echo(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => Some(json!(text.chars().take(ECHO_MAX).collect::<String>())),
        Value::Array(_) | Value::Object(_) => None,
        other => Some(other.clone()),
    }
}
