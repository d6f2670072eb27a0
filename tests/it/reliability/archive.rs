//! Archiving old audit records to a file. Later changes to the file or the database are detected.

use std::{
    fs,
    future::poll_fn,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    pin::pin,
    task::Poll,
    time::Duration,
};

use aims::{
    service::audit,
    store::{Db, Location, Mode},
};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    both,
    support::{Aims, Database, Exit, Server},
};

both!(
    archiving_keeps_the_chain_valid,
    second_archive_continues_the_first,
    interrupted_archive_keeps_the_chain_valid,
    archiving_during_verification_keeps_the_chain_valid,
    altered_archive_is_detected,
    altered_start_is_detected,
    invalid_archive_requests_are_rejected,
);

const MONTH: Duration = Duration::from_hours(30 * 24);

/// A service whose clock starts on 2026-01-01, and a directory for archives.
struct Fixture {
    server: Server,
    aims: Aims,
    folder: TempDir,
}

impl Fixture {
    async fn set(db: Database) -> Self {
        let server = Server::start(db).await;
        server.agent("old", &["agents:read"]).await;
        let aims = Aims::new(&server.db);
        Self { server, aims, folder: tempfile::tempdir().unwrap() }
    }

    /// Advances the clock by a month and creates an agent.
    async fn later(&mut self, name: &str) {
        self.server.clock.advance(MONTH);
        self.server.admin = self.server.admin.login(&self.server.admin_key).await;
        self.server.agent(name, &[]).await;
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn archive(&self, before: &str, name: &str) -> Exit {
        self.aims
            .run(&["audit", "archive", "--json", "--before", before, "--to", self.file(name).to_str().unwrap()])
            .await
    }

    async fn verify(&self, archives: &[&str]) -> Exit {
        let files: Vec<_> = archives.iter().map(|name| self.file(name).to_str().unwrap().to_owned()).collect();
        let mut arguments = vec!["audit", "verify", "--json"];
        for file in &files {
            arguments.extend(["--archive", file]);
        }
        self.aims.run(&arguments).await
    }

    async fn first_seq(&self) -> i64 {
        self.server.db.count("SELECT MIN(seq) FROM audit_log").await
    }
}

async fn archiving_keeps_the_chain_valid(db: Database) {
    let mut scene = Fixture::set(db).await;
    let old = scene.server.db.count("SELECT MAX(seq) FROM audit_log").await;
    scene.later("young").await;
    let total = scene.verify(&[]).await.json()["records"].as_i64().unwrap();

    let archived = scene.archive("2026-01-20", "a.gz").await.json();
    assert_eq!(
        (&archived["records"], &archived["first_seq"], &archived["last_seq"]),
        (&json!(old), &json!(1), &json!(old))
    );
    assert_eq!(scene.first_seq().await, old + 1);
    let mode = fs::metadata(scene.file("a.gz")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_dir(scene.folder.path()).unwrap().count(), 1);

    for archives in [&[][..], &["a.gz"]] {
        let found = scene.verify(archives).await.json();
        assert_eq!(
            (&found["valid"], &found["records"], &found["archived"]),
            (&json!(true), &json!(total + 1), &json!(old))
        );
    }
    // The running service continues the same chain and shows the remaining records.
    let records = scene.server.admin.get("/audit?limit=500").await.expect(200);
    let actions: Vec<_> = records.as_array().unwrap().iter().map(|record| record["action"].as_str().unwrap()).collect();
    assert_eq!(i64::try_from(actions.len()).unwrap(), total + 1 - old);
    assert_eq!(actions[0], "audit.archived");
    scene.server.agent("after", &[]).await;
    assert_eq!(scene.verify(&["a.gz"]).await.json()["valid"], true);
    let exit = scene.aims.run(&["audit", "verify"]).await;
    let moved =
        format!("records, {old} of them archived, {old} not verified: pass their archives with --archive, head ");
    assert!(exit.stdout.contains(&moved), "{exit:?}");
    let exit = scene.aims.run(&["audit", "verify", "--archive", scene.file("a.gz").to_str().unwrap()]).await;
    assert!(exit.stdout.contains(&format!("records, {old} of them archived, head ")), "{exit:?}");
    scene.archive("2026-01-20", "a.gz").await.fails_with("a.gz");
}

async fn second_archive_continues_the_first(db: Database) {
    let mut scene = Fixture::set(db).await;
    scene.later("second").await;
    scene.later("third").await;
    let first = scene.archive("2026-01-20", "a.gz").await.json();
    // The log now contains records of the system clock. Records after them stay, however old their times are.
    let second = scene.archive("2026-02-20", "b.gz").await.json();
    assert_eq!(second["first_seq"], first["last_seq"].as_i64().unwrap() + 1);
    assert_eq!(scene.verify(&["a.gz", "b.gz"]).await.json()["archived"], second["last_seq"]);
    assert_eq!(scene.verify(&["b.gz"]).await.json()["valid"], true);
    assert_eq!(scene.verify(&[]).await.json()["valid"], true);
    scene.verify(&["b.gz", "a.gz"]).await.fails_with("a.gz is broken at seq");
    scene.verify(&["a.gz"]).await.fails_with("the archives end at seq");
}

async fn interrupted_archive_keeps_the_chain_valid(db: Database) {
    let mut scene = Fixture::set(db).await;
    scene.later("young").await;
    scene.server.db.execute("CREATE TABLE kept_log AS SELECT * FROM audit_log").await;
    let last = scene.archive("2026-01-20", "a.gz").await.json()["last_seq"].as_i64().unwrap();
    // As if the process had died before all records were deleted.
    let left = format!("INSERT INTO audit_log SELECT * FROM kept_log WHERE seq > 2 AND seq <= {last}");
    scene.server.db.execute(&left).await;
    let found = scene.verify(&["a.gz"]).await.json();
    assert_eq!((&found["valid"], &found["archived"]), (&json!(true), &json!(last)));
    assert_eq!(scene.archive("2026-01-20", "b.gz").await.json(), json!({ "records": 0 }));
    assert_eq!(scene.first_seq().await, last + 1);
}

/// The archive is made at varying points of the verification.
async fn archiving_during_verification_keeps_the_chain_valid(db: Database) {
    const TABLES: [&str; 3] = ["audit_log", "audit_head", "audit_start"];
    /// More than one batch of the verification.
    const RECORDS: usize = 1_050;
    let mut scene = Fixture::set(db).await;
    let (anonymous, key) = (scene.server.anonymous(), scene.server.admin_key.clone());
    for _ in 0..RECORDS / 50 {
        join_all((0..50).map(|_| anonymous.exchange(&key))).await;
    }
    scene.later("young").await;
    let keep = async |when: &str| {
        for table in TABLES {
            scene.server.db.execute(&format!("CREATE TABLE {when}_{table} AS SELECT * FROM {table}")).await;
        }
    };
    keep("before").await;
    let last = scene.archive("2026-01-20", "a.gz").await.json()["last_seq"].clone();
    keep("after").await;
    let db = scene.server.stop().await;
    let location =
        if db.is_sqlite() { Location::Sqlite(db.sqlite_file()) } else { Location::Postgres(db.url.clone().into()) };
    let log = Db::open(&location, Mode::Read).await.unwrap();
    let put = async |when: &str| {
        let put = TABLES.map(|table| format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM {when}_{table};"));
        db.execute(&format!("BEGIN; {} COMMIT", put.concat())).await;
    };
    let mut turns = 1;
    loop {
        put("before").await;
        let mut walk = pin!(audit::verify(&log));
        let mut turn = 0;
        let ended = poll_fn(|context| {
            turn += 1;
            match walk.as_mut().poll(context) {
                Poll::Ready(found) => Poll::Ready(Some(found)),
                Poll::Pending if turn == turns => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        if let Some(found) = ended.await {
            assert_eq!(found.unwrap().start.seq, 0);
            // A busy machine may answer every query before the verification waits for it.
            if turns > 1 {
                break;
            }
            continue;
        }
        put("after").await;
        let found = walk.await.unwrap();
        assert_eq!(found.broken, None, "after {turns} turns");
        assert!([json!(0), last.clone()].contains(&json!(found.start.seq)), "{found:?}");
        turns += 1;
    }
}

async fn altered_archive_is_detected(db: Database) {
    let mut scene = Fixture::set(db).await;
    scene.later("young").await;
    let last = scene.archive("2026-01-20", "a.gz").await.json()["last_seq"].as_i64().unwrap();
    let mut text = String::new();
    GzDecoder::new(fs::File::open(scene.file("a.gz")).unwrap()).read_to_string(&mut text).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(i64::try_from(lines.len()).unwrap(), last);
    let forge = |lines: &[Value]| {
        let mut encoder = GzEncoder::new(fs::File::create(scene.file("forged.gz")).unwrap(), Compression::fast());
        for line in lines {
            writeln!(encoder, "{line}").unwrap();
        }
        encoder.finish().unwrap();
    };
    let middle = lines.iter().position(|line| line["action"] == "agent.created" && !line["actor"].is_null()).unwrap();
    let seq = middle + 1;
    forge(&lines);
    assert_eq!(scene.verify(&["forged.gz"]).await.json()["valid"], true);

    for (member, value) in
        [("action", json!("agent.deleted")), ("at", json!(1)), ("actor", Value::Null), ("details", json!("{}"))]
    {
        let mut forged = lines.clone();
        forged[middle][member] = value;
        forge(&forged);
        scene
            .verify(&["forged.gz"])
            .await
            .fails_with(&format!("forged.gz is broken at seq {seq}: the record was altered"));
    }
    let mut without_one = lines.clone();
    without_one.remove(middle);
    forge(&without_one);
    scene.verify(&["forged.gz"]).await.fails_with(&format!("forged.gz is broken at seq {seq}: the record is missing"));
    forge(&lines[..lines.len() - 1]);
    scene.verify(&["forged.gz"]).await.fails_with("the archives end at seq");
    forge(&[]);
    scene.verify(&["forged.gz"]).await.fails_with("the file has no records");
    fs::write(scene.file("forged.gz"), &fs::read(scene.file("a.gz")).unwrap()[..60]).unwrap();
    scene.verify(&["forged.gz"]).await.fails_with("cannot read ");
}

async fn altered_start_is_detected(db: Database) {
    let mut scene = Fixture::set(db).await;
    scene.later("young").await;
    let last = scene.archive("2026-01-20", "a.gz").await.json()["last_seq"].as_i64().unwrap();
    let db = &scene.server.db;
    for table in ["audit_log", "audit_start"] {
        db.execute(&format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")).await;
    }
    let next = last + 1;
    let taken = format!("seq = {next}, hash = (SELECT hash FROM audit_log WHERE seq = {next})");
    for (what, first_bad) in [
        // Records were deleted without an archive, and the start was moved past them.
        (
            vec![format!("UPDATE audit_start SET {taken}"), format!("DELETE FROM audit_log WHERE seq = {next}")],
            next + 1,
        ),
        (vec![format!("DELETE FROM audit_log WHERE seq = {next}")], next),
        // A forged record among those that are archived.
        (
            vec![format!(
                "INSERT INTO audit_log SELECT {last}, id, at, actor, subject, action, resource_type, resource_id, \
            details, ip, success, request_id, prev_hash, hash FROM kept_audit_log WHERE seq = {next}"
            )],
            last,
        ),
        (vec!["UPDATE audit_start SET seq = 0".to_owned()], 1),
        (vec!["DELETE FROM audit_log WHERE action = 'audit.archived'".to_owned()], 0),
    ] {
        for sql in &what {
            db.execute(sql).await;
        }
        let ended = scene.verify(&[]).await;
        let expected =
            if first_bad == 0 { "the audit log is broken at seq ".to_owned() } else { format!("at seq {first_bad}: ") };
        ended.fails_with(&expected);
        for table in ["audit_log", "audit_start"] {
            db.execute(&format!("DELETE FROM {table}")).await;
            db.execute(&format!("INSERT INTO {table} SELECT * FROM kept_{table}")).await;
        }
        assert_eq!(scene.verify(&[]).await.json()["valid"], true);
    }
}

async fn invalid_archive_requests_are_rejected(db: Database) {
    let scene = Fixture::set(db).await;
    let all = scene.server.db.count("SELECT COUNT(*) FROM audit_log").await;
    scene.archive("2999-01-01", "a.gz").await.fails_with("records of the last 48 hours stay in the database");
    scene.archive("soon", "a.gz").await.fails_with("--before must be a date");
    assert_eq!(scene.archive("2020-01-01", "a.gz").await.json(), json!({ "records": 0 }));
    fs::write(scene.file("a.gz"), "mine").unwrap();
    scene.archive("2026-01-20", "a.gz").await.fails_with("cannot use the archive");
    assert_eq!(fs::read(scene.file("a.gz")).unwrap(), b"mine");
    scene.archive("2026-01-20", "no/such/folder/a.gz").await.fails_with("cannot use the archive");
    // A log with a broken chain cannot be archived.
    scene.server.db.execute("UPDATE audit_log SET action = 'x' WHERE seq = 3").await;
    scene.archive("2026-01-20", "b.gz").await.fails_with("the audit log is broken at seq 3");
    assert_eq!(scene.server.db.count("SELECT COUNT(*) FROM audit_log").await, all);
    assert_eq!(fs::read_dir(scene.folder.path()).unwrap().count(), 1);
}
