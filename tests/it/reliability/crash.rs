//! Killing the process while it writes.

use std::{collections::HashSet, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    both,
    support::{Aims, Client, Database},
};

const ROUNDS: usize = 20;
const WRITERS: usize = 16;
/// Longer than a start takes even on a busy machine; a start that hangs exceeds it.
const MAX_START_TIME: Duration = Duration::from_secs(20);

both!(kill_loses_no_acknowledged_change, a_repeated_request_gets_the_answer_that_a_crash_prevented);

async fn kill_loses_no_acknowledged_change(db: Database) {
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    let (mut names, mut tokens) = (HashSet::new(), HashSet::new());
    for round in 0..ROUNDS {
        let process = aims.serve().await;
        assert!(process.ready_after < MAX_START_TIME, "round {round}: {:?}", process.ready_after);
        let admin = process.client().login(&key).await;
        let (acknowledge, mut acknowledged) = mpsc::unbounded_channel();
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(admin.clone(), key.clone(), format!("r{round}-w{writer}"), acknowledge.clone()));
        }
        drop(acknowledge);
        // Killed after a different number of acknowledgements in each round, so at a different point of a batch.
        for _ in 0..=(20 + 7 * round) {
            acknowledged.recv().await.expect("the writers must run until the kill").keep(&mut names, &mut tokens);
        }
        process.kill().await;
        while let Some(writer) = writers.join_next().await {
            writer.unwrap();
        }
        while let Some(more) = acknowledged.recv().await {
            more.keep(&mut names, &mut tokens);
        }
        let verified = aims.run(&["audit", "verify", "--json"]).await.json();
        assert_eq!(verified["valid"], true, "round {round}: {verified}");
    }
    assert!(names.len() > ROUNDS && tokens.len() > ROUNDS, "{} agents, {} tokens", names.len(), tokens.len());

    let stored: HashSet<_> = db.texts("SELECT name FROM agents").await.into_iter().collect();
    assert_eq!(
        names.difference(&stored).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "acknowledged agents must not be lost"
    );
    let issued = db.texts("SELECT details FROM audit_log WHERE action = 'auth.token_issued'").await;
    let issued: HashSet<_> = issued.iter().map(|details| jti(&serde_json::from_str(details).unwrap())).collect();
    assert_eq!(
        tokens.difference(&issued).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "every acknowledged token must have a record"
    );
    // Changes are atomic: each agent has its record and each record its agent.
    let created = db.count("SELECT COUNT(*) FROM audit_log WHERE action = 'agent.created'").await;
    assert_eq!(usize::try_from(created).unwrap(), stored.len());

    let process = aims.serve().await;
    assert!(process.ready_after < MAX_START_TIME, "{:?}", process.ready_after);
    process.client().get("/_health").await.expect(200);
    assert_eq!(process.stop().await.code, Some(0));
}

/// A change that the service acknowledged.
enum Acknowledged {
    Agent(String),
    Token(String),
}

impl Acknowledged {
    fn keep(self, names: &mut HashSet<String>, tokens: &mut HashSet<String>) {
        let new = match self {
            Self::Agent(name) => names.insert(name),
            Self::Token(jti) => tokens.insert(jti),
        };
        assert!(new, "each change must be acknowledged once");
    }
}

/// Creates agents and exchanges keys until the process is gone.
async fn write(admin: Client, key: String, name: String, acknowledge: mpsc::UnboundedSender<Acknowledged>) {
    for n in 0.. {
        let name = format!("{name}-{n}");
        let agent = admin.request(Method::POST, "/agents").json(&json!({ "name": name, "owner": "crash" }));
        let Some(_) = complete_response(agent, StatusCode::CREATED).await else { return };
        let _ = acknowledge.send(Acknowledged::Agent(name));
        let exchange = admin.without_token().request(Method::POST, "/auth/token").header("X-API-Key", &key);
        let Some(token) = complete_response(exchange, StatusCode::OK).await else { return };
        let payload = token["access_token"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
        let claims = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        let _ = acknowledge.send(Acknowledged::Token(jti(&claims)));
    }
}

/// Returns the response body, unless the process died before it was complete.
async fn complete_response(request: reqwest::RequestBuilder, expected: StatusCode) -> Option<Value> {
    let response = request.send().await.ok()?;
    let status = response.status();
    let body = response.json().await.ok()?;
    assert_eq!(status, expected, "{body}");
    Some(body)
}

fn jti(claims: &Value) -> String {
    claims["jti"].as_str().unwrap().to_owned()
}

async fn a_repeated_request_gets_the_answer_that_a_crash_prevented(db: Database) {
    const CRASHES: i64 = 4;
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    for crash in 0..CRASHES {
        let process = aims.serve().await;
        let admin = process.client().login(&key).await;
        let agents = admin.get("/agents").await.expect(200);
        let keys = format!("/agents/{}/keys", agents[0]["id"].as_str().unwrap());
        let create = |admin: &Client| {
            let request = admin.request(Method::POST, &keys).json(&json!({ "name": format!("crash-{crash}") }));
            request.header("Idempotency-Key", format!("0123456789abcdef-{crash}"))
        };
        let sending = tokio::spawn(create(&admin).send());
        // After the commit, or at any time.
        while crash % 2 == 0 && db.count("SELECT COUNT(*) FROM request_answers").await <= crash {
            tokio::task::yield_now().await;
        }
        process.kill().await;
        drop(sending.await.unwrap());

        let process = aims.serve().await;
        let admin = process.client().login(&key).await;
        let answer = admin.send(create(&admin)).await;
        assert!(crash % 2 == 1 || answer.header("idempotency-replayed") == Some("true"), "{answer:?}");
        let created = answer.expect(201);
        admin.exchange(created["raw_key"].as_str().unwrap()).await.expect(200);
        assert_eq!(process.stop().await.code, Some(0));
    }
    assert_eq!(db.count("SELECT COUNT(*) FROM api_keys").await, 1 + CRASHES, "each was created once");
    assert_eq!(db.count("SELECT COUNT(*) FROM audit_log WHERE action = 'key.created'").await, 1 + CRASHES);
}
