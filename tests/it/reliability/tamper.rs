//! Edits of the audit log in the database: verification reports the first invalid record.

use aims::{
    domain::audit::Break,
    service::audit,
    store::{Db, Location, Mode},
};
use serde_json::json;

use crate::{
    both,
    support::{Aims, Database, Server},
};

both!(
    untouched_log_is_valid,
    edited_record_is_detected,
    deleted_record_is_detected,
    inserted_record_is_detected,
    reordered_records_are_detected,
    edited_head_is_detected,
    log_that_grows_during_verification_is_valid,
);

const COLUMNS: &str = "id, at, actor, subject, action, resource_type, resource_id, details, ip, success, request_id, \
    prev_hash, hash";

async fn untouched_log_is_valid(db: Database) {
    let log = Log::make(db).await;
    let verified = log.aims.run(&["audit", "verify", "--json"]).await.json();
    assert_eq!((&verified["valid"], &verified["records"]), (&json!(true), &json!(log.last)));
    assert_eq!(verified["head_hash"].as_str().unwrap().len(), 64);
    assert!(verified["first_bad"].is_null());
    let exit = log.aims.run(&["audit", "verify"]).await;
    assert_eq!((exit.code, exit.stderr.as_str()), (Some(0), ""));
    assert!(exit.stdout.starts_with(&format!("The audit log is valid: {} records", log.last)), "{exit:?}");
}

async fn edited_record_is_detected(db: Database) {
    let log = Log::make(db).await;
    let middle = log.middle;
    for edit in [
        "seq = 1000",
        "id = (SELECT id FROM audit_log WHERE seq = 2)",
        "at = at + 1",
        "actor = NULL",
        "actor = subject",
        "subject = NULL",
        "subject = actor",
        "action = 'agent.deleted'",
        "action = ''",
        "resource_type = NULL",
        "resource_type = ''",
        "resource_id = NULL",
        "resource_id = ''",
        "details = '{}'",
        "details = details || ' '",
        "ip = NULL",
        "ip = '192.0.2.1'",
        "success = 0",
        "success = 2",
        "request_id = NULL",
        "request_id = ''",
        "prev_hash = hash",
        "hash = prev_hash",
    ] {
        log.tamper(&format!("UPDATE audit_log SET {edit} WHERE seq = {middle}"), middle).await;
    }
    // The ends of the chain.
    log.tamper("UPDATE audit_log SET details = '{\"x\":1}' WHERE seq = 1", 1).await;
    log.tamper(&format!("UPDATE audit_log SET details = '{{\"x\":1}}' WHERE seq = {}", log.last), log.last).await;
    // Values that cannot be parsed as a record.
    let unreadable: &[&str] = if log.db.is_sqlite() {
        &[
            "id = x'00'",
            "actor = x''",
            "details = CAST(x'ff' AS TEXT)",
            "hash = x''",
            "prev_hash = x'00'",
            "success = 1 << 40",
        ]
    } else {
        &["hash = ''", "prev_hash = '\\x00'"]
    };
    for edit in unreadable {
        log.tamper(&format!("UPDATE audit_log SET {edit} WHERE seq = {middle}"), middle).await;
    }
}

async fn deleted_record_is_detected(db: Database) {
    let log = Log::make(db).await;
    for seq in [1, log.middle, log.last] {
        log.tamper(&format!("DELETE FROM audit_log WHERE seq = {seq}"), seq).await;
    }
    log.tamper("DELETE FROM audit_log", 1).await;
    // The following records are renumbered to close the gap.
    let middle = log.middle;
    let closed = format!(
        "DELETE FROM audit_log WHERE seq = {middle}; UPDATE audit_log SET seq = -seq WHERE seq > {middle}; \
         UPDATE audit_log SET seq = -seq - 1 WHERE seq < 0"
    );
    log.tamper(&closed, middle).await;
}

async fn inserted_record_is_detected(db: Database) {
    let log = Log::make(db).await;
    let (middle, last) = (log.middle, log.last);
    let copy = |seq: i64| {
        format!("INSERT INTO audit_log (seq, {COLUMNS}) SELECT {seq}, {COLUMNS} FROM audit_log WHERE seq = {middle}")
    };
    for (at, first_bad) in [(0, 1), (-7, 1), (i64::MIN + 1, 1), (last + 1, last + 1), (last + 1_000, last + 1)] {
        log.tamper(&copy(at), first_bad).await;
    }
    log.tamper(&copy(i64::MAX), last + 1).await;
    let lowest = format!("({} - 1)", i64::MIN + 1);
    log.tamper(&copy(i64::MIN + 1).replace(&(i64::MIN + 1).to_string(), &lowest), 1).await;
    // In the middle, with the following records renumbered.
    let shifted = format!(
        "UPDATE audit_log SET seq = -seq WHERE seq > {middle}; UPDATE audit_log SET seq = 1 - seq WHERE seq < 0; {}",
        copy(middle + 1)
    );
    log.tamper(&shifted, middle + 1).await;
}

async fn reordered_records_are_detected(db: Database) {
    let log = Log::make(db).await;
    for (one, other) in [(1, 2), (log.middle, log.middle + 1), (2, log.last), (log.last - 1, log.last)] {
        let swapped = format!(
            "UPDATE audit_log SET seq = -1 WHERE seq = {one}; UPDATE audit_log SET seq = {one} WHERE seq = {other}; \
             UPDATE audit_log SET seq = {other} WHERE seq = -1"
        );
        log.tamper(&swapped, one).await;
    }
}

async fn edited_head_is_detected(db: Database) {
    let log = Log::make(db).await;
    let last = log.last;
    for (edit, first_bad) in [
        ("UPDATE audit_head SET seq = seq + 1", last + 1),
        ("UPDATE audit_head SET seq = seq - 1", last - 1),
        ("UPDATE audit_head SET hash = (SELECT hash FROM audit_log WHERE seq = 2)", last),
        ("UPDATE audit_head SET seq = 2, hash = (SELECT hash FROM audit_log WHERE seq = 2)", 3),
        ("UPDATE audit_head SET seq = 0, hash = (SELECT prev_hash FROM audit_log WHERE seq = 1)", 1),
    ] {
        log.tamper(edit, first_bad).await;
    }
    log.db.execute("DELETE FROM audit_head").await;
    let exit = log.aims.run(&["audit", "verify"]).await;
    exit.fails_with("");
}

async fn log_that_grows_during_verification_is_valid(db: Database) {
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    let admin = process.client().login(&key).await;
    let writing = tokio::spawn(async move {
        for n in 0..200 {
            admin.post("/agents", json!({ "name": format!("a{n}"), "owner": "o" })).await.expect(201);
        }
    });
    let mut verified = 0;
    while !writing.is_finished() {
        let found = aims.run(&["audit", "verify", "--json"]).await.json();
        assert_eq!(found["valid"], true, "{found}");
        assert!(found["records"].as_i64().unwrap() >= verified, "{found}");
        verified = found["records"].as_i64().unwrap();
    }
    writing.await.unwrap();
    assert!(verified > 0);
    assert_eq!(process.stop().await.code, Some(0));
    let found = aims.run(&["audit", "verify", "--json"]).await.json();
    assert_eq!(found["records"], db.count("SELECT COUNT(*) FROM audit_log").await);
}

/// An audit log written by a service, and a copy to restore it from.
struct Log {
    db: Database,
    aims: Aims,
    /// A record in which every column has a value.
    middle: i64,
    last: i64,
}

impl Log {
    async fn make(db: Database) -> Self {
        let server = Server::start(db).await;
        let agent = server.admin.post("/agents", json!({ "name": "a", "owner": "o" })).await.expect(201);
        let id = agent["id"].as_str().unwrap();
        for n in 0..3 {
            server.admin.post(&format!("/agents/{id}/keys"), json!({ "name": format!("k{n}") })).await.expect(201);
        }
        let db = server.stop().await;
        db.execute("CREATE TABLE kept_log AS SELECT * FROM audit_log").await;
        db.execute("CREATE TABLE kept_head AS SELECT * FROM audit_head").await;
        let middle = db.count("SELECT MAX(seq) FROM audit_log WHERE action = 'agent.created'").await;
        let last = db.count("SELECT MAX(seq) FROM audit_log").await;
        assert!(2 < middle && middle + 1 < last);
        Self { aims: Aims::new(&db), db, middle, last }
    }

    /// Applies the SQL, asserts that verification reports `first_bad`, and restores the log.
    async fn tamper(&self, sql: &str, first_bad: i64) {
        self.db.execute(sql).await;
        let exit = self.aims.run(&["audit", "verify", "--json"]).await;
        assert!(exit.code == Some(1), "{sql}: {exit:?}");
        exit.fails_with(&format!("the audit log is broken at seq {first_bad}: "));
        let verdict: serde_json::Value =
            serde_json::from_str(&exit.stdout).unwrap_or_else(|error| panic!("{sql}: {error}: {exit:?}"));
        assert_eq!((&verdict["valid"], &verdict["first_bad"]["seq"]), (&json!(false), &json!(first_bad)), "{sql}");
        for (table, kept) in [("audit_log", "kept_log"), ("audit_head", "kept_head")] {
            let columns = if table == "audit_log" { format!("seq, {COLUMNS}") } else { "id, seq, hash".to_owned() };
            let restore = format!("DELETE FROM {table}; INSERT INTO {table} ({columns}) SELECT {columns} FROM {kept}");
            self.db.execute(&restore).await;
        }
        assert_eq!(self.first_break().await, None, "the log must be restored: {sql}");
    }

    /// Verifies the chain in this process.
    async fn first_break(&self) -> Option<Break> {
        let location = if self.db.is_sqlite() {
            Location::Sqlite(self.db.sqlite_file())
        } else {
            Location::Postgres(self.db.url.clone().into())
        };
        let db = Db::open(&location, Mode::Read).await.unwrap();
        audit::verify(&db).await.unwrap().broken
    }
}
