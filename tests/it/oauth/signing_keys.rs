//! The keys that sign tokens: published before they sign, and for as long as what they signed may live.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use aims::service::{Caller, signing_keys};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use tokio::time::timeout;

use super::token;
use crate::{
    both,
    support::{Client, Database, Server, open, open_beside, start},
};

both!(
    a_key_is_published_before_it_signs,
    keys_rotate_by_themselves_and_are_withdrawn,
    lost_keys_are_replaced_at_once,
    a_command_that_was_told_of_another_algorithm_changes_nothing,
    keys_of_an_algorithm_that_was_given_up_are_withdrawn,
    nobody_meets_an_unknown_key,
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

async fn a_key_is_published_before_it_signs(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let before = published(&server.anybody()).await;
    assert_eq!(before.len(), 2);
    let old = token(&server, &agent, &[]).await;
    assert_eq!(kid(&old), before[0]);

    let early = signing_keys::rotate(&server.services, &Caller::system(), false).await.unwrap_err();
    assert!(early.to_string().contains("may not know the next key yet"));
    server.clock.advance(signing_keys::PUBLISHED_FOR);
    signing_keys::rotate(&server.services, &Caller::system(), false).await.unwrap();
    let new = token(&server, &agent, &[]).await;
    assert_eq!(kid(&new), before[1]);
    let after = published(&server.anybody()).await;
    assert_eq!((after.len(), &after[0]), (3, &before[1]));
    assert!(after.contains(&before[0]), "what it signed is still about");
    for token in [&old, &new] {
        server.anybody().with_token(token).get("/agents").await.expect(200);
    }
    assert_eq!(server.audited("signing_key.rotated").await.len(), 1);

    let server = server.restart(&[]).await;
    assert_eq!(published(&server.anybody()).await, after);
    assert_eq!(kid(&token(&server, &agent, &[]).await), before[1]);
}

async fn keys_rotate_by_themselves_and_are_withdrawn(db: Database) {
    let server = Server::with(db, &[("SIGNING_KEY_ROTATION_DAYS", "30")]).await;
    let first = published(&server.anybody()).await;
    server.clock.advance(29 * DAY);
    server.clock.advance(ALMOST_A_DAY);
    signing_keys::maintain(&server.services).await.unwrap();
    assert_eq!(published(&server.anybody()).await, first);
    server.clock.advance(Duration::from_secs(2));
    signing_keys::maintain(&server.services).await.unwrap();
    let second = published(&server.anybody()).await;
    assert_eq!((second.len(), &second[0]), (3, &first[1]));
    // Once is enough.
    signing_keys::maintain(&server.services).await.unwrap();
    assert_eq!(published(&server.anybody()).await, second);

    server.clock.advance(ALMOST_A_DAY);
    signing_keys::maintain(&server.services).await.unwrap();
    assert!(published(&server.anybody()).await.contains(&first[0]));
    server.clock.advance(Duration::from_secs(2));
    signing_keys::maintain(&server.services).await.unwrap();
    let third = published(&server.anybody()).await;
    assert!(third.len() == 2 && !third.contains(&first[0]));
    assert_eq!(server.db.count("SELECT COUNT(*) FROM signing_keys").await, 2);
    let records = "SELECT COUNT(*) FROM audit_log WHERE action IN ('signing_key.rotated', 'signing_key.withdrawn')";
    assert_eq!(server.db.count(records).await, 2);
}

async fn lost_keys_are_replaced_at_once(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    // What their thief would sign differs from these in nothing.
    let older = token(&server, &agent, &[]).await;
    server.clock.advance(signing_keys::PUBLISHED_FOR);
    signing_keys::rotate(&server.services, &Caller::system(), false).await.unwrap();
    let old = token(&server, &agent, &[]).await;
    for token in [&older, &old] {
        server.anybody().with_token(token).get("/agents").await.expect(200);
    }
    let before = published(&server.anybody()).await;
    signing_keys::rotate(&server.services, &Caller::system(), true).await.unwrap();
    for token in [&older, &old] {
        server.anybody().with_token(token).get("/agents").await.expect(401);
    }
    let after = published(&server.anybody()).await;
    assert!(after.len() == 2 && !after.iter().any(|kid| before.contains(kid)), "{before:?}, {after:?}");
    let new = token(&server, &agent, &[]).await;
    assert_eq!(kid(&new), after[0]);
    server.anybody().with_token(&new).get("/agents").await.expect(200);
    let withdrawn = "SELECT COUNT(*) FROM audit_log WHERE action = 'signing_key.withdrawn'";
    assert_eq!(server.db.count(withdrawn).await, 3);
    let server = server.restart(&[]).await;
    server.anybody().with_token(&old).get("/agents").await.expect(401);
    server.anybody().with_token(&new).get("/agents").await.expect(200);

    let shared =
        Server::with(Database::sqlite(), &[("JWT_SECRET_KEY", "a secret of more than thirty-two bytes")]).await;
    let refused = signing_keys::rotate(&shared.services, &Caller::system(), true).await.unwrap_err();
    assert!(refused.to_string().contains("JWT_SECRET_KEY"));
    assert!(published(&shared.anybody()).await.is_empty());
    signing_keys::maintain(&shared.services).await.unwrap();
}

async fn keys_of_an_algorithm_that_was_given_up_are_withdrawn(db: Database) {
    let server = Server::start(db).await;
    let given_up = published(&server.anybody()).await;
    let old = server.admin.clone();
    let server = server.restart(&[("JWT_ALGORITHM", "EdDSA")]).await;
    assert_eq!(published(&server.anybody()).await.len(), 4);
    server.admin.with_token(old.token()).get("/agents").await.expect(200);
    let keys = signing_keys::list(&server.services, &Caller::system()).await.unwrap();
    assert!(keys.iter().all(|key| (key.state().0 == "retired") == given_up.contains(&key.kid)), "{keys:?}");
    let records = "SELECT COUNT(*) FROM audit_log WHERE action = 'signing_key.rotated'";
    assert_eq!(server.db.count(records).await, 2);

    // Once is enough, also where nothing but the algorithm's own keys is left.
    server.clock.advance(ALMOST_A_DAY);
    let server = server.restart(&[("JWT_ALGORITHM", "EdDSA")]).await;
    signing_keys::maintain(&server.services).await.unwrap();
    assert_eq!(published(&server.anybody()).await.len(), 4);
    assert_eq!(server.db.count(records).await, 2);
    server.clock.advance(Duration::from_secs(2));
    signing_keys::maintain(&server.services).await.unwrap();
    let left = published(&server.anybody()).await;
    assert!(left.len() == 2 && !left.iter().any(|kid| given_up.contains(kid)), "{left:?}");

    // Who goes back begins with new keys.
    let server = server.restart(&[]).await;
    assert_eq!(published(&server.anybody()).await.len(), 4);
    let given_up = left;
    let keys = signing_keys::list(&server.services, &Caller::system()).await.unwrap();
    assert!(keys.iter().all(|key| key.retired_at.is_some() == given_up.contains(&key.kid)), "{keys:?}");
}

async fn a_command_that_was_told_of_another_algorithm_changes_nothing(db: Database) {
    let server = Server::start(db).await;
    let before = published(&server.anybody()).await;
    let beside = open_beside(&server.db, &server.clock, &[("JWT_ALGORITHM", "EdDSA")]).await;
    for are_lost in [false, true] {
        let refused = signing_keys::rotate(beside.services(), &Caller::system(), are_lost).await.unwrap_err();
        assert!(refused.to_string().contains("JWT_ALGORITHM"), "{refused}");
    }
    beside.close().await;
    signing_keys::maintain(&server.services).await.unwrap();
    let keys = signing_keys::list(&server.services, &Caller::system()).await.unwrap();
    assert!(keys.iter().all(|key| key.retired_at.is_none()), "{keys:?}");
    assert_eq!(published(&server.anybody()).await, before);
}

/// As while the nodes of a cluster are told one after another to use another algorithm.
async fn nodes_with_two_algorithms_know_each_others_keys(db: Database) {
    let server = Server::start(db).await;
    let settings = [("JWT_ALGORITHM", "EdDSA")];
    let other = start(open(&server.db, &server.clock, &settings).await).await;
    signing_keys::maintain(&server.services).await.unwrap();
    let other = Client::new(other).login(&server.admin_key).await;
    server.anybody().with_token(other.token()).get("/agents").await.expect(200);
    // It goes on with what it has.
    let own = server.anybody().login(&server.admin_key).await;
    own.get("/agents").await.expect(200);
    other.with_token(own.token()).get("/agents").await.expect(200);
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn nodes_may_have_two_algorithms_for_a_while() {
    nodes_with_two_algorithms_know_each_others_keys(Database::postgres().await).await;
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn all_nodes_hear_of_lost_keys() {
    let server = Server::start(Database::postgres().await).await;
    let other = start(open(&server.db, &server.clock, &[]).await).await;
    let other = Client::new(other).login(&server.admin_key).await;
    other.get("/agents").await.expect(200);
    signing_keys::rotate(&server.services, &Caller::system(), true).await.unwrap();
    // Polled: it hears of it at some moment after the commit.
    let heard = async { while other.get("/agents").await.status != 401 {} };
    timeout(Duration::from_secs(10), heard).await.expect("the other node takes over the keys");
    let new = server.anybody().login(&server.admin_key).await;
    other.with_token(new.token()).get("/agents").await.expect(200);
}

async fn nobody_meets_an_unknown_key(db: Database) {
    const ROTATIONS: usize = 10;
    const VERIFIERS: usize = 8;
    const TOKENS_BETWEEN: u32 = 15;
    let server = Arc::new(Server::start(db).await);
    let agent = Arc::new(server.agent("worker", &["agents:read"]).await);
    let made: Arc<[AtomicU32; VERIFIERS]> = Arc::default();
    let over = Arc::new(AtomicBool::new(false));
    let verifiers: Vec<_> = (0..VERIFIERS)
        .map(|number| {
            let (server, agent, made, over) = (server.clone(), agent.clone(), made.clone(), over.clone());
            tokio::spawn(async move {
                let mut kids = HashSet::new();
                while !over.load(Ordering::SeqCst) {
                    // A copy of the key set as old as it may be: at most one rotation lies between it and the token.
                    let copy = published(&server.anybody()).await;
                    let token = token(&server, &agent, &[]).await;
                    assert!(copy.contains(&kid(&token)), "{} is not among {copy:?}", kid(&token));
                    server.anybody().with_token(&token).get("/agents").await.expect(200);
                    kids.insert(kid(&token));
                    made[number].fetch_add(1, Ordering::SeqCst);
                }
                kids
            })
        })
        .collect();
    for _ in 0..ROTATIONS {
        // From here on, and not in all: one that is far ahead may hold a copy for as long as the others take.
        let before = made.each_ref().map(|made| made.load(Ordering::SeqCst));
        let is_behind = |(made, before): (&AtomicU32, u32)| made.load(Ordering::SeqCst) < before + TOKENS_BETWEEN;
        while made.iter().zip(before).any(is_behind) {
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
