//! Examples for the documentation, made from the schemas.

use serde_json::{Map, Value, json};

/// The named schemas of a document.
pub(super) struct Examples<'d> {
    schemas: &'d Value,
}

const UUID: &str = "019b7a3e-7b1c-7e43-9b1c-0242ac120002";

/// Objects within objects of an example.
const DEPTH_MAX: usize = 6;

impl<'d> Examples<'d> {
    pub(super) fn of(document: &'d Value) -> Self {
        Self { schemas: &document["components"]["schemas"] }
    }

    /// Returns the name of a schema that refers to a named one.
    pub(super) fn name_of(schema: &Value) -> Option<&str> {
        schema["$ref"].as_str()?.rsplit('/').next()
    }

    /// Follows a reference, and takes the first alternative that is not null.
    pub(super) fn resolve<'s>(&'s self, schema: &'s Value) -> &'s Value {
        if let Some(name) = Self::name_of(schema) {
            return self.resolve(&self.schemas[name]);
        }
        let mut alternatives = schema["oneOf"].as_array().into_iter().flatten();
        match alternatives.find(|alternative| alternative["type"] != "null") {
            Some(alternative) => self.resolve(alternative),
            None => schema,
        }
    }

    /// Returns the body of a successful answer, as indented JSON.
    pub(super) fn answer(&self, operation: &Value) -> Option<String> {
        let answers = operation["responses"].as_object()?;
        let (_, answer) = answers.iter().find(|(status, _)| status.starts_with('2'))?;
        let schema = &answer["content"]["application/json"]["schema"];
        let is_known = schema.as_object().is_some_and(|schema| !schema.is_empty());
        let value = is_known.then(|| self.value("", schema, false, 0))?;
        serde_json::to_string_pretty(&value).ok()
    }

    /// Returns a value that fits a schema. `is_minimal` leaves out what is not required.
    fn value(&self, name: &str, schema: &Value, is_minimal: bool, depth: usize) -> Value {
        let schema = self.resolve(schema);
        if let Some(values) = schema["enum"].as_array() {
            return values.first().cloned().unwrap_or_default();
        }
        if !schema["default"].is_null() {
            return schema["default"].clone();
        }
        let types = &schema["type"];
        let kind = types.as_str().or_else(|| types[0].as_str()).unwrap_or_default();
        match kind {
            "boolean" => true.into(),
            "integer" | "number" => integer(name, schema),
            "array" if depth < DEPTH_MAX => {
                json!([self.value(singular(name), &schema["items"], is_minimal, depth + 1)])
            }
            "object" if depth < DEPTH_MAX => self.object(name, schema, is_minimal, depth),
            "string" => string(name, schema).into(),
            _ => json!({}),
        }
    }

    fn object(&self, name: &str, schema: &Value, is_minimal: bool, depth: usize) -> Value {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !schema["properties"]["kty"].is_null() {
            // Which members a key needs depends on its type.
            return json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        }
        let members = schema["properties"].as_object().into_iter().flatten();
        let chosen = members.filter(|(name, _)| !is_minimal || required.contains(&name.as_str()));
        let mut object: Map<String, Value> =
            chosen.map(|(name, schema)| (name.clone(), self.value(name, schema, is_minimal, depth + 1))).collect();
        if object.is_empty() && name == "claims" {
            object.insert("sub".to_owned(), "repo:example/planner:ref:refs/heads/main".into());
        }
        if object.is_empty() && ["labels", "set"].contains(&name) {
            object.insert("env".to_owned(), "prod".into());
        }
        Value::Object(object)
    }
}

fn singular(name: &str) -> &str {
    name.strip_suffix('s').unwrap_or(name)
}

fn integer(name: &str, schema: &Value) -> Value {
    match name {
        "expires_in" => 1_800.into(),
        // Times of tokens are in seconds.
        "iat" | "nbf" => 1_767_268_800.into(),
        "exp" => 1_767_270_600.into(),
        _ => schema["minimum"].as_i64().unwrap_or(1).max(1).into(),
    }
}

fn string(name: &str, schema: &Value) -> &'static str {
    match schema["format"].as_str().unwrap_or_default() {
        "date-time" => return "2026-01-01T12:00:00Z",
        "date" => return "2026-01-01",
        "uuid" => return UUID,
        _ => {}
    }
    match name {
        name if ["id", "jti", "sub"].contains(&name) || name.ends_with("_id") => UUID,
        "name" => "planner",
        "owner" => "research",
        "description" => "Plans the day",
        "metadata_json" | "details_json" => "{}",
        "scope" | "capability" => "agents:read",
        "selector" => "team=mail,!env",
        "remove" => "legacy",
        "identifier" | "resource" => "https://mcp.example/tools",
        "issuer" | "iss" => "https://issuer.example",
        "audience" | "aud" => "https://aims.example",
        "jwks_uri" => "https://issuer.example/jwks.json",
        "reason" => "The key leaked",
        "key_prefix" => "aims_0aB1cD2e",
        "raw_key" => "aims_…",
        "access_token" | "token" | "client_secret" => "…",
        "token_type" => "bearer",
        "grant_type" => "client_credentials",
        "ip_address" => "192.0.2.7",
        "status" => "ok",
        _ => "text",
    }
}

/// Returns a command for a shell that calls an operation. It reads addresses and secrets from variables.
pub(super) fn command(examples: &Examples<'_>, path: &str, method: &str, operation: &Value) -> String {
    let mut lines = Vec::new();
    let flag = if method == "get" { String::new() } else { format!(" -X {}", method.to_uppercase()) };
    let parameters: Vec<_> = operation["parameters"].as_array().into_iter().flatten().collect();
    let mut url = format!("$AIMS{path}");
    for parameter in parameters.iter().filter(|parameter| parameter["in"] == "path") {
        let name = parameter["name"].as_str().unwrap_or_default();
        url = url.replace(&format!("{{{name}}}"), &format!("${}", name.to_uppercase()));
    }
    lines.push(format!("curl -s{flag} \"{url}\""));
    let schemes = operation["security"].as_array().into_iter().flatten();
    match schemes.flat_map(|way| way.as_object().into_iter().flatten()).map(|(name, _)| name.as_str()).next() {
        Some("bearer") => lines.push("-H \"Authorization: Bearer $TOKEN\"".to_owned()),
        Some("apiKey") => lines.push("-H \"X-API-Key: $API_KEY\"".to_owned()),
        Some("client") => lines.push("-u \"$AGENT_ID:$API_KEY\"".to_owned()),
        _ => {}
    }
    let content = operation["requestBody"]["content"].as_object().and_then(|content| content.iter().next());
    if let Some((media_type, content)) = content {
        let is_required = operation["requestBody"]["required"] == true;
        let schema = &content["schema"];
        let minimal = examples.value("", schema, true, 0);
        let is_empty = minimal.as_object().is_some_and(Map::is_empty);
        let body = if is_empty && is_required { examples.value("", schema, false, 0) } else { minimal };
        if media_type == "application/json" {
            if is_required || !is_empty {
                lines.push("-H 'Content-Type: application/json'".to_owned());
                lines.push(format!("-d '{body}'"));
            }
        } else {
            for (name, value) in body.as_object().into_iter().flatten() {
                lines.push(form_field(name, value.as_str().unwrap_or_default()));
            }
        }
    }
    lines.join(" \\\n  ")
}

fn form_field(name: &str, value: &str) -> String {
    if name == "token" {
        "--data-urlencode \"token=$TOKEN\"".to_owned()
    } else {
        format!("--data-urlencode '{name}={value}'")
    }
}
