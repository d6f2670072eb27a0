//! Scheduled backups.

use std::{fs, time::Duration};

use aims::{
    domain::Role,
    service::backup::{last, schedule::run_if_due},
};
use serde_json::json;

use super::{Identity, path};
use crate::{
    both,
    support::{Aims, Database, Server, TestClock, details, open},
};

both!(each_backup_is_made_once_and_old_ones_are_deleted, a_failed_backup_needs_attention, nodes_share_the_schedule,);

const HOUR: Duration = Duration::from_hours(1);

fn backups(folder: &str) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

async fn each_backup_is_made_once_and_old_ones_are_deleted(db: Database) {
    let folder = path(&db, "backups");
    fs::create_dir(&folder).unwrap();
    let identity = Identity::new(&db, "identity");
    let options = [
        ("BACKUP_SCHEDULE", "every 6h"),
        ("BACKUP_DIR", folder.as_str()),
        ("BACKUP_KEEP", "2"),
        ("BACKUP_ENCRYPT_TO", identity.recipient.as_str()),
    ];
    fs::write(format!("{folder}/notes.txt"), "mine").unwrap();
    fs::write(format!("{folder}/.aims-20200101T000000.000000Z.backup.age.x.part"), "unfinished").unwrap();
    let clock = TestClock::new();
    let app = open(&db, &clock, &options).await;
    // The clock starts at 12:00.
    assert!(run_if_due(app.services()).await.unwrap(), "the first one is made at once");
    assert!(!run_if_due(app.services()).await.unwrap());
    let first = backups(&folder);
    assert!(first[0].starts_with("aims-20260101T120000.") && first[0].ends_with("Z.backup.age"), "{first:?}");
    assert_eq!(first[1..], ["notes.txt"]);
    let found = last(app.services()).await.unwrap();
    assert!(found.is_scheduled && !found.is_overdue && found.failed_at.is_none(), "{found:?}");
    assert_eq!(
        found.bytes,
        Some(i64::try_from(fs::metadata(format!("{folder}/{}", first[0])).unwrap().len()).unwrap())
    );
    app.close().await;

    // A restart neither repeats a backup nor skips the next one.
    clock.advance(5 * HOUR);
    let app = open(&db, &clock, &options).await;
    assert!(!run_if_due(app.services()).await.unwrap());
    app.close().await;
    clock.advance(HOUR);
    let app = open(&db, &clock, &options).await;
    assert!(run_if_due(app.services()).await.unwrap());
    // A clock that is set back makes none again.
    clock.set_back(2 * HOUR);
    assert!(!run_if_due(app.services()).await.unwrap());
    clock.advance(8 * HOUR);
    assert!(run_if_due(app.services()).await.unwrap());
    let kept = backups(&folder);
    assert_eq!((kept.len(), &kept[2]), (3, &"notes.txt".to_owned()), "{kept:?}");
    assert!(!kept.contains(&first[0]), "the oldest is deleted");
    assert_eq!(db.count("SELECT COUNT(*) FROM audit_log WHERE action = 'backup.created'").await, 3);
    app.close().await;
    let newest = format!("{folder}/{}", kept[1]);
    let valid =
        Aims::new(&db).run(&["backup", "verify", &newest, "--identity", identity.path(), "--json"]).await.json();
    assert_eq!(valid["valid"], true);
}

async fn a_failed_backup_needs_attention(db: Database) {
    const CONCERN: &str = "scheduled backup failed or is overdue";
    let folder = path(&db, "backups");
    let options =
        [("BACKUP_SCHEDULE", "daily 03:00"), ("BACKUP_DIR", folder.as_str()), ("JWT_EXPIRATION_MINUTES", "1440")];
    let clock = TestClock::new();
    let app = open(&db, &clock, &options).await;
    // The folder does not exist.
    assert!(run_if_due(app.services()).await.unwrap());
    let found = last(app.services()).await.unwrap();
    assert!(found.made_at.is_none() && found.failure.unwrap().contains("cannot write the backup to"));
    app.close().await;

    let server = Server::start_at(clock, db, &[]).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let page = browser.get("/console").await.expect(200);
    page.shows("No backup yet. None is scheduled.");
    assert!(!page.text.contains(CONCERN), "this service makes none");
    let server = server.restart(&options).await;
    let browser = server.sign_in("zoe").await;
    let page = browser.get("/console").await.expect(200);
    page.shows(CONCERN).shows("cannot write the backup to").shows("/console/audit?action=backup.failed");
    let record = &server.audited("backup.failed").await[0];
    assert!(details(record)["reason"].as_str().unwrap().contains("cannot write the backup to"));

    fs::create_dir(&folder).unwrap();
    server.clock.advance(HOUR / 4);
    run_if_due(&server.services).await.unwrap();
    while last(&server.services).await.unwrap().made_at.is_none() {
        // The service itself may have begun it.
        tokio::task::yield_now().await;
    }
    let browser = server.sign_in("zoe").await;
    let page = browser.get("/console").await.expect(200);
    page.shows("Last backup: <time").shows("Plan a backup");
    assert!(!page.text.contains("Not done yet"), "AIMS sees that backups are planned");
    assert!(!page.text.contains(CONCERN));
    // A day is late, two days are too late.
    let stopped = server.restart(&[]).await;
    stopped.clock.advance(49 * HOUR);
    let app = open_beside_schedule(&stopped, &options).await;
    assert!(last(app.services()).await.unwrap().is_overdue);
    app.close().await;
}

/// Opens the service with a schedule, but makes no backup.
async fn open_beside_schedule(server: &Server, options: &[(&str, &str)]) -> aims::app::App {
    crate::support::open_beside(&server.db, &server.clock, options).await
}

/// Two nodes on PostgreSQL; on SQLite, two tasks of one service.
async fn nodes_share_the_schedule(db: Database) {
    let folder = path(&db, "backups");
    fs::create_dir(&folder).unwrap();
    let options = [("BACKUP_SCHEDULE", "every 1h"), ("BACKUP_DIR", folder.as_str())];
    let clock = TestClock::new();
    let one = open(&db, &clock, &options).await;
    let other = if db.is_sqlite() { None } else { Some(open(&db, &clock, &options).await) };
    for round in 1..=4 {
        let second = other.as_ref().unwrap_or(&one).services();
        let (a, b) = tokio::join!(run_if_due(one.services()), run_if_due(second));
        assert_eq!(usize::from(a.unwrap()) + usize::from(b.unwrap()), 1, "round {round}");
        assert_eq!(backups(&folder).len(), round);
        clock.advance(HOUR);
    }
    // A node that was killed while it made a backup.
    clock.advance(Duration::from_mins(4));
    let slot = db.count("SELECT slot FROM backup_state").await + 3_600_000_000;
    db.execute(&format!("UPDATE backup_state SET slot = {slot}, working_at = {slot}")).await;
    assert!(run_if_due(one.services()).await.unwrap(), "another one takes over");
    one.close().await;
    if let Some(other) = other {
        other.close().await;
    }
    let valid = Aims::new(&db).run(&["backup", "verify", &format!("{folder}/{}", backups(&folder)[0]), "--json"]).await;
    assert_eq!(valid.json()["valid"], json!(true));
}
