//! Rotation of the key in the master key file, which AIMS changes itself with SQLite.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    time::Duration,
};

use aims::{
    domain::Role,
    service::{Caller, master_key, tokens::signing_keys},
};
use futures_util::future::join_all;

use super::{ROTATE, STATUS, assert_all_newest, old, succeeds};
use crate::{
    console::account::{code, enable_authenticator},
    support::{Aims, Database, PASSWORD, Server},
};

/// One command is enough: the service reads the file again when it needs to.
#[tokio::test]
async fn a_running_service_follows_a_rotation_of_the_file() {
    let db = Database::sqlite();
    let file = db.folder.path().join("aims.master-key");
    let server = Server::start_with(db, &[("MASTER_KEY", "")]).await;
    let (secret, _) = enable_authenticator(&server, &server.signed_in("zoe", Role::Owner).await).await;
    let ada = server.signed_in("ada", Role::Owner).await;
    let before = fs::read_to_string(&file).unwrap();
    let aims = Aims::new(&server.db).with("MASTER_KEY", "");
    for _ in 0..2 {
        let present = fs::read_to_string(&file).unwrap();
        let rotated = succeeds(&aims, &ROTATE, &[present.trim()]).await;
        let now = fs::read_to_string(&file).unwrap();
        assert!(!rotated.stdout.contains(now.trim()) && now != present && now.lines().count() == 1, "{rotated:?}");
    }
    assert_ne!(fs::read_to_string(&file).unwrap(), before);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);

    // Opening needs the new key, sealing uses it, and so do other tasks.
    let browser = server.browser();
    browser.post("/console/sign-in", &[("username", "zoe"), ("password", PASSWORD)]).await.expect(200);
    server.clock.advance(Duration::from_secs(30));
    browser.post("/console/sign-in/code", &[("code", &code(&server, &secret))]).await.redirects_to("/console");
    enable_authenticator(&server, &ada).await;
    server.clock.advance(signing_keys::PUBLISHED_FOR);
    signing_keys::rotate(&server.services, &Caller::system(), false).await.unwrap();
    master_key::maintain(&server.services).await.unwrap();
    let status = assert_all_newest(&aims.run(&STATUS).await);
    assert_eq!(status["values"]["authenticators"]["newest"], 2);
    server.restart(&[("MASTER_KEY", "")]).await.stop().await;
}

#[tokio::test]
async fn the_previous_key_stays_in_a_file_for_earlier_backups() {
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("MASTER_KEY", "");
    let admin_key = aims.bootstrap().await;
    let file = db.folder.path().join("aims.master-key");
    let before = fs::read_to_string(&file).unwrap();
    let backup = db.folder.path().join("backup.db");
    db.execute(&format!("VACUUM INTO '{}'", backup.display())).await;
    let rotated = succeeds(&aims, &ROTATE, &[before.trim()]).await;
    let kept: Vec<_> = fs::read_dir(db.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.display().to_string().contains("aims.master-key."))
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(rotated.stdout.contains(&kept[0].display().to_string()), "{rotated:?}");
    assert_eq!(fs::read_to_string(&kept[0]).unwrap(), before);
    assert_eq!(fs::metadata(&kept[0]).unwrap().mode() & 0o777, 0o600);

    // The backup opens with the kept key, not with the new one.
    let restored = aims.with("DATABASE_URL", &format!("sqlite:///{}", backup.display()));
    let with_new = restored.with("MASTER_KEY_FILE", file.to_str().unwrap());
    with_new.run(&["signing-keys", "list"]).await.fails_with("use the master key that encrypted them");
    let process = restored.with("MASTER_KEY_FILE", kept[0].to_str().unwrap()).serve().await;
    process.client().login(&admin_key).await.get("/agents").await.expect(200);
    process.stop().await;
    // With both keys, it moves to the new one.
    fs::write(&file, format!("{}{before}", fs::read_to_string(&file).unwrap())).unwrap();
    succeeds(&with_new, &ROTATE, &[]).await;
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1);
    assert_all_newest(&with_new.run(&STATUS).await);
}

/// The service must be able to read the file afterwards, also through a link and by its group.
#[tokio::test]
async fn the_file_keeps_its_owner_its_mode_and_its_link() {
    let db = Database::sqlite();
    let (elsewhere, link) = (db.folder.path().join("secrets"), db.folder.path().join("link"));
    fs::create_dir(&elsewhere).unwrap();
    let file = elsewhere.join("key");
    fs::write(&file, old()).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o440)).unwrap();
    // Only root can change the owner.
    let is_root = std::os::unix::fs::chown(&file, Some(12_345), Some(12_346)).is_ok();
    symlink(&file, &link).unwrap();
    let aims = Aims::new(&db).with("MASTER_KEY", "").with("MASTER_KEY_FILE", link.to_str().unwrap());
    aims.bootstrap().await;
    succeeds(&aims, &ROTATE, &[&old()]).await;
    assert!(link.is_symlink());
    assert_ne!(fs::read_to_string(&file).unwrap().trim(), old());
    for entry in fs::read_dir(&elsewhere).unwrap() {
        let found = entry.unwrap().metadata().unwrap();
        assert_eq!(found.mode() & 0o777, 0o440);
        assert!(!is_root || (found.uid(), found.gid()) == (12_345, 12_346));
    }
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 2);
    aims.serve().await.stop().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_changed_keeps_a_rotation_from_beginning() {
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("MASTER_KEY", "");
    aims.bootstrap().await;
    let file = db.folder.path().join("aims.master-key");
    let before = fs::read_to_string(&file).unwrap();
    fs::create_dir(db.folder.path().join("aims.master-key.new")).unwrap();
    let exit = aims.run(&ROTATE).await;
    exit.fails_with("cannot change the master key file");
    assert!(!exit.stderr.contains(before.trim()), "{exit:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    assert_eq!(db.count("SELECT COUNT(*) FROM master_key").await, 0);
    aims.serve().await.stop().await;
}

#[tokio::test]
async fn rotations_run_one_at_a_time() {
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("MASTER_KEY", "");
    aims.bootstrap().await;
    let process = aims.serve().await;
    let lock = File::open(db.folder.path()).unwrap();
    lock.try_lock().unwrap();
    aims.run(&ROTATE).await.fails_with("another rotation of the master key is running");
    drop(lock);
    let exits = join_all((0..2).map(|_| aims.run(&ROTATE))).await;
    let done = exits.iter().filter(|exit| exit.code == Some(0)).count();
    for exit in exits.iter().filter(|exit| exit.code != Some(0)) {
        exit.fails_with("another rotation of the master key is running");
    }
    assert!(done > 0, "{exits:?}");
    let rotations = db.count("SELECT COUNT(*) FROM audit_log WHERE action = 'master_key.rotated'").await;
    assert_eq!(rotations, i64::try_from(done).unwrap());
    assert_all_newest(&aims.run(&STATUS).await);
    process.stop().await;
    aims.serve().await.stop().await;
}

#[tokio::test]
async fn two_lines_of_a_file_are_two_keys_and_anything_else_is_refused() {
    let db = Database::sqlite();
    let file = db.folder.path().join("key");
    let aims = Aims::new(&db).with("MASTER_KEY", "").with("MASTER_KEY_FILE", file.to_str().unwrap());
    let (old, new) = (old(), super::new());
    for bad in
        ["", "\n", "nonsense", &format!("{old}\n{old}"), &format!("{old}\nnonsense"), &format!("{old}\n{new}\n{old}")]
    {
        fs::write(&file, bad).unwrap();
        let exit = aims.run(&["bootstrap"]).await;
        exit.fails_with("does not hold 64 hexadecimal digits");
        assert!(!exit.stderr.contains("nonsense") && !exit.stderr.contains(&old), "{exit:?}");
    }
    fs::write(&file, [0xff; 64]).unwrap();
    aims.run(&["bootstrap"]).await.fails_with("does not hold 64 hexadecimal digits");
    fs::write(&file, format!("{new}\r\n{old}\r\n")).unwrap();
    aims.bootstrap().await;
    assert_eq!(aims.run(&STATUS).await.json()["sealing"], id(&old));
}

fn id(key: &str) -> String {
    aims::crypto::MasterKey::from_hex(key).unwrap().id().to_string()
}
