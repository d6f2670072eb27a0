//! If the audit log cannot be written, nothing changes and clients get a 503.

use std::time::Duration;

use aims::web::{
    demand::{Demand, Listed},
    routes,
};
use futures_util::FutureExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    both,
    support::{Agent, Database, Response, Server, details},
};

both!(
    changes_without_their_record_are_rolled_back,
    rejections_without_their_record_return_503,
    rejected_request_does_not_affect_others_in_its_batch,
    failing_batch_responds_to_every_request,
    permanent_failures_do_not_ask_for_a_retry,
    suppressed_refusal_counts_are_kept_until_recorded,
);

async fn changes_without_their_record_are_rolled_back(db: Database) {
    let server = Server::start(db).await;
    let fixture = Fixture::set(&server).await;
    let routes = changing_routes();
    assert!(routes.len() >= 13, "{routes:?}");

    server.save_usage().await;
    let before = dump(&server.db).await;
    server.db.break_audit().await;
    for (method, path) in &routes {
        let response = fixture.send(&server, method, path).await;
        assert_eq!(response.status.as_u16(), 503, "{method} {path}: {response:?}");
        assert!(
            response.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().unwrap() > 0),
            "{response:?}"
        );
        assert!(!response.text.contains("broken"), "the response must not contain internal details: {response:?}");
        assert_eq!(dump(&server.db).await, before, "{method} {path}");
    }
    // Reads leave no record, so they keep working, and the live view still has the old state.
    server.admin.get("/agents").await.expect(200);
    fixture.target.client.get("/agents").await.expect(200);

    server.db.repair_audit().await;
    for (method, path) in &routes {
        let response = fixture.send(&server, method, path).await;
        assert!(response.status.is_success(), "{method} {path}: {response:?}");
        assert_ne!(dump(&server.db).await, before, "{method} {path}");
    }
}

async fn rejections_without_their_record_return_503(db: Database) {
    let server = Server::start(db).await;
    let weak = server.agent("weak", &[]).await;
    server.db.break_audit().await;
    server.anonymous().exchange("aims_nonsense").await.expect(503);
    weak.client.get("/agents").await.expect(503);
    server.db.repair_audit().await;
    server.anonymous().exchange("aims_nonsense").await.expect(401);
    weak.client.get("/agents").await.expect(403);
}

async fn rejected_request_does_not_affect_others_in_its_batch(db: Database) {
    let server = Server::start(db).await;
    let mut requests = JoinSet::new();
    for n in 0..50 {
        let name = if n % 2 == 0 { "same".to_owned() } else { format!("own-{n}") };
        let admin = server.admin.clone();
        requests.spawn(async move {
            let response = admin.post("/agents", json!({ "name": name, "owner": "o" })).await;
            (name, response.status.as_u16())
        });
    }
    let (mut same, mut own) = (Vec::new(), Vec::new());
    for (name, status) in requests.join_all().await {
        if name == "same" { same.push(status) } else { own.push(status) }
    }
    same.sort_unstable();
    assert_eq!(own, [201; 25]);
    assert_eq!((same[0], &same[1..]), (201, [409; 24].as_slice()));
    assert_eq!(server.db.count("SELECT COUNT(*) FROM agents").await, 27, "including the administrator");
    assert_eq!(server.audited("agent.created").await.len(), 27, "rejected requests must leave no record");
}

async fn failing_batch_responds_to_every_request(db: Database) {
    let server = Server::start(db).await;
    server.save_usage().await;
    let before = dump(&server.db).await;
    server.db.break_audit().await;
    let mut requests = JoinSet::new();
    for n in 0..50 {
        let admin = server.admin.clone();
        requests.spawn(async move { admin.post("/agents", json!({ "name": format!("a{n}"), "owner": "o" })).await });
    }
    for response in requests.join_all().await {
        assert_eq!(response.status.as_u16(), 503, "{response:?}");
    }
    assert_eq!(dump(&server.db).await, before);
    server.db.repair_audit().await;
    server.admin.post("/agents", json!({ "name": "a0", "owner": "o" })).await.expect(201);
}

async fn permanent_failures_do_not_ask_for_a_retry(db: Database) {
    let server = Server::start(db).await;
    let sql = if server.db.is_sqlite() {
        "CREATE TRIGGER broken BEFORE INSERT ON agents WHEN NEW.name = 'broken' BEGIN SELECT RAISE(ABORT, 'broken'); END"
    } else {
        "ALTER TABLE agents ADD CONSTRAINT broken CHECK (name <> 'broken')"
    };
    server.db.execute(sql).await;
    let response = server.admin.post("/agents", json!({ "name": "broken", "owner": "o" })).await;
    response.refused(500, "Internal server error");
    assert_eq!(response.header("retry-after"), None);
    server.admin.post("/agents", json!({ "name": "whole", "owner": "o" })).await.expect(201);
}

async fn suppressed_refusal_counts_are_kept_until_recorded(db: Database) {
    let settings = [("AUDIT_REFUSALS_PER_MINUTE", "5"), ("TRUSTED_PROXIES", "127.0.0.1")];
    let server = Server::start_with(db, &settings).await;
    let refused = async |times: u32| {
        for address in ["203.0.113.1", "203.0.113.2"] {
            for _ in 0..times {
                let request = server.anonymous().request(Method::POST, "/auth/token").header("X-API-Key", "junk");
                server.anonymous().send(request.header("X-Forwarded-For", address)).await.expect(401);
            }
        }
    };
    refused(8).await;
    server.clock.advance(Duration::from_mins(1));
    server.db.break_audit().await;
    server.services.record_suppressed(false).await.unwrap_err();
    // The task is aborted, as when the database hangs. The next request shows that the attempt is over.
    assert!(server.services.record_suppressed(false).now_or_never().is_none());
    server.admin.post("/agents", json!({ "name": "n", "owner": "o" })).await.expect(503);
    server.db.repair_audit().await;
    // The aborted attempt must have no effect later.
    assert!(server.services.record_suppressed(false).now_or_never().is_none());
    refused(1).await;
    server.services.record_suppressed(false).await.unwrap();
    let counts = async || {
        let records = server.audited("audit.refusals_suppressed").await;
        let mut counts: Vec<_> = records
            .iter()
            .map(|record| (record["ip_address"].clone(), details(record)["suppressed"].clone()))
            .collect();
        counts.sort_by_key(|(address, _)| address.to_string());
        counts
    };
    let expected = [(json!("203.0.113.1"), json!(4)), (json!("203.0.113.2"), json!(4))];
    assert_eq!(counts().await, expected);
    server.clock.advance(Duration::from_mins(1));
    server.services.record_suppressed(false).await.unwrap();
    assert_eq!(counts().await, expected);
}

/// Every route that changes something; the most destructive ones come last.
fn changing_routes() -> Vec<(Method, String)> {
    // Introspection is a POST that changes nothing.
    let changes = |route: &Listed| route.method != Method::GET && !matches!(route.demand, Demand::ClientOr(_));
    let routes = routes::list().into_iter().filter(changes);
    let mut routes: Vec<_> = routes.map(|route| (route.method, route.path)).collect();
    routes.sort_by_key(|(method, path)| match (method.as_str(), path.as_str()) {
        ("POST", "/auth/token") => 0,
        ("POST", "/agents/{id}/suspend") => 2,
        ("DELETE", "/agents/{id}/keys/{key_id}") => 3,
        ("POST", "/agents/{id}/revoke") => 4,
        ("DELETE", "/agents/{id}") => 5,
        ("DELETE", "/capabilities/{id}") => 6,
        _ => 1,
    });
    routes
}

/// The data that lets every request succeed.
struct Fixture {
    target: Agent,
    suspended: Agent,
    held: String,
    free: String,
    resource: String,
    public_key: String,
    delegate: String,
    identity: String,
}

/// Another key than the fixture's.
const JWK_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const JWK_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

impl Fixture {
    async fn set(server: &Server) -> Self {
        let target = server.agent("target", &["agents:read", "held:by-target"]).await;
        let suspended = server.agent("suspended", &[]).await;
        server.admin.post_empty(&format!("/agents/{}/suspend", suspended.id)).await.expect(200);
        let held = server.capability("held:by-target").await;
        let free = server.capability("free:for-all").await;
        let resource = json!({ "identifier": "https://mcp.example", "name": "Tools" });
        let resource = server.admin.post("/resources", resource).await.expect(201)["id"].as_str().unwrap().to_owned();
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        let registered = server.admin.post(&format!("/agents/{}/public-keys", target.id), jwk).await.expect(201);
        let public_key = registered[0]["id"].as_str().unwrap().to_owned();
        let delegates = format!("/agents/{}/delegates", target.id);
        server.admin.post(&delegates, json!({ "delegate_id": suspended.id })).await.expect(201);
        let delegate = server.agent("delegate", &[]).await.id;
        let identity =
            server.admin.post(&format!("/agents/{}/federated-identities", target.id), trust()).await.expect(201);
        let identity = identity["id"].as_str().unwrap().to_owned();
        Self { target, suspended, held, free, resource, public_key, delegate, identity }
    }

    async fn send(&self, server: &Server, method: &Method, path: &str) -> Response {
        let agent = if path.ends_with("/reactivate") { &self.suspended } else { &self.target };
        let id = match path.split('/').nth(1) {
            Some("resources") => &self.resource,
            Some("capabilities") => &self.free,
            _ => &agent.id,
        };
        let key = if path.contains("/public-keys") { &self.public_key } else { &agent.key_id };
        let mut filled = path
            .replace("{id}", id)
            .replace("{key_id}", key)
            .replace("{delegate_id}", &self.suspended.id)
            .replace("{identity_id}", &self.identity);
        for placeholder in ["{capability_id}", "{cap_id}"] {
            filled = filled.replace(placeholder, &self.held);
        }
        assert!(!filled.contains('{'), "unknown placeholder: {path}");
        if path == "/auth/token" {
            return server.anonymous().exchange(&agent.raw_key).await;
        }
        if path.starts_with("/oauth/") {
            let form = [("grant_type", "client_credentials"), ("token", agent.client.token())];
            let anonymous = server.anonymous();
            let request = anonymous.request(method.clone(), path).basic_auth(&agent.id, Some(&agent.raw_key));
            return anonymous.send(request.form(&form)).await;
        }
        let body: Value = match (method.as_str(), path) {
            ("POST", "/agents") => json!({ "name": "newcomer", "owner": "o" }),
            ("POST", "/agents/labels") => json!({ "selector": "!env", "set": { "env": "prod" } }),
            ("PATCH", "/agents/{id}") => json!({ "owner": "another" }),
            ("POST", "/resources") => json!({ "identifier": "https://new.example", "name": "New" }),
            ("PATCH", "/capabilities/{id}") => json!({ "description": "Another" }),
            ("PATCH", "/resources/{id}") => json!({ "name": "Another" }),
            ("POST", "/agents/{id}/public-keys") => json!({ "kty": "EC", "crv": "P-256", "x": JWK_X, "y": JWK_Y }),
            ("POST", "/agents/{id}/federated-identities") => trust(),
            ("POST", "/agents/{id}/delegates") => json!({ "delegate_id": self.delegate }),
            ("POST", "/capabilities") => json!({ "name": "new:capability" }),
            ("POST", "/agents/{id}/capabilities") => json!({ "capability_id": self.free }),
            _ => json!({}),
        };
        server.admin.send(server.admin.request(method.clone(), &filled).json(&body)).await
    }
}

fn trust() -> Value {
    json!({ "issuer": "https://issuer.example", "audience": "aims", "claims": { "sub": "workload" } })
}

/// Everything that a change could have modified, as text.
async fn dump(db: &Database) -> Vec<String> {
    let parts = [
        "SELECT name || ' ' || owner || ' ' || description || ' ' || status || ' ' || updated_at || ' ' || token_epoch AS line \
         FROM agents",
        "SELECT key_prefix || ' ' || status || ' ' || COALESCE(rotated_at, 0) || ' ' || COALESCE(grace_ends_at, 0) \
         || ' ' || COALESCE(revoked_at, 0) || ' ' || COALESCE(last_used_at, 0) FROM api_keys",
        "SELECT name || ' ' || description FROM capabilities",
        "SELECT a.name || ' ' || c.name FROM agent_capabilities g JOIN agents a ON a.id = g.agent_id \
         JOIN capabilities c ON c.id = g.capability_id",
        "SELECT identifier || ' ' || name || ' ' || scope FROM resources",
        "SELECT key || '=' || value FROM agent_labels",
        "SELECT thumbprint FROM public_keys",
        "SELECT a.name || ' for ' || b.name FROM delegations d JOIN agents a ON a.id = d.delegate_id \
         JOIN agents b ON b.id = d.agent_id",
        "SELECT issuer || ' ' || claims FROM federated_identities",
        "SELECT 'delegated ' || COUNT(*) FROM delegated_token_links",
        "SELECT 'revoked ' || COUNT(*) FROM revoked_tokens",
        "SELECT 'audit ' || COUNT(*) || ' ' || MAX(seq) FROM audit_log",
        "SELECT 'head ' || seq FROM audit_head",
    ];
    // A single statement, because each opens a connection.
    db.texts(&format!("SELECT line FROM ({}) AS lines ORDER BY line", parts.join(" UNION ALL "))).await
}
