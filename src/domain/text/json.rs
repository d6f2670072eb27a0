//! Parsing of untrusted JSON. Duplicate object members are rejected, because parsers disagree about which one to use.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use crate::domain::invalid::Invalid;

/// Parses a document.
///
/// # Errors
/// If the document is not JSON, is nested deeper than 127 levels, repeats a member at any depth, or does not match `T`.
pub fn read<T: DeserializeOwned>(document: &[u8]) -> serde_json::Result<T> {
    let Unambiguous(value) = serde_json::from_slice(document)?;
    serde_json::from_value(value)
}

/// Converts an error of [`read`]: a repeated member has its own message; every other error gets the message
/// `malformed`.
#[must_use]
pub fn invalid(error: &serde_json::Error, malformed: &'static str) -> Invalid {
    if error.is_data() {
        Invalid::new("duplicate", "JSON objects should not repeat a member")
    } else {
        Invalid::NotJson(malformed)
    }
}

/// A value whose objects have no duplicate members.
struct Unambiguous(Value);

impl<'d> Deserialize<'d> for Unambiguous {
    fn deserialize<D: Deserializer<'d>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor).map(Self)
    }
}

struct ValueVisitor;

impl<'d> Visitor<'d> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a JSON number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'d>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        while let Some(Unambiguous(item)) = items.next_element()? {
            read.push(item);
        }
        Ok(Value::Array(read))
    }

    fn visit_map<A: MapAccess<'d>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if read.contains_key(&name) {
                return Err(A::Error::custom("a member is repeated"));
            }
            let Unambiguous(value) = members.next_value()?;
            read.insert(name, value);
        }
        Ok(Value::Object(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_documents_are_parsed_as_by_serde_json() {
        for document in [
            "null",
            "true",
            "-7",
            "18446744073709551615",
            "1.5e3",
            "123456789012345678901234567890",
            r#""te\u0078t""#,
            r#"[1, [2, {"a": []}], "x"]"#,
            r#"{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}], "A": null, "": {}}"#,
        ] {
            let read: Value = read(document.as_bytes()).unwrap();
            assert_eq!(read, serde_json::from_str::<Value>(document).unwrap(), "{document}");
        }
    }

    #[test]
    fn repeated_members_are_rejected_at_any_depth() {
        for document in [
            r#"{"a": 1, "a": 1}"#,
            r#"{"a": 1, "b": 2, "\u0061": 3}"#,
            r#"{"a": {"b": 1, "b": 2}}"#,
            r#"[[{"c": null, "c": null}]]"#,
            r#"{"": 1, "": 2}"#,
        ] {
            let error = read::<Value>(document.as_bytes()).unwrap_err();
            assert_eq!(invalid(&error, "").kind(), "duplicate", "{document}");
        }
    }

    #[test]
    fn invalid_json_is_malformed() {
        let deep = "[".repeat(100_000);
        for document in ["", "{", "[1,]", "{\"a\": 1} x", "1e999", "\"\\ud800\"", "{1: 2}", "\u{feff}{}", &deep] {
            let error = read::<Value>(document.as_bytes()).unwrap_err();
            assert_eq!(invalid(&error, "").kind(), "json_invalid", "{document:.20}");
        }
    }
}
