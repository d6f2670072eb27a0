//! The conditional headers in the OpenAPI document.

use http::Method;
use utoipa::openapi::{
    Header, HeaderBuilder, RefOr, Required, Response, ResponseBuilder, Schema,
    path::{Operation, Parameter, ParameterBuilder, ParameterIn},
};

use crate::{service::core::conditions::IdempotencyKey, web::request::schema};

/// A list of entity tags, or `*`.
const TAGS: &str = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#;

/// Describes the header `Idempotency-Key`.
pub(super) fn describe_repetition(operation: &mut Operation) {
    const KEY: &str = "Makes it safe to send the request again if its answer is lost: for 24 hours, the same request with \
        the same key returns the same answer and changes nothing. Choose a random key for each request, such as a UUID, \
        and keep it secret, because it opens the answer. Another request with the same key is rejected with 422.";
    let visible = format!(r"[!#-\[\]-~]{{{},{}}}", IdempotencyKey::MIN_LEN, IdempotencyKey::MAX_LEN);
    add(operation, parameter("Idempotency-Key", KEY, &format!("^({visible}|\"{visible}\")$")));
    for response in successes(operation) {
        let text = "`true` if the request was answered before.";
        response.headers.insert("Idempotency-Replayed".to_owned(), header(text));
    }
    respond(operation, "409", "Or the answer was sealed under an earlier master key and can no longer be opened.");
    respond(operation, "422", "Or `Idempotency-Key` is not valid, or was sent with another request before.");
}

/// Describes the entity tag of an object, and the headers that contain it.
pub(super) fn describe_version(method: &Method, operation: &mut Operation, creates: bool) {
    const TAG: &str = "Version of the object, in quotes.";
    for response in successes(operation).filter(|response| !response.content.is_empty()) {
        response.headers.insert("ETag".to_owned(), header(TAG));
    }
    if *method == Method::GET {
        const KNOWN: &str =
            "Entity tags of versions that the client has. If one of them is current, the status is 304.";
        add(operation, parameter("If-None-Match", KNOWN, TAGS));
        let known = ResponseBuilder::new().description("The client has the current version.");
        let known = known.header("ETag", header_of(TAG)).build();
        operation.responses.responses.insert("304".to_owned(), known.into());
        respond(operation, "422", "`If-None-Match` is not valid.");
    } else if !creates {
        const EXPECTED: &str = "Entity tags of versions that may be changed. If none of them is current, nothing changes \
            and the status is 412. `*` matches every version.";
        add(operation, parameter("If-Match", EXPECTED, TAGS));
        respond(operation, "412", "The object has changed. Read it again, then retry with its current entity tag.");
        respond(operation, "422", "`If-Match` is not valid.");
    }
}

fn parameter(name: &str, description: &str, pattern: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(Schema::Object(schema::pattern(pattern).build())))
        .build()
}

fn add(operation: &mut Operation, parameter: Parameter) {
    operation.parameters.get_or_insert_default().push(parameter.into());
}

fn header(description: &str) -> RefOr<Header> {
    header_of(description).into()
}

fn header_of(description: &str) -> Header {
    HeaderBuilder::new().schema(Some(Schema::Object(schema::string().build()))).description(Some(description)).build()
}

fn successes(operation: &mut Operation) -> impl Iterator<Item = &mut Response> {
    let responses = operation.responses.responses.iter_mut();
    responses.filter(|(status, _)| status.starts_with('2')).filter_map(|(_, response)| match response {
        RefOr::T(response) => Some(response),
        RefOr::Ref(_) => None,
    })
}

/// Adds a response, or its description to that of an existing one.
fn respond(operation: &mut Operation, status: &str, description: &str) {
    let responses = &mut operation.responses.responses;
    match responses.get_mut(status) {
        Some(RefOr::T(response)) => response.description = format!("{} {description}", response.description),
        _ => drop(responses.insert(status.to_owned(), Response::new(description).into())),
    }
}
