//! Privilege escalation: nobody can obtain authority that they do not hold.

use aims::{
    domain::{AgentId, ApiKeyId, Error, PublicKeyId},
    service::{
        Caller, Expected, agents,
        credentials::{api_keys, public_keys},
    },
};
use serde_json::{Value, json};

use crate::{
    both,
    support::{Agent, Database, Server, details},
};

both!(
    key_manager_cannot_escalate,
    key_manager_can_manage_agents_with_equal_authority,
    only_administrators_grant,
    concurrent_removals_leave_one_administrator,
    last_way_to_authenticate_cannot_be_removed,
    agents_that_cannot_authenticate_do_not_count,
);

async fn key_manager_cannot_escalate(db: Database) {
    let server = Server::start(db).await;
    let reader_too = server.agent("reader-too", &["keys:manage", "agents:read"]).await;
    for (name, held) in [("manager", "keys:manage"), ("wild", "keys:*")] {
        let manager = server.agent(name, &[held]).await;
        for (target, target_key, lacking) in [
            (&server.admin_id, bootstrap_key(&server).await, "admin:*"),
            (&reader_too.id, reader_too.key_id.clone(), "agents:read"),
        ] {
            let before = server.admin.get(&format!("/agents/{target}/keys")).await.expect(200);
            let refusals = server.audited("authz.denied").await.len();
            let refusal = format!("The agent holds authority that you lack: {lacking}");
            let keys = format!("/agents/{target}/keys");
            manager.client.post(&keys, json!({ "name": "mine" })).await.refused(403, &refusal);
            manager.client.post(&format!("{keys}/{target_key}/rotate"), json!({})).await.refused(403, &refusal);
            assert_eq!(server.admin.get(&keys).await.expect(200), before, "the keys must not change");
            let denied = server.audited("authz.denied").await;
            assert_eq!(denied.len(), refusals + 2, "each attempt must be audited");
            assert_eq!((&denied[0]["agent_id"], &denied[0]["success"]), (&json!(manager.id), &json!(0)));
            assert_eq!(details(&denied[0])["capability"], lacking);
        }
    }
}

/// Revokes a key as the system, which the rules about a caller's own keys do not limit.
pub(super) async fn revoke_key(server: &Server, agent: &str, key: &str) -> Result<(), Error> {
    let (agent, key) = (AgentId::parse(agent).unwrap(), ApiKeyId::parse(key).unwrap());
    api_keys::revoke(&server.services, &Caller::system(), agent, key).await
}

async fn bootstrap_key(server: &Server) -> String {
    let keys = server.admin.get(&format!("/agents/{}/keys", server.admin_id)).await.expect(200);
    keys[0]["id"].as_str().unwrap().to_owned()
}

async fn key_manager_can_manage_agents_with_equal_authority(db: Database) {
    let server = Server::start(db).await;
    let manager = server.agent("manager", &["keys:manage", "agents:*"]).await;
    for (name, held) in [("nothing", &[][..]), ("reader", &["agents:read"]), ("equal", &["keys:manage", "agents:*"])] {
        let target = server.agent(name, held).await;
        let keys = format!("/agents/{}/keys", target.id);
        let created = manager.client.post(&keys, json!({})).await.expect(201);
        let id = created["id"].as_str().unwrap();
        let rotated = manager.client.post(&format!("{keys}/{id}/rotate"), json!({})).await.expect(200);
        for key in [id, rotated["new_key"]["id"].as_str().unwrap()] {
            manager.client.delete(&format!("{keys}/{key}")).await.expect(204);
        }
    }
    // Including its own key, from which it gains nothing.
    let own = format!("/agents/{}/keys/{}/rotate", manager.id, manager.key_id);
    manager.client.post(&own, json!({})).await.expect(200);
}

async fn only_administrators_grant(db: Database) {
    let server = Server::start(db).await;
    let almost = server.agent("almost", &["agents:read", "agents:write", "keys:manage", "audit:read"]).await;
    let target = server.agent("target", &[]).await;
    let admin = server.capability("admin:*").await;
    let body = json!({ "capability_id": admin });
    for agent in [&almost.id, &target.id] {
        let grants = format!("/agents/{agent}/capabilities");
        almost.client.post(&grants, body.clone()).await.refused(403, "Missing required capability: admin:*");
    }
    server
        .admin
        .post(&format!("/agents/{}/capabilities", server.admin_id), body.clone())
        .await
        .refused(400, "Cannot modify your own capabilities");
    let own = format!("/agents/{}/capabilities/{admin}", server.admin_id);
    server.admin.delete(&own).await.refused(400, "Cannot modify your own capabilities");
    let edit = json!({ "status": "active", "name": "admin2", "capabilities": ["admin:*"], "token_epoch": 9 });
    let edited = almost.client.patch(&format!("/agents/{}", almost.id), edit).await.expect(200);
    assert_eq!(edited["name"], "almost");
    assert_eq!(held(&server, &almost).await.len(), 4);
}

async fn held(server: &Server, agent: &Agent) -> Vec<Value> {
    server.admin.get(&format!("/agents/{}/capabilities", agent.id)).await.expect(200).as_array().unwrap().clone()
}

/// Of two administrators who concurrently remove each other in any way, one remains.
async fn concurrent_removals_leave_one_administrator(db: Database) {
    let server = Server::start(db).await;
    let admin = server.capability("admin:*").await;
    let mut first = server.agent("first", &["admin:*"]).await;
    first.client.post_empty(&format!("/agents/{}/revoke", server.admin_id)).await.expect(200);
    for round in 0..20 {
        let second = sibling(&first, &format!("second-{round}"), &admin).await;
        let stop = |by: &Agent, target: &Agent| {
            let (client, id) = (by.client.clone(), target.id.clone());
            let grant = format!("/agents/{id}/capabilities/{admin}");
            async move {
                match round % 4 {
                    0 => client.post_empty(&format!("/agents/{id}/revoke")).await,
                    1 => client.post_empty(&format!("/agents/{id}/suspend")).await,
                    2 => client.delete(&format!("/agents/{id}")).await,
                    _ => client.delete(&grant).await,
                }
            }
        };
        let (one, other) = tokio::join!(stop(&first, &second), stop(&second, &first));
        let stopped = [&one, &other].iter().filter(|response| response.status.is_success()).count();
        assert_eq!(stopped, 1, "round {round}: {one:?} {other:?}");
        if other.status.is_success() {
            first = second;
        }
        first.client.get("/agents").await.expect(200);
    }
}

/// Creates an agent with the authority of `maker`, by `maker`.
async fn sibling(maker: &Agent, name: &str, admin: &str) -> Agent {
    let agent = maker.client.post("/agents", json!({ "name": name, "owner": "o" })).await.expect(201);
    let id = agent["id"].as_str().unwrap().to_owned();
    maker.client.post(&format!("/agents/{id}/capabilities"), json!({ "capability_id": admin })).await.expect(201);
    let key = maker.client.post(&format!("/agents/{id}/keys"), json!({})).await.expect(201);
    let raw_key = key["raw_key"].as_str().unwrap().to_owned();
    let client = maker.client.login(&raw_key).await;
    Agent { id, key_id: key["id"].as_str().unwrap().to_owned(), raw_key, client }
}

async fn last_way_to_authenticate_cannot_be_removed(db: Database) {
    let server = Server::start(db).await;
    let keys = format!("/agents/{}/keys", server.admin_id);
    let only = bootstrap_key(&server).await;
    let refusal =
        "This is the last usable credential of the last active agent that holds admin:*. Create another one first";
    server.admin.delete(&format!("{keys}/{only}")).await.refused(400, refusal);
    // The operator cannot lock everybody out either.
    let refused = revoke_key(&server, &server.admin_id, &only).await.unwrap_err();
    assert_eq!(refused.to_string(), refusal);
    let other = server.admin.post(&keys, json!({})).await.expect(201);
    let admin = server.admin.login(other["raw_key"].as_str().unwrap()).await;
    admin.delete(&format!("{keys}/{only}")).await.expect(204);
    admin.get("/agents").await.expect(200);
}

/// Another agent with `admin:*` or another key does not help if nobody can authenticate with it.
async fn agents_that_cannot_authenticate_do_not_count(db: Database) {
    let server = Server::start(db).await;
    let power = server.capability("admin:*").await;
    let other = sibling(
        &Agent {
            id: server.admin_id.clone(),
            key_id: String::new(),
            raw_key: server.admin_key.clone(),
            client: server.admin.clone(),
        },
        "other",
        &power,
    )
    .await;
    let end = async |agent: &str, key: &str| revoke_key(&server, agent, key).await;
    end(&other.id, &other.key_id).await.unwrap();
    let only = bootstrap_key(&server).await;
    end(&server.admin_id, &only).await.unwrap_err();
    let admin = AgentId::parse(&server.admin_id).unwrap();
    let refused = agents::suspend(&server.services, &Caller::system(), admin, Expected::Any, None).await.unwrap_err();
    assert_eq!(refused.to_string(), "This is the last active agent that holds admin:* and can authenticate");

    let keys = format!("/agents/{}/keys", server.admin_id);
    let rotated = server.admin.post(&format!("{keys}/{only}/rotate"), json!({})).await.expect(200);
    let newer = rotated["new_key"]["id"].as_str().unwrap();
    end(&server.admin_id, newer).await.unwrap_err();
    end(&server.admin_id, &only).await.unwrap();

    // A public key counts as well, until it is the last.
    let jwk = json!({
        "kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    });
    let admin = server.admin.login(rotated["new_key"]["raw_key"].as_str().unwrap()).await;
    let public = admin.post(&format!("/agents/{}/public-keys", server.admin_id), jwk).await.expect(201);
    end(&server.admin_id, newer).await.unwrap();
    let public = PublicKeyId::parse(public[0]["id"].as_str().unwrap()).unwrap();
    let owner = AgentId::parse(&server.admin_id).unwrap();
    let removed = public_keys::remove(&server.services, &Caller::system(), owner, public).await;
    assert!(matches!(removed, Err(Error::Refused(_))), "{removed:?}");
}
