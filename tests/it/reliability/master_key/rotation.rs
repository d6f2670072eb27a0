//! Rotation with keys that the operator supplies, on one node or several.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use aims::{
    clock::Environment,
    crypto::{MasterKey, MasterKeys, TotpSecret},
    domain::{Error, Role},
    service::{
        Caller,
        master_key::{self, rotation},
        tokens::signing_keys,
    },
    store::tokens::sealed::Kind,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ROTATE, STATUS, assert_all_newest, key, new, old, succeeds};
use crate::{
    both,
    console::account::{code, enable_authenticator},
    support::{Aims, Database, PASSWORD, Server, details},
};

both!(
    everything_is_sealed_anew_beside_the_service,
    many_values_are_sealed_anew_in_short_transactions,
    a_node_without_the_new_key_seals_nothing,
    two_keys_before_a_rotation_seal_with_the_key_in_use,
    keys_in_the_wrong_order_are_refused,
    values_of_an_unknown_key_keep_a_rotation_from_beginning,
    a_rotation_needs_a_new_key,
    a_shared_secret_needs_no_master_key,
    every_sealed_column_is_listed,
);

const SIGN_IN: [(&str, &str); 2] = [("username", "zoe"), ("password", PASSWORD)];

fn with_both(aims: &Aims) -> Aims {
    aims.with("MASTER_KEY", &new()).with("MASTER_KEY_PREVIOUS", &old())
}

/// Signs in with password and authenticator.
async fn sign_in_with_code(server: &Server, secret: &str) {
    let browser = server.browser();
    browser.post("/console/sign-in", &SIGN_IN).await.expect(200).shows("Two-factor authentication");
    server.clock.advance(Duration::from_secs(30));
    browser.post("/console/sign-in/code", &[("code", &code(server, secret))]).await.redirects_to("/console");
}

async fn everything_is_sealed_anew_beside_the_service(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("worker", &["agents:read"]).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let (secret, _) = enable_authenticator(&server, &browser).await;

    // The nodes are restarted with both keys, which changes nothing yet.
    let server = server.restart(&[("MASTER_KEY", &new()), ("MASTER_KEY_PREVIOUS", &old())]).await;
    let alone = Aims::new(&server.db);
    let prepared = with_both(&alone);
    let before = prepared.run(&STATUS).await.json();
    assert_eq!(before["sealing"], before["previous"], "{before}");
    let counts = |newest: i64, previous: i64| json!({ "newest": newest, "previous": previous, "unknown": 0 });
    assert_eq!(before["values"], json!({ "signing_keys": counts(0, 2), "authenticators": counts(0, 1) }));
    let client = server.anonymous().login(&agent.raw_key).await;
    let nonce = server.services.dpop_nonce();

    let rotated = succeeds(&prepared, &ROTATE, &[&old(), &new()]).await;
    assert!(rotated.stdout.contains("now encrypts everything"), "{rotated:?}");
    let after = assert_all_newest(&prepared.run(&STATUS).await);
    assert_eq!(after["values"], json!({ "signing_keys": counts(2, 0), "authenticators": counts(1, 0) }));
    assert_eq!(after["newest"], before["newest"]);

    // The service has noticed nothing, and uses the new key from now on.
    master_key::maintain(&server.services).await.unwrap();
    assert_ne!(server.services.dpop_nonce(), nonce);
    assert!(server.services.dpop_nonces.accepts(&nonce, server.services.env.now()));
    client.get("/agents").await.expect(200);
    sign_in_with_code(&server, &secret).await;
    server.clock.advance(signing_keys::PUBLISHED_FOR);
    signing_keys::maintain(&server.services).await.unwrap();
    signing_keys::rotate(&server.services, &Caller::system(), false).await.unwrap();
    assert_all_newest(&prepared.run(&STATUS).await);

    // Running the command again changes nothing.
    let records = server.audited("master_key.rotated").await;
    succeeds(&prepared, &ROTATE, &[]).await;
    assert_eq!(server.audited("master_key.rotated").await.len(), records.len());
    assert_eq!(details(&records[0]), json!({ "from": before["previous"], "to": before["newest"] }));
    assert_eq!(server.audited("master_key.retired").await.len(), 1);
    let resealed: Vec<_> = server.audited("master_key.values_resealed").await.iter().map(details).collect();
    assert_eq!(resealed.len(), 2, "{resealed:?}");
    assert_eq!(prepared.run(&["audit", "verify", "--json"]).await.json()["valid"], true);

    // The previous key is not needed any more, and is not enough.
    let server = server.restart(&[("MASTER_KEY", &new())]).await;
    sign_in_with_code(&server, &secret).await;
    let exit = alone.run(&["signing-keys", "list"]).await;
    exit.fails_with("encrypted with the master key");
    exit.fails_with(after["newest"].as_str().unwrap());
}

async fn many_values_are_sealed_anew_in_short_transactions(db: Database) {
    const PEOPLE: u128 = 230;
    let server = Server::start(db).await;
    add_authenticators(&server.db, 1..=PEOPLE, &old()).await;
    let server = server.restart(&[("MASTER_KEY", &new()), ("MASTER_KEY_PREVIOUS", &old())]).await;
    let (services, caller) = (&server.services, Caller::system());
    rotation::begin(services, &caller).await.unwrap();
    // A pass that stops in the middle.
    let first = rotation::reseal_page(services, &caller, Kind::Authenticators, None).await.unwrap();
    assert_eq!(first.resealed, 100);
    let aims = with_both(&Aims::new(&server.db));
    let middle = aims.run(&STATUS).await.json();
    assert_eq!(middle["values"]["authenticators"], json!({ "newest": 100, "previous": 130, "unknown": 0 }));
    assert_eq!(middle["completed_at"], Value::Null);
    // Until all values are sealed anew, the rotation cannot be recorded as complete.
    let early = rotation::complete(services, &caller).await.unwrap_err();
    assert!(early.to_string().contains("132 values are not sealed with the newest"), "{early}");

    succeeds(&aims, &ROTATE, &[]).await;
    let done = assert_all_newest(&aims.run(&STATUS).await);
    assert_eq!(done["values"]["authenticators"]["newest"], 230);
    assert!(done["completed_at"].is_string(), "{done}");
    let mut counts: Vec<_> = server
        .audited("master_key.values_resealed")
        .await
        .iter()
        .map(|record| details(record)["count"].clone())
        .collect();
    counts.sort_by_key(Value::as_i64);
    assert_eq!(counts, [2, 30, 100, 100]);
}

/// A node that was not restarted with the new key, or a process that the rotation overtook.
async fn a_node_without_the_new_key_seals_nothing(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let page = browser.get("/console/account/authenticator").await.expect(200);
    let secret = crate::console::account::secret(&page);
    let aims = with_both(&Aims::new(&server.db));
    succeeds(&aims, &ROTATE, &[]).await;

    browser.post("/console/account/authenticator", &[("code", &code(&server, &secret))]).await.expect(503);
    server.clock.advance(signing_keys::PUBLISHED_FOR);
    let refused = signing_keys::rotate(&server.services, &Caller::system(), false).await.unwrap_err();
    assert!(refused.with_causes().contains("which AIMS was not given"), "{}", refused.with_causes());
    assert!(master_key::maintain(&server.services).await.is_err());
    // Also if the rotation begins after the process has checked its keys: the transaction decides.
    let stale = Arc::new(MasterKeys::one(MasterKey::from_hex(&old()).unwrap()));
    let sealing = server
        .services
        .store
        .write(move |tx| Box::pin(async move { master_key::sealing_key(tx.conn(), &stale).await.map(|key| key.id()) }));
    assert!(matches!(sealing.await, Err(Error::Unavailable(_))));
    let status = assert_all_newest(&aims.run(&STATUS).await);
    assert_eq!(status["values"]["authenticators"]["newest"], 0);
    // It still serves what it can.
    server.admin.get("/agents").await.expect(200);

    // With the new key it does the rest too.
    let server = server.restart(&[("MASTER_KEY", &new())]).await;
    let browser = server.sign_in("zoe").await;
    enable_authenticator(&server, &browser).await;
    assert_all_newest(&aims.run(&STATUS).await);
}

async fn two_keys_before_a_rotation_seal_with_the_key_in_use(db: Database) {
    let server = Server::start(db).await;
    let server = server.restart(&[("MASTER_KEY", &new()), ("MASTER_KEY_PREVIOUS", &old())]).await;
    server.clock.advance(signing_keys::PUBLISHED_FOR);
    signing_keys::rotate(&server.services, &Caller::system(), false).await.unwrap();
    let browser = server.signed_in("zoe", Role::Owner).await;
    let (secret, _) = enable_authenticator(&server, &browser).await;
    // A node that has only the present key opens everything.
    let server = server.restart(&[]).await;
    sign_in_with_code(&server, &secret).await;
    assert_all_newest(&Aims::new(&server.db).run(&STATUS).await);
}

async fn keys_in_the_wrong_order_are_refused(db: Database) {
    let alone = Aims::new(&db);
    alone.bootstrap().await;
    let swapped = alone.with("MASTER_KEY_PREVIOUS", &new());
    swapped.run(&ROTATE).await.fails_with("put the new key first and the current key second");
    succeeds(&with_both(&alone), &ROTATE, &[]).await;
    // Also after a rotation, with a third key.
    let swapped = alone.with("MASTER_KEY", &new()).with("MASTER_KEY_PREVIOUS", &key("2d"));
    swapped.run(&ROTATE).await.fails_with("put the new key first and the current key second");
    let third = alone.with("MASTER_KEY", &key("2d")).with("MASTER_KEY_PREVIOUS", &new());
    succeeds(&third, &ROTATE, &[]).await;
    assert_all_newest(&alone.with("MASTER_KEY", &key("2d")).run(&STATUS).await);
}

async fn values_of_an_unknown_key_keep_a_rotation_from_beginning(db: Database) {
    let alone = Aims::new(&db);
    alone.bootstrap().await;
    add_authenticators(&db, 1..=2, &key("77")).await;
    add_authenticators(&db, 3..=3, &old()).await;
    let both = with_both(&alone);
    both.run(&ROTATE).await.fails_with("2 secrets in the database were encrypted with another master key");
    let status = both.run(&STATUS).await.json();
    assert_eq!(status["values"]["authenticators"], json!({ "newest": 0, "previous": 1, "unknown": 2 }));
    assert_eq!(status["sealing"], status["previous"]);
    assert_eq!(db.count("SELECT COUNT(*) FROM audit_log WHERE action LIKE 'master_key.%'").await, 0);
    // A value that was altered counts as well.
    db.execute("DELETE FROM totp_secrets").await;
    succeeds(&both, &ROTATE, &[]).await;
}

async fn a_rotation_needs_a_new_key(db: Database) {
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let exit = aims.run(&ROTATE).await;
    exit.fails_with("there is no new master key");
    assert!(!exit.stderr.contains(&old()), "{exit:?}");
    // Nodes that share a database may have copies of the file, so a command must not change one of them.
    if !db.is_sqlite() {
        let file = db.folder.path().join("key");
        std::fs::write(&file, old()).unwrap();
        let aims = aims.with("MASTER_KEY", "").with("MASTER_KEY_FILE", file.to_str().unwrap());
        aims.run(&ROTATE).await.fails_with("there is no new master key");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), old());
        std::fs::write(&file, format!("{}\n{}\n", new(), old())).unwrap();
        succeeds(&aims, &ROTATE, &[&new(), &old()]).await;
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{}\n{}\n", new(), old()));
        std::fs::write(&file, new()).unwrap();
        assert_all_newest(&aims.run(&STATUS).await);
    }
    assert_eq!(
        db.count("SELECT COUNT(*) FROM audit_log WHERE action = 'master_key.rotated'").await,
        i64::from(!db.is_sqlite())
    );
}

async fn a_shared_secret_needs_no_master_key(db: Database) {
    let with_secret = Aims::new(&db).with("JWT_SECRET_KEY", "6a1f0c9be2d84735a0c4e1f79b3d5826");
    // With SQLite the file is created in any case, for authenticator apps.
    let aims = with_secret.with("MASTER_KEY", "");
    aims.bootstrap().await;
    if !db.is_sqlite() {
        aims.run(&ROTATE).await.fails_with("there is no master key");
        assert_eq!(aims.run(&STATUS).await.json(), json!({ "sealing": null }));
        let told = succeeds(&aims, &["master-key", "status"], &[]).await;
        assert!(told.stdout.contains("There is no master key"), "{told:?}");
    }
    // With a master key, the authenticator secrets are sealed anew.
    let aims = with_secret;
    add_authenticators(&db, 1..=1, &old()).await;
    succeeds(&with_both(&aims), &ROTATE, &[]).await;
    let status = assert_all_newest(&aims.with("MASTER_KEY", &new()).run(&STATUS).await);
    assert_eq!(status["values"]["authenticators"]["newest"], 1);
    aims.run(&STATUS).await.fails_with("use the current master key");
}

/// A migration that adds a column of sealed values must add it to [`Kind`] too, or a rotation would lose the values.
async fn every_sealed_column_is_listed(db: Database) {
    Aims::new(&db).bootstrap().await;
    let sql = if db.is_sqlite() {
        "SELECT t.name || '.' || c.name FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS c \
         WHERE t.type = 'table' AND c.name LIKE 'sealed%'"
    } else {
        "SELECT table_name || '.' || column_name FROM information_schema.columns \
         WHERE table_schema = 'public' AND column_name LIKE 'sealed%'"
    };
    let mut found = db.texts(sql).await;
    // An answer is sealed for its client, and kept for a day.
    found.retain(|column| column != "request_answers.sealed");
    found.sort();
    let mut listed: Vec<_> = Kind::ALL.map(Kind::column).iter().map(|(t, c)| format!("{t}.{c}")).collect();
    listed.sort();
    assert_eq!(found, listed);
}

/// Adds administrators with authenticators whose secrets this key sealed.
async fn add_authenticators(db: &Database, numbers: std::ops::RangeInclusive<u128>, key: &str) {
    let (env, key) = (Environment::system(), MasterKey::from_hex(key).unwrap());
    let mut sql = "BEGIN; ".to_owned();
    for number in numbers {
        let id = Uuid::from_u128(number);
        let sealed = TotpSecret::generate(&env).seal(&key, &env, &id.to_string()).unwrap();
        let sealed = sealed.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        let (id, sealed) = if db.is_sqlite() {
            (format!("X'{}'", id.simple()), format!("X'{sealed}'"))
        } else {
            (format!("'{id}'"), format!("'\\x{sealed}'"))
        };
        write!(
            sql,
            "INSERT INTO administrators (id, username, display_name, role, password_hash, password_changed_at, \
             created_at, updated_at) VALUES ({id}, 'person-{number}', 'p', 'viewer', 'x', 1, 1, 1); \
             INSERT INTO totp_secrets (administrator_id, sealed_secret, last_step) VALUES ({id}, {sealed}, 0); "
        )
        .unwrap();
    }
    db.execute(&format!("{sql} COMMIT;")).await;
}
