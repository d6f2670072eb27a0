//! The JSON API, row by row of the contract.

use serde_json::{Value, json};

use crate::support::Answer;

mod agents;
mod api_keys;
mod audit;
mod capabilities;
mod errors;
mod http;
mod openapi;
mod tokens;

/// An identifier that nothing has.
const NOBODY: &str = "00000000-0000-7000-8000-000000000000";

/// The names of an object's members, in alphabetical order.
fn members(object: &Value) -> Vec<&str> {
    let mut names: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// What `name` is in each object of an array.
fn each<'v>(array: &'v Value, name: &str) -> Vec<&'v str> {
    array.as_array().unwrap().iter().map(|object| object[name].as_str().unwrap()).collect()
}

/// Where the `Link` of a page leads, if there is one.
fn next(page: &Answer) -> Option<String> {
    let (target, relation) = page.header("link")?.split_once("; ").unwrap();
    assert_eq!(relation, "rel=\"next\"");
    Some(target.trim_matches(['<', '>']).to_owned())
}

/// Asserts that exactly the fields at these places were refused.
#[track_caller]
pub(crate) fn assert_invalid(answer: &Answer, places: &Value) {
    assert_eq!(answer.status.as_u16(), 422, "{answer:?}");
    let problems = answer.detail();
    let found: Vec<_> = problems.as_array().unwrap().iter().map(|problem| problem["loc"].clone()).collect();
    assert_eq!(&json!(found), places, "{answer:?}");
    for problem in problems.as_array().unwrap() {
        assert!(problem["type"].is_string() && problem["msg"].is_string(), "{problem}");
    }
}
