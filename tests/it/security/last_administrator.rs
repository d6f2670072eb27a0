//! An agent that holds `admin:*` and can authenticate always remains, and only such agents are protected.

use std::time::Duration;

use aims::{
    domain::{AgentId, CapabilityId, Error},
    service::{
        Caller, Expected,
        agents::{self, capabilities},
    },
};
use serde_json::{Value, json};

use super::elevation::revoke_key;
use crate::{
    both,
    support::{Agent, Client, Database, Server, open, start},
};

both!(
    limits_that_do_not_end_keys_are_allowed,
    only_agents_that_can_authenticate_count,
    ended_credentials_do_not_count,
    agents_that_cannot_authenticate_can_be_removed,
    useless_credentials_can_be_removed,
    last_lasting_credential_cannot_be_removed,
    last_of_the_expiring_credentials_cannot_be_removed,
    unknown_credentials_return_404,
    concurrent_mutual_lockouts_leave_one_administrator,
    administrator_is_found_among_many_that_cannot_authenticate,
);

const AGENT: &str = "This is the last active agent that holds admin:* and can authenticate";
const CREDENTIAL: &str =
    "This is the last usable credential of the last active agent that holds admin:*. Create another one first";
const LASTING: &str =
    "The other credentials of active agents that hold admin:* may end within a day. Create another one first";

fn keys(agent: &str) -> String {
    format!("/agents/{agent}/keys")
}

fn id(created: &Value) -> &str {
    created["id"].as_str().unwrap()
}

/// Creates an agent that holds `admin:*` and has only this key.
async fn administrator(server: &Server, name: &str, key: Value) -> Agent {
    let agent = server.admin.post("/agents", json!({ "name": name, "owner": "o" })).await.expect(201);
    server.grant(id(&agent), "admin:*").await;
    let key = server.admin.post(&keys(id(&agent)), key).await.expect(201);
    let raw_key = key["raw_key"].as_str().unwrap().to_owned();
    let client = server.anonymous().login(&raw_key).await;
    Agent { id: id(&agent).to_owned(), key_id: id(&key).to_owned(), raw_key, client }
}

/// Restricts every key, including the first administrator's, to this machine.
async fn limit_all(server: &Server) {
    server.db.execute("UPDATE api_keys SET networks = '127.0.0.0/8'").await;
}

/// Suspends an agent as the operator, who is not an agent.
async fn suspend(server: &Server, agent: &str) -> Result<(), Error> {
    let agent = AgentId::parse(agent).unwrap();
    agents::suspend(&server.services, &Caller::system(), agent, Expected::Any, None).await.map(drop)
}

async fn ungrant(server: &Server, agent: &str) -> Result<(), Error> {
    let agent = AgentId::parse(agent).unwrap();
    let power = CapabilityId::parse(&server.capability("admin:*").await).unwrap();
    capabilities::ungrant(&server.services, &Caller::system(), agent, power).await
}

/// Reactivates the first administrator.
async fn reactivate(server: &mut Server) {
    let agent = AgentId::parse(&server.admin_id).unwrap();
    agents::reactivate(&server.services, &Caller::system(), agent, Expected::Any).await.unwrap();
    server.admin = server.anonymous().login(&server.admin_key).await;
}

fn public_key() -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
}

fn assert_rejected(outcome: Result<(), Error>) {
    assert_rejected_with(outcome, AGENT);
}

fn assert_rejected_with(outcome: Result<(), Error>, refusal: &str) {
    assert_eq!(outcome.unwrap_err().to_string(), refusal);
}

async fn limits_that_do_not_end_keys_are_allowed(db: Database) {
    let server = Server::start(db).await;
    let one = administrator(&server, "one", json!({ "allowed_networks": "127.0.0.0/8" })).await;
    let other = administrator(&server, "other", json!({ "token_life_seconds": 600 })).await;
    limit_all(&server).await;
    other.client.delete(&format!("/agents/{}", server.admin_id)).await.expect(204);

    other.client.post_empty(&format!("/agents/{}/suspend", one.id)).await.expect(200);
    other.client.post_empty(&format!("/agents/{}/reactivate", one.id)).await.expect(200);
    let one = Agent { client: server.anonymous().login(&one.raw_key).await, ..one };
    one.client.delete(&format!("{}/{}", keys(&other.id), other.key_id)).await.expect(204);
    one.client.delete(&format!("{}/{}", keys(&one.id), one.key_id)).await.refused(400, CREDENTIAL);
    assert_rejected(suspend(&server, &one.id).await);
    one.client.post_empty(&format!("/agents/{}/revoke", other.id)).await.expect(200);
}

/// Each credential in turn is the only one of the other administrator.
async fn only_agents_that_can_authenticate_count(db: Database) {
    let mut server = Server::start(db).await;
    let admin = server.admin_id.clone();
    for name in ["admin:x", "x:admin:*", "in-capitals"] {
        server.capability(name).await;
    }
    // As an import may create it.
    server.db.execute("UPDATE capabilities SET name = 'ADMIN:*' WHERE name = 'in-capitals'").await;
    for (number, (key, counts)) in [
        (json!({}), true),
        (json!({ "allowed_networks": "192.0.2.0/24" }), true),
        (json!({ "token_life_seconds": 1 }), true),
        (json!({ "max_uses": 1 }), true),
        (json!({ "expires_at": "2026-01-01T12:05:00Z" }), true),
        (json!({ "scope": "admin:*" }), true),
        (json!({ "scope": "admin:* agents:read" }), true),
        (json!({ "scope": "ADMIN:* admin:* agents:read" }), true),
        (json!({ "scope": "agents:read admin:*", "allowed_networks": "192.0.2.0/24", "max_uses": 9 }), true),
        (json!({ "scope": "agents:read" }), false),
        (json!({ "scope": "ADMIN:* admin:x x:admin:*" }), false),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({ "name": format!("other-{number}"), "owner": "o" });
        let other = server.admin.post("/agents", body).await.expect(201);
        server.grant(id(&other), "admin:*").await;
        assert_rejected(suspend(&server, &admin).await);
        server.admin.post(&keys(id(&other)), key.clone()).await.expect(201);
        let outcome = suspend(&server, &admin).await;
        assert_eq!(outcome.is_ok(), counts, "{key}: {outcome:?}");
        if counts {
            // The other is now the last one.
            assert_rejected(suspend(&server, id(&other)).await);
            reactivate(&mut server).await;
        }
        suspend(&server, id(&other)).await.unwrap();
        assert_rejected(ungrant(&server, &admin).await);
    }
}

async fn ended_credentials_do_not_count(db: Database) {
    let mut server = Server::start(db).await;
    let admin = server.admin_id.clone();
    administrator(&server, "brief", json!({ "expires_at": "2026-01-01T12:05:00Z" })).await;
    administrator(&server, "spent", json!({ "max_uses": 1 })).await;
    server.clock.advance(Duration::from_mins(6));
    assert_rejected(suspend(&server, &admin).await);

    // A rotated key ends after its grace period; its successor counts.
    let other = administrator(&server, "rotated", json!({})).await;
    let path = keys(&other.id);
    let new = server.admin.post_empty(&format!("{path}/{}/rotate", other.key_id)).await.expect(200)["new_key"].clone();
    suspend(&server, &admin).await.unwrap();
    reactivate(&mut server).await;
    server.admin.delete(&format!("{path}/{}", id(&new))).await.expect(204);
    assert_rejected(suspend(&server, &admin).await);

    let path = format!("/agents/{}/public-keys", other.id);
    let public = server.admin.post(&path, public_key()).await.expect(201);
    suspend(&server, &admin).await.unwrap();
    reactivate(&mut server).await;
    server.admin.delete(&format!("{path}/{}", id(&public[0]))).await.expect(204);
    assert_rejected(suspend(&server, &admin).await);

    let trust = json!({
        "issuer": "https://issuer.example.com", "jwks_uri": "https://issuer.example.com/keys", "audience": "aims",
        "claims": { "sub": "worker" },
    });
    server.admin.post(&format!("/agents/{}/federated-identities", other.id), trust).await.expect(201);
    suspend(&server, &admin).await.unwrap();
    assert_rejected(suspend(&server, &other.id).await);
}

async fn agents_that_cannot_authenticate_can_be_removed(db: Database) {
    let server = Server::start(db).await;
    for (number, state) in ["suspend", "revoke", "no key", "no use"].into_iter().enumerate() {
        for act in ["delete", "ungrant", "stop"] {
            let agent = administrator(&server, &format!("{act}-{number}"), json!({})).await;
            match state {
                "no key" => {
                    server.admin.delete(&format!("{}/{}", keys(&agent.id), agent.key_id)).await.expect(204);
                }
                "no use" => {
                    server.admin.delete(&format!("{}/{}", keys(&agent.id), agent.key_id)).await.expect(204);
                    server.admin.post(&keys(&agent.id), json!({ "scope": "agents:read" })).await.expect(201);
                }
                stop => {
                    server.admin.post_empty(&format!("/agents/{}/{stop}", agent.id)).await.expect(200);
                }
            }
            let path = format!("/agents/{}", agent.id);
            // Also if no agent could authenticate in the first place: the removal does not change that.
            server.db.execute("UPDATE api_keys SET uses_left = 0").await;
            match (act, state) {
                ("delete", _) => server.admin.delete(&path).await.expect(204),
                ("ungrant", _) => {
                    let power = server.capability("admin:*").await;
                    server.admin.delete(&format!("{path}/capabilities/{power}")).await.expect(204)
                }
                (_, "revoke") => Value::Null,
                _ => server.admin.post_empty(&format!("{path}/revoke")).await.expect(200),
            };
            server.db.execute("UPDATE api_keys SET uses_left = NULL").await;
        }
    }
    assert_rejected(suspend(&server, &server.admin_id).await);
}

async fn useless_credentials_can_be_removed(db: Database) {
    let server = Server::start(db).await;
    let path = keys(&server.admin_id);
    let first = server.admin.get(&path).await.expect(200)[0]["id"].as_str().unwrap().to_owned();
    let narrow = server.admin.post(&path, json!({ "scope": "agents:read" })).await.expect(201);
    let brief = server.admin.post(&path, json!({ "expires_at": "2026-01-01T12:05:00Z" })).await.expect(201);
    let rotated = server.admin.post_empty(&format!("{path}/{first}/rotate")).await.expect(200);
    let admin = server.admin.login(rotated["new_key"]["raw_key"].as_str().unwrap()).await;
    limit_all(&server).await;
    server.clock.advance(Duration::from_mins(6));
    for key in [&first, id(&narrow), id(&brief)] {
        admin.delete(&format!("{path}/{key}")).await.expect(204);
    }
    admin.delete(&format!("{path}/{}", id(&rotated["new_key"]))).await.refused(400, CREDENTIAL);
}

async fn last_lasting_credential_cannot_be_removed(db: Database) {
    let mut server = Server::start(db).await;
    let (admin, path) = (server.admin_id.clone(), keys(&server.admin_id));
    let first = server.admin.get(&path).await.expect(200)[0]["id"].as_str().unwrap().to_owned();

    let brief = server.admin.post(&path, json!({ "expires_at": "2026-01-01T12:05:00Z" })).await.expect(201);
    let counted = server.admin.post(&path, json!({ "max_uses": 1_000 })).await.expect(201);
    assert_rejected_with(revoke_key(&server, &admin, &first).await, LASTING);
    // Another administrator's credential does not count either.
    let other = administrator(&server, "other", json!({ "expires_at": "2026-01-02T12:00:00Z" })).await;
    assert_rejected_with(revoke_key(&server, &admin, &first).await, LASTING);
    // Stopping an agent is more urgent, and the agent that does it can authenticate now.
    suspend(&server, &server.admin_id).await.unwrap();
    reactivate(&mut server).await;

    let long = json!({ "expires_at": "2026-04-01T12:00:00Z", "allowed_networks": "127.0.0.0/8" });
    let long = server.admin.post(&keys(&other.id), long).await.expect(201);
    revoke_key(&server, &admin, &first).await.unwrap();
    assert_rejected_with(revoke_key(&server, &other.id, id(&long)).await, LASTING);
    // Credentials that do not last can be removed.
    revoke_key(&server, &admin, id(&brief)).await.unwrap();
    revoke_key(&server, &admin, id(&counted)).await.unwrap();
    revoke_key(&server, &other.id, &other.key_id).await.unwrap();
    assert_rejected_with(revoke_key(&server, &other.id, id(&long)).await, CREDENTIAL);
}

async fn last_of_the_expiring_credentials_cannot_be_removed(db: Database) {
    let server = Server::start(db).await;
    let path = keys(&server.admin_id);
    let brief = server.admin.post(&path, json!({ "expires_at": "2026-01-01T12:05:00Z" })).await.expect(201);
    server.db.execute("UPDATE api_keys SET expires_at = 1767279600000000 WHERE name = 'admin-bootstrap'").await;
    let first = server.admin.get(&path).await.expect(200)[0]["id"].as_str().unwrap().to_owned();
    revoke_key(&server, &server.admin_id, &first).await.unwrap();
    assert_rejected_with(revoke_key(&server, &server.admin_id, id(&brief)).await, CREDENTIAL);
}

async fn unknown_credentials_return_404(db: Database) {
    let server = Server::start(db).await;
    let other = server.agent("other", &[]).await;
    let foreign = server.admin.post(&format!("/agents/{}/public-keys", other.id), public_key()).await.expect(201);
    limit_all(&server).await;
    let own = format!("/agents/{}", server.admin_id);
    let unknown = "01234567-89ab-7def-8123-456789abcdef";
    for path in [
        format!("{own}/keys/{unknown}"),
        format!("{own}/keys/{}", other.key_id),
        format!("{own}/public-keys/{unknown}"),
        format!("{own}/public-keys/{}", id(&foreign[0])),
        format!("{own}/federated-identities/{unknown}"),
    ] {
        assert_eq!(server.admin.delete(&path).await.status, 404, "{path}");
    }
}

/// Two administrators concurrently revoke each other's only key, on two nodes if the database allows it.
async fn concurrent_mutual_lockouts_leave_one_administrator(db: Database) {
    let mut server = Server::start(db).await;
    let elsewhere = if server.db.is_sqlite() {
        server.url.clone()
    } else {
        start(open(&server.db, &server.clock, &[]).await).await
    };
    let limited = json!({ "allowed_networks": "127.0.0.0/8", "scope": "admin:*" });
    for round in 0..10 {
        let one = administrator(&server, &format!("one-{round}"), limited.clone()).await;
        let other = administrator(&server, &format!("other-{round}"), limited.clone()).await;
        let there = Client::new(elsewhere.clone()).with_token(other.client.token());
        suspend(&server, &server.admin_id).await.unwrap();
        let (mine, yours) =
            (format!("{}/{}", keys(&other.id), other.key_id), format!("{}/{}", keys(&one.id), one.key_id));
        let (mine, yours) = tokio::join!(one.client.delete(&mine), there.delete(&yours));
        let ended = [&mine, &yours].iter().filter(|response| response.status.is_success()).count();
        assert_eq!(ended, 1, "round {round}: {mine:?} {yours:?}");
        let left = if mine.status.is_success() { one } else { other };
        left.client.get("/agents").await.expect(200);
        reactivate(&mut server).await;
        server.admin.delete(&format!("/agents/{}", left.id)).await.expect(204);
    }
}

/// However many agents hold `admin:*` without a key, the check is a single query.
async fn administrator_is_found_among_many_that_cannot_authenticate(db: Database) {
    const MANY: i64 = 2_000;
    let server = Server::start(db).await;
    let any = if server.db.is_sqlite() { "randomblob(16)" } else { "gen_random_uuid()" };
    let many =
        format!("(WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {MANY}) SELECT n FROM n)");
    server
        .db
        .execute(&format!(
            "INSERT INTO agents (id, name, description, owner, status, agent_type, metadata_json, created_at, updated_at) \
             SELECT {any}, 'many-' || n, '', 'o', 'active', 'custom', '{{}}', 1, 1 FROM {many} AS many; \
             INSERT INTO agent_capabilities (agent_id, capability_id, granted_at) \
             SELECT a.id, c.id, 1 FROM agents a JOIN capabilities c ON c.name = 'admin:*' WHERE a.name LIKE 'many-%'"
        ))
        .await;
    assert_rejected(suspend(&server, &server.admin_id).await);
    // The one that is found last.
    let text = if server.db.is_sqlite() { "hex(id)" } else { "id::text" };
    let last = format!("SELECT {text} FROM agents WHERE name LIKE 'many-%' ORDER BY id DESC LIMIT 1");
    let one = server.db.texts(&last).await.remove(0);
    server.admin.post(&keys(&one), json!({ "allowed_networks": "127.0.0.0/8" })).await.expect(201);
    suspend(&server, &server.admin_id).await.unwrap();
    assert_rejected(suspend(&server, &one).await);
}
