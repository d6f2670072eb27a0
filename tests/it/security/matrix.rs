//! Every route × every kind of caller, from the one table of routes.

use aims::web::{
    API_PREFIX,
    routes::{self, Demand, Listed},
};
use reqwest::Method;
use serde_json::json;

use crate::{
    both,
    support::{Agent, Answer, Client, Database, Server},
};

both!(every_route_refuses_whom_its_row_says);

const BUILT_IN: [&str; 6] =
    ["agents:read", "agents:write", "keys:manage", "audit:read", "tokens:introspect", "admin:*"];

async fn every_route_refuses_whom_its_row_says(db: Database) {
    let server = Server::start(db).await;
    let mut holders = vec![(server.agent("nothing", &[]).await, None)];
    for (n, capability) in BUILT_IN.into_iter().enumerate() {
        holders.push((server.agent(&format!("holder-{n}"), &[capability]).await, Some(capability)));
    }
    let suspended = server.agent("suspended", &["admin:*"]).await;
    let revoked = server.agent("revoked", &["admin:*"]).await;
    let deleted = server.agent("deleted", &["admin:*"]).await;
    server.admin.post_empty(&format!("/agents/{}/suspend", suspended.id)).await.expect(200);
    server.admin.post_empty(&format!("/agents/{}/revoke", revoked.id)).await.expect(200);
    server.admin.delete(&format!("/agents/{}", deleted.id)).await.expect(204);

    let mut guarded = 0;
    for route in routes::list() {
        let Demand::Action(action) = route.demand else {
            let answer = call(&server.anybody(), &route, "").await;
            assert!(![401, 403].contains(&answer.status.as_u16()), "{route:?} is for anybody: {answer:?}");
            continue;
        };
        guarded += 1;
        for mount in ["", API_PREFIX] {
            call(&server.anybody(), &route, mount).await.refused(401, "Not authenticated");
            call(&server.anybody().with_token("junk"), &route, mount).await.refused(401, "Invalid or expired token");
            for gone in [&suspended, &revoked, &deleted] {
                call(&gone.client, &route, mount).await.refused(401, "Invalid or expired token");
            }
            for (holder, capability) in &holders {
                let answer = call(&holder.client, &route, mount).await;
                if capability.is_some_and(|held| held == action.demands() || held == "admin:*") {
                    assert_eq!(answer.status, 404, "{route:?} must let {capability:?} ask: {answer:?}");
                } else {
                    answer.refused(403, &format!("Missing required capability: {}", action.demands()));
                }
            }
        }
    }
    assert_eq!(guarded, 35, "a new route belongs into this count, once somebody has thought about who may call it");
    same_on_oneself(&server, &holders).await;
}

/// Being the target gives no right: an agent without `agents:read` may not even read itself.
async fn same_on_oneself(server: &Server, holders: &[(Agent, Option<&str>)]) {
    for (holder, capability) in holders {
        let path = format!("/agents/{}", holder.id);
        let may_read = capability.is_some_and(|held| ["agents:read", "admin:*"].contains(&held));
        holder.client.get(&path).await.expect(if may_read { 200 } else { 403 });
        for act in ["suspend", "revoke"] {
            let expected = if *capability == Some("admin:*") { 400 } else { 403 };
            holder.client.post_empty(&format!("{path}/{act}")).await.expect(expected);
        }
    }
    assert_eq!(server.admin.get("/agents?status=revoked").await.expect(200).as_array().unwrap().len(), 1);
}

/// Calls a route upon what does not exist, or with what is valid and known, so that nothing but authority refuses.
async fn call(client: &Client, route: &Listed, mount: &str) -> Answer {
    let nobody = "00000000-0000-7000-8000-000000000000";
    let mut path = route.path.replace("{id}", nobody).replace("{key_id}", nobody).replace("{capability_id}", nobody);
    path = path.replace("{delegate_id}", nobody).replace("{identity_id}", nobody);
    // Listings and registrations name nobody: a page that is not there makes them answer 404 like the others.
    let body = match (route.method.as_str(), route.path.as_str()) {
        ("POST", path) if path.ends_with("/capabilities") => json!({ "capability_id": nobody, "name": "" }),
        ("POST", path) if path.ends_with("/public-keys") => json!({
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        }),
        ("POST", path) if path.ends_with("/federated-identities") => {
            json!({ "issuer": "https://issuer.example", "audience": "aims", "claims": { "sub": "x" } })
        }
        ("POST", path) if path.ends_with("/delegates") => json!({ "delegate_id": nobody }),
        _ => json!({}),
    };
    if route.is_prefixed {
        path = format!("{mount}{path}");
    }
    let answer = client.send(client.request(route.method.clone(), &path).json(&body)).await;
    let names_somebody = route.path.contains('{');
    // What names nobody is let in when it is answered, or refused for its fields.
    if !names_somebody && [200, 422].contains(&answer.status.as_u16()) && matches!(route.demand, Demand::Action(_)) {
        return Answer { status: reqwest::StatusCode::NOT_FOUND, ..answer };
    }
    answer
}

#[test]
fn only_what_must_be_open_is_open() {
    let open: Vec<_> = routes::list()
        .into_iter()
        .filter(|route| !matches!(route.demand, Demand::Action(_)))
        .map(|route| (route.method, route.path))
        .collect();
    let expected = [
        (Method::GET, "/_health"),
        (Method::POST, "/auth/token"),
        (Method::POST, "/oauth/token"),
        (Method::POST, "/oauth/revoke"),
        (Method::POST, "/oauth/introspect"),
        (Method::GET, "/oauth/authorize"),
        (Method::GET, "/.well-known/jwks.json"),
        (Method::GET, "/.well-known/oauth-authorization-server"),
        (Method::GET, "/.well-known/openid-configuration"),
        (Method::GET, "/.well-known/oauth-protected-resource"),
    ];
    assert_eq!(open, expected.map(|(method, path)| (method, path.to_owned())));
}
