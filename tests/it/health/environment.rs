//! The process as containers run it: a read-only file system, an unknown user, process 1, and files from Windows.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

use crate::support::{Aims, Database, Exit};

/// A user that has no entry in `/etc/passwd`, as some container platforms assign them.
const UNKNOWN: u32 = 64_123;
const AS_UNKNOWN: [&str; 5] = ["setpriv", "--reuid=64123", "--regid=64123", "--clear-groups", "--no-new-privs"];

/// Root ignores permissions, so it becomes another user. Anybody else is subject to them already.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn folder(parent: &Path, name: &str, mode: u32) -> String {
    let path = parent.join(name);
    fs::create_dir(&path).unwrap();
    if is_root() && mode == 0o700 {
        chown(&path, Some(UNKNOWN), Some(UNKNOWN)).unwrap();
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_unknown_user_and_one_writable_folder_are_enough() {
    let db = Database::sqlite();
    let root = db.folder.path();
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    let (data, work, temporary) =
        (folder(root, "data", 0o700), folder(root, "work", 0o555), folder(root, "tmp", 0o555));
    let url = format!("sqlite:///{data}/aims.db");
    let mut aims = Aims::new(&db).with("DATABASE_URL", &url).with("MASTER_KEY", "").with("TMPDIR", &temporary);
    aims = aims.with_copy(root.join("aims"));
    aims.folder = work.clone().into();
    if is_root() {
        aims = aims.under(&AS_UNKNOWN);
    }
    let process = aims.serve().await;
    process.client().get("/readyz").await.expect(200);
    let exit = aims.run(&["healthcheck", "--url", &process.url]).await;
    assert_eq!((exit.code, exit.stderr.as_str()), (Some(0), ""));
    let bootstrap = fs::read_to_string(format!("{data}/aims.bootstrap")).unwrap();
    let key = bootstrap.split_whitespace().find(|word| word.starts_with("aims_")).unwrap();
    process.client().login(key).await.post("/agents", json!({ "name": "a", "owner": "o" })).await.expect(201);
    assert_eq!(process.stop().await.code, Some(0));
    aims.run(&["audit", "verify", "--json"]).await.json();
    assert_eq!(fs::read_dir(&work).unwrap().count() + fs::read_dir(&temporary).unwrap().count(), 0);
    // The test removes its folder.
    for folder in [work, temporary] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Even a sort that does not fit in memory needs no other writable folder.
#[tokio::test]
async fn a_read_only_root_is_enough() {
    /// The indexes of one migration, which sorts all rows.
    const REMOVE: &str = "DROP INDEX agents_by_lower_name; DROP INDEX agents_by_shape; \
        DROP INDEX capabilities_by_lower_name; DROP INDEX capabilities_by_shape; \
        DELETE FROM _sqlx_migrations WHERE version = 12; \
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) \
        INSERT INTO capabilities (id, name, description, created_at) \
        SELECT randomblob(16), 'c' || (i * 7919 % 60000) || ':' || hex(zeroblob(60)), '', 1 FROM n";
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    db.execute(REMOVE).await;
    let data = db.folder.path().display();
    let read_only = format!(
        "mount --bind {data} {data} && mount -o bind,remount,ro / && for m in /tmp /var /var/tmp /usr /run /dev/shm; do \
         if mountpoint -q $m; then mount -o bind,remount,ro $m; fi; done && \
         ! touch /tmp/writable 2>/dev/null && ! touch /var/tmp/writable 2>/dev/null"
    );
    // The working directory was entered before and is read-only, too.
    let Some(aims) = aims.with_mount(&read_only).await else {
        eprintln!("left out: the kernel does not let this test mount; the test above uses permissions");
        return;
    };
    let process = aims.serve().await;
    process.client().get("/readyz").await.expect(200);
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn process_1_finishes_its_requests_and_exits() {
    const INIT: [&str; 5] = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"];
    const INIT_OF_USER: [&str; 6] = ["unshare", "--map-root-user", "--fork", "--pid", "--mount-proc", "--kill-child"];
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("DRAIN_SECONDS", "9");
    let key = aims.bootstrap().await;
    let mut wrapper = None;
    for init in [&INIT[..], &INIT_OF_USER[..]] {
        let tried = Command::new(init[0]).args(&init[1..]).arg("true").output().await;
        if wrapper.is_none() && tried.is_ok_and(|tried| tried.status.success()) {
            wrapper = Some(init);
        }
    }
    let process = match wrapper {
        Some(init) => aims.under(init).serve().await,
        None => aims.serve().await,
    };
    let id = if wrapper.is_some() { process.wrapped_id() } else { process.id() };
    // The kernel ignores a signal to process 1 that has no handler. So this is what process 1 needs, and all that can be
    // checked on a machine that allows no namespaces.
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
    for signal in [2, 15] {
        assert_ne!(caught & (1 << (signal - 1)), 0, "signal {signal}: {status}");
    }
    if wrapper.is_some() {
        assert!(status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")), "{status}");
    }

    let admin = process.client().login(&key).await;
    let mut slow = TcpStream::connect(process.address()).await.unwrap();
    let body = json!({ "name": "slow", "owner": "o" }).to_string();
    let head = format!(
        "POST /agents HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        admin.token(),
        body.len()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut reply = [0; 25];
    slow.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b"HTTP/1.1 100 Continue\r\n\r\n");
    let began = Instant::now();
    assert!(Command::new("kill").args(["-s", "TERM", &id.to_string()]).status().await.unwrap().success());
    process.logs("shutting down").await;
    slow.write_all(body.as_bytes()).await.unwrap();
    let mut response = String::new();
    slow.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 201"), "{response}");
    let exit = process.wait().await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(!exit.stderr.contains("cut off"), "{exit:?}");
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

/// Returns the value of a setting as `check-config` shows it.
fn shown<'a>(exit: &'a Exit, name: &str) -> &'a str {
    let value = exit.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{exit:?}")).trim()
}

#[tokio::test]
async fn env_files_of_every_common_editor_and_shell_are_read() {
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("LISTEN_ADDR", "").with("RATE_LIMIT_API_PER_MINUTE", "");
    let check = async |text: &[u8]| {
        fs::write(db.folder.path().join(".env"), text).unwrap();
        aims.run(&["check-config"]).await
    };
    for (what, text) in [
        ("plain", "LISTEN_ADDR=127.0.0.1:9\nPUBLIC_URL=https://a.example\n"),
        ("a byte order mark", "\u{feff}LISTEN_ADDR=127.0.0.1:9\nPUBLIC_URL=https://a.example\n"),
        ("CRLF", "LISTEN_ADDR=127.0.0.1:9\r\nPUBLIC_URL=https://a.example\r\n"),
        ("CRLF after quotes", "LISTEN_ADDR=\"127.0.0.1:9\"\r\nPUBLIC_URL='https://a.example'\r\n"),
        ("no line end", "PUBLIC_URL=https://a.example\nLISTEN_ADDR=127.0.0.1:9"),
        ("export", "export LISTEN_ADDR=127.0.0.1:9\n  export\tPUBLIC_URL='https://a.example' # the URL\n"),
        (
            "all of it",
            "\u{feff}# x\r\n\r\nexport LISTEN_ADDR = \"127.0.0.1:9\"\r\nexport PUBLIC_URL='https://a.example'",
        ),
    ] {
        let exit = check(text.as_bytes()).await;
        assert_eq!((exit.code, exit.stderr.as_str()), (Some(0), ""), "{what}: {exit:?}");
        assert_eq!(shown(&exit, "LISTEN_ADDR"), "127.0.0.1:9", "{what}");
        assert_eq!(shown(&exit, "PUBLIC_URL"), "https://a.example", "{what}");
    }
    // PowerShell writes UTF-16.
    let wide = |mark: &[u8], bytes: fn(u16) -> [u8; 2]| {
        let text = "JWT_SECRET_KEY=canary-canary-canary-canary-canary\r\n".encode_utf16().flat_map(bytes);
        mark.iter().copied().chain(text).collect::<Vec<_>>()
    };
    for text in [
        wide(b"\xff\xfe", u16::to_le_bytes),
        wide(b"\xfe\xff", u16::to_be_bytes),
        wide(b"", u16::to_le_bytes),
        wide(b"", u16::to_be_bytes),
    ] {
        let exit = check(&text).await;
        exit.reports_error(".env is UTF-16, as some editors of Windows write it; save it as UTF-8");
        assert!(!exit.stderr.contains("canary"), "{exit:?}");
    }
    // A quote that is not closed, and a mark in the middle of the file, as after joining two files.
    check(b"PUBLIC_URL=\"https://a.example\nLISTEN_ADDR=127.0.0.1:9\n")
        .await
        .reports_error(".env line 1: PUBLIC_URL has no");
    check("LISTEN_ADDR=127.0.0.1:9\n\u{feff}PUBLIC_URL=https://a.example\n".as_bytes())
        .await
        .reports_error(".env line 2: the name before the =");
}
