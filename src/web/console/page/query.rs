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

/// An active filter.
pub(in crate::web::console) struct Chip {
    pub(in crate::web::console) label: &'static str,
    pub(in crate::web::console) value: String,
    /// The list without the filter.
    pub(in crate::web::console) href: String,
}

impl Params {
    /// Parses a query string.
    pub(in crate::web::console) fn parse(query: &str) -> Self {
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
        Self(pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }

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

    /// Returns a chip for each of these parameters that is present: its label, its value and a link that removes it.
    /// A filter that is removed also leaves the current page of the list.
    pub(in crate::web::console) fn chips(&self, path: &str, labels: &[(&str, &'static str)]) -> Vec<Chip> {
        let chip = |&(name, label): &(&str, &'static str)| {
            let value = self.get(name);
            let href = self.with(name, "").with("cursor", "").href(path);
            (!value.is_empty()).then(|| Chip { label, value: value.to_owned(), href })
        };
        labels.iter().filter_map(chip).collect()
    }

    pub(in crate::web::console) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

/// Returns the part of an API key in `text` that pages may show, and whether `text` contains more of the key than that.
pub(in crate::web::console) fn shown_part_of_key(text: &str) -> Option<(&str, bool)> {
    const SCHEME: &str = "aims_";
    const SHOWN: usize = SCHEME.len() + 8;
    let key = text.get(text.find(SCHEME)?..)?;
    let digits = key.bytes().skip(SCHEME.len()).take_while(u8::is_ascii_alphanumeric).count();
    let length = SCHEME.len() + digits;
    Some((key.get(..length.min(SHOWN))?, length > SHOWN))
}

impl<T: FromQuery, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = parts.uri.query().unwrap_or_default();
        let mut fields = Fields::of_query(query)?;
        let read = T::read(&mut fields);
        let read = fields.finish(read)?;
        Ok(Self(read, Params::parse(query)))
    }
}
