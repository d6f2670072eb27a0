//! Old records move to a file, and whatever somebody does to the file or to the database afterwards is found.

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
    support::{Aims, Database, Ended, Server},
};

both!(
    old_records_move_and_the_chain_still_holds,
    a_second_archive_goes_on_from_the_first,
    an_interrupted_archive_is_no_break,
    an_archive_that_is_made_meanwhile_is_no_break,
    an_altered_archive_is_found,
    an_altered_start_is_found,
    nothing_is_archived_that_should_not_be,
);

const MONTH: Duration = Duration::from_hours(30 * 24);

/// A service whose clock began on the first day of 2026, and where archives go.
struct Scene {
    server: Server,
    aims: Aims,
    folder: TempDir,
}

impl Scene {
    async fn set(db: Database) -> Self {
        let server = Server::start(db).await;
        server.agent("old", &["agents:read"]).await;
        let aims = Aims::new(&server.db);
        Self { server, aims, folder: tempfile::tempdir().unwrap() }
    }

    /// Lets a month pass, after which something happens.
    async fn later(&mut self, name: &str) {
        self.server.clock.advance(MONTH);
        self.server.admin = self.server.admin.login(&self.server.admin_key).await;
        self.server.agent(name, &[]).await;
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn archive(&self, before: &str, name: &str) -> Ended {
        self.aims
            .run(&["audit", "archive", "--json", "--before", before, "--to", self.file(name).to_str().unwrap()])
            .await
    }

    async fn verify(&self, archives: &[&str]) -> Ended {
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

async fn old_records_move_and_the_chain_still_holds(db: Database) {
    let mut scene = Scene::set(db).await;
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
    // The service that runs beside goes on with the same chain, and shows what is left of it.
    let records = scene.server.admin.get("/audit?limit=500").await.expect(200);
    let actions: Vec<_> = records.as_array().unwrap().iter().map(|record| record["action"].as_str().unwrap()).collect();
    assert_eq!(i64::try_from(actions.len()).unwrap(), total + 1 - old);
    assert_eq!(actions[0], "audit.archived");
    scene.server.agent("after", &[]).await;
    assert_eq!(scene.verify(&["a.gz"]).await.json()["valid"], true);
    let told = scene.aims.run(&["audit", "verify"]).await;
    let moved = format!("records, {old} of them archived, {old} not proved here: name their archives, head ");
    assert!(told.stdout.contains(&moved), "{told:?}");
    let told = scene.aims.run(&["audit", "verify", "--archive", scene.file("a.gz").to_str().unwrap()]).await;
    assert!(told.stdout.contains(&format!("records, {old} of them archived, head ")), "{told:?}");
    scene.archive("2026-01-20", "a.gz").await.failed("a.gz");
}

async fn a_second_archive_goes_on_from_the_first(db: Database) {
    let mut scene = Scene::set(db).await;
    scene.later("second").await;
    scene.later("third").await;
    let first = scene.archive("2026-01-20", "a.gz").await.json();
    // Records of the system's clock lie among them now; those after do not move, however old they say they are.
    let second = scene.archive("2026-02-20", "b.gz").await.json();
    assert_eq!(second["first_seq"], first["last_seq"].as_i64().unwrap() + 1);
    assert_eq!(scene.verify(&["a.gz", "b.gz"]).await.json()["archived"], second["last_seq"]);
    assert_eq!(scene.verify(&["b.gz"]).await.json()["valid"], true);
    assert_eq!(scene.verify(&[]).await.json()["valid"], true);
    scene.verify(&["b.gz", "a.gz"]).await.failed("a.gz does not hold at seq");
    scene.verify(&["a.gz"]).await.failed("the archives end at seq");
}

async fn an_interrupted_archive_is_no_break(db: Database) {
    let mut scene = Scene::set(db).await;
    scene.later("young").await;
    scene.server.db.execute("CREATE TABLE kept_log AS SELECT * FROM audit_log").await;
    let last = scene.archive("2026-01-20", "a.gz").await.json()["last_seq"].as_i64().unwrap();
    // As if the process had died before all was removed.
    let left = format!("INSERT INTO audit_log SELECT * FROM kept_log WHERE seq > 2 AND seq <= {last}");
    scene.server.db.execute(&left).await;
    let found = scene.verify(&["a.gz"]).await.json();
    assert_eq!((&found["valid"], &found["archived"]), (&json!(true), &json!(last)));
    assert_eq!(scene.archive("2026-01-20", "b.gz").await.json(), json!({ "records": 0 }));
    assert_eq!(scene.first_seq().await, last + 1);
}

/// At whatever point of the walk it comes.
async fn an_archive_that_is_made_meanwhile_is_no_break(db: Database) {
    const TABLES: [&str; 3] = ["audit_log", "audit_head", "audit_start"];
    /// More than are read at a time.
    const RECORDS: usize = 1_050;
    let mut scene = Scene::set(db).await;
    let (anybody, key) = (scene.server.anybody(), scene.server.admin_key.clone());
    for _ in 0..RECORDS / 50 {
        join_all((0..50).map(|_| anybody.exchange(&key))).await;
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
    for turns in 1.. {
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
            assert!(turns > 1, "the walk never waited");
            break;
        }
        put("after").await;
        let found = walk.await.unwrap();
        assert_eq!(found.broken, None, "after {turns} turns");
        assert!([json!(0), last.clone()].contains(&json!(found.start.seq)), "{found:?}");
    }
}

async fn an_altered_archive_is_found(db: Database) {
    let mut scene = Scene::set(db).await;
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
            .failed(&format!("forged.gz does not hold at seq {seq}: the record was altered"));
    }
    let mut without_one = lines.clone();
    without_one.remove(middle);
    forge(&without_one);
    scene.verify(&["forged.gz"]).await.failed(&format!("forged.gz does not hold at seq {seq}: the record is missing"));
    forge(&lines[..lines.len() - 1]);
    scene.verify(&["forged.gz"]).await.failed("the archives end at seq");
    forge(&[]);
    scene.verify(&["forged.gz"]).await.failed("it holds no record");
    fs::write(scene.file("forged.gz"), &fs::read(scene.file("a.gz")).unwrap()[..60]).unwrap();
    scene.verify(&["forged.gz"]).await.failed("cannot read ");
}

async fn an_altered_start_is_found(db: Database) {
    let mut scene = Scene::set(db).await;
    scene.later("young").await;
    let last = scene.archive("2026-01-20", "a.gz").await.json()["last_seq"].as_i64().unwrap();
    let db = &scene.server.db;
    for table in ["audit_log", "audit_start"] {
        db.execute(&format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")).await;
    }
    let next = last + 1;
    let taken = format!("seq = {next}, hash = (SELECT hash FROM audit_log WHERE seq = {next})");
    for (what, first_bad) in [
        // Records that nobody archived are gone, and the start was moved behind them.
        (
            vec![format!("UPDATE audit_start SET {taken}"), format!("DELETE FROM audit_log WHERE seq = {next}")],
            next + 1,
        ),
        (vec![format!("DELETE FROM audit_log WHERE seq = {next}")], next),
        // A record that nobody wrote, among those that are archived.
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
        let expected = if first_bad == 0 {
            "the audit log does not hold at seq ".to_owned()
        } else {
            format!("at seq {first_bad}: ")
        };
        ended.failed(&expected);
        for table in ["audit_log", "audit_start"] {
            db.execute(&format!("DELETE FROM {table}")).await;
            db.execute(&format!("INSERT INTO {table} SELECT * FROM kept_{table}")).await;
        }
        assert_eq!(scene.verify(&[]).await.json()["valid"], true);
    }
}

async fn nothing_is_archived_that_should_not_be(db: Database) {
    let scene = Scene::set(db).await;
    let all = scene.server.db.count("SELECT COUNT(*) FROM audit_log").await;
    scene.archive("2999-01-01", "a.gz").await.failed("records of the last 48 hours stay in the database");
    scene.archive("soon", "a.gz").await.failed("--before must be a date");
    assert_eq!(scene.archive("2020-01-01", "a.gz").await.json(), json!({ "records": 0 }));
    fs::write(scene.file("a.gz"), "mine").unwrap();
    scene.archive("2026-01-20", "a.gz").await.failed("cannot use the archive");
    assert_eq!(fs::read(scene.file("a.gz")).unwrap(), b"mine");
    scene.archive("2026-01-20", "no/such/folder/a.gz").await.failed("cannot use the archive");
    // A log that does not hold is not hidden in an archive.
    scene.server.db.execute("UPDATE audit_log SET action = 'x' WHERE seq = 3").await;
    scene.archive("2026-01-20", "b.gz").await.failed("the audit log does not hold at seq 3");
    assert_eq!(scene.server.db.count("SELECT COUNT(*) FROM audit_log").await, all);
    assert_eq!(fs::read_dir(scene.folder.path()).unwrap().count(), 1);
}
