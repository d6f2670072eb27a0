//! Deceptive names: blank ones and ones that look like others.

use aims::domain::{Error, Role, Username, person::password::NewPassword};
use aims::service::{
    Caller,
    people::administrators::{self, NewAdministrator},
};
use futures_util::future::join_all;
use serde_json::json;

use crate::{
    api::assert_invalid,
    both,
    support::{Client, Database, PASSWORD, Response, Server, open, start},
};

both!(
    blank_text_is_rejected,
    confusable_names_are_rejected,
    existing_confusable_names_are_kept,
    concurrent_confusable_names_register_once,
    confusable_capability_and_administrator_names_are_rejected,
);

const BLANK: [&str; 12] = [
    " ",
    "\u{a0}\u{3000}",
    "\u{3164}",
    "\u{ffa0}",
    "\u{115f}\u{1160}",
    "\u{ad}\u{ad}",
    "\u{e0041}\u{e007f}",
    "\u{200b}",
    "\u{2028}",
    "\u{2029}",
    "\u{2800}",
    "\u{fe0f}",
];

async fn blank_text_is_rejected(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &[]).await;
    let path = format!("/agents/{}", agent.id);
    for blank in BLANK {
        for field in ["owner", "description"] {
            let mut new = json!({ "name": "new", "owner": "o" });
            new[field] = json!(blank);
            assert_invalid(&server.admin.post("/agents", new).await, &json!([["body", field]]));
            assert_invalid(&server.admin.patch(&path, json!({ field: blank })).await, &json!([["body", field]]));
        }
        let response = server.admin.post("/capabilities", json!({ "name": "a:b", "description": blank })).await;
        assert_invalid(&response, &json!([["body", "description"]]));
        let response = server.admin.post(&format!("{path}/keys"), json!({ "name": blank })).await;
        assert_invalid(&response, &json!([["body", "name"]]));
        let response = server.admin.post("/resources", json!({ "identifier": "https://a.test", "name": blank })).await;
        assert_invalid(&response, &json!([["body", "name"]]));
        let response = server.admin.post(&format!("{path}/suspend"), json!({ "reason": blank })).await;
        assert_invalid(&response, &json!([["body", "reason"]]));
    }
    // A description may be empty, and visible text may be surrounded by spaces.
    let read = server.admin.patch(&path, json!({ "description": "", "owner": " o " })).await.expect(200);
    assert_eq!((&read["description"], &read["owner"]), (&json!(""), &json!(" o ")));
    // Imported names may be blank, and can be searched for.
    server.db.execute("UPDATE agents SET owner = ' ' WHERE name = 'worker'").await;
    let found = server.admin.get("/agents?owner=%20").await.expect(200);
    assert_eq!(found[0]["name"], "worker");
}

async fn create(client: &Client, name: &str) -> Response {
    client.post("/agents", json!({ "name": name, "owner": "o" })).await
}

async fn confusable_names_are_rejected(db: Database) {
    let server = Server::start(db).await;
    for name in ["Billing-Worker01", "IO-modem", "mail", "x"] {
        create(&server.admin, name).await.expect(201);
    }
    for (alike, taken) in [
        ("admin", None),
        ("mail", None),
        ("Admin", Some("admin")),
        ("ADMIN", Some("admin")),
        ("adrnin", Some("admin")),
        ("billing-worker01", Some("Billing-Worker01")),
        ("BiIling-Worker01", Some("Billing-Worker01")),
        ("Bi11ing-WorkerOl", Some("Billing-Worker01")),
        ("bIlling-worker01", Some("Billing-Worker01")),
        ("lO-modem", Some("IO-modem")),
        ("10-modem", Some("IO-modem")),
        ("io-MODEM", Some("IO-modem")),
        ("lo-rnodern", Some("IO-modem")),
        ("X", Some("x")),
    ] {
        let wanted = taken.map_or("Agent name already exists".to_owned(), |taken| {
            format!("This name is too similar to one in use: {taken}")
        });
        create(&server.admin, alike).await.refused(409, &wanted);
    }
    // Names that are not confusable are available, and so are names whose lookalike was deleted.
    for name in ["mall", "malls", "Billing-Worker02", "Billing_Worker01", "XX", "admin2", "moderm"] {
        create(&server.admin, name).await.expect(201);
    }
    let found = server.admin.get("/agents?q=mall").await.expect(200);
    let id = found.as_array().unwrap().iter().find(|agent| agent["name"] == "mall").unwrap()["id"].clone();
    create(&server.admin, "MALL").await.expect(409);
    server.admin.delete(&format!("/agents/{}", id.as_str().unwrap())).await.expect(204);
    create(&server.admin, "MALL").await.expect(201);
    // The console shows the same message next to the field.
    let browser = server.signed_in("zoe", Role::Operator).await;
    let form = [("name", "rnail"), ("owner", "o"), ("agent_type", "llm")];
    browser.post("/console/agents", &form).await.shows("too similar to one in use: mail");
}

async fn existing_confusable_names_are_kept(db: Database) {
    let server = Server::start(db).await;
    let twins = [server.agent("twin", &[]).await, server.agent("other", &[]).await];
    server.db.execute("UPDATE agents SET name = 'Twin' WHERE name = 'other'").await;
    for twin in &twins {
        server.admin.patch(&format!("/agents/{}", twin.id), json!({ "description": "d" })).await.expect(200);
        server.admin.post(&format!("/agents/{}/suspend", twin.id), json!({})).await.expect(200);
    }
    create(&server.admin, "TWIN").await.expect(409);
    // One of them still exists.
    server.admin.delete(&format!("/agents/{}", twins[0].id)).await.expect(204);
    create(&server.admin, "twin").await.refused(409, "This name is too similar to one in use: Twin");
    server.admin.delete(&format!("/agents/{}", twins[1].id)).await.expect(204);
    create(&server.admin, "twin").await.expect(201);
}

async fn concurrent_confusable_names_register_once(db: Database) {
    let server = Server::start(db).await;
    let mut nodes = vec![server.admin.clone()];
    if !server.db.is_sqlite() {
        let other = Client::new(start(open(&server.db, &server.clock, &[]).await).await);
        nodes.push(other.with_token(server.admin.token()));
    }
    for round in 0..5 {
        let alike = ["Moon", "moon", "MOON", "m0on", "rnoon", "Rnoon", "M00N", "moOn"];
        let names: Vec<_> = alike.iter().cycle().take(24).map(|name| format!("{name}-{round}")).collect();
        let registered = names.iter().enumerate().map(|(at, name)| create(&nodes[at % nodes.len()], name));
        let responses = join_all(registered).await;
        let with_status = |status: u16| responses.iter().filter(|response| response.status == status).count();
        assert_eq!((with_status(201), with_status(409)), (1, names.len() - 1), "{responses:?}");
    }
    assert_eq!(server.audited("agent.created").await.len(), 6, "the administrator and one agent per round");
}

async fn confusable_capability_and_administrator_names_are_rejected(db: Database) {
    let server = Server::start(db).await;
    for alike in ["Admin:*", "adrnin:*", "agents:Read", "AGENTS:WRITE"] {
        let response = server.admin.post("/capabilities", json!({ "name": alike })).await;
        assert_eq!(response.status, 409, "{alike}");
    }
    server.admin.post("/capabilities", json!({ "name": "bill|ing:pay" })).await.expect(201);
    let response = server.admin.post("/capabilities", json!({ "name": "billIing:pay" })).await;
    response.refused(409, "This name is too similar to one in use: bill|ing:pay");
    server.admin.post("/capabilities", json!({ "name": "agents:reads" })).await.expect(201);

    server.person("mallory", Role::Owner).await;
    for alike in ["rnallory", "ma1lory", "mall0ry"] {
        let username = Username::parse(alike).unwrap();
        let new = NewAdministrator {
            display_name: "Mallory".to_owned(),
            role: Role::Viewer,
            password: NewPassword::parse(PASSWORD, &username).unwrap(),
            username,
        };
        let error = administrators::create(&server.services, &Caller::system(), new).await.unwrap_err();
        assert!(matches!(error, Error::Conflict(ref message) if message.ends_with(": mallory")), "{error:?}");
    }
    server.person("malory", Role::Viewer).await;
}
