//! When and how often agents use their capabilities.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use aims::{
    domain::{AgentId, CapabilityId, Timestamp},
    service::{Caller, agents::capabilities, people::sessions},
    store::{Changes, Db, Location, Mode, Store},
};
use secrecy::SecretString;
use uuid::Uuid;

use crate::{
    both,
    oauth::post_as_client,
    support::{Agent, Database, Server},
};

both!(
    api_calls_count_as_uses_of_the_capability_that_allows_them,
    only_an_explicit_scope_counts_as_a_use,
    every_agent_of_a_chain_uses_the_capability,
    old_counts_are_forgotten,
    counts_never_invalidate_the_live_view,
);

/// How often an agent used each capability that it holds, and whether it is known when it last did.
async fn uses(server: &Server, agent: &str) -> Vec<(String, i64, bool)> {
    server.save_usage().await;
    let (services, system, id) = (&server.services, Caller::system(), AgentId::parse(agent).unwrap());
    let mut uses = Vec::new();
    for held in capabilities::held_by(services, &system, id).await.unwrap() {
        let days = capabilities::uses_by_day(services, &system, id, held.id).await.unwrap();
        let times = days.iter().map(|(_, times)| times).sum();
        uses.push((held.name.to_string(), times, held.last_used_at.is_some()));
    }
    uses
}

fn named(name: &str, times: i64) -> (String, i64, bool) {
    (name.to_owned(), times, times > 0)
}

async fn request(server: &Server, agent: &Agent, scope: &str) {
    let mut form = vec![("grant_type", "client_credentials")];
    if !scope.is_empty() {
        form.push(("scope", scope));
    }
    post_as_client(server, agent, "/oauth/token", &form).await.expect(200);
}

async fn api_calls_count_as_uses_of_the_capability_that_allows_them(db: Database) {
    let server = Server::start(db).await;
    let reader = server.agent("reader", &["agents:read", "audit:read"]).await;
    let wide = server.agent("wide", &["agents:*", "admin:*"]).await;
    for _ in 0..3 {
        reader.client.get("/agents").await.expect(200);
        wide.client.get("/agents").await.expect(200);
    }
    wide.client.get("/resources?limit=1").await.expect(200);
    wide.client.get("/audit?limit=1").await.expect(200);
    // A denied call uses nothing.
    reader.client.get(&format!("/agents/{}/keys", wide.id)).await.expect(403);
    assert_eq!(uses(&server, &reader.id).await, [named("agents:read", 3), named("audit:read", 0)]);
    assert_eq!(uses(&server, &wide.id).await, [named("admin:*", 1), named("agents:*", 4)]);

    let id = CapabilityId::parse(&server.capability("agents:read").await).unwrap();
    server.clock.advance(Duration::from_hours(24));
    reader.client.login(&reader.raw_key).await.get("/agents").await.expect(200);
    server.save_usage().await;
    let agent = AgentId::parse(&reader.id).unwrap();
    let days = capabilities::uses_by_day(&server.services, &Caller::system(), agent, id).await.unwrap();
    assert_eq!(days.iter().map(|(_, times)| *times).collect::<Vec<_>>(), [3, 1], "{days:?}");
    assert_eq!(days[1].0, days[0].0 + 1);
    let latest = capabilities::last_uses(&server.services, &Caller::system(), &[id]).await.unwrap();
    assert_eq!(latest[&id].as_secs(), server.clock_secs());
}

async fn only_an_explicit_scope_counts_as_a_use(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["documents:read", "mail:*"]).await;
    server.capability("mail:send").await;
    let resource_server = server.agent("resource-server", &["tokens:introspect"]).await;
    request(&server, &agent, "").await;
    for _ in 0..2 {
        let form = [("token", agent.client.token())];
        post_as_client(&server, &resource_server, "/oauth/introspect", &form).await.expect(200);
    }
    assert_eq!(uses(&server, &agent.id).await, [named("documents:read", 0), named("mail:*", 0)]);
    assert_eq!(uses(&server, &resource_server.id).await, [named("tokens:introspect", 2)]);
    request(&server, &agent, "documents:read mail:send").await;
    request(&server, &agent, "documents:read").await;
    assert_eq!(uses(&server, &agent.id).await, [named("documents:read", 2), named("mail:*", 1)]);
}

async fn every_agent_of_a_chain_uses_the_capability(db: Database) {
    let server = Server::start(db).await;
    let root = server.agent("root", &["agents:read", "documents:read"]).await;
    let worker = server.agent("worker", &["agents:*", "documents:read"]).await;
    let body = serde_json::json!({ "delegate_id": worker.id });
    server.admin.post(&format!("/agents/{}/delegates", root.id), body).await.expect(201);
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", root.client.token()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("scope", "agents:read documents:read"),
    ];
    let token = post_as_client(&server, &worker, "/oauth/token", &form).await.expect(200);
    let acting = server.anonymous().with_token(token["access_token"].as_str().unwrap());
    acting.get("/agents").await.expect(200);
    assert_eq!(uses(&server, &root.id).await, [named("agents:read", 2), named("documents:read", 1)]);
    assert_eq!(uses(&server, &worker.id).await, [named("agents:*", 2), named("documents:read", 1)]);
}

async fn old_counts_are_forgotten(db: Database) {
    const COUNT: &str = "SELECT COUNT(*) FROM capability_uses";
    let server = Server::start(db).await;
    let agent = server.agent("reader", &["agents:read"]).await;
    agent.client.get("/agents").await.expect(200);
    server.save_usage().await;
    let before = server.db.count(COUNT).await;
    assert!(before >= 1);
    server.clock.advance(Duration::from_hours(24 * 89));
    sessions::sweep(&server.services).await.unwrap();
    assert_eq!(server.db.count(COUNT).await, before);
    server.clock.advance(Duration::from_hours(24));
    sessions::sweep(&server.services).await.unwrap();
    assert_eq!(server.db.count(COUNT).await, 0);
    let held = uses(&server, &agent.id).await;
    assert_eq!(held, [("agents:read".to_owned(), 0, true)], "the time of the last use is kept");
    // The counts of what is deleted go with their day, and are no obstacle.
    agent.client.login(&agent.raw_key).await.get("/agents").await.expect(200);
    server.admin.login(&server.admin_key).await.delete(&format!("/agents/{}", agent.id)).await.expect(204);
    server.save_usage().await;
}

async fn counts_never_invalidate_the_live_view(db: Database) {
    let location = if db.is_sqlite() {
        Location::Sqlite(db.sqlite_file())
    } else {
        Location::Postgres(SecretString::from(db.url.clone()))
    };
    let marked = Arc::<Mutex<Vec<Changes>>>::default();
    let store = Store::start(Db::open(&location, Mode::Write).await.unwrap(), {
        let marked = marked.clone();
        Arc::new(move |changes| marked.lock().unwrap().push(changes.clone()))
    });
    // More than can wait: the rest is dropped, and nothing fails.
    for agent in 0..20_000_u128 {
        store.used_capability(AgentId(Uuid::from_u128(agent)), "agents:read", Timestamp::from_micros(1));
    }
    drop(store.read_usage().await.unwrap());
    let marked = marked.lock().unwrap().clone();
    assert!(!marked.is_empty() && marked.iter().all(|changes| *changes == Changes::default()), "{marked:?}");
    assert_eq!(db.count("SELECT COUNT(*) FROM capability_uses").await, 0, "no such agent holds it");
}
