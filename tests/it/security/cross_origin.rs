//! What scripts of other origins may read in a browser, route by route.

use aims::web::{
    API_PREFIX, console,
    routes::{self, Listed, Origins},
};
use reqwest::Method;
use serde_json::Value;

use crate::{
    both,
    support::{Answer, Client, Database, Server},
};

both!(
    every_route_answers_the_origins_that_its_row_says,
    no_origin_reads_the_console,
    by_default_no_origin_reads_the_api,
    errors_can_be_read_where_answers_can,
    a_preflight_is_neither_counted_nor_recorded,
);

const APP: &str = "https://app.example";
const OTHER: &str = "https://other.example";
const ALLOWED: &str = "access-control-allow-origin";

async fn from(client: &Client, origin: &str, method: Method, path: &str) -> Answer {
    client.send(client.request(method, path).header("origin", origin)).await
}

async fn preflight(client: &Client, origin: &str, method: &Method, path: &str) -> Answer {
    let request = client.request(Method::OPTIONS, path).header("origin", origin);
    let request = request.header("access-control-request-method", method.as_str());
    client
        .send(request.header("access-control-request-headers", "authorization,content-type,dpop,mcp-protocol-version"))
        .await
}

/// Asserts that a response allows no other origin.
#[track_caller]
fn assert_closed(answer: &Answer) {
    assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control-")), "{answer:?}");
}

/// The names in a header.
fn names(answer: &Answer, header: &str) -> Vec<String> {
    let mut names: Vec<_> =
        answer.header(header).unwrap_or_default().split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    names.sort_unstable();
    names
}

/// The paths of a route, wherever it is mounted.
fn paths(route: &Listed) -> Vec<String> {
    let nobody = "00000000-0000-7000-8000-000000000000";
    let parts = ["{id}", "{key_id}", "{capability_id}", "{delegate_id}", "{identity_id}"];
    let path = parts.iter().fold(route.path.clone(), |path, part| path.replace(part, nobody));
    if route.is_prefixed { vec![format!("{API_PREFIX}{path}"), path] } else { vec![path] }
}

async fn every_route_answers_the_origins_that_its_row_says(db: Database) {
    let server = Server::with(db, &[("CORS_ORIGINS", &format!("{APP},https://second.example"))]).await;
    let anybody = server.anybody();
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
                let asked = preflight(&anybody, origin, &route.method, &path).await;
                let answer = from(&anybody, origin, route.method.clone(), &path).await;
                for answer in [&asked, &answer] {
                    assert_eq!(answer.header(ALLOWED), expected, "{origin} {route:?}: {answer:?}");
                    assert_eq!(answer.header("access-control-allow-credentials"), None, "{answer:?}");
                    // What depends on the origin must not be kept for another.
                    let varies = names(answer, "vary").contains(&"origin".to_owned());
                    assert_eq!(varies, route.origins == Origins::Configured, "{route:?}: {answer:?}");
                }
                if expected.is_none() {
                    continue;
                }
                assert_eq!((asked.status.as_u16(), asked.text.as_str()), (200, ""), "{asked:?}");
                assert!(names(&asked, "access-control-allow-methods").contains(&route.method.as_str().to_lowercase()));
                let taken = ["authorization", "content-type", "dpop", "mcp-protocol-version", "x-api-key"];
                assert_eq!(names(&asked, "access-control-allow-headers"), taken, "{asked:?}");
                assert_eq!(asked.header("access-control-max-age"), Some("600"));
                let exposed = ["dpop-nonce", "link", "retry-after", "www-authenticate", "x-request-id"];
                assert_eq!(names(&answer, "access-control-expose-headers"), exposed, "{answer:?}");
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
    assert_eq!(open, expected, "a new route belongs here, once somebody has thought about who may read it");
    // A path allows the methods that it has, and no other.
    let asked = preflight(&anybody, APP, &Method::DELETE, "/agents/x").await;
    assert_eq!(names(&asked, "access-control-allow-methods"), ["delete", "get", "patch"]);
    // What is no preflight is a method that the route does not have.
    assert_eq!(from(&server.admin, APP, Method::OPTIONS, "/agents").await.status, 405);
}

async fn no_origin_reads_the_console(db: Database) {
    let server = Server::with(db, &[("CORS_ORIGINS", APP)]).await;
    let anybody = server.anybody();
    let mut pages: Vec<_> =
        console::routes::list().into_iter().map(|route| (route.method, route.path, route.origins)).collect();
    for path in [
        "/",
        "/console/",
        "/console/nothing",
        "/console/oauth/token",
        console::assets::SCRIPT,
        "/docs/",
        "/openapi.json",
    ] {
        pages.push((Method::GET, path.to_owned(), Origins::None));
    }
    for (method, path, origins) in pages {
        assert_eq!(origins, Origins::None, "{path}");
        assert_closed(&preflight(&anybody, APP, &method, &path).await);
        assert_closed(&from(&anybody, APP, method, &path).await);
    }
}

async fn by_default_no_origin_reads_the_api(db: Database) {
    let server = Server::start(db).await;
    for route in routes::list().into_iter().filter(|route| route.origins == Origins::Configured) {
        for path in paths(&route) {
            assert_closed(&preflight(&server.admin, APP, &route.method, &path).await);
            let answer = from(&server.admin, APP, route.method.clone(), &path).await;
            assert_closed(&answer);
            assert_eq!(answer.header("vary"), None);
        }
    }
}

async fn errors_can_be_read_where_answers_can(db: Database) {
    let options = [("CORS_ORIGINS", APP), ("RATE_LIMIT_AUTH_PER_MINUTE", "3"), ("RATE_LIMIT_API_PER_MINUTE", "3")];
    let server = Server::with(db, &options).await;
    let anybody = server.anybody();
    for (method, path, status) in [
        (Method::GET, "/oauth/nothing", 404),
        (Method::GET, "/.well-known/nothing", 404),
        (Method::DELETE, "/oauth/token", 405),
    ] {
        let answer = from(&anybody, OTHER, method, path).await;
        assert_eq!((answer.status.as_u16(), answer.header(ALLOWED)), (status, Some("*")), "{answer:?}");
    }
    let api = from(&anybody, APP, Method::GET, "/agents").await;
    assert_eq!((api.status.as_u16(), api.header(ALLOWED)), (401, Some(APP)), "{api:?}");
    assert!(api.header("www-authenticate").is_some());
    let mut seen = Vec::new();
    for _ in 0..4 {
        // The administrator's login was one of the three.
        let request = anybody.request(Method::POST, "/oauth/token").header("origin", OTHER).header("dpop", "junk");
        let answer = anybody.send(request.form(&[("grant_type", "client_credentials")])).await;
        assert_eq!(answer.header(ALLOWED), Some("*"), "{answer:?}");
        seen.push((answer.status.as_u16(), answer.header("retry-after").is_some()));
    }
    assert_eq!(seen[2..], [(429, true), (429, true)], "{seen:?}");
    let asked = preflight(&anybody, OTHER, &Method::POST, "/oauth/token").await;
    assert_eq!((asked.status.as_u16(), asked.header(ALLOWED), asked.header("ratelimit")), (200, Some("*"), None));
}

async fn a_preflight_is_neither_counted_nor_recorded(db: Database) {
    let options = [("CORS_ORIGINS", APP), ("RATE_LIMIT_AUTH_PER_MINUTE", "2"), ("RATE_LIMIT_API_PER_MINUTE", "2")];
    let server = Server::with(db, &options).await;
    let anybody = server.anybody();
    let records = server.db.count("SELECT COUNT(*) FROM audit_log").await;
    for _ in 0..5 {
        for (origin, path) in [(OTHER, "/oauth/token"), (OTHER, "/oauth/revoke"), (APP, "/agents"), (OTHER, "/agents")]
        {
            let asked = preflight(&anybody, origin, &Method::POST, path).await;
            assert_eq!((asked.status.as_u16(), asked.header("ratelimit")), (200, None), "{asked:?}");
            assert!(asked.header("x-request-id").is_some() && asked.header("x-content-type-options").is_some());
        }
    }
    assert_eq!(server.db.count("SELECT COUNT(*) FROM audit_log").await, records);
    anybody.exchange(&server.admin_key).await.expect(200);
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
