//! Regular expressions in the description of the API. A field names the kind of its text, such as `{name}`, and the expression that
//! follows from the rule is put in its place.

use utoipa::openapi::{Object, OpenApi, RefOr, Schema};

use crate::domain::text;

/// Capabilities separated by spaces (RFC 6749 §3.3), at most 100.
const SCOPE: &str = r"^ *([\x21\x23-\x5B\x5D-\x7E]{1,128}( +[\x21\x23-\x5B\x5D-\x7E]{1,128}){0,99} *)?$";

fn expression(kind: &str) -> Option<String> {
    match kind {
        "{line}" => Some(text::line_pattern()),
        "{name}" => Some(text::name_pattern()),
        "{paragraph}" => Some(text::paragraph_pattern()),
        "{scope}" => Some(SCOPE.to_owned()),
        _ => None,
    }
}

/// Replaces the names of kinds by expressions, in bodies and in parameters.
pub(in crate::web) fn expand(description: &mut OpenApi) {
    let components = description.components.iter_mut().flat_map(|components| components.schemas.values_mut());
    let operations = description.paths.paths.values_mut().flat_map(|item| {
        [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten()
    });
    let parameters = operations.flat_map(|operation| operation.parameters.iter_mut().flatten());
    let schemas = parameters.filter_map(|parameter| match parameter {
        RefOr::T(parameter) => parameter.schema.as_mut(),
        RefOr::Ref(_) => None,
    });
    components.chain(schemas).for_each(in_schema);
}

fn in_schema(schema: &mut RefOr<Schema>) {
    if let RefOr::T(Schema::Object(object)) = schema {
        in_object(object);
    }
}

fn in_object(object: &mut Object) {
    if let Some(expression) = object.pattern.as_deref().and_then(expression) {
        object.pattern = Some(expression);
    }
    object.properties.values_mut().for_each(in_schema);
}
