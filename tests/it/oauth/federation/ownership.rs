//! Which agent a foreign token belongs to if it matches several.

use std::time::Duration;

use aims::domain::token::SigningAlgorithm;
use reqwest::Method;
use serde_json::json;

use super::{Issuer, PRIVATE, cluster_identity, present, trust, workload_claims};
use crate::{
    both,
    oauth::{claims, refused},
    support::{Database, Server, details},
};

both!(
    several_agents_can_trust_one_issuer,
    agents_that_trust_different_keys_are_distinguished,
    unverifiable_identities_make_a_token_ambiguous,
    cost_of_an_issuer_with_many_identities_is_bounded,
    basic_without_a_secret_identifies_the_client,
);

async fn several_agents_can_trust_one_issuer(db: Database) {
    let server = Server::start_with(db, &[PRIVATE]).await;
    let (one, other) = (server.agent("one", &[]).await, server.agent("other", &[]).await);
    let cluster = Issuer::start().await;
    let key = cluster.key("a", SigningAlgorithm::Es256);
    trust(&server, &one, cluster_identity(&cluster)).await;
    trust(&server, &other, cluster_identity(&cluster)).await;
    let assertion = key.sign(&workload_claims(&server, &cluster));
    refused(&present(&server, &assertion, &[]).await, 400, "invalid_grant");
    for agent in [&one, &other] {
        let body = present(&server, &assertion, &[("client_id", &agent.id)]).await.expect(200);
        assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], json!(agent.id));
    }
    let third = server.agent("third", &[]).await;
    refused(&present(&server, &assertion, &[("client_id", &third.id)]).await, 400, "invalid_grant");
}

async fn agents_that_trust_different_keys_are_distinguished(db: Database) {
    let server = Server::start_with(db, &[PRIVATE]).await;
    let (agent, other) = (server.agent("summariser", &[]).await, server.agent("other", &[]).await);
    let (cluster, elsewhere) = (Issuer::start().await, Issuer::start().await);
    let (key, others) = (cluster.key("a", SigningAlgorithm::Es256), elsewhere.key("a", SigningAlgorithm::Es256));
    trust(&server, &agent, cluster_identity(&cluster)).await;
    let mut of_elsewhere = cluster_identity(&cluster);
    of_elsewhere["jwks_uri"] = json!(format!("{}/keys", elsewhere.url));
    trust(&server, &other, of_elsewhere).await;
    // The same claims, but each agent trusts the keys of another issuer.
    for (key, agent) in [(&key, &agent), (&others, &other)] {
        let body = present(&server, &key.sign(&workload_claims(&server, &cluster)), &[]).await.expect(200);
        assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], json!(agent.id));
    }
    let forged = Issuer::start().await.key("a", SigningAlgorithm::Es256).sign(&workload_claims(&server, &cluster));
    refused(&present(&server, &forged, &[]).await, 400, "invalid_grant");
    assert_eq!(details(&server.audited("auth.failed").await[0])["reason"], "federation_signature");
    // With more key URLs than are fetched, an identity with one of the others might match, too.
    for number in 1..20 {
        let mut one_more = cluster_identity(&cluster);
        one_more["jwks_uri"] = json!(format!("{}/keys?{number}", elsewhere.url));
        trust(&server, &other, one_more).await;
    }
    let (asked, assertion) = (elsewhere.requests(), key.sign(&workload_claims(&server, &cluster)));
    refused(&present(&server, &assertion, &[]).await, 400, "invalid_grant");
    assert_eq!(details(&server.audited("auth.failed").await[0])["reason"], "federation_ambiguous");
    assert!(elsewhere.requests() - asked <= 8, "{}", elsewhere.requests() - asked);
    let body = present(&server, &assertion, &[("client_id", &agent.id)]).await.expect(200);
    assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], json!(agent.id));
    // If all belong to one agent, the token cannot be another's.
    let body = present(&server, &others.sign(&workload_claims(&server, &cluster)), &[("client_id", &other.id)])
        .await
        .expect(200);
    assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], json!(other.id));
}

async fn unverifiable_identities_make_a_token_ambiguous(db: Database) {
    let server = Server::start_with(db, &[PRIVATE]).await;
    let (agent, other) = (server.agent("summariser", &["agents:read"]).await, server.agent("other", &[]).await);
    let (cluster, mirror) = (Issuer::start().await, Issuer::start().await);
    let key = cluster.key("a", SigningAlgorithm::Es256);
    let mut mirrored = cluster_identity(&cluster);
    mirrored["jwks_uri"] = json!(format!("{}/keys", mirror.url));
    trust(&server, &agent, mirrored).await;
    trust(&server, &other, cluster_identity(&cluster)).await;
    let subject = async |more: &[(&str, &str)]| {
        let response = present(&server, &key.sign(&workload_claims(&server, &cluster)), more).await;
        let outcome = if response.status == 200 {
            claims(response.json()["access_token"].as_str().unwrap())["sub"].clone()
        } else {
            refused(&response, 400, "invalid_grant");
            details(&server.audited("auth.failed").await[0])["reason"].clone()
        };
        outcome.as_str().unwrap().to_owned()
    };
    mirror.configure(|behaviour| behaviour.is_down = true);
    assert_eq!(subject(&[]).await, "federation_ambiguous");
    assert_eq!(subject(&[("client_id", &other.id)]).await, other.id);
    // A key URL without keys is unverifiable, too.
    mirror.configure(|behaviour| behaviour.is_down = false);
    server.clock.advance(Duration::from_secs(30));
    assert_eq!(subject(&[]).await, "federation_ambiguous");
    // With a fresh key set that lacks the token's key, the identity does not match. With a stale one, it might.
    mirror.key("older", SigningAlgorithm::Es256);
    server.clock.advance(Duration::from_secs(30));
    assert_eq!(subject(&[]).await, other.id, "the other issuer was asked and has no such key");
    mirror.configure(|behaviour| behaviour.is_down = true);
    server.clock.advance(Duration::from_secs(30));
    assert_eq!(subject(&[]).await, "federation_ambiguous");

    // A newer identity with unreachable keys does not block older ones.
    let late = server.agent("late", &[]).await;
    let nowhere = Issuer::start().await;
    nowhere.configure(|behaviour| behaviour.is_down = true);
    let first = Issuer::start().await;
    let firsts = first.key("a", SigningAlgorithm::Es256);
    trust(&server, &agent, cluster_identity(&first)).await;
    let mut absent = cluster_identity(&first);
    absent["jwks_uri"] = json!(format!("{}/keys", nowhere.url));
    trust(&server, &late, absent).await;
    let body = present(&server, &firsts.sign(&workload_claims(&server, &first)), &[]).await.expect(200);
    assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], json!(agent.id));
}

async fn cost_of_an_issuer_with_many_identities_is_bounded(db: Database) {
    let server = Server::start_with(db, &[PRIVATE]).await;
    let (agent, other) = (server.agent("summariser", &[]).await, server.agent("other", &[]).await);
    let cluster = Issuer::start().await;
    let assertion = cluster.key("a", SigningAlgorithm::Es256).sign(&workload_claims(&server, &cluster));
    let identity = trust(&server, &agent, cluster_identity(&cluster)).await;
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
    // Identities that require another subject are skipped.
    server.db.execute("UPDATE federated_identities SET subject = 'another' WHERE claims LIKE '%another%'").await;
    send(&[]).await.expect(200);
    // If the client identifies itself, only its own identities are compared.
    server.db.execute("UPDATE federated_identities SET claims = '-' WHERE claims LIKE '%another%'").await;
    let body = send(&[("client_id", &agent.id)]).await.expect(200);
    assert_eq!(claims(body["access_token"].as_str().unwrap())["federated_identity_id"], identity["id"]);
    for unknown in [&other.key_id, "nobody"] {
        refused(&send(&[("client_id", unknown)]).await, 400, "invalid_grant");
    }
}

async fn basic_without_a_secret_identifies_the_client(db: Database) {
    let server = Server::start_with(db, &[PRIVATE]).await;
    let (agent, other) = (server.agent("summariser", &[]).await, server.agent("other", &[]).await);
    let cluster = Issuer::start().await;
    let key = cluster.key("a", SigningAlgorithm::Rs256);
    for agent in [&agent, &other] {
        trust(&server, agent, cluster_identity(&cluster)).await;
    }
    let assertion = key.sign(&workload_claims(&server, &cluster));
    let grant = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", &assertion)];
    let send = async |id: &str, secret: &str, more: &[(&str, &str)]| {
        let anonymous = server.anonymous();
        let request = anonymous.request(Method::POST, "/oauth/token").basic_auth(id, Some(secret));
        anonymous.send(request.form(&[grant.as_slice(), more].concat())).await
    };
    for agent in [&agent, &other] {
        for more in [vec![], vec![("client_id", agent.id.as_str())]] {
            let body = send(&agent.id, "", &more).await.expect(200);
            assert_eq!(claims(body["access_token"].as_str().unwrap())["sub"], agent.id.as_str());
        }
    }
    refused(&send(&agent.id, "", &[("client_id", &other.id)]).await, 400, "invalid_request");
    refused(&send("nobody", "", &[]).await, 400, "invalid_grant");
    // With a secret, the client must authenticate correctly.
    send(&agent.id, &agent.raw_key, &[]).await.expect(200);
    refused(&send(&agent.id, &other.raw_key, &[]).await, 401, "invalid_client");
}
