//! Every row of every table comes back unchanged, also from the other database.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use aims::store::backup::{LEFT_OUT, TABLES};
use flate2::read::GzDecoder;
use serde_json::Value;
use sqlx::{Connection, PgConnection, SqliteConnection, migrate::Migrator};

use super::{back_up, keys::seal_authenticator, path, restore, verified};
use crate::{
    both,
    support::{Aims, Database},
    with_timeout,
};

both!(
    every_table_is_backed_up_or_left_out_for_a_reason,
    kept_tokens_still_work,
    a_backup_is_a_private_file_that_is_never_overwritten,
    a_database_that_was_not_migrated_is_backed_up_as_it_is,
);

async fn every_table_is_backed_up_or_left_out_for_a_reason(db: Database) {
    Aims::new(&db).bootstrap().await;
    let sql = if db.is_sqlite() {
        // FTS5 keeps its data in tables of its own.
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE 'agents_text_%'"
    } else {
        "SELECT tablename::TEXT FROM pg_tables WHERE schemaname = 'public'"
    };
    let found: BTreeSet<_> = db.texts(sql).await.into_iter().collect();
    let known: BTreeSet<_> =
        TABLES.into_iter().chain(LEFT_OUT.iter().map(|(name, _)| *name)).map(str::to_owned).collect();
    let unknown: Vec<_> = found.difference(&known).collect();
    assert!(unknown.is_empty(), "add these tables to store::backup: {unknown:?}");
    let missing: Vec<_> = TABLES.iter().filter(|table| !found.contains(**table)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn sqlite_comes_back_unchanged() {
    with_timeout(rows_come_back_unchanged(Database::sqlite(), Database::sqlite())).await;
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn sqlite_moves_to_postgres_and_back_unchanged() {
    with_timeout(rows_come_back_unchanged(Database::sqlite(), Database::postgres().await)).await;
    with_timeout(rows_come_back_unchanged(Database::postgres().await, Database::sqlite())).await;
}

async fn rows_come_back_unchanged(source: Database, target: Database) {
    let aims = Aims::new(&source);
    aims.bootstrap().await;
    fill(&source).await;
    let before = lines(&back_up(&aims, &source, "a.backup").await);
    let empty: Vec<_> = TABLES.iter().filter(|table| before[**table].is_empty()).collect();
    assert!(empty.is_empty(), "fill these tables: {empty:?}");
    restore(&target, &path(&source, "a.backup"), &["--keep-tokens"]).await.json();
    let after = lines(&back_up(&Aims::new(&target), &target, "b.backup").await);
    for (table, rows) in &before {
        let now = &after[table];
        match table.as_str() {
            // The restore was recorded.
            "audit_log" => assert_eq!((now.len(), &now[..rows.len()]), (rows.len() + 1, rows.as_slice())),
            "audit_head" => assert_ne!(now, rows),
            _ => assert_eq!(now, rows, "{table}"),
        }
    }
}

/// Returns the rows of each table in a backup.
fn lines(file: &str) -> BTreeMap<String, Vec<Value>> {
    let mut tables = BTreeMap::new();
    let mut table = String::new();
    for line in BufReader::new(GzDecoder::new(File::open(file).unwrap())).lines() {
        match serde_json::from_str(&line.unwrap()).unwrap() {
            Value::Array(row) => tables.entry(table.clone()).or_insert_with(Vec::new).push(Value::Array(row)),
            line => {
                if let Some(name) = line["table"].as_str() {
                    name.clone_into(&mut table);
                    tables.entry(table.clone()).or_default();
                }
            }
        }
    }
    tables
}

/// Puts a row into every table, with a value in every column.
async fn fill(db: &Database) {
    let (bytes, no_bytes) = if db.is_sqlite() { ("x'00ff'", "x''") } else { ("'\\x00ff'::BYTEA", "''::BYTEA") };
    let one = |table: &str, columns: &str, values: &str, from: &str| {
        let from = if from.is_empty() { String::new() } else { format!("FROM {from} LIMIT 1") };
        format!("INSERT INTO {table} ({columns}) SELECT {values} {from};")
    };
    // A restore needs the key that it names, and that opens the secrets.
    let master = aims::crypto::MasterKey::from_hex(&"0f".repeat(32)).unwrap().id();
    seal_authenticator(db).await;
    let text = "'\" \\ \u{1F512} '' \t \u{7f}'";
    let person = "(SELECT id FROM administrators)";
    let agent = "(SELECT id FROM agents LIMIT 1)";
    let sql = [
        "UPDATE agents SET description = 'line\nbreak', suspended_at = -1, token_epoch = 9007199254740993;".to_owned(),
        one("agent_labels", "agent_id, key, value, created_at", "id, 'env', 'a \u{e9}', 1", "agents"),
        format!("UPDATE administrators SET display_name = {text};"),
        one("recovery_codes", "administrator_id, code_hash", &format!("id, {no_bytes}"), "administrators"),
        one(
            "passkeys",
            "id, administrator_id, credential_id, credential, name, created_at",
            &format!("id, id, {bytes}, '{{}}', 'laptop', 1"),
            "administrators",
        ),
        one("sign_in_failures", "subject_hash, failures, last_at, account_hash", &format!("{bytes}, 1, 2, NULL"), ""),
        one("known_networks", "administrator_id, network, last_at", "id, '::1/64', 1", "administrators"),
        one("overview_marks", "administrator_id, item, until", "id, 'backup', 9223372036854775807", "administrators"),
        one("audit_views", "id, person, name, query, created_at", "id, id, 'mine', '?a=b', 1", "administrators"),
        one(
            "invitations",
            "id, token_hash, recipient, role, invited_by, created_at, expires_at",
            &format!("id, {bytes}, 'max', 'viewer', id, 1, 2"),
            "administrators",
        ),
        one("service_address", "id, public_url", "1, 'https://aims.example'", ""),
        one("master_key", "id, key_id, previous_id, rotated_at", &format!("1, '{master}', '{:016x}', 1", 1), ""),
        one("imports", "source, imported_at", "'seed', 1", ""),
        one("audit_names", "id, name", "id, 'gone'", "agents"),
        one("audit_archives", "last_seq, first_seq, last_at, archived_at, file", "-1, -2, NULL, NULL, NULL", ""),
        one("api_key_uses", "day, key_id, uses", "1, id, 2", "api_keys"),
        one("activity", "hour, issued, refused", "1, 2, 3", ""),
        one("activity_kinds", "hour, action, reason, times", "1, 'b', '', 2", ""),
        one("activity_kinds", "hour, action, reason, times", "1, 'B', '_', 2", ""),
        one("agent_activity", "span, at, agent_id, issued, refused", "1, 2, id, 3, 4", "agents"),
        one("capability_uses", "day, capability_id, agent_id, uses", "1, id, id, 2", "capabilities"),
        one(
            "resources",
            "id, identifier, name, scope, created_at, updated_at",
            "id, 'urn:a', 'a', 'b', 1, 2",
            "agents",
        ),
        one("revoked_tokens", "agent_id, jti, expires_at", "id, id, 1", "agents"),
        one("public_keys", "id, agent_id, thumbprint, kid, jwk, created_at", "id, id, 't', 'k', '{}', 1", "agents"),
        one("spent_assertions", "hash, expires_at", &format!("{bytes}, 1"), ""),
        one("delegations", "id, agent_id, delegate_id, created_at", "id, id, id, 1", "agents"),
        one("delegated_tokens", "jti, audience, issued_at, expires_at", "id, 'aud', 1, 2", "agents"),
        format!(
            "INSERT INTO delegated_token_links (jti, place, agent_id, credential_type, credential_id, token_epoch) \
            SELECT jti, 0, {agent}, 'api_key', jti, 1 FROM delegated_tokens;"
        ),
        one(
            "federated_identities",
            "id, agent_id, issuer, audience, claims, created_at",
            "id, id, 'https://issuer.example', 'aims', '{}', 1",
            "agents",
        ),
        format!(
            "INSERT INTO bulk_acts (id, actor, kind, target, at) SELECT id, {person}, 'grant', 'x', 1 FROM agents LIMIT 1;"
        ),
        one("bulk_act_agents", "act_id, agent_id, at", "id, id, 1", "agents"),
    ];
    db.execute(&sql.concat()).await;
}

async fn kept_tokens_still_work(db: Database) {
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    let admin = process.client().login(&key).await;
    let file = back_up(&aims, &db, "a.backup").await;
    process.stop().await;
    restore(&db, &file, &["--replace", "--keep-tokens"]).await.json();
    let process = aims.serve().await;
    process.client().with_token(admin.token()).get("/agents").await.expect(200);
    process.stop().await;

    // The shared secret stays, and the tokens end all the same.
    let aims = aims.with("JWT_SECRET_KEY", &"c4".repeat(24)).with("JWT_ALGORITHM", "");
    let process = aims.serve().await;
    let admin = process.client().login(&key).await;
    admin.get("/agents").await.expect(200);
    let file = back_up(&aims, &db, "b.backup").await;
    process.stop().await;
    restore(&db, &file, &["--replace"]).await.json();
    let process = aims.serve().await;
    process.client().with_token(admin.token()).get("/agents").await.refused(401, "Invalid or expired token");
    process.client().login(&key).await.get("/agents").await.expect(200);
    process.stop().await;
}

async fn a_backup_is_a_private_file_that_is_never_overwritten(db: Database) {
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let file = back_up(&aims, &db, "a.backup").await;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let content = std::fs::read(&file).unwrap();
    aims.run(&["backup", "--to", &file]).await.fails_with("cannot write the backup to");
    assert_eq!(std::fs::read(&file).unwrap(), content);
    let none = path(&db, "no/such/folder");
    aims.run(&["backup", "--to", &none]).await.fails_with("cannot write the backup to");
    let valid = aims.run(&["backup", "verify", &file]).await;
    assert!(valid.stdout.starts_with("The backup is valid: made at "), "{valid:?}");
    // Nothing but the backup is left in the folder.
    let mut names: Vec<_> = std::fs::read_dir(db.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with("aims.db"))
        .collect();
    names.sort();
    assert_eq!(names, ["a.backup"]);
}

/// An operator replaces the binary, and makes a backup before the new version migrates.
async fn a_database_that_was_not_migrated_is_backed_up_as_it_is(db: Database) {
    const OLD: i64 = 21;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    if db.is_sqlite() {
        let mut connection = SqliteConnection::connect(&format!("{}?mode=rwc", db.sqlite_url())).await.unwrap();
        Migrator::new(folder.join("sqlite")).await.unwrap().run_to(OLD, &mut connection).await.unwrap();
        connection.close().await.unwrap();
    } else {
        let mut connection = PgConnection::connect(&db.url).await.unwrap();
        Migrator::new(folder.join("postgres")).await.unwrap().run_to(OLD, &mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
    let id = if db.is_sqlite() { "x'00112233445566778899aabbccddeeff'" } else { "'00112233445566778899aabbccddeeff'" };
    db.execute(&format!(
        "INSERT INTO agents (id, name, description, owner, status, agent_type, metadata_json, created_at, updated_at) \
         VALUES ({id}, 'old', '', 'tests', 'active', 'custom', '{{}}', 1, 1)"
    ))
    .await;
    let aims = Aims::new(&db);
    let file = path(&db, "a.backup");
    assert_eq!(aims.run(&["backup", "--to", &file, "--json"]).await.json()["schema"], OLD);
    assert_eq!(db.count("SELECT MAX(version) FROM _sqlx_migrations").await, OLD);
    let valid = aims.run(&["backup", "verify", &file, "--json"]).await.json();
    assert_eq!((&valid["valid"], &valid["schema"]), (&Value::Bool(true), &Value::from(OLD)));
    let target = Database::sqlite();
    restore(&target, &file, &[]).await.json();
    let there = Aims::new(&target);
    verified(&there).await;
    assert_eq!(target.texts("SELECT name FROM agents").await, ["old"]);
    let key = there.bootstrap().await;
    let process = there.serve().await;
    let agents = process.client().login(&key).await.get("/agents?q=old").await.expect(200);
    assert_eq!(agents[0]["name"], "old");
    process.stop().await;
}
