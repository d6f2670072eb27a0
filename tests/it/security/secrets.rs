//! No secret is stored or logged in the clear.

use std::{fs, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, header};
use serde_json::json;

use crate::{
    both,
    support::{Aims, Database, Server},
};

both!(log_contains_no_credential, kept_answers_are_sealed);

/// Returns everything that a thief of the database's directory could read.
fn contents(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        bytes.extend(fs::read(entry.unwrap().path()).unwrap());
    }
    bytes
}

fn holds(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[tokio::test]
async fn database_contains_no_key_and_no_token() {
    let server = Server::start(Database::sqlite()).await;
    let agent = server.agent("agent", &["agents:read"]).await;
    let rotate = format!("/agents/{}/keys/{}/rotate", agent.id, agent.key_id);
    let rotated = server.admin.post(&rotate, json!({})).await.expect(200);
    let wrong = "aims_WRONGWRONGWRONGWRONGWRONGWRONGWRONGWRONGWRONG0000";
    server.anonymous().exchange(wrong).await.expect(401);
    server.anonymous().with_token("not.a.token").get("/agents").await.expect(401);

    let new_key = rotated["new_key"]["raw_key"].as_str().unwrap();
    let secrets = [&server.admin_key, &agent.raw_key, new_key, wrong, "not.a.token", server.admin.token()];
    let kept = contents(server.db.folder.path());
    assert!(holds(&kept, &agent.id) || holds(&kept, "auth.failed"), "the walk must read the database");
    for secret in secrets {
        assert!(!holds(&kept, secret), "no secret must be stored in the clear");
        // Only the prefix that is displayed is stored.
        assert!(!holds(&kept, &secret[secret.len().saturating_sub(20)..]) || secret.len() < 20);
    }
}

async fn log_contains_no_credential(db: Database) {
    let aims = Aims::new(&db).with("LOG_LEVEL", "trace");
    let key = aims.bootstrap().await;
    for format in ["text", "json"] {
        let process = aims.with("LOG_FORMAT", format).serve().await;
        let (client, browser) = (process.client(), crate::support::Browser::new(process.url.clone()));
        let admin = client.login(&key).await;
        let token = admin.token().to_owned();
        let setup = "Zm9vYmFyLWJhei1xdXV4LTEyMzQ1Njc4OTAtYWJjZGU";
        let basic = STANDARD.encode(format!("admin:{key}"));
        let encoded: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
        let secrets = [key.as_str(), &token, setup, &basic, &encoded];
        for secret in secrets {
            for path in [
                format!("/{secret}"),
                format!("/agents/{secret}/keys"),
                format!("/agents?cursor={secret}"),
                format!("/console/agents/{secret}?q={secret}"),
                format!("/console/setup?token={secret}"),
            ] {
                admin.get(&path).await;
                browser.get(&path).await;
            }
            let request = admin.request(Method::POST, "/agents").json(&json!({ "name": "a", "owner": "o" }));
            admin.send(request.header("Idempotency-Key", secret)).await;
            for (name, value) in [
                (header::AUTHORIZATION.as_str(), format!("Bearer {secret}")),
                (header::AUTHORIZATION.as_str(), format!("Basic {secret}")),
                (header::COOKIE.as_str(), format!("aims={secret}; __Host-aims={secret}")),
                ("x-api-key", secret.to_owned()),
                ("x-request-id", secret.to_owned()),
            ] {
                client.send(client.request(Method::POST, "/auth/token").header(name, &value)).await;
                client.send(client.request(Method::GET, "/agents").header(name, value)).await;
            }
        }
        let log = process.stop().await.stderr;
        assert!(log.contains("/agents/[redacted]/keys") && log.contains("TRACE"), "{log}");
        for line in log.lines() {
            assert!(format == "text" || serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
            for secret in secrets {
                assert!(!line.contains(&secret[13..25]) && !line.contains(&secret[secret.len() - 12..]), "{line}");
            }
        }
    }
}

/// The database reveals neither the answer nor the client's key, which could open it.
async fn kept_answers_are_sealed(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("agent", &[]).await;
    let chosen = "chosen-by-the-client-8e03978e";
    let request = server.admin.request(Method::POST, &format!("/agents/{}/keys", agent.id)).json(&json!({}));
    let created = server.admin.send(request.header("Idempotency-Key", chosen)).await.expect(201);
    let secrets = [created["raw_key"].as_str().unwrap(), chosen, "raw_key"];
    let inside = if server.db.is_sqlite() {
        "instr(sealed, CAST('{}' AS BLOB))"
    } else {
        "position(CAST('{}' AS BYTEA) IN sealed)"
    };
    assert_eq!(server.db.count("SELECT COUNT(*) FROM request_answers WHERE length(sealed) > 100").await, 1);
    for secret in secrets {
        let inside = inside.replace("{}", secret);
        assert_eq!(server.db.count(&format!("SELECT COUNT(*) FROM request_answers WHERE {inside} > 0")).await, 0);
        let recorded = format!("SELECT COUNT(*) FROM audit_log WHERE details LIKE '%{secret}%'");
        assert_eq!(server.db.count(&recorded).await, 0);
        assert!(!holds(&contents(server.db.folder.path()), secret) || secret == "raw_key");
    }
}

#[tokio::test]
async fn failed_start_shows_no_password() {
    let db = Database::sqlite();
    for (name, value) in [
        ("DATABASE_URL", "postgres://someone:p4ssw0rd@127.0.0.1:1/aims"),
        ("DATABASE_URL", "postgres://someone:p4ssw0rd@127.0.0.1:port/aims"),
        ("DATABASE_URL", "postgres://someone:with/p4ssw0rd@127.0.0.1:1/aims"),
        ("DATABASE_URL", "postgres://127.0.0.1:1/aims?user=someone&password=p4ssw0rd"),
        ("DATABASE_URL", "mysql://someone:p4ssw0rd@127.0.0.1:1/aims"),
        ("PUBLIC_URL", "https://someone:p4ssw0rd@aims.test"),
        ("TRUSTED_PROXIES", "https://someone:p4ssw0rd@aims.test"),
    ] {
        let exit = Aims::new(&db).with("LOG_LEVEL", "trace").with(name, value).run(&[]).await;
        assert_eq!(exit.code, Some(1), "{value}: {exit:?}");
        assert!(exit.stderr.contains("aims: ") && !exit.stderr.contains("p4ssw0rd"), "{exit:?}");
    }
}
