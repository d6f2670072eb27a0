//! `Idempotency-Key`: a request that is sent again gets the same answer and changes nothing.

use std::time::Duration;

use aims::{
    service::people::sessions,
    web::{API_PREFIX, routes},
};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::assert_invalid;
use crate::{
    both,
    support::{Agent, Client, Database, Response, Server, details, open, start},
};

both!(
    every_repeatable_route_repeats_its_answer,
    a_key_cannot_be_used_for_another_request,
    callers_do_not_see_each_others_answers,
    a_thousand_requests_at_once_make_one_change,
    malformed_keys_are_rejected_and_not_repeated_back,
    an_answer_is_kept_for_24_hours,
    rejected_requests_are_not_kept,
    an_answer_is_withheld_from_a_caller_that_lost_its_authority,
    a_limited_token_cannot_read_the_answer_of_a_stronger_one,
    repetitions_are_recorded,
    a_lost_answer_can_be_fetched_again,
    an_answer_of_another_master_key_is_reported,
    an_answer_is_sealed_with_the_master_key_in_use,
);

const REPLAYED: &str = "idempotency-replayed";

/// Sends a request with an `Idempotency-Key`.
async fn send(client: &Client, key: &str, path: &str, body: &Value) -> Response {
    client.send(client.request(Method::POST, path).header("Idempotency-Key", key).json(body)).await
}

/// A key that is long enough.
fn key(name: &str) -> String {
    format!("{name}-8e03978e-40d5-43dd-bc93")
}

#[track_caller]
fn assert_repeated(again: &Response, first: &Response) {
    assert_eq!(first.header(REPLAYED), None, "{first:?}");
    assert_eq!(again.header(REPLAYED), Some("true"), "{again:?}");
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    for name in ["etag", "content-type", "cache-control"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
}

#[test]
fn every_post_can_be_repeated_or_needs_no_key() {
    let without: Vec<_> = routes::list()
        .into_iter()
        .filter(|route| route.method == Method::POST && !route.is_repeatable)
        .map(|route| route.path)
        .collect();
    let reasons = [
        ("/auth/token", "issues another token, and a kept one would be a secret to steal"),
        ("/agents/{id}/suspend", "changes nothing when the agent is suspended"),
        ("/agents/{id}/reactivate", "says that the agent is not suspended"),
        ("/agents/{id}/revoke", "says that the agent is revoked"),
        ("/agents/{id}/revoke-tokens", "ends what is left"),
        ("/oauth/token", "issues another token, and a kept one would be a secret to steal"),
        ("/oauth/revoke", "changes nothing when the token is revoked (RFC 7009)"),
        ("/oauth/introspect", "changes nothing"),
    ];
    assert_eq!(without, reasons.map(|(path, _)| path), "review whether a lost answer of the new route does harm");
    assert!(routes::list().iter().all(|route| route.method == Method::POST || !route.is_repeatable));
}

async fn every_repeatable_route_repeats_its_answer(db: Database) {
    let server = Server::start(db).await;
    let (agent, delegate) = (server.agent("target", &[]).await, server.agent("delegate", &[]).await);
    let capability = server.capability("agents:read").await;
    let fill = |path: &str| path.replace("{id}", &agent.id).replace("{key_id}", &agent.key_id);
    let mut checked = 0;
    for route in routes::list().into_iter().filter(|route| route.is_repeatable) {
        let body = match route.path.as_str() {
            "/agents" => json!({ "name": "new", "owner": "o" }),
            "/agents/{id}/keys" => json!({ "name": "second" }),
            "/agents/{id}/keys/{key_id}/rotate" => json!({ "grace_hours": 1 }),
            "/agents/{id}/public-keys" => json!({
                "kty": "EC",
                "crv": "P-256",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            }),
            "/agents/{id}/federated-identities" => {
                json!({ "issuer": "https://issuer.example", "audience": "aims", "claims": { "sub": "x" } })
            }
            "/agents/{id}/delegates" => json!({ "delegate_id": delegate.id }),
            "/capabilities" => json!({ "name": "documents:read" }),
            "/agents/{id}/capabilities" => json!({ "capability_id": capability }),
            "/resources" => json!({ "identifier": "https://api.example", "name": "API" }),
            other => panic!("{other} needs a valid body here"),
        };
        let (path, key) = (fill(&route.path), key(&format!("route-{checked}")));
        let before = server.db.count("SELECT COUNT(*) FROM audit_log").await;
        let first = send(&server.admin, &key, &path, &body).await;
        assert!(first.status.is_success(), "{route:?}: {first:?}");
        assert_eq!(first.header("etag").is_some(), route.is_versioned, "{route:?}");
        // Under the other mount, too, because it is the same route.
        for mount in ["", API_PREFIX] {
            let again = send(&server.admin, &key, &format!("{mount}{path}"), &body).await;
            assert_repeated(&again, &first);
        }
        let records = server.db.count("SELECT COUNT(*) FROM audit_log").await;
        assert_eq!(records - before, 3, "{route:?}: one change and two repetitions");
        checked += 1;
    }
    assert_eq!(checked, 9);
    let keys = server.admin.get(&format!("/agents/{}/keys", agent.id)).await.expect(200);
    assert_eq!(keys.as_array().unwrap().len(), 3, "the first, the second and the rotated one: {keys}");
}

async fn a_key_cannot_be_used_for_another_request(db: Database) {
    let server = Server::start(db).await;
    let (one, two) = (server.agent("one", &[]).await, server.agent("two", &[]).await);
    let (first, other) = (format!("/agents/{}/keys", one.id), format!("/agents/{}/keys", two.id));
    let key = key("reused");
    send(&server.admin, &key, &first, &json!({ "name": "a" })).await.expect(201);
    let records = server.db.count("SELECT COUNT(*) FROM audit_log").await;
    for (path, body) in [
        (first.as_str(), json!({ "name": "b" })),
        (&first, json!({ "name": "a", "expires_at": null })),
        (&format!("{first}?x=1"), json!({ "name": "a" })),
        (&other, json!({ "name": "a" })),
        ("/agents", json!({ "name": "three", "owner": "o" })),
    ] {
        let refused = send(&server.admin, &key, path, &body).await;
        assert_invalid(&refused, &json!([["header", "Idempotency-Key"]]));
        assert_eq!(refused.detail()[0]["type"], "idempotency_key_reused");
        assert!(!refused.text.contains(&key), "{refused:?}");
    }
    // The same JSON in other bytes is another request as well.
    let spaced = server.admin.request(Method::POST, &first).header("Idempotency-Key", &key);
    let spaced = spaced.header("Content-Type", "application/json").body("{ \"name\": \"a\" }");
    assert_invalid(&server.admin.send(spaced).await, &json!([["header", "Idempotency-Key"]]));
    assert_eq!(server.db.count("SELECT COUNT(*) FROM audit_log").await, records, "nothing changes");
}

async fn callers_do_not_see_each_others_answers(db: Database) {
    let server = Server::start(db).await;
    let (one, two) = (server.agent("one", &["admin:*"]).await, server.agent("two", &["admin:*"]).await);
    let target = server.agent("target", &[]).await;
    let (path, key) = (format!("/agents/{}/keys", target.id), key("shared"));
    let (a, b) = (send(&one.client, &key, &path, &json!({})).await, send(&two.client, &key, &path, &json!({})).await);
    assert_eq!((a.header(REPLAYED), b.header(REPLAYED)), (None, None), "each caller runs its own request");
    assert_ne!(a.json()["raw_key"], b.json()["raw_key"]);
    // The key does not even tell that another caller used it for another request.
    send(&server.admin, &key, &path, &json!({ "name": "third" })).await.expect(201);
    assert_repeated(&send(&one.client, &key, &path, &json!({})).await, &a);
    // An agent that acts for another is another caller than each of them.
    server.admin.post(&format!("/agents/{}/delegates", one.id), json!({ "delegate_id": two.id })).await.expect(201);
    let acting = acting(&server, &one, &two).await;
    let c = send(&acting, &key, &path, &json!({})).await;
    assert_eq!((c.status.as_u16(), c.header(REPLAYED)), (201, None), "{c:?}");
    assert_repeated(&send(&acting, &key, &path, &json!({})).await, &c);
    // With another token, the caller is the same.
    let again = server.anonymous().login(&one.raw_key).await;
    assert_repeated(&send(&again, &key, &path, &json!({})).await, &a);
}

/// A client with a token with which `actor` acts on behalf of `subject`.
async fn acting(server: &Server, subject: &Agent, actor: &Agent) -> Client {
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", subject.client.token()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
    ];
    let request = server.anonymous().request(Method::POST, "/oauth/token");
    let response = server.anonymous().send(request.basic_auth(&actor.id, Some(&actor.raw_key)).form(&form)).await;
    let token = response.expect(200)["access_token"].as_str().unwrap().to_owned();
    server.anonymous().with_token(&token)
}

async fn a_thousand_requests_at_once_make_one_change(db: Database) {
    const MANY: usize = 1_000;
    let server = Server::start(db).await;
    let agent = server.agent("target", &[]).await;
    let (path, key, body) = (format!("/agents/{}/keys", agent.id), key("many"), json!({ "name": "once" }));
    let mut clients = vec![server.admin.clone()];
    if !server.db.is_sqlite() {
        // A second node.
        let url = start(open(&server.db, &server.clock, &[]).await).await;
        clients.push(Client::new(url).with_token(server.admin.token()));
    }
    let sending = (0..MANY).map(|n| send(&clients[n % clients.len()], &key, &path, &body));
    let answers = join_all(sending).await;
    let first: Vec<_> = answers.iter().filter(|answer| answer.header(REPLAYED).is_none()).collect();
    assert_eq!(first.len(), 1, "{first:?}");
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), &answer.text), (201, &first[0].text));
    }
    assert_eq!(server.admin.get(&path).await.expect(200).as_array().unwrap().len(), 2);
    let created = "SELECT COUNT(*) FROM audit_log WHERE action = 'key.created' AND details LIKE '%\"once\"%'";
    assert_eq!(server.db.count(created).await, 1);
    server.anonymous().exchange(first[0].json()["raw_key"].as_str().unwrap()).await.expect(200);
}

async fn malformed_keys_are_rejected_and_not_repeated_back(db: Database) {
    let server = Server::start(db).await;
    let records = server.db.count("SELECT COUNT(*) FROM audit_log").await;
    let body = json!({ "name": "never", "owner": "o" });
    let place = json!([["header", "Idempotency-Key"]]);
    let long = "a".repeat(256);
    for bad in [
        "",
        "1",
        "aaaaaaaaaaaaaaa",
        "with a space inside it",
        "quote\"inside-of-the-key",
        "back\\slash-in-the-key",
        &long,
    ] {
        let refused = send(&server.admin, bad, "/agents", &body).await;
        assert_invalid(&refused, &place);
        assert!(bad.len() < 10 || !refused.text.contains(bad), "{refused:?}");
    }
    let request = || server.admin.request(Method::POST, "/agents").json(&body);
    for bad in [b"schl\xc3\xbcssel-schl\xc3\xbcssel".as_slice(), &[0xff; 20], b"tab\tinside-of-the-key"] {
        let value = reqwest::header::HeaderValue::from_bytes(bad).unwrap();
        assert_invalid(&server.admin.send(request().header("Idempotency-Key", value)).await, &place);
    }
    let twice = request().header("Idempotency-Key", key("a")).header("Idempotency-Key", key("a"));
    assert_invalid(&server.admin.send(twice).await, &place);
    assert_eq!(server.db.count("SELECT COUNT(*) FROM audit_log").await, records, "nothing changes");
    // Quotes, as in the standard for structured fields, belong to the syntax and not to the key.
    let quoted = send(&server.admin, &format!("\"{}\"", key("quoted")), "/agents", &body).await;
    assert_repeated(&send(&server.admin, &key("quoted"), "/agents", &body).await, &quoted);
}

async fn an_answer_is_kept_for_24_hours(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("target", &[]).await;
    let (path, key) = (format!("/agents/{}/keys", agent.id), key("aging"));
    let first = send(&server.admin, &key, &path, &json!({})).await;
    server.clock.advance(Duration::from_hours(24) - Duration::from_secs(1));
    let admin = server.anonymous().login(&server.admin_key).await;
    assert_repeated(&send(&admin, &key, &path, &json!({})).await, &first);
    sessions::sweep(&server.services).await.unwrap();
    assert_eq!(server.db.count("SELECT COUNT(*) FROM request_answers").await, 1);
    // The time counts and not whether the row was deleted.
    server.clock.advance(Duration::from_secs(1));
    let second = send(&admin, &key, &path, &json!({})).await;
    assert_eq!((second.status.as_u16(), second.header(REPLAYED)), (201, None), "{second:?}");
    assert_ne!(second.json()["raw_key"], first.json()["raw_key"]);
    assert_repeated(&send(&admin, &key, &path, &json!({})).await, &second);
    server.clock.advance(Duration::from_hours(25));
    sessions::sweep(&server.services).await.unwrap();
    assert_eq!(server.db.count("SELECT COUNT(*) FROM request_answers").await, 0);
}

async fn rejected_requests_are_not_kept(db: Database) {
    let server = Server::start(db).await;
    let taken = server.agent("taken", &[]).await;
    let (key, body) = (key("refused"), json!({ "name": "taken", "owner": "o" }));
    send(&server.admin, &key, "/agents", &body).await.expect(409);
    send(&server.admin, &key, "/agents", &json!({ "name": "" })).await.expect(422);
    server.admin.delete(&format!("/agents/{}", taken.id)).await.expect(204);
    let created = send(&server.admin, &key, "/agents", &body).await;
    assert_eq!((created.status.as_u16(), created.header(REPLAYED)), (201, None), "{created:?}");
    // The answer is that of the time of the change, even if what it describes is gone.
    let id = created.json()["id"].as_str().unwrap().to_owned();
    server.admin.delete(&format!("/agents/{id}")).await.expect(204);
    assert_repeated(&send(&server.admin, &key, "/agents", &body).await, &created);
}

async fn an_answer_is_withheld_from_a_caller_that_lost_its_authority(db: Database) {
    let server = Server::start(db).await;
    let operator = server.agent("operator", &["keys:manage", "documents:read"]).await;
    let target = server.agent("target", &["documents:read"]).await;
    let (path, key) = (format!("/agents/{}/keys", target.id), key("authority"));
    let first = send(&operator.client, &key, &path, &json!({})).await;
    let secret = first.json()["raw_key"].as_str().unwrap().to_owned();

    let held = format!("/agents/{}/capabilities/{}", operator.id, server.capability("documents:read").await);
    server.admin.delete(&held).await.expect(204);
    let refused = send(&operator.client, &key, &path, &json!({})).await;
    refused.refused(403, "The agent holds authority that you lack: documents:read");
    assert!(!refused.text.contains(&secret));
    server.grant(&operator.id, "documents:read").await;
    assert_repeated(&send(&operator.client, &key, &path, &json!({})).await, &first);

    let held = format!("/agents/{}/capabilities/{}", operator.id, server.capability("keys:manage").await);
    server.admin.delete(&held).await.expect(204);
    send(&operator.client, &key, &path, &json!({})).await.refused(403, "Missing required capability: keys:manage");
    server.admin.post_empty(&format!("/agents/{}/suspend", operator.id)).await.expect(200);
    send(&operator.client, &key, &path, &json!({})).await.expect(401);
    assert_eq!(server.audited("request.repeated").await.len(), 1);
}

async fn a_limited_token_cannot_read_the_answer_of_a_stronger_one(db: Database) {
    let server = Server::start(db).await;
    let operator = server.agent("operator", &["keys:manage", "documents:read"]).await;
    let target = server.agent("target", &["documents:read"]).await;
    let (path, key) = (format!("/agents/{}/keys", target.id), key("limited"));
    send(&operator.client, &key, &path, &json!({})).await.expect(201);
    let limited = json!({ "scope": "keys:manage" });
    let limited = server.admin.post(&format!("/agents/{}/keys", operator.id), limited).await.expect(201);
    let limited = server.anonymous().login(limited["raw_key"].as_str().unwrap()).await;
    let refused = send(&limited, &key, &path, &json!({})).await;
    refused.refused(403, "The agent holds authority that you lack: documents:read");

    // Nor may a limited key fetch the unlimited key that its agent created for itself.
    let (path, key) = (format!("/agents/{}/keys", operator.id), self::key("own"));
    send(&operator.client, &key, &path, &json!({})).await.expect(201);
    let scope = json!({ "scope": "keys:manage documents:read", "max_uses": 5 });
    let limited = server.admin.post(&path, scope).await.expect(201);
    let limited = server.anonymous().login(limited["raw_key"].as_str().unwrap()).await;
    let refused = send(&limited, &key, &path, &json!({})).await;
    refused.refused(400, "A limited key cannot create another credential for its own agent");
}

async fn repetitions_are_recorded(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("target", &[]).await;
    let (path, key) = (format!("/agents/{}/keys", agent.id), key("recorded"));
    let first = send(&server.admin, &key, &path, &json!({})).await;
    let again = send(&server.admin, &key, &path, &json!({})).await;
    let records = server.audited("request.repeated").await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["agent_id"], server.admin_id);
    let expected = json!({ "action": "CreateKey", "first_request_id": first.header("x-request-id") });
    assert_eq!(details(&records[0]), expected);
    let created = "SELECT request_id FROM audit_log WHERE action = 'key.created' AND request_id IS NOT NULL";
    let created = server.db.texts(created).await;
    assert!(created.contains(&first.header("x-request-id").unwrap().to_owned()));
    let repeated = server.db.texts("SELECT request_id FROM audit_log WHERE action = 'request.repeated'").await;
    assert_eq!(repeated, [again.header("x-request-id").unwrap()]);
}

/// The client sends a request and loses the connection before the answer arrives.
async fn a_lost_answer_can_be_fetched_again(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("target", &[]).await;
    let (path, key) = (format!("/agents/{}/keys", agent.id), key("lost"));
    let address = server.url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nIdempotency-Key: {key}\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}",
        server.admin.token(),
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    while server.db.count("SELECT COUNT(*) FROM request_answers").await == 0 {
        tokio::task::yield_now().await;
    }
    drop(connection);
    let answer = send(&server.admin, &key, &path, &json!({})).await;
    assert_eq!(answer.header(REPLAYED), Some("true"), "{answer:?}");
    let created = answer.expect(201);
    server.anonymous().exchange(created["raw_key"].as_str().unwrap()).await.expect(200);
    assert_eq!(server.admin.get(&path).await.expect(200).as_array().unwrap().len(), 2);
}

/// With a shared secret for tokens, the service starts with another master key.
async fn an_answer_of_another_master_key_is_reported(db: Database) {
    const SECRET: (&str, &str) = ("JWT_SECRET_KEY", "a secret of more than thirty-two bytes, for tests");
    let (one, two) = ("1f".repeat(32), "2f".repeat(32));
    let server = Server::start_with(db, &[SECRET, ("MASTER_KEY", &one)]).await;
    let agent = server.agent("target", &[]).await;
    let (path, key) = (format!("/agents/{}/keys", agent.id), key("master"));
    let first = send(&server.admin, &key, &path, &json!({})).await;
    let server = server.restart(&[SECRET, ("MASTER_KEY", &two)]).await;
    let refused = send(&server.admin, &key, &path, &json!({})).await;
    assert!(refused.detail().as_str().unwrap().starts_with("The request was made before, but"), "{refused:?}");
    refused.expect(409);
    assert_eq!(server.admin.get(&path).await.expect(200).as_array().unwrap().len(), 2, "the change is not made again");
    let server = server.restart(&[SECRET, ("MASTER_KEY", &one)]).await;
    assert_repeated(&send(&server.admin, &key, &path, &json!({})).await, &first);
}

/// While a new master key is handed out, some nodes know only the present one.
async fn an_answer_is_sealed_with_the_master_key_in_use(db: Database) {
    let (present, next) = ("1f".repeat(32), "2f".repeat(32));
    let server = Server::start_with(db, &[("MASTER_KEY", &present)]).await;
    let agent = server.agent("target", &[]).await;
    let (path, key) = (format!("/agents/{}/keys", agent.id), key("master"));
    let server = server.restart(&[("MASTER_KEY", &next), ("MASTER_KEY_PREVIOUS", &present)]).await;
    let first = send(&server.admin, &key, &path, &json!({})).await;
    assert_eq!(first.status, 201, "{first:?}");
    let server = server.restart(&[("MASTER_KEY", &present)]).await;
    assert_repeated(&send(&server.admin, &key, &path, &json!({})).await, &first);
}
