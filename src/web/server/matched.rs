//! Finds the route of a request before the request is routed, so that rejected requests have one as well.

use std::{collections::BTreeMap, sync::Arc};

use http::Method;

use crate::{
    telemetry::metrics::RouteNumber,
    web::{console, demand::API_PREFIX, docs, routes},
};

/// Returns the method and the path of every route. A route that is also served without the prefix of the API is listed
/// once, with the prefix.
#[must_use]
pub fn list() -> Vec<(Method, String)> {
    let table = routes::list().into_iter().chain(console::routes::list());
    let listed = table.map(|route| {
        let prefix = if route.is_prefixed { API_PREFIX } else { "" };
        (route.method, format!("{prefix}{}", route.path))
    });
    let others = docs::PATHS.into_iter().chain(console::OTHER_PATHS);
    listed.chain(others.map(|path| (Method::GET, path.to_owned()))).collect()
}

/// The route of a request.
pub(in crate::web) struct Matched {
    /// The path with `{placeholders}`, for the access log and traces. `None` if no route has the path.
    pub(in crate::web) template: Option<Arc<str>>,
    /// The route that answers, for the metrics.
    pub(in crate::web) number: RouteNumber,
}

struct Template {
    path: Arc<str>,
    methods: Vec<(Method, RouteNumber)>,
}

/// The routes of [`list`] by their path.
pub(in crate::web) struct Routes(matchit::Router<Template>);

impl Routes {
    /// # Panics
    /// Never: the router has the same paths and would have rejected conflicts.
    #[expect(clippy::expect_used, reason = "see above")]
    pub(in crate::web) fn new() -> Self {
        let mut paths = BTreeMap::<String, Vec<(Method, RouteNumber)>>::new();
        for (place, (method, path)) in list().into_iter().enumerate() {
            let without_prefix = path.strip_prefix(API_PREFIX).map(str::to_owned);
            for path in without_prefix.into_iter().chain([path]) {
                paths.entry(path).or_default().push((method.clone(), RouteNumber::at(place)));
            }
        }
        let mut router = matchit::Router::new();
        for (path, methods) in paths {
            let template = Template { path: path.as_str().into(), methods };
            router.insert(path, template).expect("paths that do not conflict");
        }
        Self(router)
    }

    /// Returns the route of a request.
    pub(in crate::web) fn find(&self, method: &Method, path: &str) -> Matched {
        let Ok(found) = self.0.at(path) else { return Matched { template: None, number: RouteNumber::UNMATCHED } };
        // Routes for GET also answer HEAD.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let route = found.value.methods.iter().find(|(known, _)| known == method);
        let number = route.map_or(RouteNumber::UNMATCHED, |(_, number)| *number);
        Matched { template: Some(found.value.path.clone()), number }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_template_of_its_route() {
        let routes = Routes::new();
        let template = |path| routes.find(&Method::GET, path).template.map(|template| template.to_string());
        assert_eq!(template("/agents/7").as_deref(), Some("/agents/{id}"));
        assert_eq!(template("/api/v1/agents/7/keys").as_deref(), Some("/api/v1/agents/{id}/keys"));
        assert_eq!(template("/console/agents").as_deref(), Some("/console/agents"));
        assert_eq!(template("/console/no/page"), None);
        assert_eq!(template("/other"), None);
    }

    #[test]
    fn a_path_without_the_method_has_a_template_and_no_number() {
        let routes = Routes::new();
        let found = routes.find(&Method::PUT, "/agents/7");
        assert!(found.template.is_some());
        assert_eq!(found.number, RouteNumber::UNMATCHED);
        let [get, head] = [Method::GET, Method::HEAD].map(|method| routes.find(&method, "/agents/7").number);
        assert_eq!(get, head);
        assert_ne!(get, RouteNumber::UNMATCHED);
    }
}
