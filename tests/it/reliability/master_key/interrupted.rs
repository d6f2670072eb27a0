//! A rotation that is killed at any step leaves a state in which the service runs, and continues when it is run again.

use std::{fs, path::PathBuf};

use aims::{
    app::{
        App,
        master_key::rotation::{ManagedFile, prepare},
    },
    service::{Caller, master_key::rotation},
    store::tokens::sealed::Kind,
};

use super::{ROTATE, STATUS, assert_all_newest, succeeds};
use crate::support::{Aims, Client, Database, TestClock, open_beside};

/// The steps of a rotation, each with what it leaves behind when the process is killed after it.
const STEPS: [&str; 8] =
    ["temporary file", "two keys", "begun", "one kind", "all values", "complete", "kept", "replaced"];

struct Interrupted {
    db: Database,
    file: PathBuf,
    before: String,
}

impl Interrupted {
    /// Does the steps up to `last`, and then nothing more, as if the process was killed.
    async fn after(last: usize) -> Self {
        let db = Database::sqlite();
        let file = db.folder.path().join("aims.master-key");
        let aims = Aims::new(&db).with("MASTER_KEY", "");
        aims.bootstrap().await;
        let before = fs::read_to_string(&file).unwrap();
        let state = Self { db, file, before };
        let app = open_beside(&state.db, &TestClock::new(), &[("MASTER_KEY", "")]).await;
        let mut lock = None;
        for step in 0..=last {
            state.do_step(step, &app, &mut lock).await;
        }
        drop(lock);
        app.close().await;
        state
    }

    async fn do_step(&self, step: usize, app: &App, lock: &mut Option<ManagedFile>) {
        let (services, caller) = (app.services(), Caller::system());
        match STEPS[step] {
            "temporary file" => fs::write(self.with_suffix(".new"), "half a k").unwrap(),
            "two keys" => *lock = prepare(app).await.unwrap(),
            "begun" => rotation::begin(services, &caller).await.unwrap(),
            "one kind" => drop(rotation::reseal_page(services, &caller, Kind::SigningKeys, None).await.unwrap()),
            "all values" => drop(rotation::reseal(services, &caller).await.unwrap()),
            "complete" => rotation::complete(services, &caller).await.unwrap(),
            "kept" => fs::write(self.kept(app), "half a k").unwrap(),
            "replaced" => {
                let both = fs::read_to_string(&self.file).unwrap();
                fs::write(&self.file, both.lines().next().unwrap()).unwrap();
                fs::write(self.kept(app), both.lines().nth(1).unwrap()).unwrap();
            }
            other => panic!("{other}"),
        }
    }

    fn with_suffix(&self, suffix: &str) -> PathBuf {
        format!("{}{suffix}", self.file.display()).into()
    }

    fn kept(&self, app: &App) -> PathBuf {
        let keys = app.services().master_key.as_ref().unwrap().get();
        self.with_suffix(&format!(".{}", keys.previous().unwrap().id()))
    }
}

#[tokio::test]
async fn a_rotation_killed_at_any_step_can_be_completed() {
    for (step, name) in STEPS.iter().enumerate() {
        let state = Interrupted::after(step).await;
        let aims = Aims::new(&state.db).with("MASTER_KEY", "");
        let status = aims.run(&STATUS).await.json();
        assert_eq!(status["values"]["signing_keys"]["unknown"], 0, "{name}: {status}");

        // The service starts, and issues and verifies tokens, before and after the rest of the rotation.
        let process = aims.serve().await;
        let client = process.client();
        let published = published(&client).await;

        let keys = fs::read_to_string(&state.file).unwrap();
        succeeds(&aims, &ROTATE, &keys.lines().collect::<Vec<_>>()).await;
        let after = fs::read_to_string(&state.file).unwrap();
        assert_eq!(after.lines().count(), 1, "{name}");
        assert_ne!(after.trim(), state.before.trim(), "{name}");
        let done = assert_all_newest(&aims.run(&STATUS).await);
        assert!(done["completed_at"].is_string() && done["previous"].is_null(), "{name}: {done}");
        assert!(!state.with_suffix(".new").exists(), "{name}");
        let previous = state.with_suffix(&format!(".{}", previous_of(&state.before)));
        assert_eq!(fs::read_to_string(&previous).unwrap().trim(), state.before.trim(), "{name}");
        // The new key was made once, unless the rotation had nothing left to do and this was another one.
        let rotations = state.db.count("SELECT COUNT(*) FROM audit_log WHERE action = 'master_key.rotated'").await;
        assert_eq!(rotations, if *name == "replaced" { 2 } else { 1 }, "{name}");

        process.stop().await;
        let process = aims.serve().await;
        assert_eq!(self::published(&process.client()).await, published, "{name}");
        process.stop().await;
        assert_eq!(aims.run(&["audit", "verify", "--json"]).await.json()["valid"], true, "{name}");
    }
}

async fn published(client: &Client) -> String {
    client.get("/.well-known/jwks.json").await.expect(200).to_string()
}

fn previous_of(text: &str) -> String {
    aims::crypto::MasterKey::from_hex(text.trim()).unwrap().id().to_string()
}
