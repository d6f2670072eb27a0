//! CORS: what scripts of other origins may read, for every route.

use aims::web::{
    API_PREFIX, console,
    demand::{Listed, Origins},
    routes,
};
use reqwest::Method;
use serde_json::Value;

use crate::{
    both,
    support::{Client, Database, Response, Server},
};

both!(
    every_route_allows_the_origins_of_its_table_row,
    no_origin_can_read_the_console,
    no_origin_can_read_the_api_by_default,
    errors_are_readable_where_responses_are,
    preflights_are_not_rate_limited_or_audited,
);

const APP: &str = "https://app.example";
const OTHER: &str = "https://other.example";
const ALLOWED: &str = "access-control-allow-origin";

async fn from(client: &Client, origin: &str, method: Method, path: &str) -> Response {
    client.send(client.request(method, path).header("origin", origin)).await
}

async fn preflight(client: &Client, origin: &str, method: &Method, path: &str) -> Response {
    let request = client.request(Method::OPTIONS, path).header("origin", origin);
    let request = request.header("access-control-request-method", method.as_str());
    client
        .send(request.header("access-control-request-headers", "authorization,content-type,dpop,mcp-protocol-version"))
        .await
}

/// Asserts that a response is readable by no other origin.
#[track_caller]
fn assert_no_origin_allowed(response: &Response) {
    assert!(!response.headers.keys().any(|name| name.as_str().starts_with("access-control-")), "{response:?}");
}

/// Returns the names in a header.
fn names(response: &Response, header: &str) -> Vec<String> {
    let mut names: Vec<_> =
        response.header(header).unwrap_or_default().split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    names.sort_unstable();
    names
}

/// Returns the paths of a route on every mount.
fn paths(route: &Listed) -> Vec<String> {
    let unknown = "00000000-0000-7000-8000-000000000000";
    let parts = ["{id}", "{key_id}", "{capability_id}", "{delegate_id}", "{identity_id}"];
    let path = parts.iter().fold(route.path.clone(), |path, part| path.replace(part, unknown));
    if route.is_prefixed { vec![format!("{API_PREFIX}{path}"), path] } else { vec![path] }
}

async fn every_route_allows_the_origins_of_its_table_row(db: Database) {
    let server = Server::start_with(db, &[("CORS_ORIGINS", &format!("{APP},https://second.example"))]).await;
    let anonymous = server.anonymous();
    let mut open = Vec::new();
    for route in routes::list() {
        if route.origins == Origins::Any {
            open.push(route.path.clone());
        }
        for path in paths(&route) {
            for origin in [APP, OTHER, "null"] {
                let expected = match route.origins {
                    Origins::Any => Some("*"),
                    Origins::Configured => Some(origin).filter(|origin| *origin == APP),
                    Origins::None => None,
                };
                let preflighted = preflight(&anonymous, origin, &route.method, &path).await;
                let response = from(&anonymous, origin, route.method.clone(), &path).await;
                for response in [&preflighted, &response] {
                    assert_eq!(response.header(ALLOWED), expected, "{origin} {route:?}: {response:?}");
                    assert_eq!(response.header("access-control-allow-credentials"), None, "{response:?}");
                    // Responses that depend on the origin must not be cached for another.
                    let varies = names(response, "vary").contains(&"origin".to_owned());
                    assert_eq!(varies, route.origins == Origins::Configured, "{route:?}: {response:?}");
                }
                if expected.is_none() {
                    continue;
                }
                assert_eq!((preflighted.status.as_u16(), preflighted.text.as_str()), (200, ""), "{preflighted:?}");
                assert!(
                    names(&preflighted, "access-control-allow-methods").contains(&route.method.as_str().to_lowercase())
                );
                let taken = [
                    "authorization",
                    "content-type",
                    "dpop",
                    "idempotency-key",
                    "if-match",
                    "if-none-match",
                    "mcp-protocol-version",
                    "x-api-key",
                ];
                assert_eq!(names(&preflighted, "access-control-allow-headers"), taken, "{preflighted:?}");
                assert_eq!(preflighted.header("access-control-max-age"), Some("600"));
                let exposed = [
                    "dpop-nonce",
                    "etag",
                    "idempotency-replayed",
                    "link",
                    "retry-after",
                    "www-authenticate",
                    "x-request-id",
                ];
                assert_eq!(names(&response, "access-control-expose-headers"), exposed, "{response:?}");
            }
        }
    }
    open.sort_unstable();
    let expected = [
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-protected-resource",
        "/.well-known/openid-configuration",
        "/oauth/revoke",
        "/oauth/token",
    ];
    assert_eq!(open, expected, "review who may read the new route, then list it here");
    // A preflight allows exactly the methods of the path.
    let preflighted = preflight(&anonymous, APP, &Method::DELETE, "/agents/x").await;
    assert_eq!(names(&preflighted, "access-control-allow-methods"), ["delete", "get", "patch"]);
    // An OPTIONS request that is not a preflight is an unsupported method.
    assert_eq!(from(&server.admin, APP, Method::OPTIONS, "/agents").await.status, 405);
}

async fn no_origin_can_read_the_console(db: Database) {
    let server = Server::start_with(db, &[("CORS_ORIGINS", APP)]).await;
    let anonymous = server.anonymous();
    let mut pages: Vec<_> =
        console::routes::list().into_iter().map(|route| (route.method, route.path, route.origins)).collect();
    for path in [
        "/",
        "/console/",
        "/console/nothing",
        "/console/oauth/token",
        console::page::assets::SCRIPT,
        "/docs/",
        "/openapi.json",
    ] {
        pages.push((Method::GET, path.to_owned(), Origins::None));
    }
    for (method, path, origins) in pages {
        assert_eq!(origins, Origins::None, "{path}");
        assert_no_origin_allowed(&preflight(&anonymous, APP, &method, &path).await);
        assert_no_origin_allowed(&from(&anonymous, APP, method, &path).await);
    }
}

async fn no_origin_can_read_the_api_by_default(db: Database) {
    let server = Server::start(db).await;
    for route in routes::list().into_iter().filter(|route| route.origins == Origins::Configured) {
        for path in paths(&route) {
            assert_no_origin_allowed(&preflight(&server.admin, APP, &route.method, &path).await);
            let response = from(&server.admin, APP, route.method.clone(), &path).await;
            assert_no_origin_allowed(&response);
            assert_eq!(response.header("vary"), None);
        }
    }
}

async fn errors_are_readable_where_responses_are(db: Database) {
    let options = [("CORS_ORIGINS", APP), ("RATE_LIMIT_AUTH_PER_MINUTE", "3"), ("RATE_LIMIT_API_PER_MINUTE", "3")];
    let server = Server::start_with(db, &options).await;
    let anonymous = server.anonymous();
    for (method, path, status) in [
        (Method::GET, "/oauth/nothing", 404),
        (Method::GET, "/.well-known/nothing", 404),
        (Method::DELETE, "/oauth/token", 405),
    ] {
        let response = from(&anonymous, OTHER, method, path).await;
        assert_eq!((response.status.as_u16(), response.header(ALLOWED)), (status, Some("*")), "{response:?}");
    }
    let api = from(&anonymous, APP, Method::GET, "/agents").await;
    assert_eq!((api.status.as_u16(), api.header(ALLOWED)), (401, Some(APP)), "{api:?}");
    assert!(api.header("www-authenticate").is_some());
    let mut seen = Vec::new();
    for _ in 0..4 {
        // The administrator's login was one of the three.
        let request = anonymous.request(Method::POST, "/oauth/token").header("origin", OTHER).header("dpop", "junk");
        let response = anonymous.send(request.form(&[("grant_type", "client_credentials")])).await;
        assert_eq!(response.header(ALLOWED), Some("*"), "{response:?}");
        seen.push((response.status.as_u16(), response.header("retry-after").is_some()));
    }
    assert_eq!(seen[2..], [(429, true), (429, true)], "{seen:?}");
    let preflighted = preflight(&anonymous, OTHER, &Method::POST, "/oauth/token").await;
    assert_eq!(
        (preflighted.status.as_u16(), preflighted.header(ALLOWED), preflighted.header("ratelimit")),
        (200, Some("*"), None)
    );
}

async fn preflights_are_not_rate_limited_or_audited(db: Database) {
    let options = [("CORS_ORIGINS", APP), ("RATE_LIMIT_AUTH_PER_MINUTE", "2"), ("RATE_LIMIT_API_PER_MINUTE", "2")];
    let server = Server::start_with(db, &options).await;
    let anonymous = server.anonymous();
    let records = server.db.count("SELECT COUNT(*) FROM audit_log").await;
    for _ in 0..5 {
        for (origin, path) in [(OTHER, "/oauth/token"), (OTHER, "/oauth/revoke"), (APP, "/agents"), (OTHER, "/agents")]
        {
            let preflighted = preflight(&anonymous, origin, &Method::POST, path).await;
            assert_eq!((preflighted.status.as_u16(), preflighted.header("ratelimit")), (200, None), "{preflighted:?}");
            assert!(
                preflighted.header("x-request-id").is_some() && preflighted.header("x-content-type-options").is_some()
            );
        }
    }
    assert_eq!(server.db.count("SELECT COUNT(*) FROM audit_log").await, records);
    anonymous.exchange(&server.admin_key).await.expect(200);
    assert!(
        server
            .admin
            .get("/agents")
            .await
            .expect(200)
            .as_array()
            .is_some_and(|agents| agents.iter().all(Value::is_object))
    );
}
