//! Forms that another site makes a browser submit.

use aims::{domain::Role, web::console::routes};
use reqwest::Method;

use crate::{
    both,
    support::{Database, PASSWORD, Server},
};

both!(
    forms_of_other_origins_are_rejected,
    forms_of_the_console_are_accepted,
    pages_cannot_be_framed_and_run_only_own_scripts
);

/// Headers that a browser or another program may send with a form that did not come from the console.
const FOREIGN_ORIGINS: [&[(&str, &str)]; 8] = [
    &[],
    &[("sec-fetch-site", "cross-site")],
    &[("sec-fetch-site", "same-site")],
    &[("sec-fetch-site", "none")],
    &[("sec-fetch-site", "cross-site"), ("origin", "https://aims.test")],
    &[("origin", "https://evil.example")],
    &[("origin", "null")],
    &[("origin", "https://aims.test.evil.example"), ("referer", "https://aims.test/console")],
];

async fn forms_of_other_origins_are_rejected(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let unknown = "00000000-0000-7000-8000-000000000000";
    let before = server.audited("console.signed_out").await.len();
    let mut refused = 0;
    for route in routes::list().into_iter().filter(|route| route.method == Method::POST) {
        let path = ["{id}", "{key}", "{capability}"].iter().fold(route.path, |path, part| path.replace(part, unknown));
        for headers in FOREIGN_ORIGINS {
            let mut request = browser.request(Method::POST, &path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let page = browser.send(request.form(&[("username", "zoe"), ("password", PASSWORD)])).await.expect(403);
            page.shows("did not come from the console");
            assert!(!page.headers.contains_key("set-cookie"));
            refused += 1;
        }
    }
    assert!(refused >= 60, "{refused}");
    assert_eq!(server.audited("console.signed_out").await.len(), before);
    browser.get("/console/account").await.expect(200);
}

async fn forms_of_the_console_are_accepted(db: Database) {
    // Browsers serialize an origin in one form, however the operator spelled it.
    let server = Server::start_with(db, &[("PUBLIC_URL", "HTTPS://AIMS.test:443/")]).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let host = server.url.replace("http://", "");
    for headers in [
        vec![("sec-fetch-site", "same-origin".to_owned())],
        vec![("origin", "https://aims.test".to_owned())],
        vec![("origin", format!("http://{host}"))],
    ] {
        let mut request = browser.request(Method::POST, "/console/theme");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        browser.send(request.form(&[("theme", "dark"), ("back", "/console/keys")])).await.redirects_to("/console/keys");
    }
    assert!(browser.get("/console/keys").await.text.contains("data-theme=\"dark\""));
}

async fn pages_cannot_be_framed_and_run_only_own_scripts(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let unknown = "00000000-0000-7000-8000-000000000000";
    for route in routes::list() {
        if route.path == "/console/audit/tail" || route.path == "/console/sign-out" {
            continue;
        }
        let parts = ["{id}", "{key}", "{capability}", "{seq}"];
        let path = parts.iter().fold(route.path, |path, part| path.replace(part, unknown));
        let page = if route.method == Method::GET { browser.get(&path).await } else { browser.post(&path, &[]).await };
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert_eq!(page.headers["x-frame-options"], "DENY", "{path}");
        assert_eq!(page.headers["cache-control"], "no-store", "{path}");
        for wanted in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "require-trusted-types-for"] {
            assert!(policy.contains(wanted), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        for mark in ["<script>", "<style", " style=", " onclick=", "javascript:"] {
            assert!(!page.text.contains(mark), "{path} contains {mark}");
        }
    }
}
