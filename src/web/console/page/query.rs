//! Query parameters. Filters, sort order and page position live in the URL.

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::web::{
    failure::Failure,
    request::{extract::FromQuery, fields::Fields},
};

/// Query parameters, both parsed into a type and unparsed.
pub(in crate::web::console) struct Query<T>(pub(in crate::web::console) T, pub(in crate::web::console) Params);

/// The non-empty parameters of a query.
#[derive(Clone, Debug, Default)]
pub(in crate::web::console) struct Params(Vec<(String, String)>);

impl Params {
    /// Returns the value of a parameter, or an empty string if it is absent.
    pub(in crate::web::console) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Returns a copy with one parameter replaced. An empty value removes it.
    pub(in crate::web::console) fn with(&self, name: &str, value: &str) -> Self {
        let mut pairs: Vec<_> = self.0.iter().filter(|(key, _)| key != name).cloned().collect();
        if !value.is_empty() {
            pairs.push((name.to_owned(), value.to_owned()));
        }
        Self(pairs)
    }

    /// Returns a link to `path` with these parameters.
    pub(in crate::web::console) fn href(&self, path: &str) -> String {
        match serde_urlencoded::to_string(&self.0) {
            Ok(query) if !query.is_empty() => format!("{path}?{query}"),
            _ => path.to_owned(),
        }
    }

    pub(in crate::web::console) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

impl<T: FromQuery, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = parts.uri.query().unwrap_or_default();
        let mut fields = Fields::of_query(query)?;
        let read = T::read(&mut fields);
        let read = fields.finish(read)?;
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
        Ok(Self(read, Params(pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect())))
    }
}
