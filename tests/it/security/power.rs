//! A caller cannot remove credentials, delegates, tokens or grants of an agent that holds more than the caller does.

use std::collections::BTreeSet;

use aims::{
    domain::Role,
    service::Action,
    web::{console, demand::Demand, routes},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    both,
    oauth::post_as_client,
    support::{Agent, Browser, Client, Database, Response, Server, details, open, start},
};

both!(
    key_manager_cannot_act_on_a_stronger_agent,
    operator_cannot_act_on_an_administrator,
    console_offers_only_permitted_actions,
    bulk_actions_skip_stronger_agents,
    agents_can_remove_their_own_credentials,
    delegate_has_no_authority_of_a_stronger_agent,
    identity_cannot_overlap_one_of_a_stronger_agent,
    concurrent_overlapping_identities_never_weaken_a_stronger_agent,
);

const UNLIMITED: (&str, &str) = ("AUDIT_REFUSALS_PER_MINUTE", "1000000");

/// An agent with one of everything that can be removed from it.
struct Target {
    agent: Agent,
    /// A capability that it holds.
    capability: String,
    public_key: String,
    identity: String,
    delegate: String,
}

impl Target {
    async fn make(server: &Server, name: &str, holds: &str) -> Self {
        let agent = server.agent(name, &[holds]).await;
        let path = format!("/agents/{}", agent.id);
        let admin = &server.admin;
        let public = admin.post(&format!("{path}/public-keys"), public_key()).await.expect(201);
        let identity = admin.post(&format!("{path}/federated-identities"), trust(name)).await.expect(201);
        let delegate = server.agent(&format!("{name}-delegate"), &[]).await.id;
        admin.post(&format!("{path}/delegates"), json!({ "delegate_id": delegate })).await.expect(201);
        // A second credential, so that the first can be removed.
        admin.post(&format!("{path}/keys"), json!({})).await.expect(201);
        let capability = server.capability(holds).await;
        let id = |created: &Value| created["id"].as_str().unwrap().to_owned();
        Self { agent, capability, public_key: id(&public[0]), identity: id(&identity), delegate }
    }

    /// Fills this agent's identifiers into a route of the API or the console.
    fn path(&self, route: &str) -> String {
        let key = if route.contains("/public-keys/") {
            &self.public_key
        } else if route.contains("/federated-identities/") {
            &self.identity
        } else if route.contains("/delegates/") {
            &self.delegate
        } else {
            &self.agent.key_id
        };
        [
            ("{id}", &self.agent.id),
            ("{key_id}", key),
            ("{key}", key),
            ("{identity_id}", &self.identity),
            ("{delegate_id}", &self.delegate),
            ("{capability_id}", &self.capability),
            ("{capability}", &self.capability),
        ]
        .iter()
        .fold(route.to_owned(), |path, (part, value)| path.replace(part, value))
    }

    /// Everything that can be read about the agent.
    async fn state(&self, server: &Server) -> Vec<Value> {
        let mut state = Vec::new();
        for part in ["", "/keys", "/public-keys", "/federated-identities", "/delegates", "/capabilities", "/tokens"] {
            state.push(server.admin.get(&format!("/agents/{}{part}", self.agent.id)).await.expect(200));
        }
        state
    }
}

fn public_key() -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
}

fn another_public_key() -> Value {
    json!({
        "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    })
}

fn trust(subject: &str) -> Value {
    json!({ "issuer": "https://issuer.example", "audience": "aims", "claims": { "sub": subject } })
}

/// Returns the number of recorded refusals and the newest one.
async fn denied(server: &Server) -> (usize, Value) {
    let records = server.audited("authz.denied").await;
    (records.len(), records.first().cloned().unwrap_or_default())
}

async fn call(client: &Client, method: &Method, path: &str, body: &Value) -> Response {
    client.send(client.request(method.clone(), path).json(body)).await
}

/// Returns the actions upon agents from the route table, so that new ones are tested automatically.
fn api_actions() -> Vec<(Method, String, Action)> {
    let acts = routes::list().into_iter().filter_map(|route| match route.demand {
        Demand::Action(action) if route.path.starts_with("/agents/{id}") && route.method != Method::GET => {
            Some((route.method, route.path, action))
        }
        _ => None,
    });
    // Editing an agent removes nothing from it.
    acts.filter(|(.., action)| *action != Action::UpdateAgent).collect()
}

async fn key_manager_cannot_act_on_a_stronger_agent(db: Database) {
    let server = Server::start_with(db, &[UNLIMITED]).await;
    let manager = server.agent("manager", &["keys:manage"]).await;
    let helper = server.agent("helper", &[]).await;
    let acts = api_actions();
    assert_eq!(acts.len(), 16, "add a valid body for the new action, then update this count");
    for (name, holds) in [("boss", "admin:*"), ("special", "x:y")] {
        let target = Target::make(&server, name, holds).await;
        let before = target.state(&server).await;
        for (method, path, action) in &acts {
            let body = match (method.as_str(), path.rsplit('/').next().unwrap()) {
                ("POST", "public-keys") => another_public_key(),
                ("POST", "federated-identities") => trust("other"),
                ("POST", "delegates") => json!({ "delegate_id": helper.id }),
                ("POST", "capabilities") => json!({ "capability_id": target.capability }),
                _ => json!({}),
            };
            let (refusals, _) = denied(&server).await;
            let response = call(&manager.client, method, &target.path(path), &body).await;
            let lacking = if action.demands() == "keys:manage" {
                response.refused(403, &format!("The agent holds authority that you lack: {holds}"));
                holds
            } else {
                response.refused(403, "Missing required capability: admin:*");
                "admin:*"
            };
            let (count, record) = denied(&server).await;
            assert_eq!(count, refusals + 1, "{method} {path} must be audited");
            assert_eq!((&record["agent_id"], &record["success"]), (&json!(manager.id), &json!(0)), "{method} {path}");
            assert_eq!(details(&record)["capability"], lacking, "{method} {path}");
            assert_eq!(target.state(&server).await, before, "{method} {path} changed something");
        }
        server.anonymous().exchange(&target.agent.raw_key).await.expect(200);
    }
}

/// Returns a valid console form, so that only its sender can be the reason for a rejection.
fn form<'f>(path: &str, target: &'f Target) -> Vec<(&'static str, &'f str)> {
    const KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    match path.trim_start_matches("/console/agents/{id}/") {
        "keys" => vec![("name", "mine"), ("life", "90")],
        "keys/{key}/rotate" => vec![("grace", "0")],
        "public-keys" => vec![("jwk", KEY)],
        "federated-identities" => {
            vec![("issuer", "https://issuer.example"), ("audience", "aims"), ("claims", "sub=other")]
        }
        "delegates" => vec![("delegate", "helper")],
        "grants" => vec![("capability", &target.capability)],
        "revoke" | "delete" => vec![("confirm", "boss")],
        _ => Vec::new(),
    }
}

async fn operator_cannot_act_on_an_administrator(db: Database) {
    let server = Server::start_with(db, &[UNLIMITED]).await;
    let person = server.person("zoe", Role::Operator).await.to_string();
    let browser = server.sign_in("zoe").await;
    server.agent("helper", &[]).await;
    let boss = Target::make(&server, "boss", "admin:*").await;
    let sleeper = Target::make(&server, "sleeper", "admin:*").await;
    server.admin.post_empty(&format!("/agents/{}/suspend", sleeper.agent.id)).await.expect(200);

    let acts = console::routes::list().into_iter().filter(|route| {
        let is_act = route.method == Method::POST && route.path.starts_with("/console/agents/{id}/");
        is_act && matches!(route.demand, Demand::Action(action) if action.demands_role() == Role::Operator)
    });
    let mut count = 0;
    for route in acts {
        let target = if route.path.ends_with("/reactivate") { &sleeper } else { &boss };
        let (before, (refusals, _)) = (target.state(&server).await, denied(&server).await);
        let page = browser.post(&target.path(&route.path), &form(&route.path, target)).await;
        // The result of revoking a grant is shown on the page that the browser is redirected to.
        let page = if page.status == 303 { browser.get(page.location()).await } else { page.expect(403) };
        page.shows("authority that you lack: admin:*");
        let (now, record) = denied(&server).await;
        assert_eq!(now, refusals + 1, "{} must be audited", route.path);
        assert_eq!((&record["agent_id"], &record["success"]), (&json!(person), &json!(0)), "{}", route.path);
        assert_eq!(details(&record)["capability"], "admin:*", "{}", route.path);
        assert_eq!(target.state(&server).await, before, "{} changed something", route.path);
        count += 1;
    }
    assert_eq!(count, 16, "add a valid form for the new action, then update this count");

    // An operator cannot grant capabilities to it either, even ones that they may grant to others.
    let (before, reading) = (boss.state(&server).await, server.capability("agents:read").await);
    let page = browser.post(&boss.path("/console/agents/{id}/grants"), &[("capability", reading.as_str())]).await;
    let page = if page.status == 303 { browser.get(page.location()).await } else { page.expect(403) };
    page.shows("authority that you lack: admin:*");
    assert_eq!(boss.state(&server).await, before);
    server.anonymous().exchange(&boss.agent.raw_key).await.expect(200);
}

/// Returns the paths below an agent that a page links or posts to.
fn offers(page: &str, agent: &str) -> BTreeSet<String> {
    let mark = format!("\"/console/agents/{agent}/");
    let paths = page.split(&mark).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    // The page of a key only reads.
    paths.filter(|path| path == "keys/new" || path.matches('/').count() != 1 || !path.starts_with("keys/")).collect()
}

async fn console_offers_only_permitted_actions(db: Database) {
    let server = Server::start_with(db, &[UNLIMITED]).await;
    let boss = Target::make(&server, "boss", "admin:*").await;
    let plain = Target::make(&server, "plain", "agents:read").await;
    let (operator, owner) = (server.signed_in("zoe", Role::Operator).await, server.signed_in("ada", Role::Owner).await);
    let seen = async |browser: &Browser, target: &Target| {
        let mut offered = BTreeSet::new();
        for page in ["", "/keys", "/tokens", "/grants"] {
            let page = browser.get(&format!("/console/agents/{}{page}", target.agent.id)).await.expect(200);
            offered.extend(offers(&page.text, &target.agent.id));
        }
        let fleet = browser.get("/console/keys").await.expect(200);
        offered.extend(offers(&fleet.text, &target.agent.id));
        // The page of a key, which everybody may read.
        offered.retain(|path| path.strip_prefix("keys/").is_none_or(|rest| rest == "new" || rest.contains('/')));
        offered
    };
    let only_read = ["connect", "edit", "grants", "keys", "timeline", "tokens"];
    assert_eq!(seen(&operator, &boss).await, only_read.map(str::to_owned).into());
    let paths = |target: &Target| {
        let of_target = [
            format!("keys/{}/rotate", target.agent.key_id),
            format!("keys/{}/revoke", target.agent.key_id),
            format!("public-keys/{}/remove", target.public_key),
            format!("federated-identities/{}/remove", target.identity),
            format!("delegates/{}/remove", target.delegate),
            format!("grants/{}/remove", target.capability),
        ];
        let of_all = [
            "keys/new",
            "public-keys/new",
            "federated-identities/new",
            "delegates",
            "tokens/end",
            "suspend",
            "revoke",
            "delete",
        ];
        of_target.into_iter().chain(of_all.map(str::to_owned)).collect::<BTreeSet<_>>()
    };
    for (browser, target) in [(&owner, &boss), (&owner, &plain), (&operator, &plain)] {
        let offered = seen(browser, target).await;
        let missing: Vec<_> = paths(target).difference(&offered).cloned().collect();
        assert!(missing.is_empty(), "{missing:?} are not offered: {offered:?}");
    }
    let page = operator.get(&format!("/console/agents/{}", boss.agent.id)).await;
    page.shows("Only an owner can suspend");

    // Opening the form by its URL is rejected, too.
    for form in [
        "keys/new",
        "keys/{key}/rotate",
        "keys/{key}/revoke",
        "public-keys/new",
        "public-keys/{key}/remove",
        "federated-identities/new",
        "federated-identities/{key}/remove",
        "grants/{capability}/remove",
        "delegates/{key}/remove",
        "tokens/end",
        "suspend",
        "revoke",
        "delete",
    ] {
        let path = format!("/console/agents/{{id}}/{form}");
        operator.get(&boss.path(&path)).await.expect(403).shows("authority that you lack: admin:*");
        operator.get(&plain.path(&path)).await.expect(200);
        owner.get(&boss.path(&path)).await.expect(200);
    }
}

async fn bulk_actions_skip_stronger_agents(db: Database) {
    let server = Server::start_with(db, &[UNLIMITED]).await;
    let boss = Target::make(&server, "boss", "admin:*").await;
    let plain = server.agent("plain", &[]).await;
    let operator = server.signed_in("zoe", Role::Operator).await;
    let before = boss.state(&server).await;
    let form = [("act", "suspend"), ("id", boss.agent.id.as_str()), ("id", plain.id.as_str())];
    // Without the preview nothing happens, whatever the form says.
    for seen in ["", "2"] {
        let forged: Vec<_> = form.into_iter().chain([("seen", seen)]).collect();
        operator.post("/console/agents/bulk/apply", &forged).await.shows("1 of 2 will change");
    }
    let page = operator.post("/console/agents/bulk", &form).await.expect(200);
    page.shows("1: holds admin:*, which you lack");
    let seen = page.hidden("seen");
    let form: Vec<_> = form.into_iter().chain([("seen", seen.as_str())]).collect();
    operator.post("/console/agents/bulk/apply", &form).await.redirects_to("/console/agents");
    operator.get("/console/agents").await.shows("plain suspended. 1 other agent did not change.");
    assert_eq!(boss.state(&server).await, before);
    assert!(server.audited("authz.denied").await.is_empty(), "the preview leaves the agent out, so nothing is denied");
}

/// A token with a narrower scope than the agent's still belongs to the agent.
async fn agents_can_remove_their_own_credentials(db: Database) {
    let server = Server::start(db).await;
    let target = Target::make(&server, "boss", "admin:*").await;
    let path = format!("/agents/{}", target.agent.id);
    let wanted = [("grant_type", "client_credentials"), ("scope", "keys:manage")];
    let token = post_as_client(&server, &target.agent, "/oauth/token", &wanted).await.expect(200);
    let narrow = server.anonymous().with_token(token["access_token"].as_str().unwrap());
    let lacking = "The agent holds authority that you lack: admin:*";
    // A new credential could do more than the token.
    for (route, body) in [
        ("keys", json!({})),
        ("keys/{key}/rotate", json!({})),
        ("public-keys", another_public_key()),
        ("federated-identities", trust("other")),
    ] {
        narrow.post(&target.path(&format!("/agents/{{id}}/{route}")), body).await.refused(403, lacking);
    }
    narrow.delete(&format!("{path}/public-keys/{}", target.public_key)).await.expect(204);
    narrow.delete(&format!("{path}/federated-identities/{}", target.identity)).await.expect(204);
    narrow.delete(&format!("{path}/keys/{}", target.agent.key_id)).await.expect(204);
}

async fn delegate_has_no_authority_of_a_stronger_agent(db: Database) {
    let server = Server::start_with(db, &[UNLIMITED]).await;
    let target = Target::make(&server, "boss", "admin:*").await;
    let manager = server.agent("manager", &["keys:manage"]).await;
    let path = format!("/agents/{}", target.agent.id);
    server.admin.post(&format!("{path}/delegates"), json!({ "delegate_id": manager.id })).await.expect(201);
    let exchange = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", target.agent.client.token()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
    ];
    let token = post_as_client(&server, &manager, "/oauth/token", &exchange).await.expect(200);
    let acting = server.anonymous().with_token(token["access_token"].as_str().unwrap());
    let before = target.state(&server).await;
    let lacking = "The agent holds authority that you lack: admin:*";
    for route in ["keys/{key}", "public-keys/{key}", "federated-identities/{key}"] {
        acting.delete(&target.path(&format!("/agents/{{id}}/{route}"))).await.refused(403, lacking);
    }
    assert_eq!(target.state(&server).await, before);
    assert_eq!(denied(&server).await.0, 3);
}

/// If a token matches two agents, each must identify itself. A weaker caller must not impose that on a stronger agent.
async fn identity_cannot_overlap_one_of_a_stronger_agent(db: Database) {
    let server = Server::start_with(db, &[UNLIMITED]).await;
    let manager = server.agent("manager", &["keys:manage"]).await;
    let (weak, equal) = (server.agent("weak", &[]).await, server.agent("equal", &["keys:manage"]).await);
    let identities = |agent: &Agent| format!("/agents/{}/federated-identities", agent.id);
    let created = |claims: Value| json!({ "issuer": "https://issuer.example", "audience": "aims", "claims": claims });
    let held = created(json!({ "sub": "worker", "ref": "main" }));
    for (name, holds) in [("boss", "admin:*"), ("special", "x:y")] {
        let strong = server.agent(name, &[holds]).await;
        let kept = server.admin.post(&identities(&strong), held.clone()).await.expect(201);
        let elsewhere = json!("https://elsewhere.example/keys");
        for claims in [
            json!({ "sub": "worker", "ref": "main" }),
            json!({ "sub": "worker" }),
            json!({ "ref": "main" }),
            json!({ "sub": "worker", "ref": "main", "environment": "prod" }),
            json!({ "environment": "prod" }),
        ] {
            // A token may have several audiences.
            let audience = if claims["ref"].is_null() { "aims" } else { "another" };
            for jwks_uri in [Value::Null, elsewhere.clone()] {
                let (refusals, _) = denied(&server).await;
                let mut body = created(claims.clone());
                body["jwks_uri"] = jwks_uri;
                body["audience"] = json!(audience);
                let refusal =
                    format!("It overlaps a federated identity of an agent that holds authority that you lack: {holds}");
                manager.client.post(&identities(&weak), body).await.refused(403, &refusal);
                let (count, record) = denied(&server).await;
                assert_eq!((count, &record["agent_id"]), (refusals + 1, &json!(manager.id)), "{claims}");
                assert_eq!(details(&record)["capability"], holds);
            }
        }
        assert_eq!(server.admin.get(&identities(&weak)).await.expect(200), json!([]));
        // No token matches both of these.
        for (field, value) in [
            ("claims", json!({ "sub": "worker", "ref": "other" })),
            ("claims", json!({ "sub": "other" })),
            ("issuer", json!("https://another.example")),
        ] {
            let mut body = held.clone();
            body[field] = value;
            let added = manager.client.post(&identities(&weak), body).await.expect(201);
            let path = format!("{}/{}", identities(&weak), added["id"].as_str().unwrap());
            manager.client.delete(&path).await.expect(204);
        }
        // A caller with authority over both may do it, as may a manager of agents with equal authority.
        let own = server.admin.post(&identities(&weak), held.clone()).await.expect(201);
        for (agent, identity) in [(&weak, own), (&strong, kept)] {
            let path = format!("{}/{}", identities(agent), identity["id"].as_str().unwrap());
            server.admin.delete(&path).await.expect(204);
        }
    }
    manager.client.post(&identities(&equal), held.clone()).await.expect(201);
    manager.client.post(&identities(&equal), held.clone()).await.expect(201);
    manager.client.post(&identities(&weak), held).await.expect(201);

    // Also in the console, where an operator lacks only `admin:*`.
    let chief = server.agent("chief", &["admin:*"]).await;
    server.admin.post(&identities(&chief), trust("chief")).await.expect(201);
    let operator = server.signed_in("zoe", Role::Operator).await;
    let form = [("issuer", "https://issuer.example"), ("audience", "aims"), ("claims", "sub=chief\nref=main")];
    let path = format!("/console/agents/{}/federated-identities", weak.id);
    operator.post(&path, &form).await.expect(403).shows("It overlaps a federated identity of an agent");
}

/// The weaker identity is rejected or came first, because the check runs in the writing transaction.
async fn concurrent_overlapping_identities_never_weaken_a_stronger_agent(db: Database) {
    let server = Server::start_with(db, &[UNLIMITED]).await;
    let manager = server.agent("manager", &["keys:manage"]).await;
    let (weak, boss) = (server.agent("weak", &[]).await, server.agent("boss", &["admin:*"]).await);
    // On two nodes if the database allows it.
    let elsewhere = if server.db.is_sqlite() {
        server.url.clone()
    } else {
        start(open(&server.db, &server.clock, &[UNLIMITED]).await).await
    };
    let there = Client::new(elsewhere).with_token(manager.client.token());
    for round in 0..10 {
        let body = trust(&format!("worker-{round}"));
        let (mine, theirs) =
            (format!("/agents/{}/federated-identities", weak.id), format!("/agents/{}/federated-identities", boss.id));
        let (weaker, stronger) =
            tokio::join!(there.post(&mine, body.clone()), server.admin.post(&theirs, body.clone()));
        stronger.expect(201);
        let added = server.audited("federated_identity.added").await;
        let subjects: Vec<_> = added
            .iter()
            .map(details)
            .filter(|details| details["claims"] == body["claims"])
            .map(|details| details["target_agent"].clone())
            .collect();
        // The newest record is listed first.
        match weaker.status.as_u16() {
            201 => assert_eq!(subjects, [json!(boss.id), json!(weak.id)]),
            status => assert_eq!((status, subjects), (403, vec![json!(boss.id)])),
        }
    }
}
