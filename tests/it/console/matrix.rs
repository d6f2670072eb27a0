//! The authorisation matrix: every page and form × every role, from the route table.

use aims::{
    domain::Role,
    web::{console::routes, demand::Demand},
};
use reqwest::Method;

use crate::{
    both,
    support::{Browser, Database, Page, Server},
};

both!(every_page_requires_its_role);

async fn every_page_requires_its_role(db: Database) {
    let server = Server::start_with(db, &[("AUDIT_REFUSALS_PER_MINUTE", "1000000")]).await;
    server.person("keeper", Role::Owner).await;
    let people = [
        (Some(Role::Viewer), server.signed_in("viewer", Role::Viewer).await),
        (Some(Role::Operator), server.signed_in("operator", Role::Operator).await),
        (Some(Role::Owner), server.signed_in("owner", Role::Owner).await),
        (None, server.browser()),
    ];
    let mut guarded = 0;
    for route in routes::list() {
        let Demand::Action(action) = route.demand else { continue };
        // These end the session that the remaining rows need, or stream events without end.
        if ["/console/sign-out", "/console/confirm", "/console/confirm/passkey", "/console/audit/tail"]
            .contains(&route.path.as_str())
        {
            continue;
        }
        guarded += 1;
        for (role, browser) in &people {
            let page = call(browser, &route.method, &route.path).await;
            let status = page.status.as_u16();
            match role {
                None if route.method == Method::GET => {
                    assert!(page.location().starts_with("/console/sign-in?"), "{route:?}: {page:?}");
                }
                None => assert_eq!(status, 401, "{route:?}"),
                Some(role) if *role >= action.demands_role() => {
                    let let_in = [200, 303, 400, 404, 409, 422].contains(&status);
                    assert!(let_in, "{role:?} must be able to access {route:?}: {status} {}", page.text);
                }
                Some(role) => {
                    assert_eq!(status, 403, "{role:?} must not be able to access {route:?}");
                    page.shows("This action requires the role");
                }
            }
        }
    }
    assert_eq!(guarded, 117, "review who may access the new page, then update this count");

    // Forms without authority leave an audit record of the attempt.
    let denied = server.audited("authz.denied").await;
    assert!(denied.iter().any(|record| record["details_json"].as_str().unwrap().contains("\"role\":\"owner\"")));
    assert!(denied.iter().all(|record| !record["agent_id"].is_null() && record["success"] == 0));
    assert_eq!(server.admin.get("/agents").await.expect(200).as_array().unwrap().len(), 1, "nothing must be created");
}

/// Calls a route for something that does not exist, or with an invalid form, so that only authorisation can reject it
/// with 403.
async fn call(browser: &Browser, method: &Method, path: &str) -> Page {
    let unknown = "00000000-0000-7000-8000-000000000000";
    let path = ["{id}", "{key}", "{capability}", "{seq}"]
        .iter()
        .fold(path.to_owned(), |path, part| path.replace(part, unknown));
    if method == Method::GET { browser.get(&path).await } else { browser.post(&path, &[("end", unknown)]).await }
}
