//! Destructive actions show what they affect before they take effect, and can be undone where that is possible.

use aims::{domain::Role, service::Caller, service::agents::impact};
use serde_json::json;

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

async fn nothing_happens_until_it_is_confirmed(db: Database) {
    let server = Server::start(db).await;
    let fleet = Fleet::start(&server).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let newest = async || server.admin.get("/audit?limit=1").await.expect(200)[0]["seq"].clone();
    let before = newest().await;
    for path in fleet.confirmations() {
        let page = browser.get(&path).await.expect(200);
        page.shows("What this affects").shows(&format!("action=\"{path}\"")).shows("Cancel");
    }
    assert_eq!(newest().await, before);
    fleet.planner.client.get("/agents").await.expect(403);
    // Only forms on these pages do it: no page of the agent has a button that takes effect with one click.
    for rest in ["", "/grants", "/tokens"] {
        let page = browser.get(&fleet.path(rest)).await.expect(200);
        for action in ["/suspend", "/remove", "/tokens/end", "/revoke", "/delete"] {
            let forms = page.text.split("action=\"").skip(1).map(|form| form.split('"').next().unwrap());
            assert_eq!(forms.filter(|form| form.ends_with(action)).count(), 0, "{rest} has a form for {action}");
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
