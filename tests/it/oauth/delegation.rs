//! Token exchange (RFC 8693): permitted actors, scope and lifetime of delegated tokens.

use std::time::Duration;

use serde_json::{Value, json};

use super::{ISSUER, claims, post, post_as_client, refused, token};
use crate::{
    both,
    support::{Agent, Database, Response, Server, details},
};

both!(
    exchanged_token_names_subject_and_actor,
    acting_for_an_agent_requires_its_permission,
    delegation_chains_are_bounded_and_have_no_loops,
    exchange_is_bounded_by_subject_and_actor,
    malformed_exchanges_are_rejected,
    ending_a_link_ends_the_tokens_derived_from_it,
    ending_a_middle_link_ends_its_descendants_and_no_others,
    tokens_are_listed_with_derived_tokens,
    changing_delegates_requires_authority_and_is_audited,
);

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ACTOR_INVALID: &str = "The actor_token is not valid";
const SUBJECT_INVALID: &str = "The subject_token is not valid";
const NOT_ALLOWED: &str = "The actor may not act for the subject of this token";

type Form<'f> = &'f [(&'f str, &'f str)];

/// Exchanges the two tokens for one with which the actor acts for the subject.
pub(super) async fn exchange(server: &Server, subject: &str, actor: &str, wanted: Form<'_>) -> Response {
    let form = [
        &[
            ("grant_type", EXCHANGE),
            ("subject_token", subject),
            ("subject_token_type", ACCESS_TOKEN),
            ("actor_token", actor),
            ("actor_token_type", ACCESS_TOKEN),
        ],
        wanted,
    ];
    post(&server.anonymous(), "/oauth/token", &form.concat()).await
}

async fn delegated(server: &Server, subject: &str, actor: &str) -> String {
    let body = exchange(server, subject, actor, &[]).await.expect(200);
    body["access_token"].as_str().unwrap().to_owned()
}

pub(super) async fn allow(server: &Server, agent: &Agent, delegate: &Agent) {
    let body = json!({ "delegate_id": delegate.id });
    server.admin.post(&format!("/agents/{}/delegates", agent.id), body).await.expect(201);
}

#[track_caller]
fn refused_with(response: &Response, why: &str) {
    refused(response, 400, "invalid_request");
    assert_eq!(response.json()["error_description"], why);
}

async fn exchanged_token_names_subject_and_actor(db: Database) {
    let server = Server::start(db).await;
    let resource_server = server.agent("resource-server", &["tokens:introspect"]).await;
    let planner = server.agent("planner", &["agents:read", "agents:write", "keys:manage"]).await;
    let worker = server.agent("worker", &["agents:read", "agents:write", "audit:read"]).await;
    let tool = server.agent("tool", &["agents:*"]).await;
    allow(&server, &planner, &worker).await;
    allow(&server, &planner, &tool).await;

    let root = token(&server, &planner, &[]).await;
    let body = exchange(&server, &root, worker.client.token(), &[]).await.expect(200);
    assert_eq!(body["issued_token_type"], ACCESS_TOKEN);
    assert_eq!((&body["token_type"], &body["scope"]), (&json!("Bearer"), &json!("agents:read agents:write")));
    let first = body["access_token"].as_str().unwrap();
    let payload = claims(first);
    assert_eq!((&payload["sub"], &payload["act"]), (&json!(planner.id), &json!({ "sub": worker.id })));
    assert_eq!((&payload["client_id"], &payload["aud"]), (&json!(worker.id), &json!(ISSUER)));

    // Without an actor token, the client itself is the actor.
    let form = [
        ("grant_type", EXCHANGE),
        ("subject_token", first),
        ("subject_token_type", ACCESS_TOKEN),
        ("scope", "agents:write"),
    ];
    let body = post_as_client(&server, &tool, "/oauth/token", &form).await.expect(200);
    let second = body["access_token"].as_str().unwrap();
    let chain = json!({ "sub": tool.id, "act": { "sub": worker.id } });
    assert_eq!(claims(second)["act"], chain);
    let introspected = post(&resource_server.client, "/oauth/introspect", &[("token", second)]).await.expect(200);
    assert_eq!((&introspected["active"], &introspected["act"]), (&json!(true), &chain));
    assert_eq!((&introspected["sub"], &introspected["client_id"]), (&json!(planner.id), &json!(tool.id)));
    assert_eq!(introspected["scope"], "agents:write");

    // The actor is recorded as such, and the details name the subject.
    let acting = server.anonymous().with_token(second);
    let created = acting.post("/agents", json!({ "name": "made", "owner": "team" })).await.expect(201);
    let record = server.audited("agent.created").await.remove(0);
    assert_eq!((&record["agent_id"], &record["resource_id"]), (&json!(tool.id), &created["id"]));
    assert_eq!(details(&record)["on_behalf_of"], json!(planner.id));
    acting.get("/audit").await.refused(403, "Missing required capability: audit:read");
    let records = server.audited("token.exchanged").await;
    assert_eq!(records.len(), 2);
    assert_eq!((&records[0]["agent_id"], &details(&records[0])["sub"]), (&json!(tool.id), &json!(planner.id)));
    assert_eq!(details(&records[0])["act"], chain);
    assert_eq!(details(&records[0])["subject_jti"], payload["jti"]);
}

async fn acting_for_an_agent_requires_its_permission(db: Database) {
    let server = Server::start(db).await;
    let planner = server.agent("planner", &["agents:read"]).await;
    let worker = server.agent("worker", &["agents:read"]).await;
    let thief = server.agent("thief", &["agents:read", "admin:*"]).await;
    let root = token(&server, &planner, &[]).await;
    refused_with(&exchange(&server, &root, worker.client.token(), &[]).await, NOT_ALLOWED);
    allow(&server, &planner, &worker).await;
    // A permission is for one direction and one agent, whatever capabilities the others hold.
    refused_with(&exchange(&server, worker.client.token(), &root, &[]).await, NOT_ALLOWED);
    refused_with(&exchange(&server, &root, thief.client.token(), &[]).await, NOT_ALLOWED);
    let first = delegated(&server, &root, worker.client.token()).await;
    allow(&server, &worker, &thief).await;
    // Permissions are not transitive.
    refused_with(&exchange(&server, &first, thief.client.token(), &[]).await, NOT_ALLOWED);

    // The subject's token may restrict who may act (`may_act`), but that permits nobody.
    let reserved = token(&server, &planner, &[("may_act", &thief.id)]).await;
    assert_eq!(claims(&reserved)["may_act"], json!({ "sub": thief.id }));
    refused_with(&exchange(&server, &reserved, worker.client.token(), &[]).await, NOT_ALLOWED);
    refused_with(&exchange(&server, &reserved, thief.client.token(), &[]).await, NOT_ALLOWED);
    let reserved = token(&server, &planner, &[("may_act", &worker.id)]).await;
    exchange(&server, &reserved, worker.client.token(), &[]).await.expect(200);

    // An actor token must be issued to the actor, for AIMS, and to the client if one authenticates.
    let uri = "https://mcp.example/tools";
    server.admin.post("/resources", json!({ "identifier": uri, "name": "Tools" })).await.expect(201);
    let elsewhere = token(&server, &worker, &[("resource", uri)]).await;
    for actor in [elsewhere.as_str(), &first, "junk", &worker.raw_key] {
        refused_with(&exchange(&server, &root, actor, &[]).await, ACTOR_INVALID);
    }
    let form = [
        ("grant_type", EXCHANGE),
        ("subject_token", &root),
        ("subject_token_type", ACCESS_TOKEN),
        ("actor_token", worker.client.token()),
        ("actor_token_type", ACCESS_TOKEN),
    ];
    refused_with(&post_as_client(&server, &thief, "/oauth/token", &form).await, ACTOR_INVALID);
    post_as_client(&server, &worker, "/oauth/token", &form).await.expect(200);
    // Expired and revoked tokens.
    server.admin.post_empty(&format!("/agents/{}/suspend", worker.id)).await.expect(200);
    refused_with(&exchange(&server, &root, worker.client.token(), &[]).await, ACTOR_INVALID);
    server.admin.post_empty(&format!("/agents/{}/reactivate", worker.id)).await.expect(200);
    let again = token(&server, &worker, &[]).await;
    server.admin.post_empty(&format!("/agents/{}/revoke-tokens", planner.id)).await.expect(200);
    refused_with(&exchange(&server, &root, &again, &[]).await, SUBJECT_INVALID);
    let records = server.audited("token.refused").await;
    assert_eq!(details(&records[0])["reason"], "invalid_request");
    assert_eq!(records[0]["agent_id"], json!(worker.id));
    assert!(records.len() >= 13, "{}", records.len());
}

async fn delegation_chains_are_bounded_and_have_no_loops(db: Database) {
    let server = Server::start_with(db, &[("DELEGATION_DEPTH_MAX", "3")]).await;
    let root_agent = server.agent("root", &["agents:read"]).await;
    let mut last = token(&server, &root_agent, &[]).await;
    refused_with(&exchange(&server, &last, &last, &[]).await, "The actor is part of the subject_token's chain already");
    let mut agents = Vec::new();
    for depth in 0..4 {
        let next = server.agent(&format!("actor-{depth}"), &["agents:read"]).await;
        allow(&server, &root_agent, &next).await;
        let response = exchange(&server, &last, next.client.token(), &[]).await;
        if depth == 3 {
            refused_with(&response, "The subject_token's chain has the maximum length");
            break;
        }
        response.expect(200)["access_token"].as_str().unwrap().clone_into(&mut last);
        agents.push(next);
        if depth < 2 {
            for agent in &agents {
                let again = exchange(&server, &last, agent.client.token(), &[]).await;
                refused_with(&again, "The actor is part of the subject_token's chain already");
            }
        }
    }
    let server = server.restart(&[("DELEGATION_DEPTH_MAX", "0")]).await;
    let root = token(&server, &root_agent, &[]).await;
    refused_with(
        &exchange(&server, &root, agents[0].client.token(), &[]).await,
        "The subject_token's chain has the maximum length",
    );
}

async fn exchange_is_bounded_by_subject_and_actor(db: Database) {
    let server = Server::start(db).await;
    let planner = server.agent("planner", &["agents:read", "keys:manage"]).await;
    let worker = server.agent("worker", &["agents:read", "audit:read"]).await;
    allow(&server, &planner, &worker).await;
    let root = token(&server, &planner, &[("expires_in", "600")]).await;
    for more in ["keys:manage", "audit:read", "agents:*", "admin:*", "agents:read keys:manage"] {
        let response = exchange(&server, &root, worker.client.token(), &[("scope", more)]).await;
        refused(&response, 400, "invalid_scope");
    }
    // The lifetime is bounded by both tokens.
    let body = exchange(&server, &root, worker.client.token(), &[("expires_in", "86400")]).await.expect(200);
    assert_eq!((&body["expires_in"], &body["scope"]), (&json!(600), &json!("agents:read")));
    let brief = token(&server, &worker, &[("expires_in", "60")]).await;
    let body = exchange(&server, &root, &brief, &[]).await.expect(200);
    assert_eq!(body["expires_in"], 60);
    server.clock.advance(Duration::from_mins(1));
    let acting = server.anonymous().with_token(body["access_token"].as_str().unwrap());
    acting.get("/agents").await.refused(401, "Invalid or expired token");

    // A token with a narrower scope stays narrow, and an agent cannot delegate a capability that it has lost.
    let narrow = token(&server, &planner, &[("scope", "keys:manage")]).await;
    let nothing = exchange(&server, &narrow, worker.client.token(), &[]).await.expect(200);
    assert_eq!(nothing.get("scope"), None);
    let acting = server.anonymous().with_token(&delegated(&server, &root, worker.client.token()).await);
    acting.get("/agents").await.expect(200);
    let capability = server.capability("agents:read").await;
    server.admin.delete(&format!("/agents/{}/capabilities/{capability}", worker.id)).await.expect(204);
    acting.get("/agents").await.refused(403, "Missing required capability: agents:read");
}

async fn malformed_exchanges_are_rejected(db: Database) {
    let server = Server::start(db).await;
    let planner = server.agent("planner", &[]).await;
    let worker = server.agent("worker", &[]).await;
    allow(&server, &planner, &worker).await;
    let (subject, actor) = (token(&server, &planner, &[]).await, worker.client.token());
    let good = [
        ("grant_type", EXCHANGE),
        ("subject_token", &subject),
        ("subject_token_type", ACCESS_TOKEN),
        ("actor_token", actor),
        ("actor_token_type", ACCESS_TOKEN),
    ];
    post(&server.anonymous(), "/oauth/token", &good).await.expect(200);
    for missing in ["subject_token", "subject_token_type", "actor_token_type"] {
        let form: Vec<_> = good.iter().filter(|(name, _)| *name != missing).copied().collect();
        refused(&post(&server.anonymous(), "/oauth/token", &form).await, 400, "invalid_request");
    }
    let without_actor: Vec<_> = good.iter().filter(|(name, _)| *name != "actor_token").copied().collect();
    refused(&post(&server.anonymous(), "/oauth/token", &without_actor).await, 401, "invalid_client");
    let id_token = "urn:ietf:params:oauth:token-type:id_token";
    for (name, value, error) in [
        ("requested_token_type", id_token, "invalid_request"),
        ("requested_token_type", "x", "invalid_request"),
        ("may_act", "nobody", "invalid_request"),
        ("expires_in", "0", "invalid_request"),
        ("audience", "https://nobody.example", "invalid_target"),
        ("scope", "a\"b", "invalid_scope"),
        ("subject_token", &subject, "invalid_request"),
    ] {
        let form = [good.as_slice(), &[(name, value)]].concat();
        refused(&post(&server.anonymous(), "/oauth/token", &form).await, 400, error);
    }
    let two = [good.as_slice(), &[("resource", ISSUER), ("audience", "https://other.example")]].concat();
    refused(&post(&server.anonymous(), "/oauth/token", &two).await, 400, "invalid_target");
    for (name, value) in [("subject_token_type", id_token), ("actor_token_type", id_token), ("subject_token", "a.b.c")]
    {
        let form: Vec<_> = good.iter().map(|&(n, v)| if n == name { (n, value) } else { (n, v) }).collect();
        refused(&post(&server.anonymous(), "/oauth/token", &form).await, 400, "invalid_request");
    }
    // Valid tokens do not make up for failed client authentication.
    let form = [good.as_slice(), &[("client_id", &*worker.id), ("client_secret", "aims_wrong")]].concat();
    refused(&post(&server.anonymous(), "/oauth/token", &form).await, 401, "invalid_client");
}

async fn ending_a_link_ends_the_tokens_derived_from_it(db: Database) {
    let server = Server::start(db).await;
    let resource_server = server.agent("resource-server", &["tokens:introspect"]).await;
    let ends = [
        "suspend subject",
        "suspend actor",
        "revoke subject",
        "revoke actor",
        "delete subject",
        "delete actor",
        "subject's token",
        "actor's token",
        "subject's key",
        "actor's key",
        "subject's tokens",
        "actor's tokens",
        "permission",
        "token itself",
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let planner = server.agent(&format!("planner-{number}"), &["agents:read"]).await;
        let worker = server.agent(&format!("worker-{number}"), &["agents:read"]).await;
        let tool = server.agent(&format!("tool-{number}"), &["agents:read"]).await;
        allow(&server, &planner, &worker).await;
        allow(&server, &planner, &tool).await;
        let (root, actor) = (token(&server, &planner, &[]).await, token(&server, &worker, &[]).await);
        let first = delegated(&server, &root, &actor).await;
        let second = delegated(&server, &first, tool.client.token()).await;
        server.anonymous().with_token(&second).get("/agents").await.expect(200);
        let agent = if end.contains("actor") { &worker } else { &planner };
        let path = format!("/agents/{}", agent.id);
        let revoked = |agent, token| post_as_client(&server, agent, "/oauth/revoke", token);
        match end.split_once(' ').unwrap_or((end, "")) {
            ("suspend", _) => drop(server.admin.post_empty(&format!("{path}/suspend")).await.expect(200)),
            ("revoke", _) => drop(server.admin.post_empty(&format!("{path}/revoke")).await.expect(200)),
            ("delete", _) => drop(server.admin.delete(&path).await.expect(204)),
            (_, "key") => drop(server.admin.delete(&format!("{path}/keys/{}", agent.key_id)).await.expect(204)),
            (_, "tokens") => {
                let response = server.admin.post_empty(&format!("{path}/revoke-tokens")).await.expect(200);
                // Both tokens of this agent, one of them derived, and the two derived from one of those.
                assert_eq!(response, json!({ "tokens_ended": 4 }), "{end}");
            }
            ("subject's", _) => {
                assert_eq!(revoked(&planner, &[("token", &root)]).await.expect(200), json!({ "tokens_ended": 3 }));
            }
            ("actor's", _) => {
                assert_eq!(revoked(&worker, &[("token", &actor)]).await.expect(200), json!({ "tokens_ended": 3 }));
            }
            ("token", _) => {
                assert_eq!(revoked(&worker, &[("token", &first)]).await.expect(200), json!({ "tokens_ended": 2 }));
            }
            _ => {
                server.admin.delete(&format!("{path}/delegates/{}", worker.id)).await.expect(204);
                // Granting the permission again does not reactivate old tokens.
                allow(&server, &planner, &worker).await;
            }
        }
        for token in [&first, &second] {
            server.anonymous().with_token(token).get("/agents").await.refused(401, "Invalid or expired token");
            let introspected = post(&resource_server.client, "/oauth/introspect", &[("token", token)]).await;
            assert_eq!(introspected.text, r#"{"active":false}"#, "{end}");
            refused_with(&exchange(&server, token, resource_server.client.token(), &[]).await, SUBJECT_INVALID);
        }
        if end.starts_with("suspend") {
            server.admin.post_empty(&format!("{path}/reactivate")).await.expect(200);
            server.anonymous().with_token(&second).get("/agents").await.refused(401, "Invalid or expired token");
        }
    }
}

/// A token of the tree, with the names of the agents in its chain.
struct Node {
    token: String,
    chain: Vec<String>,
}

async fn ending_a_middle_link_ends_its_descendants_and_no_others(db: Database) {
    let server = Server::start(db).await;
    let resource_server = server.agent("resource-server", &["tokens:introspect"]).await;
    let root = server.agent("root", &["agents:read"]).await;
    let mut agents = std::collections::BTreeMap::new();
    let mut nodes = vec![Node { token: token(&server, &root, &[]).await, chain: vec![] }];
    let mut parents = 0..1;
    // 1 + 3 + 12 + 84 = 100 tokens.
    for (level, width) in [("b", 3), ("c", 4), ("d", 7)] {
        for number in 0..width {
            let name = format!("{level}{number}");
            let agent = server.agent(&name, &["agents:read"]).await;
            allow(&server, &root, &agent).await;
            agents.insert(name, agent);
        }
        let begin = nodes.len();
        for parent in parents {
            for number in 0..width {
                let name = format!("{level}{number}");
                let token = delegated(&server, &nodes[parent].token, agents[&name].client.token()).await;
                let chain = [nodes[parent].chain.clone(), vec![name]].concat();
                nodes.push(Node { token, chain });
            }
        }
        parents = begin..nodes.len();
    }
    assert_eq!(nodes.len(), 100);
    let check = async |ended: &dyn Fn(&[String]) -> bool| {
        for node in &nodes {
            let introspected =
                post(&resource_server.client, "/oauth/introspect", &[("token", &node.token)]).await.expect(200);
            assert_eq!(introspected["active"], json!(!ended(&node.chain)), "{:?}", node.chain);
        }
    };
    let has = |chain: &[String], name: &str| chain.iter().any(|one| one == name);
    check(&|_| false).await;

    // One token in the middle: the token itself, 4 below it and 28 below those.
    let middle = nodes.iter().find(|node| node.chain == ["b1"]).unwrap();
    let response =
        post_as_client(&server, &agents["b1"], "/oauth/revoke", &[("token", &middle.token)]).await.expect(200);
    assert_eq!(response, json!({ "tokens_ended": 33 }));
    check(&|chain| has(chain, "b1")).await;
    // An agent in the middle.
    server.admin.post_empty(&format!("/agents/{}/suspend", agents["c2"].id)).await.expect(200);
    check(&|chain| has(chain, "b1") || has(chain, "c2")).await;
    // A delegate permission, and all tokens of an agent: its original one and those it obtained by exchange.
    server.admin.delete(&format!("/agents/{}/delegates/{}", root.id, agents["d6"].id)).await.expect(204);
    check(&|chain| has(chain, "b1") || has(chain, "c2") || has(chain, "d6")).await;
    let path = format!("/agents/{}/revoke-tokens", agents["b0"].id);
    // One original token, 1 obtained by exchange, 3 and 18 below that.
    assert_eq!(server.admin.post_empty(&path).await.expect(200), json!({ "tokens_ended": 23 }));
    check(&|chain| ["b0", "b1", "c2", "d6"].iter().any(|name| has(chain, name))).await;
    // Also after a restart: the state is not only in memory.
    let server = server.restart(&[]).await;
    let alive = nodes.iter().find(|node| node.chain == ["b2", "c3", "d5"]).unwrap();
    let ended = nodes.iter().find(|node| node.chain == ["b2", "c2", "d5"]).unwrap();
    server.anonymous().with_token(&alive.token).get("/agents").await.expect(200);
    server.anonymous().with_token(&ended.token).get("/agents").await.refused(401, "Invalid or expired token");
}

async fn tokens_are_listed_with_derived_tokens(db: Database) {
    let server = Server::start(db).await;
    let planner = server.agent("planner", &["agents:read"]).await;
    let worker = server.agent("worker", &["agents:read"]).await;
    let tool = server.agent("tool", &["agents:read"]).await;
    allow(&server, &planner, &worker).await;
    allow(&server, &planner, &tool).await;
    let root = token(&server, &planner, &[]).await;
    let first = delegated(&server, &root, worker.client.token()).await;
    server.clock.advance(Duration::from_secs(1));
    let second = delegated(&server, &first, tool.client.token()).await;
    let jti = |token: &str| claims(token)["jti"].clone();
    let listed = async |agent: &Agent| {
        let list = server.admin.get(&format!("/agents/{}/tokens", agent.id)).await.expect(200);
        let list = list.as_array().unwrap().clone();
        let below = |token: &Value| token["descendants"].as_array().unwrap().iter().map(|d| d["jti"].clone()).collect();
        list.into_iter().map(|token| (token["jti"].clone(), below(&token), token)).collect::<Vec<(_, Vec<_>, _)>>()
    };
    let of_planner = listed(&planner).await;
    assert_eq!((&of_planner[0].0, &of_planner[0].1), (&jti(&root), &vec![jti(&second), jti(&first)]));
    assert_eq!((&of_planner[0].2["sub"], &of_planner[0].2["act"]), (&json!(planner.id), &Value::Null));
    assert_eq!(of_planner[0].2["descendants"][0]["act"], json!({ "sub": tool.id, "act": { "sub": worker.id } }));
    assert!(of_planner[1].1.is_empty(), "nothing was derived from its other token");
    let of_worker = listed(&worker).await;
    assert_eq!((&of_worker[0].0, &of_worker[0].1), (&jti(&first), &vec![jti(&second)]));
    assert_eq!((&of_worker[0].2["sub"], &of_worker[0].2["act"]), (&json!(planner.id), &json!({ "sub": worker.id })));
    assert_eq!((&of_worker[1].0, &of_worker[1].1), (&jti(worker.client.token()), &vec![jti(&second), jti(&first)]));
    assert_eq!(listed(&tool).await[0].0, jti(&second));
    post_as_client(&server, &worker, "/oauth/revoke", &[("token", &first)]).await.expect(200);
    assert!(listed(&planner).await[0].1.is_empty());
    assert_eq!(listed(&tool).await.len(), 1);

    // Expired tokens are deleted.
    assert_eq!(server.db.count("SELECT COUNT(*) FROM delegated_token_links").await, 5);
    server.clock.advance(Duration::from_hours(1));
    aims::service::people::sessions::sweep(&server.services).await.unwrap();
    assert_eq!(server.db.count("SELECT COUNT(*) FROM delegated_tokens").await, 0);
    assert_eq!(server.db.count("SELECT COUNT(*) FROM delegated_token_links").await, 0);
}

async fn changing_delegates_requires_authority_and_is_audited(db: Database) {
    let server = Server::start(db).await;
    let (planner, worker) = (server.agent("planner", &["agents:read"]).await, server.agent("worker", &[]).await);
    let path = format!("/agents/{}/delegates", planner.id);
    let body = json!({ "delegate_id": worker.id });
    let added = server.admin.post(&path, body.clone()).await.expect(201);
    assert_eq!((&added["agent_id"], &added["delegate_id"]), (&json!(planner.id), &json!(worker.id)));
    assert_eq!(added["delegate_name"], "worker");
    assert_eq!(server.admin.get(&path).await.expect(200), json!([added]));
    server.admin.post(&path, body).await.refused(409, "The agent is already a delegate");
    let itself = json!({ "delegate_id": planner.id });
    server.admin.post(&path, itself).await.refused(400, "An agent cannot be its own delegate");
    let unknown = json!({ "delegate_id": "00000000-0000-7000-8000-000000000000" });
    server.admin.post(&path, unknown).await.refused(404, "Agent not found");
    for bad in [json!({}), json!({ "delegate_id": "x" }), json!({ "delegate_id": 7 }), json!([])] {
        server.admin.post(&path, bad).await.expect(422);
    }
    planner.client.get(&path).await.expect(200);
    planner.client.delete(&format!("{path}/{}", worker.id)).await.refused(403, "Missing required capability: admin:*");
    server.admin.delete(&format!("{path}/{}", worker.id)).await.expect(204);
    server.admin.delete(&format!("{path}/{}", worker.id)).await.refused(404, "Delegate not found");
    assert_eq!(server.admin.get(&path).await.expect(200), json!([]));
    for (action, id) in [("delegate.added", &worker.id), ("delegate.removed", &worker.id)] {
        let record = server.audited(action).await.remove(0);
        assert_eq!((&details(&record)["target_agent"], &record["resource_id"]), (&json!(planner.id), &json!(id)));
    }
}
