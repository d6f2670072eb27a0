//! The OpenAPI document and the page that displays it.

use std::collections::BTreeSet;

use aims::web::{
    API_PREFIX, docs,
    routes::{self, Demand},
};
use serde_json::{Value, json};

use crate::{
    both,
    support::{Database, Server},
};

both!(served_document_is_the_description, documentation_page_loads_assets_only_from_this_server);

fn description() -> Value {
    serde_json::to_value(docs::description()).unwrap()
}

#[test]
fn description_matches_the_snapshot() {
    insta::assert_json_snapshot!("openapi", description());
}

#[test]
fn every_route_is_described_with_its_required_capability() {
    let description = description();
    let mut listed = BTreeSet::new();
    for route in routes::list() {
        let path = if route.is_prefixed { format!("{API_PREFIX}{}", route.path) } else { route.path.clone() };
        let method = route.method.as_str().to_ascii_lowercase();
        let operation = &description["paths"][&path][&method];
        let wanted = match route.demand {
            Demand::Nothing => json!([]),
            Demand::ApiKey => json!([{ "apiKey": [] }]),
            // OAuth clients may also authenticate in the form.
            Demand::Client => json!([{ "client": [] }, {}]),
            Demand::ClientOr(action) => json!([{ "bearer": [action.demands()] }, { "client": [] }, {}]),
            Demand::Action(action) => json!([{ "bearer": [action.demands()] }]),
        };
        assert_eq!(operation["security"], wanted, "{method} {path}");
        let refusals = operation["responses"].as_object().unwrap();
        assert_eq!(refusals.contains_key("401"), route.demand != Demand::Nothing, "{method} {path}");
        let denies = !matches!(route.demand, Demand::Nothing | Demand::Client);
        assert_eq!(refusals.contains_key("403"), denies, "{method} {path}");
        assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{method} {path}");
        listed.insert((path, method));
    }
    let described = description["paths"].as_object().unwrap().iter();
    let described: BTreeSet<_> = described
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(|method| (path.clone(), method.clone())))
        .collect();
    assert_eq!(described, listed);
    let schemes = &description["components"]["securitySchemes"];
    assert_eq!((&schemes["bearer"]["scheme"], &schemes["apiKey"]["name"]), (&json!("bearer"), &json!("X-API-Key")));
}

/// Returns true for OAuth paths, whose errors have their own body.
fn is_oauth(path: &str) -> bool {
    path.starts_with("/oauth/")
}

fn operations(description: &Value) -> impl Iterator<Item = (&String, &String, &Value)> {
    let paths = description["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |(method, it)| (path, method, it)))
}

#[test]
fn described_errors_use_the_error_schema() {
    let description = description();
    for (path, method, operation) in operations(&description) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let schema = &response["content"]["application/json"]["schema"]["$ref"];
            let expected = match status.as_str() {
                "422" => "ValidationError",
                other if !other.starts_with(['4', '5']) => continue,
                _ if is_oauth(path) => "OAuthError",
                _ => "Error",
            };
            assert_eq!(schema, &json!(format!("#/components/schemas/{expected}")), "{method} {path} {status}");
        }
    }
}

#[test]
fn common_error_statuses_are_described() {
    let description = description();
    for (path, method, operation) in operations(&description) {
        let described = |status: &str| operation["responses"].get(status).is_some();
        assert_eq!(described("503"), !path.ends_with("/_health"), "{method} {path}");
        let body = &operation["requestBody"]["content"];
        assert_eq!(described("413"), body.is_object(), "{method} {path}");
        assert_eq!(described("415"), body.get("application/json").is_some(), "{method} {path}");
    }
}

#[test]
fn inactive_introspection_matches_the_schema() {
    let introspection = &description()["components"]["schemas"]["Introspection"];
    assert_eq!(introspection["required"], json!(["active"]), "{introspection}");
    assert!(["allOf", "oneOf", "anyOf"].iter().all(|name| introspection.get(name).is_none()), "{introspection}");
    let described: BTreeSet<_> = introspection["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    let always = ["active", "scope", "client_id", "sub", "aud", "iss", "exp", "iat", "jti", "token_type"];
    let optional = ["act", "may_act", "cnf"];
    assert_eq!(described, always.into_iter().chain(optional).collect());
}

#[test]
fn every_reference_resolves() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    found.insert(reference.clone());
                }
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let description = description();
    let mut found = BTreeSet::new();
    references(&description, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        assert!(description.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}

async fn served_document_is_the_description(db: Database) {
    let server = Server::start(db).await;
    let response = server.anonymous().get("/openapi.json").await;
    assert_eq!(response.header("content-type"), Some("application/json"));
    let shown = response.expect(200);
    assert!(shown["openapi"].as_str().unwrap().starts_with("3.1."));
    assert_eq!(shown, description());
}

async fn documentation_page_loads_assets_only_from_this_server(db: Database) {
    let server = Server::start(db).await;
    let anonymous = server.anonymous();
    let page = anonymous.get("/docs/").await;
    assert_eq!(page.status.as_u16(), 200, "{page:?}");
    assert!(page.header("content-type").unwrap().starts_with("text/html"), "{page:?}");
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'; script-src 'self'; ") && !policy.contains("unsafe"), "{policy}");

    let targets = |attribute: &str| -> Vec<String> {
        let parts = page.text.split(attribute).skip(1);
        parts.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
    };
    let (scripts, links) = (targets("src=\""), targets("href=\""));
    assert!(scripts.len() >= 2 && !links.is_empty(), "{page:?}");
    // The policy forbids inline scripts.
    assert!(page.text.split("<script").skip(1).all(|script| script.contains("> </script>")), "{page:?}");
    for target in scripts.iter().chain(&links) {
        let name = target.strip_prefix("./").unwrap_or(target);
        assert!(!name.contains(':') && !name.starts_with('/'), "{target} is not on this server");
        let part = anonymous.get(&format!("/docs/{name}")).await;
        assert_eq!(part.status.as_u16(), 200, "{target}");
        assert_eq!(part.header("x-content-type-options"), Some("nosniff"));
        let kind = part.header("content-type").unwrap();
        assert!(!scripts.contains(target) || kind.contains("javascript"), "{target}: {kind}");
    }
    // The page references its assets by relative paths, so the path without a slash redirects to the one with it.
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let response = client.get(format!("{}/docs", server.url)).send().await.unwrap();
    assert!(response.status().is_redirection(), "{response:?}");
    assert_eq!(response.headers()["location"], "/docs/");

    let initializer = anonymous.get("/docs/swagger-initializer.js").await;
    assert!(initializer.text.contains("/openapi.json"), "{initializer:?}");
    anonymous.get("/docs/nothing.js").await.expect(404);
}
