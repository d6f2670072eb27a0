//! Somebody who holds `admin:*` can always come in, and nobody who holds it is out of reach because of that.

use std::time::Duration;

use aims::{
    domain::{AgentId, ApiKeyId, CapabilityId, Error},
    service::{Caller, agents, api_keys, capabilities},
};
use serde_json::{Value, json};

use crate::{
    both,
    support::{Agent, Client, Database, Server, open, start},
};

both!(
    a_limit_that_ends_no_key_leaves_a_way_in,
    who_could_come_in_counts_and_nobody_else,
    what_has_ended_lets_nobody_in,
    who_cannot_come_in_is_stopped_and_removed,
    what_lets_nobody_in_is_taken_away,
    a_way_in_that_lasts_stays,
    of_ways_in_that_end_soon_the_last_stays,
    what_is_not_there_is_not_found,
    of_two_who_lock_each_other_out_one_stays,
    one_is_found_behind_many_who_cannot_come_in,
);

const AGENT: &str = "This is the last active agent that holds admin:* and can authenticate";
const CREDENTIAL: &str =
    "This is the last usable credential of the last active agent that holds admin:*; create another first";
const LASTING: &str =
    "No other credential of an active agent that holds admin:* is sure to last for a day; create another first";

fn keys(agent: &str) -> String {
    format!("/agents/{agent}/keys")
}

fn id(made: &Value) -> &str {
    made["id"].as_str().unwrap()
}

/// An agent that holds `admin:*`, with this key alone.
async fn administrator(server: &Server, name: &str, key: Value) -> Agent {
    let agent = server.admin.post("/agents", json!({ "name": name, "owner": "o" })).await.expect(201);
    server.grant(id(&agent), "admin:*").await;
    let key = server.admin.post(&keys(id(&agent)), key).await.expect(201);
    let raw_key = key["raw_key"].as_str().unwrap().to_owned();
    let client = server.anybody().login(&raw_key).await;
    Agent { id: id(&agent).to_owned(), key_id: id(&key).to_owned(), raw_key, client }
}

/// Limits every key that there is, also that of the first administrator, to this machine.
async fn limit_all(server: &Server) {
    server.db.execute("UPDATE api_keys SET networks = '127.0.0.0/8'").await;
}

/// Suspends an agent as the operator, who is no agent and needs none.
async fn suspend(server: &Server, agent: &str) -> Result<(), Error> {
    let agent = AgentId::parse(agent).unwrap();
    agents::suspend(&server.services, &Caller::system(), agent, None).await.map(drop)
}

async fn ungrant(server: &Server, agent: &str) -> Result<(), Error> {
    let agent = AgentId::parse(agent).unwrap();
    let power = CapabilityId::parse(&server.capability("admin:*").await).unwrap();
    capabilities::ungrant(&server.services, &Caller::system(), agent, power).await
}

/// Lets the first administrator in again after a suspension.
async fn reactivate(server: &mut Server) {
    let agent = AgentId::parse(&server.admin_id).unwrap();
    agents::reactivate(&server.services, &Caller::system(), agent).await.unwrap();
    server.admin = server.anybody().login(&server.admin_key).await;
}

fn public_key() -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
}

fn refused(outcome: Result<(), Error>) {
    kept(outcome, AGENT);
}

fn kept(outcome: Result<(), Error>, refusal: &str) {
    assert_eq!(outcome.unwrap_err().to_string(), refusal);
}

/// Revokes a key as the operator of the host, who is no agent whose own key could be in the way.
async fn end(server: &Server, agent: &str, key: &str) -> Result<(), Error> {
    let (agent, key) = (AgentId::parse(agent).unwrap(), ApiKeyId::parse(key).unwrap());
    api_keys::revoke(&server.services, &Caller::system(), agent, key).await
}

async fn a_limit_that_ends_no_key_leaves_a_way_in(db: Database) {
    let server = Server::start(db).await;
    let one = administrator(&server, "one", json!({ "allowed_networks": "127.0.0.0/8" })).await;
    let other = administrator(&server, "other", json!({ "token_life_seconds": 600 })).await;
    limit_all(&server).await;
    other.client.delete(&format!("/agents/{}", server.admin_id)).await.expect(204);

    other.client.post_empty(&format!("/agents/{}/suspend", one.id)).await.expect(200);
    other.client.post_empty(&format!("/agents/{}/reactivate", one.id)).await.expect(200);
    let one = Agent { client: server.anybody().login(&one.raw_key).await, ..one };
    one.client.delete(&format!("{}/{}", keys(&other.id), other.key_id)).await.expect(204);
    one.client.delete(&format!("{}/{}", keys(&one.id), one.key_id)).await.refused(400, CREDENTIAL);
    refused(suspend(&server, &one.id).await);
    one.client.post_empty(&format!("/agents/{}/revoke", other.id)).await.expect(200);
}

/// Each in turn is all that another administrator has.
async fn who_could_come_in_counts_and_nobody_else(db: Database) {
    let mut server = Server::start(db).await;
    let admin = server.admin_id.clone();
    for name in ["admin:x", "x:admin:*", "in-capitals"] {
        server.capability(name).await;
    }
    // As an import may bring it.
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
        refused(suspend(&server, &admin).await);
        server.admin.post(&keys(id(&other)), key.clone()).await.expect(201);
        let outcome = suspend(&server, &admin).await;
        assert_eq!(outcome.is_ok(), counts, "{key}: {outcome:?}");
        if counts {
            // The other is the last one now.
            refused(suspend(&server, id(&other)).await);
            reactivate(&mut server).await;
        }
        suspend(&server, id(&other)).await.unwrap();
        refused(ungrant(&server, &admin).await);
    }
}

async fn what_has_ended_lets_nobody_in(db: Database) {
    let mut server = Server::start(db).await;
    let admin = server.admin_id.clone();
    administrator(&server, "brief", json!({ "expires_at": "2026-01-01T12:05:00Z" })).await;
    administrator(&server, "spent", json!({ "max_uses": 1 })).await;
    server.clock.advance(Duration::from_mins(6));
    refused(suspend(&server, &admin).await);

    // A key that was rotated ends; its successor counts.
    let other = administrator(&server, "rotated", json!({})).await;
    let path = keys(&other.id);
    let new = server.admin.post_empty(&format!("{path}/{}/rotate", other.key_id)).await.expect(200)["new_key"].clone();
    suspend(&server, &admin).await.unwrap();
    reactivate(&mut server).await;
    server.admin.delete(&format!("{path}/{}", id(&new))).await.expect(204);
    refused(suspend(&server, &admin).await);

    let path = format!("/agents/{}/public-keys", other.id);
    let public = server.admin.post(&path, public_key()).await.expect(201);
    suspend(&server, &admin).await.unwrap();
    reactivate(&mut server).await;
    server.admin.delete(&format!("{path}/{}", id(&public[0]))).await.expect(204);
    refused(suspend(&server, &admin).await);

    let trust = json!({
        "issuer": "https://issuer.example.com", "jwks_uri": "https://issuer.example.com/keys", "audience": "aims",
        "claims": { "sub": "worker" },
    });
    server.admin.post(&format!("/agents/{}/federated-identities", other.id), trust).await.expect(201);
    suspend(&server, &admin).await.unwrap();
    refused(suspend(&server, &other.id).await);
}

async fn who_cannot_come_in_is_stopped_and_removed(db: Database) {
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
            // Also where nobody could come in at all: it changes nothing about that.
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
    refused(suspend(&server, &server.admin_id).await);
}

async fn what_lets_nobody_in_is_taken_away(db: Database) {
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

async fn a_way_in_that_lasts_stays(db: Database) {
    let mut server = Server::start(db).await;
    let (admin, path) = (server.admin_id.clone(), keys(&server.admin_id));
    let first = server.admin.get(&path).await.expect(200)[0]["id"].as_str().unwrap().to_owned();

    let brief = server.admin.post(&path, json!({ "expires_at": "2026-01-01T12:05:00Z" })).await.expect(201);
    let counted = server.admin.post(&path, json!({ "max_uses": 1_000 })).await.expect(201);
    kept(end(&server, &admin, &first).await, LASTING);
    // Nor does what another administrator has.
    let other = administrator(&server, "other", json!({ "expires_at": "2026-01-02T12:00:00Z" })).await;
    kept(end(&server, &admin, &first).await, LASTING);
    // To stop an agent is more urgent: whoever does it can come in now.
    suspend(&server, &server.admin_id).await.unwrap();
    reactivate(&mut server).await;

    let long = json!({ "expires_at": "2026-04-01T12:00:00Z", "allowed_networks": "127.0.0.0/8" });
    let long = server.admin.post(&keys(&other.id), long).await.expect(201);
    end(&server, &admin, &first).await.unwrap();
    kept(end(&server, &other.id, id(&long)).await, LASTING);
    // What does not last may go, whatever it is.
    end(&server, &admin, id(&brief)).await.unwrap();
    end(&server, &admin, id(&counted)).await.unwrap();
    end(&server, &other.id, &other.key_id).await.unwrap();
    kept(end(&server, &other.id, id(&long)).await, CREDENTIAL);
}

async fn of_ways_in_that_end_soon_the_last_stays(db: Database) {
    let server = Server::start(db).await;
    let path = keys(&server.admin_id);
    let brief = server.admin.post(&path, json!({ "expires_at": "2026-01-01T12:05:00Z" })).await.expect(201);
    server.db.execute("UPDATE api_keys SET expires_at = 1767279600000000 WHERE name = 'admin-bootstrap'").await;
    let first = server.admin.get(&path).await.expect(200)[0]["id"].as_str().unwrap().to_owned();
    end(&server, &server.admin_id, &first).await.unwrap();
    kept(end(&server, &server.admin_id, id(&brief)).await, CREDENTIAL);
}

async fn what_is_not_there_is_not_found(db: Database) {
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

/// Each takes the other's only key, on two nodes where there can be two.
async fn of_two_who_lock_each_other_out_one_stays(db: Database) {
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
        let ended = [&mine, &yours].iter().filter(|answer| answer.status.is_success()).count();
        assert_eq!(ended, 1, "round {round}: {mine:?} {yours:?}");
        let left = if mine.status.is_success() { one } else { other };
        left.client.get("/agents").await.expect(200);
        reactivate(&mut server).await;
        server.admin.delete(&format!("/agents/{}", left.id)).await.expect(204);
    }
}

/// However many hold `admin:*` and have no key, it is one question to the database.
async fn one_is_found_behind_many_who_cannot_come_in(db: Database) {
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
    refused(suspend(&server, &server.admin_id).await);
    // The last of them in the order in which they are found.
    let text = if server.db.is_sqlite() { "hex(id)" } else { "id::text" };
    let last = format!("SELECT {text} FROM agents WHERE name LIKE 'many-%' ORDER BY id DESC LIMIT 1");
    let one = server.db.texts(&last).await.remove(0);
    server.admin.post(&keys(&one), json!({ "allowed_networks": "127.0.0.0/8" })).await.expect(201);
    suspend(&server, &server.admin_id).await.unwrap();
    refused(suspend(&server, &one).await);
}
