//! The JSON API, checked against the wire contract.

use serde_json::{Value, json};

use crate::support::Response;

mod agents;
mod api_keys;
mod audit;
mod capabilities;
mod capability_delete;
mod errors;
mod http;
mod labels;
mod openapi;
mod repeat;
mod tokens;
mod versions;

/// A well-formed identifier that does not exist.
const UNKNOWN_ID: &str = "00000000-0000-7000-8000-000000000000";

/// Returns the names of an object's members in alphabetical order.
fn members(object: &Value) -> Vec<&str> {
    let mut names: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// Returns the member `name` of each object in an array.
fn each<'v>(array: &'v Value, name: &str) -> Vec<&'v str> {
    array.as_array().unwrap().iter().map(|object| object[name].as_str().unwrap()).collect()
}

/// Returns the target of the `Link` header that leads to the next page.
fn next(page: &Response) -> Option<String> {
    let (target, relation) = page.header("link")?.split_once("; ").unwrap();
    assert_eq!(relation, "rel=\"next\"");
    Some(target.trim_matches(['<', '>']).to_owned())
}

/// Asserts that exactly the fields at these locations were rejected.
#[track_caller]
pub(crate) fn assert_invalid(response: &Response, places: &Value) {
    assert_eq!(response.status.as_u16(), 422, "{response:?}");
    let problems = response.detail();
    let found: Vec<_> = problems.as_array().unwrap().iter().map(|problem| problem["loc"].clone()).collect();
    assert_eq!(&json!(found), places, "{response:?}");
    for problem in problems.as_array().unwrap() {
        assert!(problem["type"].is_string() && problem["msg"].is_string(), "{problem}");
    }
}
