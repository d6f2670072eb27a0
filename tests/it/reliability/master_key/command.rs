//! `MASTER_KEY_COMMAND`: a program that prints the master key.

use std::fs;

use aims::service::{Caller, master_key, tokens::signing_keys};

use super::{ROTATE, STATUS, assert_all_newest, new, old, succeeds};
use crate::{
    both,
    support::{Aims, Database, Server},
};

both!(a_program_provides_the_keys, a_program_that_fails_keeps_the_service_from_starting);

/// Writes a script and returns the value of the setting that runs it.
fn script(db: &Database, text: &str) -> String {
    let path = db.folder.path().join("kms.sh");
    fs::write(&path, text).unwrap();
    format!("/bin/sh {}", path.display())
}

async fn a_program_provides_the_keys(db: Database) {
    let seen = db.folder.path().join("seen");
    let record = format!("env > {}; echo asking >&2;", seen.display());
    let command = script(&db, &format!("{record} echo {}", old()));
    let options = [("MASTER_KEY", ""), ("MASTER_KEY_COMMAND", command.as_str())];
    let server = Server::start_with(db, &options).await;
    let aims = Aims::new(&server.db).with("MASTER_KEY", "").with("MASTER_KEY_COMMAND", &command);
    let process = aims.with("JWT_EXPIRATION_MINUTES", "7").with("HOME", "/nowhere");
    let exit = succeeds(&process, &["master-key", "status"], &[&old()]).await;
    assert!(exit.stdout.contains("MASTER_KEY_COMMAND") && exit.stderr.contains("asking"), "{exit:?}");
    // It sees the environment, but no setting of AIMS.
    let environment = fs::read_to_string(&seen).unwrap();
    assert!(environment.contains("HOME=/nowhere"), "{environment}");
    for setting in aims::config::settings() {
        assert!(!environment.lines().any(|line| line.starts_with(&format!("{}=", setting.name))), "{}", setting.name);
    }

    aims.run(&ROTATE).await.fails_with("there is no new master key");
    script(&server.db, &format!("{record} echo {}; echo {}", new(), old()));
    succeeds(&aims, &ROTATE, &[&old(), &new()]).await;
    // The service asks again when it meets the new key.
    server.clock.advance(signing_keys::PUBLISHED_FOR);
    signing_keys::rotate(&server.services, &Caller::system(), false).await.unwrap();
    script(&server.db, &format!("{record} echo {}", new()));
    assert_all_newest(&aims.run(&STATUS).await);
    let server = server.restart(&options).await;
    // A program that fails later does not stop the service, which keeps its keys.
    script(&server.db, "exit 1");
    master_key::maintain(&server.services).await.unwrap();
    signing_keys::maintain(&server.services).await.unwrap();
    server.admin.get("/agents").await.expect(200);
}

async fn a_program_that_fails_keeps_the_service_from_starting(db: Database) {
    for (text, why) in [
        (format!("echo {}; echo canary >&2; exit 1", old()), "MASTER_KEY_COMMAND failed (exit status: 1)"),
        ("echo canary".to_owned(), "did not print a master key"),
        (String::new(), "did not print a master key"),
        (format!("echo {}; kill -9 $$", old()), "MASTER_KEY_COMMAND failed (signal: 9 (SIGKILL))"),
    ] {
        let command = script(&db, &text);
        let aims = Aims::new(&db).with("MASTER_KEY", "").with("MASTER_KEY_COMMAND", &command);
        for arguments in [&[][..], &["bootstrap"], &["master-key", "status"]] {
            let exit = aims.run(arguments).await;
            exit.fails_with(why);
            let error = exit.stderr.lines().last().unwrap();
            assert!(!error.contains("canary") && !exit.stderr.contains(&old()), "{exit:?}");
        }
    }
    let missing = Aims::new(&db).with("MASTER_KEY", "").with("MASTER_KEY_COMMAND", "/nowhere/kms decrypt");
    missing.run(&["bootstrap"]).await.fails_with("MASTER_KEY_COMMAND cannot be started");
    assert_eq!(db.count("SELECT COUNT(*) FROM agents").await, 0);
}
