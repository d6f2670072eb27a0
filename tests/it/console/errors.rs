//! Error pages.

use aims::{domain::Role, web::console::routes};
use reqwest::{Method, header};

use crate::{
    both,
    support::{Database, PASSWORD, Server},
};

both!(
    signed_in_users_are_not_asked_to_sign_in,
    changing_ones_own_role_is_confirmed,
    opened_form_address_leads_to_its_page,
    live_search_returns_to_its_filter_after_signing_in,
    sign_in_page_says_where_the_setup_link_is,
);

const UNKNOWN_ID: &str = "00000000-0000-7000-8000-000000000000";

async fn signed_in_users_are_not_asked_to_sign_in(db: Database) {
    let server = Server::start(db).await;
    server.person("keeper", Role::Owner).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let unknown = "00000000-0000-7000-8000-000000000000";
    for (path, status) in [
        ("/console/nowhere".to_owned(), 404),
        (format!("/console/agents/{unknown}"), 404),
        ("/console/agents/new".to_owned(), 403),
        ("/console/agents?status=asleep".to_owned(), 422),
    ] {
        let page = browser.get(&path).await.expect(status);
        page.shows("Go to overview");
        assert!(!page.text.contains("/console/sign-in"), "{path}: {}", page.text);
    }
    server.browser().get("/console/nowhere").await.expect(404).shows("/console/sign-in");

    // These fail before the guard of the page.
    for request in [
        browser.request(Method::PUT, "/console/agents").header("sec-fetch-site", "same-origin"),
        browser.request(Method::POST, "/console/agents/new").header("sec-fetch-site", "same-origin"),
        browser.request(Method::POST, "/console/theme").header("sec-fetch-site", "cross-site"),
        browser
            .request(Method::POST, "/console/agents")
            .header("sec-fetch-site", "same-origin")
            .body("x".repeat(300_000)),
    ] {
        let page = browser.send(request).await;
        assert!([403, 405, 413].contains(&page.status.as_u16()), "{page:?}");
        page.shows("Go to overview");
        assert!(!page.text.contains("/console/sign-in"), "{}", page.text);
    }
}

async fn opened_form_address_leads_to_its_page(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("planner", &[]).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let routes = routes::list();
    let is_page = |path: &str| routes.iter().any(|route| route.method == Method::GET && route.path == path);
    let mut explained = 0;
    for route in routes.iter().filter(|route| route.method == Method::POST && !is_page(&route.path)) {
        let parts = ["{key}", "{capability}"];
        let path = route.path.replace("{id}", &agent.id);
        let path = parts.iter().fold(path, |path, part| path.replace(part, UNKNOWN_ID));
        let page = browser.get(&path).await.expect(405);
        assert_eq!(page.headers[header::ALLOW], "POST", "{path}");
        page.shows("This address only accepts form submissions").shows("Opening it directly does nothing");
        assert!(!page.text.contains("/console/sign-in\""), "{path}: {}", page.text);
        let (_, after) = page.text.split_once("button--primary\" href=\"").unwrap();
        let target = after.split('"').next().unwrap().to_owned();
        assert!(path.starts_with(&target), "{path} leads to {target}");
        // The ID is that of an agent, so pages of other things do not exist.
        let status = browser.get(&target).await.status.as_u16();
        assert!(
            matches!(status, 200 | 303) || (status == 404 && !target.starts_with("/console/agents")),
            "{target}: {status}"
        );
        let page = server.browser().get(&path).await.expect(303);
        assert!(path.starts_with(page.location()), "{path} leads to {}", page.location());
        explained += 1;
    }
    assert!(explained >= 25, "{explained}");
    let reactivate = browser.get(&format!("/console/agents/{}/reactivate?from=list", agent.id)).await.expect(405);
    reactivate.shows(&format!("href=\"/console/agents/{}\"", agent.id)).shows("(reactivate)");
}

async fn live_search_returns_to_its_filter_after_signing_in(db: Database) {
    let server = Server::start(db).await;
    server.person("zoe", Role::Owner).await;
    let browser = server.browser();
    let htmx = |path: &str, current: &str| {
        let request = browser.request(Method::GET, path).header("hx-request", "true");
        request.header("hx-current-url", format!("{}{current}", server.url))
    };
    for (path, current, next) in [
        // The filter that was just typed, rather than the one that the page was loaded with.
        (
            "/console/agents?q=planner&status=active",
            "/console/agents",
            "%2Fconsole%2Fagents%3Fq%3Dplanner%26status%3Dactive",
        ),
        ("/console/agents?q=planner", "/console/agents?q=old#results", "%2Fconsole%2Fagents%3Fq%3Dplanner"),
        ("/console/palette?q=x", "/console/audit?action=agent.created", "%2Fconsole%2Faudit%3Faction%3Dagent.created"),
        ("/console/palette?q=x", "/elsewhere", "%2Fconsole%2Fpalette%3Fq%3Dx"),
    ] {
        let page = browser.send(htmx(path, current)).await.expect(200);
        assert_eq!(page.headers["hx-redirect"], format!("/console/sign-in?next={next}"), "{path} from {current}");
        assert_eq!((page.text.as_str(), page.location()), ("", ""));
    }
    let form = [("username", "zoe"), ("password", PASSWORD), ("next", "/console/agents?q=planner")];
    browser.post("/console/sign-in", &form).await.redirects_to("/console/agents?q=planner");
}

async fn sign_in_page_says_where_the_setup_link_is(db: Database) {
    let server = Server::start(db).await;
    let browser = server.browser();
    let hint = "Create the first owner with the setup link";
    let page = browser.get("/console/sign-in").await.expect(200);
    page.shows(hint).shows("aims.bootstrap").shows("aims setup-token").shows("The earlier link then stops working");
    let form = [("username", "zoe"), ("password", PASSWORD)];
    browser.post("/console/sign-in", &form).await.expect(401).shows(hint);
    browser.get("/console/setup?token=junk").await.expect(403).shows("a newer link replaced it");
    server.person("zoe", Role::Owner).await;
    assert!(!browser.get("/console/sign-in").await.expect(200).text.contains(hint));
}

async fn changing_ones_own_role_is_confirmed(db: Database) {
    let server = Server::start(db).await;
    server.person("keeper", Role::Owner).await;
    let zoe = server.person("zoe", Role::Owner).await;
    let browser = server.sign_in("zoe").await;
    let form = [("display_name", "Zoe"), ("role", "viewer")];
    browser.post(&format!("/console/administrators/{zoe}"), &form).await.redirects_to("/console");
    browser.get("/console").await.expect(200).shows("Zoe saved. You are no longer an owner.");
}
