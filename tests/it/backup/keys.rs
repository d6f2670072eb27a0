//! Encryption, and the master key.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
};

use super::{Identity, path, restore, verified};
use crate::{
    both,
    support::{Aims, Database},
};

both!(a_lost_master_key_costs_authenticator_apps_and_tokens_only,);

#[tokio::test]
async fn only_recipients_can_read_an_encrypted_backup() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let (ada, zoe, eve) = (Identity::new(&db, "ada"), Identity::new(&db, "zoe"), Identity::new(&db, "eve"));
    let file = path(&db, "a.backup.age");
    aims.run(&["backup", "--to", &file, "--encrypt-to", &ada.recipient, "--encrypt-to", &zoe.recipient]).await;
    for identity in [&ada, &zoe] {
        let valid = aims.run(&["backup", "verify", &file, "--identity", identity.path(), "--json"]).await.json();
        assert_eq!((valid["valid"].as_bool(), valid["master_key"].as_bool()), (Some(true), Some(false)));
    }
    let verify = async |more: &[&str]| aims.run(&[&["backup", "verify", &file][..], more].concat()).await;
    verify(&["--identity", eve.path()]).await.fails_with("encrypted to other recipients");
    verify(&[]).await.fails_with("the backup is encrypted: pass --identity or --passphrase-file");
    fs::write(path(&db, "passphrase"), "correct horse battery\n").unwrap();
    verify(&["--passphrase-file", &path(&db, "passphrase")]).await.fails_with("to age recipients: pass --identity");
    verify(&["--identity", &path(&db, "passphrase")]).await.fails_with("does not hold age identities");
    restore(&Database::sqlite(), &file, &["--identity", eve.path()]).await.fails_with("encrypted to other recipients");
    // Every byte is protected.
    let bytes = fs::read(&file).unwrap();
    for part in 0..6 {
        let mut altered = bytes.clone();
        altered[bytes.len() * part / 6] ^= 1;
        fs::write(path(&db, "altered"), altered).unwrap();
        aims.run(&["backup", "verify", &path(&db, "altered"), "--identity", ada.path()]).await.fails_with("backup");
    }
}

#[tokio::test]
async fn wrong_keys_are_refused_before_anything_is_read_and_not_repeated() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    let ada = Identity::new(&db, "ada");
    let secret = fs::read_to_string(ada.path()).unwrap();
    let secret = secret.lines().last().unwrap();
    fs::write(path(&db, "short"), "short\n").unwrap();
    let file = path(&db, "a.backup");
    let cases: [(&[&str], &str); 5] = [
        (&["--encrypt-to", "age1nonsense"], "--encrypt-to is not an age recipient"),
        (&["--encrypt-to", &ada.recipient, "--encrypt-to", secret], "--encrypt-to is a private key"),
        (&["--passphrase-file", &path(&db, "short")], "must hold a passphrase of at least 12 characters"),
        (&["--passphrase-file", &path(&db, "missing")], "cannot read"),
        (&["--with-master-key"], "the master key goes into an encrypted backup only"),
    ];
    for (arguments, expected) in cases {
        // The database does not exist, and is not what the command complains about.
        let exit = aims.run(&[&["backup", "--to", &file], arguments].concat()).await;
        exit.fails_with(expected);
        assert!(!exit.stderr.contains(secret) && !exit.stderr.contains("nonsense"), "{exit:?}");
    }
    let both = ["backup", "--to", &file, "--encrypt-to", &ada.recipient, "--passphrase-file", &path(&db, "short")];
    assert_eq!(aims.run(&both).await.code, Some(2));
    assert_eq!(aims.run(&["backup"]).await.code, Some(2));
    assert!(!fs::exists(&file).unwrap());
}

#[tokio::test]
async fn a_passphrase_encrypts_and_brings_the_master_key_along() {
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("MASTER_KEY", "");
    let key = aims.bootstrap().await;
    let master = fs::read(path(&db, "aims.master-key")).unwrap();
    let (right, wrong) = (path(&db, "right"), path(&db, "wrong"));
    fs::write(&right, "correct horse battery\n").unwrap();
    fs::write(&wrong, "incorrect horse battery\n").unwrap();
    let file = path(&db, "a.backup.age");
    let made = aims.run(&["backup", "--to", &file, "--passphrase-file", &right, "--with-master-key", "--json"]).await;
    assert_eq!(made.json()["master_key"], true);
    let hex = String::from_utf8(master.clone()).unwrap();
    assert!(!made.stdout.contains(hex.trim_end()) && !made.stderr.contains(hex.trim_end()));
    aims.run(&["backup", "verify", &file, "--passphrase-file", &wrong])
        .await
        .fails_with("the passphrase does not decrypt");

    // Elsewhere, the key comes along with the database.
    let target = Database::sqlite();
    let there = Aims::new(&target).with("MASTER_KEY", "");
    let restore = ["restore", file.as_str(), "--passphrase-file", &right];
    // Another key is never overwritten, and then nothing is restored.
    let key_file = path(&target, "aims.master-key");
    fs::write(&key_file, format!("{}\n", "ab".repeat(32))).unwrap();
    there.run(&restore).await.fails_with("another master key");
    assert!(!target.sqlite_file().exists());
    assert_eq!(fs::read_to_string(&key_file).unwrap(), format!("{}\n", "ab".repeat(32)));
    fs::remove_file(&key_file).unwrap();
    // A restore that fails leaves no key behind.
    fs::create_dir(path(&target, "aims.db-wal")).unwrap();
    there.run(&restore).await.fails_with("aims.db-wal");
    assert!(!fs::exists(&key_file).unwrap() && !target.sqlite_file().exists());
    fs::remove_dir(path(&target, "aims.db-wal")).unwrap();
    let restored = there.run(&restore).await;
    assert_eq!(restored.code, Some(0), "{restored:?}");
    assert_eq!(fs::read(&key_file).unwrap(), master);
    assert_eq!(fs::metadata(&key_file).unwrap().permissions().mode() & 0o777, 0o600);
    verified(&there).await;
    let process = there.serve().await;
    process.client().login(&key).await.get("/agents").await.expect(200);
    process.stop().await;
}

/// A restore into a place where the service could not start is refused before anything is replaced.
#[tokio::test]
async fn a_restored_database_needs_the_master_key_of_its_secrets() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    seal_authenticator(&db).await;
    let file = super::back_up(&aims, &db, "a.backup").await;
    let target = Database::sqlite();
    let there = Aims::new(&target).with("MASTER_KEY", "");
    for wrong in [String::new(), "ab".repeat(32)] {
        for more in [&[][..], &["--dry-run"]] {
            let exit = Aims::new(&target).with("MASTER_KEY", &wrong).run(&[&["restore", &file], more].concat()).await;
            exit.fails_with("the master key does not decrypt the secrets in the backup");
        }
    }
    assert!(!target.sqlite_file().exists());
    assert_eq!(Aims::new(&target).run(&["restore", &file]).await.code, Some(0));
    there.run(&["serve"]).await.fails_with("aims.master-key is missing, but the database holds secrets sealed with it");
    there
        .with("MASTER_KEY", &"ab".repeat(32))
        .run(&["serve"])
        .await
        .fails_with("use the master key that encrypted them");
    let process = Aims::new(&target).serve().await;
    process.stop().await;
}

/// The way back if the master key is gone for good.
async fn a_lost_master_key_costs_authenticator_apps_and_tokens_only(db: Database) {
    // With SQLite, a new key is created in the place of the file. With PostgreSQL, it must be set.
    let new = if db.is_sqlite() { String::new() } else { "1e".repeat(32) };
    let key = if db.is_sqlite() { Aims::new(&db).with("MASTER_KEY", "") } else { Aims::new(&db) }.bootstrap().await;
    let aims = Aims::new(&db).with("MASTER_KEY", &new);
    seal_authenticator(&db).await;
    // A database whose key was rotated names its key.
    db.execute("INSERT INTO master_key (id, key_id, previous_id, rotated_at) VALUES (1, '00000000000000aa', '00000000000000bb', 1)")
        .await;
    if db.is_sqlite() {
        fs::remove_file(path(&db, "aims.master-key")).unwrap();
    }
    aims.run(&["serve"]).await.fails_with("master key");
    let file = super::back_up(&aims, &db, "a.backup").await;
    let lost = ["restore", file.as_str(), "--replace", "--lost-master-key"];
    assert_eq!(aims.run(&[&lost[..], &["--keep-tokens"]].concat()).await.code, Some(2));
    let dry = aims.run(&[&lost[..], &["--dry-run", "--json"]].concat()).await.json();
    assert_eq!((dry["authenticators_removed"].as_u64(), dry["restored"].as_bool()), (Some(1), Some(false)));
    let restored = aims.run(&lost).await;
    assert_eq!(restored.code, Some(0), "{restored:?}");
    assert!(restored.stdout.contains("Authenticator apps removed: 1."), "{restored:?}");
    assert_eq!(db.count("SELECT COUNT(*) FROM totp_secrets").await, 0);
    let records =
        "SELECT COUNT(*) FROM audit_log WHERE action = 'administrator.factor_changed' AND details LIKE '%reset%'";
    assert_eq!(db.count(records).await, 1);
    verified(&aims).await;
    let process = aims.serve().await;
    process.client().login(&key).await.get("/agents").await.expect(200);
    process.stop().await;
    assert_eq!(fs::exists(path(&db, "aims.master-key")).unwrap(), db.is_sqlite());
}

/// With a shared secret for tokens, only authenticator apps are sealed.
#[tokio::test]
async fn a_wrong_master_key_does_not_get_into_a_backup() {
    let db = Database::sqlite();
    let with = |key: &str| {
        let aims =
            Aims::new(&db).with("JWT_ALGORITHM", "HS256").with("JWT_SECRET_KEY", "6a1f0c9be2d84735a0c4e1f79b3d5826");
        aims.with("MASTER_KEY", &key.repeat(32))
    };
    let aims = with("0f");
    aims.bootstrap().await;
    seal_authenticator(&db).await;
    fs::write(path(&db, "passphrase"), "correct horse battery\n").unwrap();
    let file = path(&db, "a.backup.age");
    let backup = ["backup", "--to", &file, "--passphrase-file", &path(&db, "passphrase"), "--with-master-key"];
    with("ab").run(&backup).await.fails_with("use the master key that encrypted them");
    assert!(!fs::exists(&file).unwrap());
    assert_eq!(aims.run(&backup).await.code, Some(0));
}

/// The service runs as another user than root, who may run the command.
#[tokio::test]
async fn a_restored_database_belongs_to_the_owner_of_the_old_one_or_of_its_folder() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let file = super::back_up(&aims, &db, "a.backup").await;
    let new = Database::sqlite();
    let owner = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        (found.uid(), found.gid())
    };
    // Only root can give files away.
    let is_root = chown(db.sqlite_file(), Some(12_345), Some(12_346)).is_ok();
    let folder = new.sqlite_file().parent().unwrap().to_owned();
    assert_eq!(chown(&folder, Some(12_345), Some(12_346)).is_ok(), is_root);
    let expected = if is_root { (12_345, 12_346) } else { owner(&folder) };
    fs::set_permissions(db.sqlite_file(), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(restore(&db, &file, &["--replace"]).await.code, Some(0));
    assert_eq!(restore(&new, &file, &[]).await.code, Some(0));
    for (db, mode) in [(&db, 0o640), (&new, 0o600)] {
        let database = db.sqlite_file();
        assert_eq!(owner(&database), expected);
        assert_eq!(fs::metadata(&database).unwrap().permissions().mode() & 0o777, mode);
    }
    assert_eq!(owner(Path::new(&path(&new, "aims.db.lock"))), expected);
}

/// Adds the administrator `zoe` with an authenticator, sealed with the tests' master key.
pub(super) async fn seal_authenticator(db: &Database) {
    use aims::{
        clock::Environment,
        crypto::{MasterKey, TotpSecret},
    };
    let (env, id) = (Environment::system(), uuid::Uuid::from_u128(7));
    let master = MasterKey::from_hex(&"0f".repeat(32)).unwrap();
    let sealed = TotpSecret::generate(&env).seal(&master, &env, &id.to_string()).unwrap();
    let hex = sealed.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let (id, hex) = if db.is_sqlite() {
        (format!("x'{}'", id.simple()), format!("x'{hex}'"))
    } else {
        (format!("'{id}'"), format!("'\\x{hex}'"))
    };
    db.execute(&format!(
        "INSERT INTO administrators (id, username, display_name, role, password_hash, password_changed_at, created_at, \
         updated_at) VALUES ({id}, 'zoe', 'Zoe', 'owner', 'hash', 1, 1, 1); \
         INSERT INTO totp_secrets (administrator_id, sealed_secret, last_step) VALUES ({id}, {hex}, 0)"
    ))
    .await;
}
