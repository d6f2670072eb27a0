//! No secret is kept where it could be found.

use std::{fs, path::Path};

use serde_json::json;

use crate::support::{Database, Server};

/// Everything that a thief of the database's folder would read.
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
async fn the_database_holds_no_key_and_no_token() {
    let server = Server::start(Database::sqlite()).await;
    let agent = server.agent("agent", &["agents:read"]).await;
    let rotate = format!("/agents/{}/keys/{}/rotate", agent.id, agent.key_id);
    let rotated = server.admin.post(&rotate, json!({})).await.expect(200);
    let wrong = "aims_WRONGWRONGWRONGWRONGWRONGWRONGWRONGWRONGWRONG0000";
    server.anybody().exchange(wrong).await.expect(401);
    server.anybody().with_token("not.a.token").get("/agents").await.expect(401);

    let new_key = rotated["new_key"]["raw_key"].as_str().unwrap();
    let secrets = [&server.admin_key, &agent.raw_key, new_key, wrong, "not.a.token", server.admin.token()];
    let kept = contents(server.db.folder.path());
    assert!(holds(&kept, &agent.id) || holds(&kept, "auth.failed"), "the walk reads the database at all");
    for secret in secrets {
        assert!(!holds(&kept, secret), "a secret is kept in the clear");
        // Beyond the prefix that is displayed, nothing of it.
        assert!(!holds(&kept, &secret[secret.len().saturating_sub(20)..]) || secret.len() < 20);
    }
}
