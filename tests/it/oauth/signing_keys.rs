//! Signing keys: published before their first use and until the last token that they signed has expired.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use aims::service::{Caller, tokens::signing_keys};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use tokio::time::timeout;

use super::token;
use crate::{
    both,
    support::{Client, Database, Server, open, open_beside, start},
};

both!(
    key_is_published_before_its_first_use,
    keys_are_rotated_and_withdrawn_automatically,
    compromised_keys_are_replaced_immediately,
    command_with_another_algorithm_changes_nothing,
    keys_of_a_former_algorithm_are_withdrawn,
    verifiers_never_see_an_unknown_key,
);

const DAY: Duration = Duration::from_hours(24);
const ALMOST_A_DAY: Duration = Duration::from_secs(86_398);

async fn published(client: &Client) -> Vec<String> {
    let keys = client.get("/.well-known/jwks.json").await.expect(200);
    keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

fn kid(token: &str) -> String {
    let header: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap()).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

async fn key_is_published_before_its_first_use(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let before = published(&server.anonymous()).await;
    assert_eq!(before.len(), 2);
    let old = token(&server, &agent, &[]).await;
    assert_eq!(kid(&old), before[0]);

    let early = signing_keys::rotate(&server.services, &Caller::system(), false).await.unwrap_err();
    assert!(early.to_string().contains("may not know the next key yet"));
    server.clock.advance(signing_keys::PUBLISHED_FOR);
    signing_keys::rotate(&server.services, &Caller::system(), false).await.unwrap();
    let new = token(&server, &agent, &[]).await;
    assert_eq!(kid(&new), before[1]);
    let after = published(&server.anonymous()).await;
    assert_eq!((after.len(), &after[0]), (3, &before[1]));
    assert!(after.contains(&before[0]), "the retired key must stay published");
    for token in [&old, &new] {
        server.anonymous().with_token(token).get("/agents").await.expect(200);
    }
    assert_eq!(server.audited("signing_key.rotated").await.len(), 1);

    let server = server.restart(&[]).await;
    assert_eq!(published(&server.anonymous()).await, after);
    assert_eq!(kid(&token(&server, &agent, &[]).await), before[1]);
}

async fn keys_are_rotated_and_withdrawn_automatically(db: Database) {
    let server = Server::start_with(db, &[("SIGNING_KEY_ROTATION_DAYS", "30")]).await;
    let first = published(&server.anonymous()).await;
    server.clock.advance(29 * DAY);
    server.clock.advance(ALMOST_A_DAY);
    signing_keys::maintain(&server.services).await.unwrap();
    assert_eq!(published(&server.anonymous()).await, first);
    server.clock.advance(Duration::from_secs(2));
    signing_keys::maintain(&server.services).await.unwrap();
    let second = published(&server.anonymous()).await;
    assert_eq!((second.len(), &second[0]), (3, &first[1]));
    // Maintenance is idempotent.
    signing_keys::maintain(&server.services).await.unwrap();
    assert_eq!(published(&server.anonymous()).await, second);

    server.clock.advance(ALMOST_A_DAY);
    signing_keys::maintain(&server.services).await.unwrap();
    assert!(published(&server.anonymous()).await.contains(&first[0]));
    server.clock.advance(Duration::from_secs(2));
    signing_keys::maintain(&server.services).await.unwrap();
    let third = published(&server.anonymous()).await;
    assert!(third.len() == 2 && !third.contains(&first[0]));
    assert_eq!(server.db.count("SELECT COUNT(*) FROM signing_keys").await, 2);
    let records = "SELECT COUNT(*) FROM audit_log WHERE action IN ('signing_key.rotated', 'signing_key.withdrawn')";
    assert_eq!(server.db.count(records).await, 2);
}

async fn compromised_keys_are_replaced_immediately(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    // Tokens signed by a thief would be indistinguishable from these.
    let older = token(&server, &agent, &[]).await;
    server.clock.advance(signing_keys::PUBLISHED_FOR);
    signing_keys::rotate(&server.services, &Caller::system(), false).await.unwrap();
    let old = token(&server, &agent, &[]).await;
    for token in [&older, &old] {
        server.anonymous().with_token(token).get("/agents").await.expect(200);
    }
    let before = published(&server.anonymous()).await;
    signing_keys::rotate(&server.services, &Caller::system(), true).await.unwrap();
    for token in [&older, &old] {
        server.anonymous().with_token(token).get("/agents").await.expect(401);
    }
    let after = published(&server.anonymous()).await;
    assert!(after.len() == 2 && !after.iter().any(|kid| before.contains(kid)), "{before:?}, {after:?}");
    let new = token(&server, &agent, &[]).await;
    assert_eq!(kid(&new), after[0]);
    server.anonymous().with_token(&new).get("/agents").await.expect(200);
    let withdrawn = "SELECT COUNT(*) FROM audit_log WHERE action = 'signing_key.withdrawn'";
    assert_eq!(server.db.count(withdrawn).await, 3);
    let server = server.restart(&[]).await;
    server.anonymous().with_token(&old).get("/agents").await.expect(401);
    server.anonymous().with_token(&new).get("/agents").await.expect(200);

    let shared =
        Server::start_with(Database::sqlite(), &[("JWT_SECRET_KEY", "a secret of more than thirty-two bytes")]).await;
    let refused = signing_keys::rotate(&shared.services, &Caller::system(), true).await.unwrap_err();
    assert!(refused.to_string().contains("JWT_SECRET_KEY"));
    assert!(published(&shared.anonymous()).await.is_empty());
    signing_keys::maintain(&shared.services).await.unwrap();
}

async fn keys_of_a_former_algorithm_are_withdrawn(db: Database) {
    let server = Server::start(db).await;
    let given_up = published(&server.anonymous()).await;
    let old = server.admin.clone();
    let server = server.restart(&[("JWT_ALGORITHM", "EdDSA")]).await;
    assert_eq!(published(&server.anonymous()).await.len(), 4);
    server.admin.with_token(old.token()).get("/agents").await.expect(200);
    let keys = signing_keys::list(&server.services, &Caller::system()).await.unwrap();
    assert!(keys.iter().all(|key| (key.state().0 == "retired") == given_up.contains(&key.kid)), "{keys:?}");
    let records = "SELECT COUNT(*) FROM audit_log WHERE action = 'signing_key.rotated'";
    assert_eq!(server.db.count(records).await, 2);

    // Idempotent, even if only keys of the current algorithm are left.
    server.clock.advance(ALMOST_A_DAY);
    let server = server.restart(&[("JWT_ALGORITHM", "EdDSA")]).await;
    signing_keys::maintain(&server.services).await.unwrap();
    assert_eq!(published(&server.anonymous()).await.len(), 4);
    assert_eq!(server.db.count(records).await, 2);
    server.clock.advance(Duration::from_secs(2));
    signing_keys::maintain(&server.services).await.unwrap();
    let left = published(&server.anonymous()).await;
    assert!(left.len() == 2 && !left.iter().any(|kid| given_up.contains(kid)), "{left:?}");

    // Switching back creates new keys.
    let server = server.restart(&[]).await;
    assert_eq!(published(&server.anonymous()).await.len(), 4);
    let given_up = left;
    let keys = signing_keys::list(&server.services, &Caller::system()).await.unwrap();
    assert!(keys.iter().all(|key| key.retired_at.is_some() == given_up.contains(&key.kid)), "{keys:?}");
}

async fn command_with_another_algorithm_changes_nothing(db: Database) {
    let server = Server::start(db).await;
    let before = published(&server.anonymous()).await;
    let command = open_beside(&server.db, &server.clock, &[("JWT_ALGORITHM", "EdDSA")]).await;
    for are_lost in [false, true] {
        let refused = signing_keys::rotate(command.services(), &Caller::system(), are_lost).await.unwrap_err();
        assert!(refused.to_string().contains("JWT_ALGORITHM"), "{refused}");
    }
    command.close().await;
    signing_keys::maintain(&server.services).await.unwrap();
    let keys = signing_keys::list(&server.services, &Caller::system()).await.unwrap();
    assert!(keys.iter().all(|key| key.retired_at.is_none()), "{keys:?}");
    assert_eq!(published(&server.anonymous()).await, before);
}

/// As during a rolling change of the algorithm in a cluster.
async fn nodes_with_different_algorithms_accept_each_others_tokens(db: Database) {
    let server = Server::start(db).await;
    let settings = [("JWT_ALGORITHM", "EdDSA")];
    let other = start(open(&server.db, &server.clock, &settings).await).await;
    signing_keys::maintain(&server.services).await.unwrap();
    let other = Client::new(other).login(&server.admin_key).await;
    server.anonymous().with_token(other.token()).get("/agents").await.expect(200);
    // The first node keeps signing with its own algorithm.
    let own = server.anonymous().login(&server.admin_key).await;
    own.get("/agents").await.expect(200);
    other.with_token(own.token()).get("/agents").await.expect(200);
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn nodes_with_different_algorithms_work_on_postgres() {
    nodes_with_different_algorithms_accept_each_others_tokens(Database::postgres().await).await;
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn all_nodes_load_replaced_keys() {
    let server = Server::start(Database::postgres().await).await;
    let other = start(open(&server.db, &server.clock, &[]).await).await;
    let other = Client::new(other).login(&server.admin_key).await;
    other.get("/agents").await.expect(200);
    signing_keys::rotate(&server.services, &Caller::system(), true).await.unwrap();
    // Polled: the notification arrives some time after the commit.
    let replaced = async { while other.get("/agents").await.status != 401 {} };
    timeout(Duration::from_secs(10), replaced).await.expect("the other node must load the new keys");
    let new = server.anonymous().login(&server.admin_key).await;
    other.with_token(new.token()).get("/agents").await.expect(200);
}

async fn verifiers_never_see_an_unknown_key(db: Database) {
    const ROTATIONS: usize = 10;
    const VERIFIERS: usize = 8;
    const TOKENS_BETWEEN: u32 = 15;
    let server = Arc::new(Server::start(db).await);
    let agent = Arc::new(server.agent("worker", &["agents:read"]).await);
    let created: Arc<[AtomicU32; VERIFIERS]> = Arc::default();
    let over = Arc::new(AtomicBool::new(false));
    let verifiers: Vec<_> = (0..VERIFIERS)
        .map(|number| {
            let (server, agent, created, over) = (server.clone(), agent.clone(), created.clone(), over.clone());
            tokio::spawn(async move {
                let mut kids = HashSet::new();
                while !over.load(Ordering::SeqCst) {
                    // The oldest allowed copy of the key set: at most one rotation happens between it and the token.
                    let copy = published(&server.anonymous()).await;
                    let token = token(&server, &agent, &[]).await;
                    assert!(copy.contains(&kid(&token)), "{} is not among {copy:?}", kid(&token));
                    server.anonymous().with_token(&token).get("/agents").await.expect(200);
                    kids.insert(kid(&token));
                    created[number].fetch_add(1, Ordering::SeqCst);
                }
                kids
            })
        })
        .collect();
    for _ in 0..ROTATIONS {
        // Counted from here, not in total: a verifier that is far ahead may hold its copy while the others catch up.
        let before = created.each_ref().map(|created| created.load(Ordering::SeqCst));
        let is_behind = |(created, before): (&AtomicU32, u32)| created.load(Ordering::SeqCst) < before + TOKENS_BETWEEN;
        while created.iter().zip(before).any(is_behind) {
            assert!(!verifiers.iter().any(tokio::task::JoinHandle::is_finished), "a verifier failed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.clock.advance(signing_keys::PUBLISHED_FOR);
        signing_keys::rotate(&server.services, &Caller::system(), false).await.unwrap();
    }
    over.store(true, Ordering::SeqCst);
    let mut kids = HashSet::new();
    for verifier in verifiers {
        kids.extend(verifier.await.unwrap());
    }
    assert!(kids.len() >= ROTATIONS, "{kids:?}");
}
