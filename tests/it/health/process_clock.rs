//! A process whose clock is an hour off at its start, or is set by an hour while it runs.

use std::{fs, path::Path, time::Duration};

use aims::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::support::{Aims, Client, Database, Process};

const AHEAD: &str = "+3600";
const RIGHT: &str = "+0";
const BEHIND: &str = "-3600";

/// Runs each test on both databases.
macro_rules! with_clock {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            #[tokio::test]
            #[cfg_attr(not(feature = "clock-tests"), ignore = "needs faketime: `tests/run` installs it")]
            async fn sqlite() {
                super::$name(super::Database::sqlite()).await;
            }

            #[tokio::test]
            #[cfg_attr(
                not(all(feature = "clock-tests", feature = "postgres-tests")),
                ignore = "needs faketime and PostgreSQL: `tests/run` provides both"
            )]
            async fn postgres() {
                super::$name(super::Database::postgres().await).await;
            }
        })+
    };
}

with_clock!(a_service_starts_with_a_wrong_clock, the_clock_is_set_while_the_service_runs);

/// Sets the clock, at once: a reader sees the old file or the new one.
fn set(clock: &Path, offset: &str) {
    let next = clock.with_extension("next");
    fs::write(&next, format!("{offset}\n")).unwrap();
    fs::rename(next, clock).unwrap();
}

async fn is_sound(aims: &Aims, process: &Process, key: &str) -> Client {
    let client = process.client().login(key).await;
    client.get("/agents").await.expect(200);
    process.client().get("/readyz").await.expect(200);
    let verified = aims.run(&["audit", "verify", "--json"]).await.json();
    assert_eq!(verified["valid"], Value::Bool(true), "{verified}");
    client
}

fn times(log: &str, text: &str) -> usize {
    log.lines().filter(|line| line.contains("WARN") && line.contains(text)).count()
}

async fn refuses(process: &Process, token: &Client) {
    process.client().with_token(token.token()).get("/agents").await.refused(401, "Invalid or expired token");
}

async fn a_service_starts_with_a_wrong_clock(db: Database) {
    const WARNING: &str = "the clock is behind the last audit record";
    let clock = db.folder.path().join("clock");
    set(&clock, RIGHT);
    let aims = Aims::new(&db).with_clock(&clock).await;
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    let right = is_sound(&aims, &process, &key).await;
    assert_eq!(times(&process.stop().await.stderr, WARNING), 0);

    set(&clock, AHEAD);
    let process = aims.serve().await;
    // It has expired, as far as this service can tell.
    refuses(&process, &right).await;
    let ahead = is_sound(&aims, &process, &key).await;
    assert_eq!(times(&process.stop().await.stderr, WARNING), 0);

    for (offset, usable) in [(RIGHT, Some(&right)), (BEHIND, None)] {
        set(&clock, offset);
        let process = aims.serve().await;
        assert_eq!(times(&process.log(), WARNING), 1, "{}", process.log());
        // A token from the future would outlive its life.
        refuses(&process, &ahead).await;
        if let Some(token) = usable {
            process.client().with_token(token.token()).get("/agents").await.expect(200);
        }
        is_sound(&aims, &process, &key).await;
        let exit = process.stop().await;
        assert_eq!((exit.code, times(&exit.stderr, WARNING)), (Some(0), 1), "{exit:?}");
        assert!(exit.stderr.contains("NTP") && !exit.stderr.contains("panicked"), "{exit:?}");
    }
}

async fn the_clock_is_set_while_the_service_runs(db: Database) {
    const FORWARD: &str = "the clock jumped forward";
    const BACK: &str = "the clock jumped back";
    let clock = db.folder.path().join("clock");
    set(&clock, RIGHT);
    let aims = Aims::new(&db).with_clock(&clock).await;
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    let right = is_sound(&aims, &process, &key).await;
    let agent = right.post("/agents", json!({ "name": "agent", "owner": "o" })).await.expect(201);
    let path = format!("/agents/{}/keys", agent["id"].as_str().unwrap());
    let soon = SystemClock.now().plus(Duration::from_mins(40));
    let short = right.post(&path, json!({ "expires_at": soon })).await.expect(201);
    let short = process.client().login(short["raw_key"].as_str().unwrap()).await;
    short.get("/agents").await.expect(403);

    set(&clock, AHEAD);
    refuses(&process, &right).await;
    refuses(&process, &short).await;
    let ahead = is_sound(&aims, &process, &key).await;
    process.logs(FORWARD).await;
    // Loads the agent again, without the key that seems to have expired.
    let lasting = ahead.post(&path, json!({})).await.expect(201);
    let lasting = process.client().login(lasting["raw_key"].as_str().unwrap()).await;
    lasting.get("/agents").await.expect(403);

    set(&clock, RIGHT);
    refuses(&process, &ahead).await;
    process.client().with_token(right.token()).get("/agents").await.expect(200);
    is_sound(&aims, &process, &key).await;
    process.logs(BACK).await;
    short.get("/agents").await.expect(403);

    set(&clock, BEHIND);
    refuses(&process, &ahead).await;
    refuses(&process, &right).await;
    let behind = is_sound(&aims, &process, &key).await;
    let twice = async {
        while times(&process.log(), BACK) < 2 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), twice).await.expect("the second jump must be reported");
    process.client().with_token(behind.token()).get("/agents").await.expect(200);
    let exit = process.stop().await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert_eq!(
        (times(&exit.stderr, FORWARD), times(&exit.stderr, BACK)),
        (1, 2),
        "each jump is reported once: {exit:?}"
    );
    assert!(!exit.stderr.contains("panicked") && !exit.stderr.contains("ERROR"), "{exit:?}");
}
