//! The memory of a backup does not grow with the database.

use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::path;
use crate::support::{Aims, Database};

/// Rows of half a MiB that cannot be compressed to less than half.
const ROWS: usize = 48;
/// Rows that fill every buffer.
const FEW: usize = 24;
/// What a backup of all rows may need more than one of a few, in KiB: half of the difference in size.
const MORE: u64 = 6 * 1024;
/// Bytes that the pipe cannot hold, so that the process still runs when its memory is read.
const UNREAD: usize = 256 * 1024;

#[tokio::test]
async fn a_large_backup_needs_no_more_memory_than_a_small_one() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let rows = |from: usize, until: usize| {
        format!(
            "WITH RECURSIVE n(n) AS (SELECT {from} UNION ALL SELECT n + 1 FROM n WHERE n < {until}) \
             INSERT INTO agents (id, name, description, owner, status, agent_type, metadata_json, created_at, updated_at) \
             SELECT randomblob(16), 'large-' || n, '', 'tests', 'active', 'custom', hex(randomblob(262144)), 1, 1 FROM n"
        )
    };
    db.execute(&rows(1, FEW)).await;
    let small = most_memory(&aims, &db).await;
    db.execute(&rows(FEW + 1, ROWS)).await;
    let large = most_memory(&aims, &db).await;
    assert!(large < small + MORE, "{large} KiB instead of {small} KiB");
}

/// Returns the most memory that a backup used, in KiB, when all but its last part was read.
async fn most_memory(aims: &Aims, db: &Database) -> u64 {
    let agents = db.count("SELECT COUNT(*) FROM agents").await;
    let file = path(db, &format!("{agents}.backup"));
    let made: Value = aims.run(&["backup", "--to", &file, "--json"]).await.json();
    let bytes = usize::try_from(made["bytes"].as_u64().unwrap()).unwrap();
    let mut child = aims.spawn(&["backup", "--to", "-"]);
    let mut output = child.stdout.take().unwrap();
    let mut read = vec![0; bytes - UNREAD];
    output.read_exact(&mut read).await.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    output.read_to_end(&mut read).await.unwrap();
    assert!(child.wait().await.unwrap().success());
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
