//! Every page of the console, with data to show on it.

use aims::domain::Role;
use serde_json::json;

use crate::support::Server;

/// The pages, each with the name of its screenshot in the README if it has one. `{agent}`, `{key}` and so on stand for the
/// identifiers of what [`populate`] creates.
const PAGES: &[(&str, &str)] = &[
    ("overview", "/console"),
    ("", "/console/search?q=summ"),
    ("", "/console/search?q=nothing-at-all"),
    ("agents", "/console/agents"),
    ("", "/console/agents?q=nothing"),
    ("", "/console/agents/new"),
    ("agent", "/console/agents/{agent}"),
    ("", "/console/agents/{agent}/edit"),
    ("", "/console/agents/{agent}/keys"),
    ("", "/console/agents/{agent}/keys/new"),
    ("", "/console/agents/{agent}/keys/{key}"),
    ("", "/console/agents/{agent}/keys/{key}/rotate"),
    ("", "/console/agents/{agent}/keys/{key}/revoke"),
    ("", "/console/agents/{agent}/public-keys/new"),
    ("", "/console/agents/{agent}/public-keys/{public-key}/remove"),
    ("", "/console/agents/{agent}/federated-identities/new"),
    ("", "/console/agents/{agent}/federated-identities/{identity}/remove"),
    ("", "/console/agents/{agent}/tokens"),
    ("", "/console/agents/{agent}/tokens/end"),
    ("", "/console/agents/{agent}/delegates/{delegate}/remove"),
    ("", "/console/agents/{agent}/grants"),
    ("", "/console/agents/{agent}/grants/{capability}/remove"),
    ("", "/console/agents/{agent}/timeline"),
    ("", "/console/agents/{agent}/connect"),
    ("", "/console/agents/{agent}/suspend"),
    ("", "/console/agents/{agent}/revoke"),
    ("", "/console/agents/{agent}/delete"),
    ("", "/console/agents/{deleted}"),
    ("keys", "/console/keys"),
    ("", "/console/keys?show=expiring"),
    ("", "/console/keys?q=nothing"),
    ("", "/console/capabilities"),
    ("", "/console/capabilities/new"),
    ("", "/console/capabilities/{capability}"),
    ("", "/console/capabilities/{capability}?q=nothing"),
    ("", "/console/capabilities/{capability}/impact"),
    ("", "/console/capabilities/{capability}/grants"),
    ("", "/console/capabilities/{capability}/holders/{agent}/remove"),
    ("", "/console/resources"),
    ("", "/console/resources/new"),
    ("", "/console/resources/{resource}"),
    ("", "/console/resources/{resource}/delete"),
    ("", "/console/signing-keys"),
    ("", "/console/signing-keys/replace"),
    ("audit", "/console/audit"),
    ("", "/console/audit?outcome=refused"),
    ("", "/console/audit?resource_id=nothing"),
    // An error in a filter: nobody has this name.
    ("", "/console/audit?agent=nobody"),
    ("", "/console/audit?record={record}"),
    ("", "/console/audit/{record}"),
    ("", "/console/administrators"),
    ("", "/console/administrators/new"),
    ("", "/console/administrators/{person}"),
    ("", "/console/administrators/{person}/disable"),
    ("account", "/console/account"),
    ("", "/console/account/authenticator"),
    ("", "/console/nothing-here"),
];

/// Pages as somebody sees them who may change nothing; the last one they may not even see.
pub(super) const PAGES_OF_VIEWERS: &[&str] = &[
    "/console",
    "/console/agents",
    "/console/agents/{agent}",
    "/console/agents/{agent}/keys",
    "/console/agents/{agent}/keys/{key}",
    "/console/agents/{agent}/tokens",
    "/console/agents/{agent}/grants",
    "/console/keys",
    "/console/capabilities",
    "/console/capabilities/{capability}",
    "/console/capabilities/{capability}/impact",
    "/console/resources",
    "/console/resources/{resource}",
    "/console/signing-keys",
    "/console/audit",
    "/console/account",
    "/console/administrators",
];

/// States of pages that a click leads to: the page, the element to click and the element that appears.
pub(super) const STATES: &[(&str, &str, &str)] = &[
    ("/console/agents", "[name=id]", "[data-bulk-bar]:not([hidden])"),
    ("/console/agents?owner=mail-team", "button[name=act][value=suspend]", "#impact"),
    ("/console/agents?owner=mail-team", "button[name=act][value=grant]", "#target"),
    ("/console/agents?owner=mail-team", "button[name=act][value=ungrant]", "#target"),
    ("/console/agents?owner=mail-team", "button[name=act][value=transfer]", "#target"),
    ("/console/keys?owner=mail-team", "button[name=act][value=revoke]", "form[action='/console/keys/bulk/revoke']"),
    ("/console/agents/{agent}", ".drop > summary", ".drop[open] .drop__item"),
    ("/console", "[data-palette]", ".palette [role=option]"),
    ("/console/audit", "tr[data-seq] a[data-open]", "dialog.drawer[open] [data-record]"),
];

/// The identifiers of what is on the pages.
pub(super) struct Shown(Vec<(&'static str, String)>);

impl Shown {
    /// Returns the pages: for some the name of a screenshot, the path with placeholders, and the path.
    pub(super) fn pages(&self) -> impl Iterator<Item = (&'static str, &'static str, String)> {
        PAGES.iter().map(|(name, path)| (*name, *path, self.path(path)))
    }

    /// Fills in the identifiers.
    pub(super) fn path(&self, path: &str) -> String {
        self.0.iter().fold(path.to_owned(), |path, (name, id)| path.replace(&format!("{{{name}}}"), id))
    }
}

/// Creates data to display.
pub(super) async fn populate(server: &Server) -> Shown {
    let agent = server.agent("summariser", &["agents:read", "documents:read"]).await;
    let body = json!({ "owner": "mail-team", "description": "Summarises the day's mail for everybody who asks." });
    server.admin.patch(&format!("/agents/{}", agent.id), body).await.expect(200);
    for (name, owner, kind, capability) in [
        ("deploy-bot", "platform", "tool", "deploy:production"),
        ("planner", "research", "orchestrator", "plans:write"),
        ("invoice-reader", "finance", "llm", "invoices:read"),
        ("ticket-router", "support", "llm", "tickets:*"),
    ] {
        let other = server.agent(name, &[capability]).await;
        let body = json!({ "owner": owner, "agent_type": kind });
        server.admin.patch(&format!("/agents/{}", other.id), body).await.expect(200);
        for _ in 0..3 {
            server.anonymous().exchange(&other.raw_key).await.expect(200);
        }
        if name == "ticket-router" {
            server.admin.post_empty(&format!("/agents/{}/suspend", other.id)).await.expect(200);
        }
    }
    let rotate = format!("/agents/{}/keys/{}/rotate", agent.id, agent.key_id);
    let rotated = server.admin.post_empty(&rotate).await.expect(200);
    for _ in 0..11 {
        server.anonymous().exchange("aims_mistyped").await.expect(401);
    }
    let key = rotated["new_key"]["id"].as_str().unwrap().to_owned();
    let capability = server.capability("documents:read").await;
    let record = server.audited("agent.updated").await[0]["seq"].as_i64().unwrap();
    let new = json!({ "identifier": "https://mcp.example/tools", "name": "Tools", "scope": "documents:read" });
    let resource = server.admin.post("/resources", new).await.expect(201)["id"].as_str().unwrap().to_owned();
    let jwk = json!({
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    });
    let public_key = server.admin.post(&format!("/agents/{}/public-keys", agent.id), jwk).await.expect(201);
    let trust = json!({
        "issuer": "https://token.actions.githubusercontent.com",
        "audience": "https://aims.example",
        "claims": { "repository": "example/summariser", "ref": "refs/heads/main" },
    });
    let identity = server.admin.post(&format!("/agents/{}/federated-identities", agent.id), trust).await.expect(201);
    let delegate = server.agent("delegate", &["documents:read"]).await;
    let body = json!({ "delegate_id": delegate.id });
    server.admin.post(&format!("/agents/{}/delegates", agent.id), body).await.expect(201);
    let access_token = "urn:ietf:params:oauth:token-type:access_token";
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", agent.client.token()),
        ("subject_token_type", access_token),
        ("actor_token", delegate.client.token()),
        ("actor_token_type", access_token),
    ];
    let anonymous = server.anonymous();
    anonymous.send(anonymous.request(reqwest::Method::POST, "/oauth/token").form(&form)).await.expect(200);
    let deleted = server.agent("retired", &["documents:read"]).await.id;
    server.admin.delete(&format!("/agents/{deleted}")).await.expect(204);
    let record = record.to_string();
    let person = server.person("ada", Role::Operator).await.to_string();
    let (agent, delegate) = (agent.id, delegate.id);
    Shown(vec![
        ("agent", agent),
        ("delegate", delegate),
        ("deleted", deleted),
        ("person", person),
        ("key", key),
        ("public-key", public_key[0]["id"].as_str().unwrap().to_owned()),
        ("identity", identity["id"].as_str().unwrap().to_owned()),
        ("capability", capability),
        ("record", record),
        ("resource", resource),
    ])
}
