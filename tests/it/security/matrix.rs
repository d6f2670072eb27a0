//! The authorisation matrix of the API: every route × every capability, from the route table.

use aims::web::{
    API_PREFIX,
    demand::{Demand, Listed},
    routes,
};
use reqwest::Method;
use serde_json::json;

use crate::{
    both,
    support::{Agent, Client, Database, Response, Server},
};

both!(every_route_requires_its_capability);

const BUILT_IN: [&str; 6] =
    ["agents:read", "agents:write", "keys:manage", "audit:read", "tokens:introspect", "admin:*"];

async fn every_route_requires_its_capability(db: Database) {
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
            let response = call(&server.anonymous(), &route, "").await;
            assert!(![401, 403].contains(&response.status.as_u16()), "{route:?} is public: {response:?}");
            continue;
        };
        guarded += 1;
        for mount in ["", API_PREFIX] {
            call(&server.anonymous(), &route, mount).await.refused(401, "Not authenticated");
            call(&server.anonymous().with_token("junk"), &route, mount).await.refused(401, "Invalid or expired token");
            for gone in [&suspended, &revoked, &deleted] {
                call(&gone.client, &route, mount).await.refused(401, "Invalid or expired token");
            }
            for (holder, capability) in &holders {
                let response = call(&holder.client, &route, mount).await;
                if capability.is_some_and(|held| held == action.demands() || held == "admin:*") {
                    assert_eq!(response.status, 404, "{route:?} must let {capability:?} ask: {response:?}");
                } else {
                    response.refused(403, &format!("Missing required capability: {}", action.demands()));
                }
            }
        }
    }
    assert_eq!(guarded, 39, "review who may call the new route, then update this count");
    assert_no_authority_over_oneself(&server, &holders).await;
}

/// Agents have no implicit authority over themselves: without `agents:read`, an agent cannot read its own data.
async fn assert_no_authority_over_oneself(server: &Server, holders: &[(Agent, Option<&str>)]) {
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

/// Calls a route for something that does not exist, or with a valid body, so that only authorisation can reject it.
async fn call(client: &Client, route: &Listed, mount: &str) -> Response {
    let unknown = "00000000-0000-7000-8000-000000000000";
    let mut path = route.path.replace("{id}", unknown).replace("{key_id}", unknown).replace("{capability_id}", unknown);
    path = path.replace("{delegate_id}", unknown).replace("{identity_id}", unknown);
    // Lists and creations name no object. An invalid page makes them return 404 like the others.
    let body = match (route.method.as_str(), route.path.as_str()) {
        ("POST", path) if path.ends_with("/capabilities") => json!({ "capability_id": unknown, "name": "" }),
        ("POST", path) if path.ends_with("/public-keys") => json!({
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        }),
        ("POST", path) if path.ends_with("/federated-identities") => {
            json!({ "issuer": "https://issuer.example", "audience": "aims", "claims": { "sub": "x" } })
        }
        ("POST", path) if path.ends_with("/delegates") => json!({ "delegate_id": unknown }),
        _ => json!({}),
    };
    if route.is_prefixed {
        path = format!("{mount}{path}");
    }
    let response = client.send(client.request(route.method.clone(), &path).json(&body)).await;
    let names_somebody = route.path.contains('{');
    // Routes without an object let the caller in if they succeed or reject the fields.
    if !names_somebody && [200, 422].contains(&response.status.as_u16()) && matches!(route.demand, Demand::Action(_)) {
        return Response { status: reqwest::StatusCode::NOT_FOUND, ..response };
    }
    response
}

#[test]
fn only_intended_routes_are_public() {
    let open: Vec<_> = routes::list()
        .into_iter()
        .filter(|route| !matches!(route.demand, Demand::Action(_)))
        .map(|route| (route.method, route.path))
        .collect();
    let expected = [
        (Method::GET, "/_health"),
        (Method::GET, "/livez"),
        (Method::GET, "/readyz"),
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
