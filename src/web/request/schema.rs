//! OpenAPI schemas of bodies and queries, generated from the code that reads them.

use utoipa::openapi::{
    ObjectBuilder, RefOr, Required, Schema, SchemaFormat, Type,
    path::{Parameter, ParameterBuilder, ParameterIn},
    schema::SchemaType,
};

use super::{
    extract::{FromBody, FromQuery},
    fields::{Declared, Fields},
};
use crate::domain::text;

/// Capabilities separated by spaces (RFC 6749 §3.3), at most 100.
const SCOPE: &str = r"^ *([\x21\x23-\x5B\x5D-\x7E]{1,128}( +[\x21\x23-\x5B\x5D-\x7E]{1,128}){0,99} *)?$";

/// Generates the schema of the body `T`.
pub(in crate::web) fn of_body<T: FromBody>(description: &str) -> RefOr<Schema> {
    let mut object = ObjectBuilder::new().schema_type(Type::Object).description(Some(description));
    for Declared { name, description, mut schema, is_required } in Fields::declared_by(T::read) {
        if let Schema::Object(field) = &mut schema {
            field.description = Some(description.to_owned());
            if let (false, SchemaType::Type(kind)) = (is_required, &field.schema_type) {
                field.schema_type = SchemaType::from_iter([kind.clone(), Type::Null]);
                if let Some(values) = &mut field.enum_values {
                    values.push(serde_json::Value::Null);
                }
            }
        } else if let Schema::Array(field) = &mut schema {
            field.description = Some(description.to_owned());
            if !is_required {
                field.schema_type = SchemaType::from_iter([Type::Array, Type::Null]);
            }
        }
        if is_required {
            object = object.required(&name);
        }
        object = object.property(name, schema);
    }
    object.into()
}

/// Generates the parameters of the query `T`.
pub(in crate::web) fn of_query<T: FromQuery>() -> Vec<Parameter> {
    let parameter = |Declared { name, description, mut schema, is_required }: Declared| {
        if let Schema::Object(object) = &mut schema {
            object.description = None;
        }
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Query)
            .required(if is_required { Required::True } else { Required::False })
            .description(Some(description))
            .schema(Some(schema))
            .build()
    };
    Fields::declared_by(T::read).into_iter().map(parameter).collect()
}

/// Implements `ToSchema` for types that implement [`FromBody`], with the name and description in the OpenAPI document.
macro_rules! body_schemas {
    ($($body:ty => $name:literal, $description:literal;)+) => {$(
        impl utoipa::PartialSchema for $body {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                $crate::web::request::schema::of_body::<Self>($description)
            }
        }

        impl utoipa::ToSchema for $body {
            fn name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
        }
    )+};
}
pub(in crate::web) use body_schemas;

/// Implements `IntoParams` for types that implement [`FromQuery`].
macro_rules! query_parameters {
    ($($query:ty),+) => {$(
        impl utoipa::IntoParams for $query {
            fn into_params(
                _: impl Fn() -> Option<utoipa::openapi::path::ParameterIn>,
            ) -> Vec<utoipa::openapi::path::Parameter> {
                $crate::web::request::schema::of_query::<Self>()
            }
        }
    )+};
}
pub(in crate::web) use query_parameters;

/// Any string.
pub(in crate::web) fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// A string that matches a regular expression.
pub(in crate::web) fn pattern(pattern: impl Into<String>) -> ObjectBuilder {
    string().pattern(Some(pattern))
}

/// What [`text::line`] accepts.
pub(in crate::web) fn line(min: usize, max: usize) -> ObjectBuilder {
    pattern(text::line_pattern()).min_length(Some(min)).max_length(Some(max))
}

/// A query parameter that [`text::line`] parses if it is not empty.
pub(in crate::web) fn optional_line(max: usize) -> ObjectBuilder {
    pattern(text::line_pattern()).max_length(Some(max))
}

/// What [`text::name`] accepts.
pub(in crate::web) fn name(max: usize) -> ObjectBuilder {
    pattern(text::name_pattern()).min_length(Some(1)).max_length(Some(max))
}

/// What [`text::paragraph`] accepts.
pub(in crate::web) fn paragraph(max: usize) -> ObjectBuilder {
    pattern(text::paragraph_pattern()).max_length(Some(max))
}

/// Capability names separated by spaces.
pub(in crate::web) fn scope() -> ObjectBuilder {
    pattern(SCOPE)
}

/// One of several words.
pub(in crate::web) fn words(words: impl IntoIterator<Item = &'static str>) -> ObjectBuilder {
    string().enum_values(Some(words))
}

/// A URI.
pub(in crate::web) fn uri(max: usize) -> ObjectBuilder {
    format("uri").min_length(Some(1)).max_length(Some(max))
}

/// A string with a format.
pub(in crate::web) fn format(format: &str) -> ObjectBuilder {
    string().format(Some(SchemaFormat::Custom(format.to_owned())))
}

/// An integer. [`Fields::optional_integer`] adds the range.
pub(in crate::web) fn integer(format: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).format(Some(SchemaFormat::Custom(format.to_owned())))
}
