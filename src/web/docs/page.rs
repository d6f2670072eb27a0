//! The page that shows the OpenAPI document. It needs no script: every operation has a command to copy instead.

use askama::Template;
use serde_json::Value;

use super::example::{self, Examples};
use crate::{domain::PublicUrl, web::console::page::assets};

#[derive(Template)]
#[template(path = "docs.html")]
struct DocsPage<'d> {
    /// The address of this server, without a slash at the end.
    server: &'d str,
    version: &'d str,
    introduction: Vec<Text>,
    groups: Vec<Group>,
    types: Vec<Type>,
}

/// A paragraph: pieces of text, of which those in backquotes are code.
struct Text(Vec<(bool, String)>);

/// The operations with the same tag.
struct Group {
    id: String,
    name: String,
    about: Vec<Text>,
    operations: Vec<Operation>,
}

struct Operation {
    id: String,
    method: String,
    path: String,
    summary: String,
    about: Vec<Text>,
    /// How the caller authenticates, and with which capability.
    demands: Vec<Text>,
    parameters: Vec<Property>,
    body: Option<Body>,
    answers: Vec<Answer>,
    command: String,
    /// The body of the answer in case of success.
    example: Option<String>,
}

struct Body {
    media_type: String,
    is_optional: bool,
    properties: Vec<Property>,
}

/// A parameter, or a member of a JSON object or a form.
struct Property {
    name: String,
    /// `in` of a parameter; empty for a member.
    place: String,
    kind: Kind,
    is_required: bool,
    about: Vec<Text>,
}

/// The type of a value: a text, with a link if the type has a section of its own.
struct Kind {
    text: String,
    link: Option<String>,
}

struct Answer {
    status: String,
    about: Vec<Text>,
    kind: Option<Kind>,
}

/// A named schema.
struct Type {
    name: String,
    about: Vec<Text>,
    properties: Vec<Property>,
}

/// Renders the page for a server at `address`.
pub(super) fn render(document: &Value, address: &PublicUrl) -> askama::Result<String> {
    let examples = Examples::of(document);
    let schemas = document["components"]["schemas"].as_object().into_iter().flatten();
    let types = schemas.map(|(name, schema)| Type {
        name: name.clone(),
        about: paragraphs(text(&schema["description"])),
        properties: properties(&examples, schema),
    });
    let page = DocsPage {
        server: address.without_slash(),
        version: text(&document["info"]["version"]),
        introduction: paragraphs(text(&document["info"]["description"])),
        groups: groups(document, &examples),
        types: types.collect(),
    };
    page.render()
}

fn groups(document: &Value, examples: &Examples<'_>) -> Vec<Group> {
    let mut groups: Vec<Group> = document["tags"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|tag| Group {
            id: format!("group-{}", text(&tag["name"]).to_lowercase().replace(' ', "-")),
            name: text(&tag["name"]).to_owned(),
            about: paragraphs(text(&tag["description"])),
            operations: Vec::new(),
        })
        .collect();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let tag = text(&operation["tags"][0]);
            if let Some(group) = groups.iter_mut().find(|group| group.name == tag) {
                group.operations.push(describe(examples, path, method, operation));
            }
        }
    }
    groups
}

fn describe(examples: &Examples<'_>, path: &str, method: &str, operation: &Value) -> Operation {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let parameters = parameters.map(|parameter| Property {
        name: text(&parameter["name"]).to_owned(),
        place: text(&parameter["in"]).to_owned(),
        kind: kind(&parameter["schema"]),
        is_required: parameter["required"] == true,
        about: paragraphs(text(&parameter["description"])),
    });
    let responses = operation["responses"].as_object().into_iter().flatten();
    let answers = responses.map(|(status, answer)| {
        let schema = &answer["content"]["application/json"]["schema"];
        let has_type = schema.as_object().is_some_and(|schema| !schema.is_empty());
        Answer {
            status: status.clone(),
            about: paragraphs(text(&answer["description"])),
            kind: has_type.then(|| kind(schema)),
        }
    });
    Operation {
        id: text(&operation["operationId"]).to_owned(),
        method: method.to_uppercase(),
        path: path.to_owned(),
        summary: text(&operation["summary"]).replace('`', ""),
        about: paragraphs(text(&operation["description"])),
        demands: demands(&operation["security"]),
        parameters: parameters.collect(),
        body: body(examples, &operation["requestBody"]),
        answers: answers.collect(),
        command: example::command(examples, path, method, operation),
        example: examples.answer(operation),
    }
}

fn demands(security: &Value) -> Vec<Text> {
    let mut ways = Vec::new();
    for way in security.as_array().into_iter().flatten() {
        if way.as_object().is_some_and(serde_json::Map::is_empty) {
            ways.push("client credentials in the form".to_owned());
        }
        for (scheme, scopes) in way.as_object().into_iter().flatten() {
            let scope = text(&scopes[0]);
            ways.push(match scheme.as_str() {
                "bearer" if scope.is_empty() => "an access token".to_owned(),
                "bearer" => format!("an access token with the capability `{scope}`"),
                "apiKey" => "an API key in the header `X-API-Key`".to_owned(),
                "client" => "HTTP Basic with the agent's ID and an API key".to_owned(),
                other => format!("`{other}`"),
            });
        }
    }
    if ways.is_empty() {
        return paragraphs("Needs no authentication.");
    }
    paragraphs(&format!("Needs {}.", ways.join(", or ")))
}

fn body(examples: &Examples<'_>, body: &Value) -> Option<Body> {
    let (media_type, content) = body["content"].as_object()?.iter().next()?;
    let schema = examples.resolve(&content["schema"]);
    Some(Body {
        media_type: media_type.clone(),
        is_optional: body["required"] != true,
        properties: properties(examples, schema),
    })
}

/// Returns the members of an object, with those of the first alternative if there are several.
fn properties(examples: &Examples<'_>, schema: &Value) -> Vec<Property> {
    let schema = examples.resolve(schema);
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let members = schema["properties"].as_object().into_iter().flatten();
    let property = |(name, schema): (&String, &Value)| Property {
        name: name.clone(),
        place: String::new(),
        kind: kind(schema),
        is_required: required.contains(&name.as_str()),
        about: paragraphs(text(&schema["description"])),
    };
    members.map(property).collect()
}

fn kind(schema: &Value) -> Kind {
    if let Some(name) = Examples::name_of(schema) {
        return Kind { text: name.to_owned(), link: Some(name.to_owned()) };
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> = values.iter().map(ToString::to_string).collect();
        return Kind { text: values.join(" | "), link: None };
    }
    if !schema["items"].is_null() {
        let Kind { text, link } = kind(&schema["items"]);
        return Kind { text: format!("array of {text}"), link };
    }
    if let Some(alternatives) = schema["oneOf"].as_array() {
        let kinds: Vec<_> = alternatives.iter().map(kind).collect();
        let link = kinds.iter().find_map(|kind| kind.link.clone());
        let mut texts: Vec<_> = kinds.into_iter().map(|kind| kind.text).collect();
        texts.dedup();
        return Kind { text: texts.join(" or "), link };
    }
    let types = match &schema["type"] {
        Value::String(one) => one.clone(),
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "any".to_owned(),
    };
    let bounds = [
        ("format", ""),
        ("minLength", "at least "),
        ("maxLength", "at most "),
        ("minimum", "from "),
        ("maximum", "to "),
        ("default", "default "),
    ];
    let bounds = bounds.into_iter().filter(|(name, _)| !schema[name].is_null()).map(|(name, before)| {
        let value = &schema[name];
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let after = if name.ends_with("Length") { " characters" } else { "" };
        format!("{before}{value}{after}")
    });
    Kind { text: std::iter::once(types).chain(bounds).collect::<Vec<_>>().join(", "), link: None }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn paragraphs(text: &str) -> Vec<Text> {
    let paragraphs = text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty());
    let pieces = |paragraph: &str| {
        let pieces = paragraph.split('`').enumerate().map(|(n, piece)| (n % 2 == 1, piece.to_owned()));
        Text(pieces.filter(|(_, piece)| !piece.is_empty()).collect())
    };
    paragraphs.map(pieces).collect()
}
