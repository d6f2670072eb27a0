//! The OpenAPI document and the page that displays it.

use std::collections::BTreeSet;

use aims::web::{API_PREFIX, demand::Demand, docs, routes};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    both,
    support::{Database, Response, Server},
};

both!(
    the_server_returns_the_document,
    the_documentation_page_loads_only_from_this_server,
    the_documentation_page_describes_every_operation,
    documented_examples_are_accepted,
    documented_limits_are_enforced_exactly,
);

fn document() -> Value {
    serde_json::to_value(docs::description()).unwrap()
}

#[test]
fn the_document_matches_the_snapshot() {
    insta::assert_json_snapshot!("openapi", document());
}

#[test]
fn every_route_is_documented_with_its_demands() {
    let document = document();
    let mut listed = BTreeSet::new();
    for route in routes::list() {
        let path = if route.is_prefixed { format!("{API_PREFIX}{}", route.path) } else { route.path.clone() };
        let method = route.method.as_str().to_ascii_lowercase();
        let operation = &document["paths"][&path][&method];
        let expected = match route.demand {
            Demand::Nothing => json!([]),
            Demand::ApiKey => json!([{ "apiKey": [] }]),
            // Clients can also authenticate in the form.
            Demand::Client => json!([{ "client": [] }, {}]),
            Demand::ClientOr(action) => json!([{ "bearer": [action.demands()] }, { "client": [] }, {}]),
            Demand::Action(action) => json!([{ "bearer": [action.demands()] }]),
        };
        assert_eq!(operation["security"], expected, "{method} {path}");
        let responses = operation["responses"].as_object().unwrap();
        assert_eq!(responses.contains_key("401"), route.demand != Demand::Nothing, "{method} {path}");
        let can_deny = !matches!(route.demand, Demand::Nothing | Demand::Client);
        assert_eq!(responses.contains_key("403"), can_deny, "{method} {path}");
        assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{method} {path}");
        listed.insert((path, method));
    }
    let documented = document["paths"].as_object().unwrap().iter();
    let documented: BTreeSet<_> = documented
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(|method| (path.clone(), method.clone())))
        .collect();
    assert_eq!(documented, listed);
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!((&schemes["bearer"]["scheme"], &schemes["apiKey"]["name"]), (&json!("bearer"), &json!("X-API-Key")));
}

/// Returns true for the OAuth endpoints, whose errors have a different body.
fn is_oauth(path: &str) -> bool {
    path.starts_with("/oauth/")
}

fn operations(document: &Value) -> impl Iterator<Item = (&String, &String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |(method, it)| (path, method, it)))
}

#[test]
fn every_error_has_a_documented_body() {
    let document = document();
    for (path, method, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let schema = &response["content"]["application/json"]["schema"]["$ref"];
            let expected = match status.as_str() {
                "422" => "ValidationError",
                "503" if path.ends_with("/readyz") => "Readiness",
                other if !other.starts_with(['4', '5']) => continue,
                _ if is_oauth(path) => "OAuthError",
                _ => "Error",
            };
            assert_eq!(schema, &json!(format!("#/components/schemas/{expected}")), "{method} {path} {status}");
        }
    }
}

#[test]
fn common_errors_are_documented() {
    let document = document();
    for (path, method, operation) in operations(&document) {
        let documents = |status: &str| operation["responses"].get(status).is_some();
        assert_eq!(documents("503"), !path.ends_with("/_health") && !path.ends_with("/livez"), "{method} {path}");
        let body = &operation["requestBody"]["content"];
        assert_eq!(documents("413"), body.is_object(), "{method} {path}");
        assert_eq!(documents("415"), body.get("application/json").is_some(), "{method} {path}");
    }
}

#[test]
fn introspection_documents_every_member() {
    let introspection = &document()["components"]["schemas"]["Introspection"];
    assert_eq!(introspection["required"], json!(["active"]), "{introspection}");
    assert!(["allOf", "oneOf", "anyOf"].iter().all(|name| introspection.get(name).is_none()), "{introspection}");
    let documented: BTreeSet<_> = introspection["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    let always = ["active", "scope", "client_id", "sub", "aud", "iss", "exp", "iat", "jti", "token_type"];
    let sometimes = ["act", "may_act", "cnf"];
    assert_eq!(documented, always.into_iter().chain(sometimes).collect());
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
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}

async fn the_server_returns_the_document(db: Database) {
    let server = Server::start(db).await;
    let response = server.anonymous().get("/openapi.json").await;
    assert_eq!(response.header("content-type"), Some("application/json"));
    let found = response.expect(200);
    assert!(found["openapi"].as_str().unwrap().starts_with("3.1."));
    assert_eq!(found, document());
}

async fn the_documentation_page_loads_only_from_this_server(db: Database) {
    let server = Server::start(db).await;
    let client = server.anonymous();
    let page = client.get("/docs").await;
    assert_eq!(page.status.as_u16(), 200, "{page:?}");
    assert!(page.header("content-type").unwrap().starts_with("text/html"), "{page:?}");
    assert_eq!(client.get("/docs/").await.text, page.text);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'self'; img-src 'self'; "), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{policy}");
    for mark in ["<script", "<style", " style=", "javascript:", "src=\""] {
        assert!(!page.text.contains(mark), "{mark} in {}", page.text);
    }
    let links: BTreeSet<_> =
        page.text.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    for link in &links {
        if let Some(anchor) = link.strip_prefix('#') {
            assert!(page.text.contains(&format!("id=\"{anchor}\"")), "{link} leads nowhere");
        } else {
            let path = link.split('#').next().unwrap();
            assert!(path.starts_with('/') && !path.starts_with("//"), "{link} is not on this server");
            assert_eq!(client.get(path).await.status.as_u16(), 200, "{link}");
        }
    }
    client.get("/docs/nothing.js").await.expect(404);
}

async fn the_documentation_page_describes_every_operation(db: Database) {
    let server = Server::start(db).await;
    let page = server.anonymous().get("/docs").await.text;
    let document = document();
    let mut described = 0;
    for (path, method, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        let (_, section) = page.split_once(&format!("<h3 id=\"{id}\">")).unwrap_or_else(|| panic!("{id} is missing"));
        let section = section.split("</article>").next().unwrap();
        let summary = operation["summary"].as_str().unwrap().replace('`', "").replace('\'', "&#39;");
        assert!(section.contains(&summary), "{section}");
        assert!(
            section.contains(&format!(">{}</span> <code class=\"wrap\">{path}<", method.to_uppercase())),
            "{section}"
        );
        for status in operation["responses"].as_object().unwrap().keys() {
            assert!(section.contains(&format!("<code>{status}</code>")), "{id}: {status}");
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(
                section.contains(&format!("<dt><code>{}</code>", parameter["name"].as_str().unwrap())),
                "{section}"
            );
        }
        let demand = operation["security"][0]["bearer"][0].as_str();
        assert!(demand.is_none_or(|capability| section.contains(&format!("<code>{capability}</code>"))), "{section}");
        assert!(section.contains("curl -s"), "{section}");
        described += 1;
    }
    assert!(described > 40, "{described}");
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("<h3 id=\"type-{name}\">")), "{name}");
    }
}

/// Runs what the page tells people to run, as far as it is JSON.
async fn documented_examples_are_accepted(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("planner-2", &[]).await;
    server.capability("agents:read").await;
    let page = server.anonymous().get("/docs").await.text;
    let mut accepted = 0;
    for (id, path) in [
        ("create_agent", "/agents".to_owned()),
        ("update_agent", format!("/agents/{}", agent.id)),
        ("suspend_agent", format!("/agents/{}/suspend", agent.id)),
        ("create_capability", "/capabilities".to_owned()),
        ("create_resource", "/resources".to_owned()),
        ("register_public_keys", format!("/agents/{}/public-keys", agent.id)),
    ] {
        let Some((_, section)) = page.split_once(&format!("<h3 id=\"{id}\">")) else { panic!("{id} is missing") };
        let command = section.split("<code>curl").nth(1).unwrap().split("</code>").next().unwrap();
        let command = command.replace("&#34;", "\"").replace("&#39;", "'").replace("&#38;", "&");
        let body = command.split_once("-d '").map(|(_, body)| body.split('\'').next().unwrap().to_owned());
        let method = command.split("-X ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let mut request = server.admin.request(method, &path);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = server.admin.send(request).await;
        assert!(response.status.is_success(), "{id}: {command}: {response:?}");
        accepted += 1;
    }
    assert_eq!(accepted, 6);
}

/// An ID that no agent, key or capability has, so that valid requests change nothing.
const UNKNOWN: &str = "00000000-0000-7000-8000-000000000000";

/// Sends values on both sides of every documented limit of every JSON body and query.
async fn documented_limits_are_enforced_exactly(db: Database) {
    let server = Server::start(db).await;
    let document = document();
    let mut checked = 0;
    for (path, method, operation) in operations(&document) {
        let method: Method = method.to_uppercase().parse().unwrap();
        let path = path.split('/').map(|part| if part.starts_with('{') { UNKNOWN } else { part });
        let path = path.collect::<Vec<_>>().join("/");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            if parameter["in"] != "query" {
                continue;
            }
            let name = parameter["name"].as_str().unwrap();
            for (value, is_valid) in cases(name, &parameter["schema"]) {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let query = serde_urlencoded::to_string([(name, &value)]).unwrap();
                let request = server.admin.request(method.clone(), &format!("{path}?{query}"));
                let response = server.admin.send(request).await;
                assert_eq!(!names(&response, name), is_valid, "{method} {path} {name} {value:.60}: {response:?}");
                checked += 1;
            }
        }
        let Some(body) = operation["requestBody"]["content"].get("application/json") else { continue };
        let schema = resolve(&document, &body["schema"]);
        let Some(properties) = schema["properties"].as_object() else {
            assert!(path.ends_with("/public-keys"), "{method} {path} has an unexpected body");
            continue;
        };
        let required: Vec<_> =
            schema["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap()).collect();
        let valid = required.iter().map(|&name| (name.to_owned(), sample(name, &properties[name])));
        let valid: serde_json::Map<_, _> = valid.collect();
        for (name, schema) in properties {
            let mut values = cases(name, schema);
            let types = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
            let is_optional = !required.contains(&&**name);
            assert_eq!(types.contains(&json!("null")), is_optional, "{method} {path} {name}");
            values.push((Value::Null, is_optional));
            values.push((json!([]), types.contains(&json!("array"))));
            values.push((if types.contains(&json!("string")) { json!(7) } else { json!("seven") }, false));
            for (value, is_valid) in values {
                let mut body = valid.clone();
                body.insert(name.clone(), value.clone());
                let response = server.admin.send(server.admin.request(method.clone(), &path).json(&body)).await;
                let shown: String = value.to_string().chars().take(60).collect();
                assert_eq!(!names(&response, name), is_valid, "{method} {path} {name} {shown}: {response:?}");
                checked += 1;
            }
            let mut body = valid.clone();
            body.remove(name);
            let response = server.admin.send(server.admin.request(method.clone(), &path).json(&body)).await;
            assert_eq!(!names(&response, name), is_optional, "{method} {path} without {name}: {response:?}");
        }
    }
    assert!(checked > 100, "only {checked} values were sent");
}

/// Returns the schema that a reference, or the alternative to `null`, leads to.
fn resolve<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    let schema = schema["oneOf"].get(0).unwrap_or(schema);
    let reference = schema["$ref"].as_str().expect("a reference");
    document.pointer(reference.trim_start_matches('#')).unwrap()
}

/// Returns true if a response rejects the field.
fn names(response: &Response, field: &str) -> bool {
    response.status == 422 && response.detail().as_array().unwrap().iter().any(|error| error["loc"][1] == field)
}

/// Returns a valid value. Some fields have rules that a schema cannot express.
fn sample(name: &str, schema: &Value) -> Value {
    match (name, schema["format"].as_str()) {
        ("metadata_json", _) => json!("{}"),
        ("allowed_networks", _) => json!("192.0.2.0/24"),
        ("scope", _) => json!("agents:read"),
        ("issuer", _) | (_, Some("uri")) => json!("https://issuer.example/"),
        ("claims", _) => json!({ "sub": "somebody" }),
        (_, Some("uuid")) => json!(UNKNOWN),
        (_, Some("date-time")) => json!("2999-01-01T00:00:00Z"),
        _ => json!("a"),
    }
}

fn max_length(schema: &Value) -> usize {
    schema["maxLength"].as_u64().unwrap().try_into().unwrap()
}

/// Returns values around each limit of a schema, and whether they are valid.
fn cases(name: &str, schema: &Value) -> Vec<(Value, bool)> {
    let mut cases = Vec::new();
    let text = |length: usize| {
        let start = sample(name, schema).as_str().unwrap().to_owned();
        // The key of a label is shorter than a selector may be.
        let filler = if name == "selector" { " " } else { "a" };
        json!(format!("{start}{}", filler.repeat(length - start.len())))
    };
    if schema["maxLength"].is_u64() {
        let max = max_length(schema);
        cases.extend([(text(max), true), (text(max + 1), false)]);
    }
    if schema["minLength"] == 1 {
        cases.push((json!(""), false));
    }
    if schema["pattern"].is_string() {
        // No pattern allows bidirectional controls.
        cases.push((json!("a\u{202E}b"), false));
    }
    for (limit, beyond) in [("minimum", -1), ("maximum", 1)] {
        if let Some(limit) = schema[limit].as_i64() {
            cases.extend([(json!(limit), true), (json!(limit + beyond), false)]);
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        cases.extend(words.iter().filter(|word| !word.is_null()).map(|word| (word.clone(), true)));
        cases.push((json!("unknown"), false));
    }
    if matches!(schema["format"].as_str(), Some("date-time" | "uri")) {
        cases.push((json!("nothing"), false));
    }
    if let Some(max) = schema["maxProperties"].as_u64() {
        let members = |count| (0..count).map(|n| (format!("claim{n}"), json!("a"))).collect::<serde_json::Map<_, _>>();
        let may_be_empty = schema["minProperties"].is_null();
        cases.extend([(json!(members(max)), true), (json!(members(max + 1)), false), (json!({}), may_be_empty)]);
        for (name, value) in
            [(max_length(&schema["propertyNames"]), 1), (1, max_length(&schema["additionalProperties"]))]
        {
            cases.push((json!({ "a".repeat(name): "a".repeat(value) }), true));
            let beyond = |length: usize| if length == 1 { 1 } else { length + 1 };
            cases.push((json!({ "a".repeat(beyond(name)): "a".repeat(beyond(value)) }), false));
        }
    }
    cases
}
