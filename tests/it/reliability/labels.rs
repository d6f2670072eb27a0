//! `aims agents`, and labels of imported agents.

use serde_json::{Value, json};

use crate::{
    both,
    support::{Aims, Database, Exit},
};

both!(agents_are_listed_and_labelled_by_commands);

fn lines(exit: &Exit) -> Vec<&str> {
    assert_eq!(exit.code, Some(0), "{exit:?}");
    exit.stdout.lines().collect()
}

async fn agents_are_listed_and_labelled_by_commands(db: Database) {
    let aims = Aims::new(&db);
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    let admin = process.client().login(&key).await;
    for (name, labels) in [("mail", json!({ "team": "mail" })), ("search", json!({ "team": "a, b", "old": "" }))] {
        admin.post("/agents", json!({ "name": name, "owner": "o", "labels": labels })).await.expect(201);
    }
    // Reading works while the service runs.
    let listed = aims.run(&["agents", "list"]).await;
    let expected = ["admin\tactive\tsystem", "mail\tactive\to\tteam=mail", "search\tactive\to\told=,team=\"a, b\""];
    assert_eq!(lines(&listed), expected);
    let found = aims.run(&["agents", "list", "--selector", "team,team!=mail", "--json"]).await;
    let found: Value = serde_json::from_str(lines(&found)[0]).unwrap();
    assert_eq!((&found["name"], &found["labels"]), (&json!("search"), &json!({ "team": "a, b", "old": "" })));
    aims.run(&["agents", "list", "--selector", "Team"]).await.fails_with("At character 1 of the selector");
    if db.is_sqlite() {
        aims.run(&["agents", "label", "env=prod", "--selector", "team"]).await.fails_with("aims.db");
    }
    process.stop().await;

    let preview = aims.run(&["agents", "label", "env=prod,!old", "--selector", "team", "--dry-run"]).await;
    assert_eq!(lines(&preview), ["mail", "search", "2 agents would change"]);
    let done = aims.run(&["agents", "label", "env=prod,!old", "--selector", "team"]).await;
    assert_eq!(lines(&done), ["mail", "search", "2 agents changed"]);
    let again = aims.run(&["agents", "label", "env=prod,!old", "--selector", "team=mail"]).await;
    assert_eq!(lines(&again), ["mail: unchanged, already has these labels", "0 agents changed"]);
    let json = aims.run(&["agents", "label", "x=y", "--selector", "!team", "--json"]).await.json();
    assert_eq!((&json["changed"][0]["name"], &json["unchanged"]), (&json!("admin"), &json!([])));
    for (arguments, message) in [
        (["agents", "label", "env", "--selector", "team"], "Write key=value to set a label"),
        (["agents", "label", "env=a", "--selector", "team="], ""),
        (["agents", "label", "env=a", "--selector", "(x)"], "At character 1 of the selector"),
    ] {
        let exit = aims.run(&arguments).await;
        if message.is_empty() {
            assert_eq!(lines(&exit), ["0 agents changed"]);
        } else {
            exit.fails_with(message);
        }
    }

    let process = aims.serve().await;
    let admin = process.client().login(&key).await;
    let found = admin.get("/agents?selector=env%3Dprod%2C%21old").await.expect(200);
    assert_eq!(found.as_array().unwrap().len(), 2);
    let records = admin.get("/audit?action=agent.updated").await.expect(200);
    assert_eq!(records.as_array().unwrap().len(), 3);
    assert!(records.as_array().unwrap().iter().all(|record| record["agent_id"].is_null()));
    process.stop().await;
}
