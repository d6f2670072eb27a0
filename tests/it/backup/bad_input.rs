//! Backups that are damaged, foreign, from the future, or for somebody else.

use std::{
    fs::{self, File},
    io::{Read, Write},
};

use aims::{
    clock::Environment,
    service::backup::{Decryption, Source, restore},
};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};

use super::{Identity, back_up, path, restore as restore_into};
use crate::support::{Aims, Database};

async fn backed_up() -> (Database, Aims, String) {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let file = back_up(&aims, &db, "a.backup").await;
    (db, aims, file)
}

/// Verifies a backup in the test's own process. Returns what is wrong.
async fn wrong_with(db: &Database, bytes: &[u8]) -> Option<String> {
    let file = path(db, "altered.backup");
    fs::write(&file, bytes).unwrap();
    let source = match Source::open(file.as_ref(), &Decryption::None) {
        Ok(source) => source,
        Err(error) => return Some(error.to_string()),
    };
    let verified = restore::verify(source, db.folder.path(), &Environment::system()).await;
    verified.err().map(|error| error.to_string())
}

#[tokio::test]
async fn truncated_backups_are_refused() {
    let (db, aims, file) = backed_up().await;
    let bytes = fs::read(&file).unwrap();
    for part in 0..8 {
        let length = bytes.len() * part / 8;
        let wrong = wrong_with(&db, &bytes[..length]).await.unwrap_or_else(|| panic!("the first {length} bytes"));
        assert!(wrong.contains("damaged") || wrong.contains("no backup of AIMS"), "{length}: {wrong}");
    }
    for missing in [1, 8, 9] {
        assert!(wrong_with(&db, &bytes[..bytes.len() - missing]).await.is_some_and(|wrong| wrong.contains("damaged")));
    }
    assert!(
        wrong_with(&db, &[bytes.as_slice(), b"x"].concat())
            .await
            .is_some_and(|wrong| wrong.contains("follows its end"))
    );
    fs::write(path(&db, "cut.backup"), &bytes[..bytes.len() / 2]).unwrap();
    aims.run(&["backup", "verify", &path(&db, "cut.backup")]).await.fails_with("the backup is damaged");
    restore_into(&db, &path(&db, "cut.backup"), &["--replace"]).await.fails_with("the backup is damaged");
    assert!(!fs::exists(path(&db, "aims.db.restoring")).unwrap());
    assert_eq!(aims.run(&["audit", "verify"]).await.code, Some(0));
}

#[tokio::test]
async fn altered_backups_are_refused() {
    /// The header of gzip says nothing about the content.
    const GZIP_HEADER: usize = 10;
    let (db, _, file) = backed_up().await;
    let bytes = fs::read(&file).unwrap();
    let content = |compressed: &[u8]| {
        let mut content = Vec::new();
        GzDecoder::new(compressed).read_to_end(&mut content).map(|_| content)
    };
    let original = content(&bytes).unwrap();
    let mut refused = 0;
    for part in 0..12 {
        let place = GZIP_HEADER + (bytes.len() - GZIP_HEADER - 8) * part / 12;
        let mut altered = bytes.clone();
        altered[place] ^= 0x10;
        // Some bits fill up a byte of the compressed data, and mean nothing.
        if content(&altered).is_ok_and(|content| content == original) {
            continue;
        }
        refused += 1;
        let wrong = wrong_with(&db, &altered).await.unwrap_or_else(|| panic!("byte {place}"));
        assert!(wrong.contains("damaged"), "byte {place}: {wrong}");
    }
    assert!(refused >= 6, "only {refused} of 12 places mean anything");
}

/// A forger can recompute the checksum, but the audit log then does not match.
#[tokio::test]
async fn forged_backups_are_refused() {
    let (db, _, file) = backed_up().await;
    let forge = |change: &dyn Fn(String) -> String| {
        let mut text = String::new();
        GzDecoder::new(File::open(&file).unwrap()).read_to_string(&mut text).unwrap();
        let body = text.trim_end().rsplit_once('\n').unwrap();
        let changed = change(format!("{}\n", body.0));
        let rows: serde_json::Value = serde_json::from_str(body.1).unwrap();
        let sha256 = aims::domain::audit::hex(&<sha2::Sha256 as sha2::Digest>::digest(&changed).into());
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let trailer = serde_json::json!({ "rows": rows["rows"], "sha256": sha256 });
        encoder.write_all(format!("{changed}{trailer}\n").as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(wrong_with(&db, &forge(&|text| text)).await, None, "the forger must know the format");
    for (from, to, expected) in [
        ("\"agent.created\"", "\"agent.deleted\"", "the audit log in the backup is broken at seq"),
        ("{\"table\":\"agents\"", "{\"table\":\"sessions\"", "\"sessions\" is unknown"),
        ("[\"description\",\"text\"]", "[\"a\\\"b\",\"text\"]", "has other columns"),
        ("\"head_seq\":", "\"head_seq\":1", "does not end with the head"),
        ("\"schema\":", "\"schema\":-", "there is no schema"),
    ] {
        let wrong = wrong_with(&db, &forge(&|text| text.replacen(from, to, 1))).await;
        assert!(
            wrong.as_ref().is_some_and(|wrong| wrong.contains(expected) || wrong.contains("checksum")),
            "{from}: {wrong:?}"
        );
    }
    // A table may not be left out.
    let without_table = |text: String| -> String {
        text.lines().filter(|line| !line.starts_with("{\"table\":\"imports\"")).flat_map(|line| [line, "\n"]).collect()
    };
    let wrong = wrong_with(&db, &forge(&without_table)).await.unwrap();
    assert!(wrong.contains("checksum") || wrong.contains("imports"), "{wrong}");
}

#[tokio::test]
async fn newer_backups_name_both_versions() {
    let (db, aims, _) = backed_up().await;
    let own = env!("CARGO_PKG_VERSION");
    for (header, expected) in [
        ("{\"aims_backup\":2,\"aims\":\"9.8.7\",\"new\":true}", "with the format 2"),
        (
            "{\"aims_backup\":1,\"aims\":\"9.8.7\",\"schema\":999999,\"made_at\":1,\"public_url\":null,\"head_seq\":0,\
             \"head_hash\":\"0000000000000000000000000000000000000000000000000000000000000000\"}",
            "with the schema 999999",
        ),
    ] {
        let file = path(&db, "newer.backup");
        let mut encoder = GzEncoder::new(File::create(&file).unwrap(), Compression::fast());
        encoder.write_all(format!("{header}\n").as_bytes()).unwrap();
        encoder.finish().unwrap();
        for command in [&["backup", "verify", file.as_str()][..], &["restore", &file, "--replace"]] {
            let exit = aims.run(command).await;
            exit.fails_with(expected);
            assert!(exit.stderr.contains("AIMS 9.8.7 made the backup") && exit.stderr.contains(own), "{exit:?}");
        }
    }
    // A database of a newer version is neither backed up nor replaced by this one.
    let file = back_up(&aims, &db, "b.backup").await;
    db.execute(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (999999, '', 1, x'00', 0)",
    )
    .await;
    aims.run(&["backup", "--to", &path(&db, "c.backup")])
        .await
        .fails_with("the database has schema 999999, this version of AIMS knows up to");
    assert!(!fs::exists(path(&db, "c.backup")).unwrap());
    restore_into(&db, &file, &[]).await.fails_with("the database has schema 999999, this version of AIMS knows up to");
    // The way back from an upgrade.
    let restored = restore_into(&db, &file, &["--replace"]).await.json();
    assert!(restored.to_string().contains("schema 999999"), "what was undone is unknown: {restored}");
    assert_eq!(aims.run(&["audit", "verify"]).await.code, Some(0));
}

/// Its tables are not known, so they cannot be deleted.
#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn newer_databases_on_postgresql_are_left_alone() {
    let db = Database::postgres().await;
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let file = back_up(&aims, &db, "a.backup").await;
    db.execute(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (999999, '', TRUE, '', 0)",
    )
    .await;
    restore_into(&db, &file, &["--replace"]).await.fails_with("restore it into a new, empty database");
    let empty = Database::postgres().await;
    restore_into(&empty, &file, &[]).await.json();
    assert_eq!(Aims::new(&empty).run(&["audit", "verify"]).await.code, Some(0));
}

/// A header is printed, and a terminal obeys control sequences.
#[tokio::test]
async fn headers_with_control_characters_are_refused() {
    let db = Database::sqlite();
    let head = "\"head_seq\":0,\"head_hash\":\"0000000000000000000000000000000000000000000000000000000000000000\"";
    for (format, aims, url) in [(1, "1\\u001b[2J", "a"), (1, "1", "\\u001b[2J"), (2, "\\u001b[2J", "a")] {
        let header = format!(
            "{{\"aims_backup\":{format},\"aims\":\"{aims}\",\"schema\":1,\"made_at\":1,\"public_url\":\"{url}\",{head}}}\n"
        );
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(header.as_bytes()).unwrap();
        let wrong = wrong_with(&db, &encoder.finish().unwrap()).await.unwrap();
        assert!(!wrong.contains('\u{1b}'), "{wrong:?}");
        assert!(wrong.contains("damaged") || wrong.contains("unknown"), "{wrong}");
    }
}

#[tokio::test]
async fn other_files_are_refused_with_advice() {
    let (db, aims, file) = backed_up().await;
    let recipient = Identity::new(&db, "identity");
    let cases: [(&[u8], &str); 5] = [
        (b"", "no backup of AIMS"),
        (b"SQLite format 3\0", "it is an SQLite database"),
        (b"PGDMP", "use pg_restore"),
        (b"hello", "neither with an age nor with a gzip header"),
        (b"age-encryption.org/v1\n", "the backup is encrypted: pass --identity"),
    ];
    for (content, expected) in cases {
        fs::write(path(&db, "other"), content).unwrap();
        aims.run(&["backup", "verify", &path(&db, "other")]).await.fails_with(expected);
    }
    aims.run(&["backup", "verify", &path(&db, "missing")]).await.fails_with("cannot read the backup");
    // Somebody put a plain backup in the place of an encrypted one.
    aims.run(&["restore", &file, "--replace", "--identity", recipient.path()]).await.fails_with("is not encrypted");
}

#[tokio::test]
async fn databases_that_hold_data_or_are_in_use_are_not_replaced() {
    let (db, aims, file) = backed_up().await;
    restore_into(&db, &file, &[]).await.fails_with("already holds data; pass --replace");
    let process = aims.serve().await;
    restore_into(&db, &file, &["--replace"]).await.fails_with("is in use by another AIMS process");
    process.client().get("/_health").await.expect(200);
    process.stop().await;
    // An empty file is no data, and a damaged database is replaced.
    for damage in [&b""[..], b"not a database, but long enough to be taken for one by nobody"] {
        let target = Database::sqlite();
        fs::write(target.sqlite_file(), damage).unwrap();
        let more: &[&str] = if damage.is_empty() { &[] } else { &["--replace"] };
        restore_into(&target, &file, more).await.json();
        assert_eq!(Aims::new(&target).run(&["audit", "verify"]).await.code, Some(0));
    }
}

#[tokio::test]
#[cfg_attr(not(feature = "postgres-tests"), ignore = "needs PostgreSQL: `tests/run` provides one")]
async fn postgres_in_use_is_not_replaced() {
    let db = Database::postgres().await;
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let file = back_up(&aims, &db, "a.backup").await;
    restore_into(&db, &file, &[]).await.fails_with("already holds data; pass --replace");
    let process = aims.serve().await;
    restore_into(&db, &file, &["--replace"]).await.fails_with("stop every node");
    process.client().get("/_health").await.expect(200);
    process.stop().await;
    restore_into(&db, &file, &["--replace"]).await.json();
}
