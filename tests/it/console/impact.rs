//! Destructive actions show what they affect before they take effect, and can be undone where that is possible.

use aims::{domain::Role, service::Caller, service::agents::impact};
use serde_json::json;

use super::invitations::{acts, invite};
use crate::{
    both,
    support::{Agent, Browser, Database, Server},
};

both!(
    nothing_happens_until_it_is_confirmed,
    confirmation_counts_what_stops,
    impact_of_many_agents_is_counted_once,
    suspension_and_removed_grants_can_be_undone,
    confirmation_is_refused_for_stronger_agents,
);

/// A planner with a resource, tokens, a delegate that acts for it, and an agent that it can act for.
struct Fleet {
    planner: Agent,
    worker: Agent,
    capability: String,
}

impl Fleet {
    async fn start(server: &Server) -> Self {
        let (planner, worker) =
            (server.agent("planner", &["plans:read"]).await, server.agent("worker", &["plans:read"]).await);
        let boss = server.agent("boss", &[]).await;
        let resource = json!({ "identifier": "https://plans.example", "name": "Plans", "scope": "plans:read" });
        server.admin.post("/resources", resource).await.expect(201);
        let other = json!({ "identifier": "https://mail.example", "name": "Mail", "scope": "agents:read" });
        server.admin.post("/resources", other).await.expect(201);
        for (agent, delegate) in [(&planner, &worker), (&boss, &planner)] {
            let body = json!({ "delegate_id": delegate.id });
            server.admin.post(&format!("/agents/{}/delegates", agent.id), body).await.expect(201);
        }
        let access_token = "urn:ietf:params:oauth:token-type:access_token";
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", planner.client.token()),
            ("subject_token_type", access_token),
            ("actor_token", worker.client.token()),
            ("actor_token_type", access_token),
        ];
        let anonymous = server.anonymous();
        anonymous.send(anonymous.request(reqwest::Method::POST, "/oauth/token").form(&form)).await.expect(200);
        let capability = server.capability("plans:read").await;
        Self { planner, worker, capability }
    }

    fn path(&self, rest: &str) -> String {
        format!("/console/agents/{}{rest}", self.planner.id)
    }

    /// The confirmation pages of everything that can be taken from the planner.
    fn confirmations(&self) -> [String; 6] {
        [
            self.path("/suspend"),
            self.path("/revoke"),
            self.path("/delete"),
            self.path("/tokens/end"),
            self.path(&format!("/grants/{}/remove", self.capability)),
            self.path(&format!("/delegates/{}/remove", self.worker.id)),
        ]
    }
}

/// The confirmation page of an action on anything but a whole agent.
struct Confirmation {
    path: String,
    /// The path that its form is posted to.
    action: String,
    /// What it says about the object, with numbers.
    shows: Vec<&'static str>,
    /// The page that leads to it.
    from: String,
}

impl Confirmation {
    async fn all(server: &Server, owner: &Browser, fleet: &Fleet) -> Vec<Self> {
        let agent = &fleet.planner.id;
        let resources = server.admin.get("/resources").await.expect(200);
        let plans = resources.as_array().unwrap().iter().find(|resource| resource["name"] == "Plans").unwrap();
        let resource = format!("/console/resources/{}", plans["id"].as_str().unwrap());
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "primary", "x": x });
        let key = server.admin.post(&format!("/agents/{agent}/public-keys"), jwk).await.expect(201);
        let trust = json!({ "issuer": "https://issuer.example", "audience": "aims", "claims": { "sub": "workload" } });
        let identity = server.admin.post(&format!("/agents/{agent}/federated-identities"), trust).await.expect(201);
        let (key, identity) = (key[0]["id"].as_str().unwrap(), identity["id"].as_str().unwrap());
        let person = format!("/console/administrators/{}", server.person("eve", Role::Viewer).await);
        for _ in 0..2 {
            server.sign_in("eve").await;
        }
        invite(owner, "Ada of research", "viewer").await;
        let invitation = acts(owner, "/withdraw").await.remove(0);
        let (keys, signing_keys) = (fleet.path("/keys"), "/console/signing-keys".to_owned());
        let at = |path: String, from: &str, shows: &[&'static str]| Self {
            action: path.clone(),
            path,
            shows: shows.to_vec(),
            from: from.to_owned(),
        };
        vec![
            Self {
                path: format!("{signing_keys}/replace"),
                action: format!("{signing_keys}/rotate"),
                shows: vec![
                    "Every access token ends immediately",
                    "for up to 5 minutes",
                    "Active agents, which need new tokens</dt><dd><span class=\"wrap\">4</span>",
                    "Keys that stop working</dt><dd><span class=\"wrap\">2</span>",
                ],
                from: signing_keys,
            },
            at(
                format!("{resource}/delete"),
                &resource,
                &[
                    "Delete <span class=\"wrap\">Plans</span>?",
                    "plans:read</a> (held by 2 agents)",
                    "no longer request",
                ],
            ),
            at(
                format!("{person}/disable"),
                &person,
                &[
                    "Disable <span class=\"wrap\">eve</span>?",
                    "Active sessions that end</dt><dd><span class=\"wrap\">2</span>",
                    "Viewer",
                ],
            ),
            at(
                invitation,
                "/console/administrators",
                &["Withdraw the invitation for <span class=\"wrap\">Ada of research</span>?", "in 3 days"],
            ),
            at(
                fleet.path(&format!("/public-keys/{key}/remove")),
                &keys,
                &[
                    "Revoke the public key <span class=\"wrap\">primary</span> of planner?",
                    "No use in the audit log",
                    "Active tokens that end</dt><dd><span class=\"wrap\">0</span>",
                ],
            ),
            at(
                fleet.path(&format!("/federated-identities/{identity}/remove")),
                &keys,
                &[
                    "Revoke the federated identity <span class=\"wrap\">https://issuer.example</span> of planner?",
                    "sub=workload",
                    "Active tokens that end</dt><dd><span class=\"wrap\">0</span>",
                ],
            ),
        ]
    }
}

/// Returns the addresses that the forms of a page are posted to.
fn actions(page: &str) -> Vec<&str> {
    page.split("action=\"").skip(1).map(|form| form.split('"').next().unwrap()).collect()
}

async fn nothing_happens_until_it_is_confirmed(db: Database) {
    let server = Server::start(db).await;
    let fleet = Fleet::start(&server).await;
    let (browser, owner) = (server.signed_in("zoe", Role::Operator).await, server.signed_in("ada", Role::Owner).await);
    let others = Confirmation::all(&server, &owner, &fleet).await;
    let newest = async || server.admin.get("/audit?limit=1").await.expect(200)[0]["seq"].clone();
    let before = newest().await;
    for path in fleet.confirmations() {
        let page = browser.get(&path).await.expect(200);
        page.shows("What this affects").shows(&format!("action=\"{path}\"")).shows("Cancel");
    }
    for Confirmation { path, action, shows, from } in &others {
        let page = owner.get(path).await.expect(200);
        page.shows("What this affects").shows(&format!("action=\"{action}\"")).shows("Cancel");
        for text in shows {
            page.shows(text);
        }
        // The page before it only links there. Another button of the signing keys posts to the same address.
        let page = owner.get(from).await.expect(200);
        page.shows(&format!("href=\"{path}\""));
        assert!(path != action || !actions(&page.text).contains(&action.as_str()), "{from} has a form for {action}");
        assert!(!page.text.contains("value=\"at_once\""), "{from}");
    }
    assert_eq!(newest().await, before);
    fleet.planner.client.get("/agents").await.expect(403);
    // Only forms on these pages do it: no page of the agent has a button that takes effect with one click.
    for rest in ["", "/keys", "/grants", "/tokens"] {
        let page = browser.get(&fleet.path(rest)).await.expect(200);
        for action in ["/suspend", "/remove", "/tokens/end", "/revoke", "/delete"] {
            let is_posted = actions(&page.text).iter().any(|form| form.ends_with(action));
            assert!(!is_posted, "{rest} has a form for {action}");
        }
    }
    let page = browser.get(&format!("/console/capabilities/{}", fleet.capability)).await.expect(200);
    assert!(!page.text.contains("/remove\" data-once"), "the page of a capability has no such form either");
}

async fn confirmation_counts_what_stops(db: Database) {
    let server = Server::start(db).await;
    let fleet = Fleet::start(&server).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    for action in ["suspend", "revoke", "delete"] {
        let page = browser.get(&fleet.path(&format!("/{action}"))).await.expect(200);
        page.shows("This stops 1 API key and 2 active tokens.");
        page.shows("1 agent can no longer act for it.").shows("It can no longer act for 1 agent.");
        page.shows("It can no longer get tokens for 1 resource:").shows(">Plans</a>").shows("Last used");
        assert!(!page.text.contains(">Mail</a>"));
    }
    let page = browser.get(&fleet.path("/tokens/end")).await.expect(200);
    page.shows("This ends 2 active tokens. Its keys still work").shows("1 agent can act for it: their tokens");
    let remove = fleet.path(&format!("/grants/{}/remove", fleet.capability));
    let page = browser.get(&remove).await.expect(200);
    page.shows("2 active tokens lose plans:read at once").shows("It can no longer use 1 resource:").shows(">Plans</a>");
    let page = browser.get(&fleet.path(&format!("/delegates/{}/remove", fleet.worker.id))).await.expect(200);
    page.shows("worker").shows("This ends 1 active token.");
    // A wildcard still reaches the resource.
    server.grant(&fleet.planner.id, "plans:*").await;
    assert!(!browser.get(&remove).await.expect(200).text.contains(">Plans</a>"));

    // What does not work any more does not stop.
    browser.post(&fleet.path("/suspend"), &[]).await.expect(303);
    browser.get(&fleet.path("/delete")).await.shows("No key and no token of it works now.");
    browser.get(&fleet.path("/tokens/end")).await.shows("No token is active now.");
    let unheld = server.capability("agents:read").await;
    browser.get(&fleet.path(&format!("/grants/{unheld}/remove"))).await.expect(404);
    browser.get(&fleet.path(&format!("/delegates/{}/remove", server.admin_id))).await.expect(404);
}

async fn impact_of_many_agents_is_counted_once(db: Database) {
    let server = Server::start(db).await;
    let fleet = Fleet::start(&server).await;
    let mut ids = Vec::new();
    for agent in server.admin.get("/agents?limit=100").await.expect(200).as_array().unwrap() {
        ids.push(aims::domain::AgentId::parse(agent["id"].as_str().unwrap()).unwrap());
    }
    let caller = Caller::system();
    let all = impact::of_all(&server.services, &caller, &ids).await.unwrap();
    assert_eq!((all.agents, all.usable_keys, all.other_credentials), (4, 4, 0));
    assert_eq!((all.delegates, all.delegators), (0, 0), "they stop together, so none of the others is affected");
    assert_eq!(all.resources.found.len(), 2, "the first administrator reaches both");
    assert!(!all.live_tokens.may_be_more && all.live_tokens.tokens >= 4, "{:?}", all.live_tokens);
    let planner = aims::domain::AgentId::parse(&fleet.planner.id).unwrap();
    let one = impact::of(&server.services, &caller, planner).await.unwrap();
    assert_eq!((one.usable_keys, one.delegates, one.delegators), (1, 1, 1));
    assert!(one.last_used_at.is_some());
    let none = impact::of_all(&server.services, &caller, &[]).await.unwrap();
    assert_eq!((none.usable_keys, none.live_tokens.tokens, none.resources.found.len()), (0, 0, 0));
}

/// Submits the undo form of the message on a page.
async fn undo(browser: &Browser, path: &str) -> String {
    let page = browser.get(path).await.expect(200);
    let form = page.text.split("class=\"notice__undo\"").nth(1).unwrap_or_else(|| panic!("no undo: {}", page.text));
    let form = form.split("</form>").next().unwrap();
    let action = form.split("action=\"").nth(1).unwrap().split('"').next().unwrap();
    let value = |input: &str, name: &str| {
        input.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let fields: Vec<_> =
        form.split("<input ").skip(1).map(|input| (value(input, "name"), value(input, "value"))).collect();
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    browser.post(action, &fields).await.expect(303).location().to_owned()
}

async fn suspension_and_removed_grants_can_be_undone(db: Database) {
    let server = Server::start(db).await;
    let fleet = Fleet::start(&server).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let status =
        async || server.admin.get(&format!("/agents/{}", fleet.planner.id)).await.expect(200)["status"].clone();
    browser.post(&fleet.path("/suspend"), &[("reason", "")]).await.redirects_to(&fleet.path(""));
    assert_eq!(status().await, "suspended");
    undo(&browser, &fleet.path("")).await;
    assert_eq!(status().await, "active");

    let held = async || {
        let held = server.admin.get(&format!("/agents/{}/capabilities", fleet.planner.id)).await.expect(200);
        held.as_array().unwrap().len()
    };
    let remove = fleet.path(&format!("/grants/{}/remove", fleet.capability));
    browser.post(&remove, &[]).await.redirects_to(&fleet.path("/grants"));
    assert_eq!(held().await, 0);
    undo(&browser, &fleet.path("/grants")).await;
    assert_eq!(held().await, 1);
    let delegate = fleet.path(&format!("/delegates/{}/remove", fleet.worker.id));
    browser.post(&delegate, &[]).await.redirects_to(&fleet.path("/tokens"));
    assert_eq!(server.db.count("SELECT COUNT(*) FROM delegations").await, 1);
    undo(&browser, &fleet.path("/tokens")).await;
    assert_eq!(server.db.count("SELECT COUNT(*) FROM delegations").await, 2);
}

async fn confirmation_is_refused_for_stronger_agents(db: Database) {
    let server = Server::start_with(db, &[("AUDIT_REFUSALS_PER_MINUTE", "1000000")]).await;
    let fleet = Fleet::start(&server).await;
    server.grant(&fleet.planner.id, "admin:*").await;
    let (operator, viewer) =
        (server.signed_in("zoe", Role::Operator).await, server.signed_in("vic", Role::Viewer).await);
    for path in fleet.confirmations() {
        operator.get(&path).await.expect(403).shows("authority that you lack: admin:*");
        viewer.get(&path).await.expect(403);
        viewer.post(&path, &[("confirm", "planner")]).await.expect(403);
        let page = operator.post(&path, &[("confirm", "planner"), ("reason", "mine")]).await;
        let page = if page.status == 303 { operator.get(page.location()).await } else { page.expect(403) };
        page.shows("authority that you lack: admin:*");
    }
    let planner = server.admin.get(&format!("/agents/{}", fleet.planner.id)).await.expect(200);
    assert_eq!(planner["status"], "active");
    assert_eq!(server.db.count("SELECT COUNT(*) FROM delegations").await, 2);
    fleet.planner.client.get("/agents").await.expect(403);
}
