//! Which agent a foreign token belongs to, if it fits several.

use std::time::Duration;

use aims::domain::token::SigningAlgorithm;
use reqwest::Method;
use serde_json::json;

use super::{Issuer, PRIVATE, good, of_cluster, present, trust};
use crate::{
    both,
    oauth::{claims, refused},
    support::{Database, Server, details},
};

both!(
    several_agents_may_trust_one_issuer,
    who_trusts_others_keys_is_not_confused_with_anybody,
    nobody_takes_the_place_of_who_cannot_be_judged,
    an_issuer_of_many_costs_no_more_than_one_of_few,
    basic_without_a_secret_says_who_the_client_is,
);

async fn several_agents_may_trust_one_issuer(db: Database) {
    let server = Server::with(db, &[PRIVATE]).await;
    let (one, other) = (server.agent("one", &[]).await, server.agent("other", &[]).await);
    let cluster = Issuer::start().await;
    let key = cluster.key("a", SigningAlgorithm::Es256);
    trust(&server, &one, of_cluster(&cluster)).await;
    trust(&server, &other, of_cluster(&cluster)).await;
    let assertion = key.sign(&good(&server, &cluster));
    refused(&present(&server, &assertion, &[]).await, 400, "invalid_grant");
    for agent in [&one, &other] {
        let body = present(&server, &assertion, &[("client_id", &agent.id)]).await.expect(200);
        assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], json!(agent.id));
    }
    let third = server.agent("third", &[]).await;
    refused(&present(&server, &assertion, &[("client_id", &third.id)]).await, 400, "invalid_grant");
}

async fn who_trusts_others_keys_is_not_confused_with_anybody(db: Database) {
    let server = Server::with(db, &[PRIVATE]).await;
    let (agent, other) = (server.agent("summariser", &[]).await, server.agent("other", &[]).await);
    let (cluster, elsewhere) = (Issuer::start().await, Issuer::start().await);
    let (key, others) = (cluster.key("a", SigningAlgorithm::Es256), elsewhere.key("a", SigningAlgorithm::Es256));
    trust(&server, &agent, of_cluster(&cluster)).await;
    let mut of_elsewhere = of_cluster(&cluster);
    of_elsewhere["jwks_uri"] = json!(format!("{}/keys", elsewhere.url));
    trust(&server, &other, of_elsewhere).await;
    // The same words, of which each of the two believes one speaker alone.
    for (key, agent) in [(&key, &agent), (&others, &other)] {
        let body = present(&server, &key.sign(&good(&server, &cluster)), &[]).await.expect(200);
        assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], json!(agent.id));
    }
    let forged = Issuer::start().await.key("a", SigningAlgorithm::Es256).sign(&good(&server, &cluster));
    refused(&present(&server, &forged, &[]).await, 400, "invalid_grant");
    assert_eq!(details(&server.audited("auth.failed").await[0])["reason"], "federation_signature");
    // More key addresses than are asked: an identity with one of the others might match, too.
    for number in 1..20 {
        let mut one_more = of_cluster(&cluster);
        one_more["jwks_uri"] = json!(format!("{}/keys?{number}", elsewhere.url));
        trust(&server, &other, one_more).await;
    }
    let (asked, assertion) = (elsewhere.asked(), key.sign(&good(&server, &cluster)));
    refused(&present(&server, &assertion, &[]).await, 400, "invalid_grant");
    assert_eq!(details(&server.audited("auth.failed").await[0])["reason"], "federation_ambiguous");
    assert!(elsewhere.asked() - asked <= 8, "{}", elsewhere.asked() - asked);
    let body = present(&server, &assertion, &[("client_id", &agent.id)]).await.expect(200);
    assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], json!(agent.id));
    // All of one agent: it cannot be another's.
    let body = present(&server, &others.sign(&good(&server, &cluster)), &[("client_id", &other.id)]).await.expect(200);
    assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], json!(other.id));
}

async fn nobody_takes_the_place_of_who_cannot_be_judged(db: Database) {
    let server = Server::with(db, &[PRIVATE]).await;
    let (agent, other) = (server.agent("summariser", &["agents:read"]).await, server.agent("other", &[]).await);
    let (cluster, mirror) = (Issuer::start().await, Issuer::start().await);
    let key = cluster.key("a", SigningAlgorithm::Es256);
    let mut mirrored = of_cluster(&cluster);
    mirrored["jwks_uri"] = json!(format!("{}/keys", mirror.url));
    trust(&server, &agent, mirrored).await;
    trust(&server, &other, of_cluster(&cluster)).await;
    let subject = async |more: &[(&str, &str)]| {
        let answer = present(&server, &key.sign(&good(&server, &cluster)), more).await;
        let told = if answer.status == 200 {
            claims(answer.json()["access_token"].as_str().unwrap())["sub"].clone()
        } else {
            refused(&answer, 400, "invalid_grant");
            details(&server.audited("auth.failed").await[0])["reason"].clone()
        };
        told.as_str().unwrap().to_owned()
    };
    mirror.behave(|behaviour| behaviour.is_down = true);
    assert_eq!(subject(&[]).await, "federation_ambiguous");
    assert_eq!(subject(&[("client_id", &other.id)]).await, other.id);
    // Nor the place of an identity whose key address has no keys.
    mirror.behave(|behaviour| behaviour.is_down = false);
    server.clock.advance(Duration::from_secs(30));
    assert_eq!(subject(&[]).await, "federation_ambiguous");
    // Nor the place of an identity that knows only older keys, once there are newer ones.
    mirror.key("older", SigningAlgorithm::Es256);
    server.clock.advance(Duration::from_secs(30));
    assert_eq!(subject(&[]).await, other.id, "the other has been asked, and knows no such key");
    mirror.behave(|behaviour| behaviour.is_down = true);
    server.clock.advance(Duration::from_secs(30));
    assert_eq!(subject(&[]).await, "federation_ambiguous");

    // A later identity with unreachable keys keeps nobody out.
    let late = server.agent("late", &[]).await;
    let nowhere = Issuer::start().await;
    nowhere.behave(|behaviour| behaviour.is_down = true);
    let first = Issuer::start().await;
    let firsts = first.key("a", SigningAlgorithm::Es256);
    trust(&server, &agent, of_cluster(&first)).await;
    let mut absent = of_cluster(&first);
    absent["jwks_uri"] = json!(format!("{}/keys", nowhere.url));
    trust(&server, &late, absent).await;
    let body = present(&server, &firsts.sign(&good(&server, &first)), &[]).await.expect(200);
    assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], json!(agent.id));
}

async fn an_issuer_of_many_costs_no_more_than_one_of_few(db: Database) {
    let server = Server::with(db, &[PRIVATE]).await;
    let (agent, other) = (server.agent("summariser", &[]).await, server.agent("other", &[]).await);
    let cluster = Issuer::start().await;
    let assertion = cluster.key("a", SigningAlgorithm::Es256).sign(&good(&server, &cluster));
    let identity = trust(&server, &agent, of_cluster(&cluster)).await;
    let (other_id, new_id) = if server.db.is_sqlite() {
        (format!("X'{}'", other.id.replace('-', "")), "randomblob(16)")
    } else {
        (format!("'{}'::UUID", other.id), "gen_random_uuid()")
    };
    let add = async |count: u32| {
        let sql = format!(
            "INSERT INTO federated_identities (id, agent_id, issuer, jwks_uri, audience, claims, created_at) \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
             SELECT {new_id}, {other_id}, issuer, jwks_uri, audience, '{{\"sub\":\"another\"}}', created_at \
             FROM federated_identities, n WHERE claims LIKE '%summariser%'"
        );
        server.db.execute(&sql).await;
    };
    let send = async |more: &[(&str, &str)]| present(&server, &assertion, more).await;
    add(999).await;
    send(&[]).await.expect(200);
    add(1).await;
    refused(&send(&[]).await, 400, "invalid_grant");
    let record = server.audited("auth.failed").await.remove(0);
    assert_eq!(details(&record)["reason"], "federation_ambiguous");
    // Identities that demand another subject are skipped.
    server.db.execute("UPDATE federated_identities SET subject = 'another' WHERE claims LIKE '%another%'").await;
    send(&[]).await.expect(200);
    // A client that names itself is not compared with others.
    server.db.execute("UPDATE federated_identities SET claims = '-' WHERE claims LIKE '%another%'").await;
    let body = send(&[("client_id", &agent.id)]).await.expect(200);
    assert_eq!(claims(body["access_token"].as_str().unwrap())["federated_identity_id"], identity["id"]);
    for unknown in [&other.key_id, "nobody"] {
        refused(&send(&[("client_id", unknown)]).await, 400, "invalid_grant");
    }
}

async fn basic_without_a_secret_says_who_the_client_is(db: Database) {
    let server = Server::with(db, &[PRIVATE]).await;
    let (agent, other) = (server.agent("summariser", &[]).await, server.agent("other", &[]).await);
    let cluster = Issuer::start().await;
    let key = cluster.key("a", SigningAlgorithm::Rs256);
    for agent in [&agent, &other] {
        trust(&server, agent, of_cluster(&cluster)).await;
    }
    let assertion = key.sign(&good(&server, &cluster));
    let grant = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", &assertion)];
    let send = async |id: &str, secret: &str, more: &[(&str, &str)]| {
        let anybody = server.anybody();
        let request = anybody.request(Method::POST, "/oauth/token").basic_auth(id, Some(secret));
        anybody.send(request.form(&[grant.as_slice(), more].concat())).await
    };
    for agent in [&agent, &other] {
        for more in [vec![], vec![("client_id", agent.id.as_str())]] {
            let body = send(&agent.id, "", &more).await.expect(200);
            assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], agent.id.as_str());
        }
    }
    refused(&send(&agent.id, "", &[("client_id", &other.id)]).await, 400, "invalid_request");
    refused(&send("nobody", "", &[]).await, 400, "invalid_grant");
    // With a secret it is an authentication, which must be right.
    send(&agent.id, &agent.raw_key, &[]).await.expect(200);
    refused(&send(&agent.id, &other.raw_key, &[]).await, 401, "invalid_client");
}
