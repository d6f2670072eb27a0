//! Operations on many agents: preview, confirmation, outcome and undo.

use std::time::Duration;

use aims::domain::Role;
use serde_json::{Value, json};

use crate::{
    both,
    support::{Browser, Database, Page, Server, details},
};

both!(
    bulk_suspension_changes_what_was_confirmed,
    already_suspended_agents_are_named_and_not_counted,
    filters_survive_success_and_cancel,
    a_selection_that_changed_is_shown_again,
    agents_that_no_longer_match_are_named,
    suspension_is_undone_only_where_nobody_changed_it_since,
    a_capability_is_granted_to_thirty_agents_and_undone,
    grants_are_revoked_and_agents_transferred,
    labels_are_set_and_removed_and_undone,
    operators_cannot_exceed_their_authority,
    the_last_administrator_stays,
    double_submissions_change_everything_once,
    broken_forms_change_nothing,
);

const BULK: &str = "/console/agents/bulk";
const APPLY: &str = "/console/agents/bulk/apply";
const UNDO: &str = "/console/agents/bulk/undo";

async fn fleet(server: &Server, names: &str, count: usize, owner: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..count {
        let body = json!({ "name": format!("{names}-{number:02}"), "owner": owner });
        let agent = server.admin.post("/agents", body).await.expect(201);
        ids.push(agent["id"].as_str().unwrap().to_owned());
    }
    ids
}

async fn status(server: &Server, id: &str) -> String {
    server.admin.get(&format!("/agents/{id}")).await.expect(200)["status"].as_str().unwrap().to_owned()
}

async fn count(server: &Server, status: &str) -> usize {
    server.admin.get(&format!("/agents?status={status}&limit=500")).await.expect(200).as_array().unwrap().len()
}

/// Confirms what a page shows.
async fn confirm(browser: &Browser, form: &[(&str, &str)], page: &Page) -> Page {
    let (seen, expected) = (page.hidden("seen"), page.hidden("expected"));
    let form: Vec<_> = form.iter().copied().chain([("seen", seen.as_str()), ("expected", &expected)]).collect();
    browser.post(APPLY, &form).await
}

fn selection<'f>(act: &'f str, ids: &'f [String], more: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    let ids = ids.iter().map(|id| ("id", id.as_str()));
    [("act", act)].into_iter().chain(ids).chain(more.iter().copied()).collect()
}

async fn bulk_suspension_changes_what_was_confirmed(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let ids = fleet(&server, "bulk", 7, "tests").await;
    fleet(&server, "other", 1, "tests").await;
    let form = selection("suspend", &ids[..2], &[("id", "junk"), ("reason", "incident 7")]);
    let page = browser.post(BULK, &form).await.expect(200);
    page.shows("Suspend 2 agents?").shows("2 of 2 will change").shows("bulk-00").shows("bulk-01");
    confirm(&browser, &form, &page).await.redirects_to("/console/agents");
    let page = browser.get("/console/agents").await;
    page.shows("2 agents suspended.").shows("Show in the audit log").shows("action=\"/console/agents/bulk/undo\"");
    let records = server.audited("agent.suspended").await;
    assert_eq!(records.len(), 2);
    assert!(records.iter().all(|record| details(record)["reason"] == "incident 7"));
    let link = page.text.split("href=\"/console/audit?").nth(1).unwrap().split('"').next().unwrap();
    let log = browser.get(&format!("/console/audit?{}", link.replace("&#38;", "&"))).await.expect(200);
    assert_eq!(log.text.matches("bulk-0").count() / 2 * 2, log.text.matches("bulk-0").count());
    log.shows("bulk-00").shows("bulk-01");

    let all = [("act", "suspend"), ("all", "matching"), ("q", "bulk-")];
    let page = browser.post(BULK, &all).await.expect(200);
    page.shows("Suspend 7 agents?").shows("5 of 7 will change").shows("2: already suspended");
    confirm(&browser, &all, &page).await.redirects_to("/console/agents?q=bulk-");
    browser.get("/console/agents?q=bulk-").await.shows("5 agents suspended. 2 other agents did not change.");
    assert_eq!(count(&server, "suspended").await, 7);
    let back = [("act", "reactivate"), ("all", "matching"), ("q", "bulk-")];
    let page = browser.post(BULK, &back).await.expect(200);
    page.shows("7 of 7 will change");
    confirm(&browser, &back, &page).await.redirects_to("/console/agents?q=bulk-");
    assert_eq!(count(&server, "suspended").await, 0);
    assert_eq!(server.audited("agent.suspended").await.len(), 7);
}

/// The console once said "20 suspended" when 2 already were.
async fn already_suspended_agents_are_named_and_not_counted(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let ids = fleet(&server, "mail", 20, "mail-team").await;
    for id in &ids[..2] {
        server.admin.post_empty(&format!("/agents/{id}/suspend")).await.expect(200);
    }
    let revoked = &fleet(&server, "gone", 1, "mail-team").await[0];
    server.admin.post_empty(&format!("/agents/{revoked}/revoke")).await.expect(200);
    let key = server.admin.post(&format!("/agents/{}/keys", ids[5]), json!({})).await.expect(201);
    server.anonymous().exchange(key["raw_key"].as_str().unwrap()).await.expect(200);
    // Nothing is selected, but a filter is active: all that match.
    let form = [("act", "suspend"), ("owner", "mail-team")];
    let page = browser.post(BULK, &form).await.expect(200);
    page.shows("Suspend 21 agents?").shows("18 of 21 will change").shows("Suspend 18 agents</button>");
    page.shows("2: already suspended").shows("1: revoked, which is permanent").shows("gone-00");
    page.shows("<dt>API keys that stop working</dt><dd class=\"wrap\">1</dd>");
    page.shows("<dt>Active tokens that end</dt><dd class=\"wrap\">1</dd>");
    confirm(&browser, &form, &page).await.redirects_to("/console/agents?owner=mail-team");
    let page = browser.get("/console/agents?owner=mail-team").await;
    page.shows("18 agents suspended. 3 other agents did not change.");
    assert_eq!(server.audited("agent.suspended").await.len(), 20);
}

async fn filters_survive_success_and_cancel(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let ids = fleet(&server, "keep", 3, "a & b").await;
    let filters = [("q", "keep"), ("owner", "a & b"), ("sort", "name"), ("used", "never")];
    let list = "/console/agents?q=keep&owner=a+%26+b&used=never&sort=name";
    let form = selection("suspend", &ids, &filters);
    let page = browser.post(BULK, &form).await.expect(200);
    page.shows(&format!("href=\"{}\">Cancel</a>", list.replace('&', "&#38;")));
    confirm(&browser, &form, &page).await.redirects_to(list);
    let page = browser.get(list).await.expect(200);
    assert_eq!(page.text.matches("data-label=\"Name\"").count(), 3);
    // So do they survive undoing it.
    let bulk = page.hidden("bulk");
    let undo: Vec<_> = filters.into_iter().chain([("bulk", bulk.as_str())]).collect();
    browser.post(UNDO, &undo).await.redirects_to(list);
    browser.get(list).await.shows("Undone: 3 agents reactivated.");
    // A form without a selection and without a filter goes back, too.
    browser.post(BULK, &[("act", "suspend"), ("sort", "name")]).await.redirects_to("/console/agents?sort=name");
    browser.get("/console/agents?sort=name").await.shows("Select at least one agent first.");
}

async fn a_selection_that_changed_is_shown_again(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let ids = fleet(&server, "moving", 4, "tests").await;
    let form = selection("suspend", &ids, &[]);
    let page = browser.post(BULK, &form).await.expect(200);
    server.admin.post_empty(&format!("/agents/{}/suspend", ids[1])).await.expect(200);
    server.admin.delete(&format!("/agents/{}", ids[2])).await.expect(204);
    let again = confirm(&browser, &form, &page).await.expect(409);
    again.shows("so nothing was changed").shows("<p>moving-01: already suspended.</p>");
    again.shows("<p>moving-02: no longer exists.</p>").shows("<li class=\"clip\">moving-02</li>");
    again.shows("2 of 4 will change");
    assert_eq!(status(&server, &ids[0]).await, "active");
    confirm(&browser, &form, &again).await.redirects_to("/console/agents");
    assert_eq!(status(&server, &ids[0]).await, "suspended");

    // One more agent matches meanwhile.
    let all = [("act", "reactivate"), ("q", "moving")];
    let page = browser.post(BULK, &all).await.expect(200);
    let late = &fleet(&server, "moving-late", 1, "tests").await[0];
    server.admin.post_empty(&format!("/agents/{late}/suspend")).await.expect(200);
    let again = confirm(&browser, &all, &page).await.expect(409);
    again.shows("1 agent would change in addition: moving-late-00.").shows("4 of 4 will change");
    // Confirming one operation does not confirm another.
    let other = [("act", "suspend"), ("q", "moving")];
    confirm(&browser, &other, &again).await.expect(409);
    assert_eq!(status(&server, late).await, "suspended");
}

async fn agents_that_no_longer_match_are_named(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let ids = fleet(&server, "leaving", 15, "mail-team").await;
    let leave = async |id: &str| {
        server.admin.patch(&format!("/agents/{id}"), json!({ "owner": "other-team" })).await.expect(200);
    };
    let form = [("act", "suspend"), ("owner", "mail-team")];
    let page = browser.post(BULK, &form).await.expect(200);
    leave(&ids[0]).await;
    let page = confirm(&browser, &form, &page).await.expect(409);
    page.shows("<p>1 agent no longer matches the filter: leaving-00.</p>").shows("14 of 14 will change");
    // Agents that were deleted have their last name.
    leave(&ids[1]).await;
    server.admin.delete(&format!("/agents/{}", ids[2])).await.expect(204);
    let page = confirm(&browser, &form, &page).await.expect(409);
    page.shows("<p>2 agents no longer match the filter: leaving-01, leaving-02.</p>");
    for id in &ids[3..14] {
        leave(id).await;
    }
    let page = confirm(&browser, &form, &page).await.expect(409);
    page.shows("<p>11 agents no longer match the filter: leaving-03, ").shows("leaving-12 and 1 more.</p>");
    assert_eq!(count(&server, "suspended").await, 0);
    confirm(&browser, &form, &page).await.redirects_to("/console/agents?owner=mail-team");
    assert_eq!(status(&server, &ids[14]).await, "suspended");
}

async fn suspension_is_undone_only_where_nobody_changed_it_since(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let other = server.signed_in("ada", Role::Owner).await;
    let ids = fleet(&server, "undo", 6, "tests").await;
    server.admin.post_empty(&format!("/agents/{}/suspend", ids[0])).await.expect(200);
    let form = selection("suspend", &ids, &[]);
    let page = browser.post(BULK, &form).await.expect(200);
    confirm(&browser, &form, &page).await.redirects_to("/console/agents");
    let bulk = browser.get("/console/agents").await.hidden("bulk");
    server.clock.advance(Duration::from_secs(5));
    // Somebody reactivates one, suspends another again, and revokes a third.
    server.admin.post_empty(&format!("/agents/{}/reactivate", ids[1])).await.expect(200);
    server.admin.post_empty(&format!("/agents/{}/reactivate", ids[2])).await.expect(200);
    server.admin.post_empty(&format!("/agents/{}/suspend", ids[2])).await.expect(200);
    server.admin.post_empty(&format!("/agents/{}/revoke", ids[3])).await.expect(200);
    // Only the person who did it can undo it.
    other.post(UNDO, &[("bulk", &bulk)]).await.redirects_to("/console/agents");
    other.get("/console/agents").await.shows("There is nothing left to undo.");
    browser.post(UNDO, &[("bulk", &bulk)]).await.redirects_to("/console/agents");
    let page = browser.get("/console/agents").await;
    page.shows("Undone: 2 agents reactivated. 3 agents were left as they are, because they were changed since.");
    let expected = ["suspended", "active", "suspended", "revoked", "active", "active"];
    for (id, expected) in ids.iter().zip(expected) {
        assert_eq!(status(&server, id).await, expected);
    }
    let log = server.audited("agent.reactivated").await;
    assert_eq!(log.len(), 4);
    browser.post(UNDO, &[("bulk", &bulk)]).await.redirects_to("/console/agents");
    browser.get("/console/agents").await.shows("There is nothing left to undo.");
    for junk in ["", "junk", "00000000-0000-7000-8000-000000000000"] {
        let page = browser.post(UNDO, &[("bulk", junk)]).await;
        assert!([303, 400].contains(&page.status.as_u16()), "{page:?}");
    }
}

async fn a_capability_is_granted_to_thirty_agents_and_undone(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let ids = fleet(&server, "reader", 30, "tests").await;
    let capability = server.capability("documents:read").await;
    for id in &ids[..3] {
        server.grant(id, "documents:read").await;
    }
    let before = server.audited("capability.granted").await.len();
    let form = selection("grant", &ids, &[]);
    let page = browser.post(BULK, &form).await.expect(200);
    page.shows("Grant a capability to 30 agents").shows("Preview changes").shows("value=\"documents:read\"");
    let form = selection("grant", &ids, &[("target", "documents:read")]);
    // Without a preview, the form shows one instead of changing anything.
    let page = browser.post(APPLY, &form).await.expect(200);
    page.shows("27 of 30 will change").shows("3: already holds the capability").shows("Grant to 27 agents");
    assert_eq!(server.audited("capability.granted").await.len(), before);
    confirm(&browser, &form, &page).await.redirects_to("/console/agents");
    let page = browser.get("/console/agents").await;
    page.shows("documents:read granted to 27 agents. 3 other agents did not change.");
    assert_eq!(server.audited("capability.granted").await.len(), before + 27);
    // One grant is revoked and granted again; it is no longer that of the operation.
    server.clock.advance(Duration::from_secs(5));
    let path = format!("/agents/{}/capabilities", ids[10]);
    server.admin.delete(&format!("{path}/{capability}")).await.expect(204);
    server.grant(&ids[10], "documents:read").await;
    browser.post(UNDO, &[("bulk", &page.hidden("bulk"))]).await.redirects_to("/console/agents");
    browser.get("/console/agents").await.shows("Undone: 26 agents no longer hold the capability. 1 agent was left");
    for (number, id) in ids.iter().enumerate() {
        let held = server.admin.get(&format!("/agents/{id}/capabilities")).await.expect(200);
        assert_eq!(held.as_array().unwrap().len(), usize::from(number < 3 || number == 10), "{number}");
    }
    let unknown = selection("grant", &ids, &[("target", "no:such")]);
    browser.post(BULK, &unknown).await.expect(422).shows("No capability with this name exists");
    browser.post(APPLY, &unknown).await.expect(422).shows("No capability with this name exists");
}

async fn grants_are_revoked_and_agents_transferred(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let ids = fleet(&server, "worker", 5, "old-team").await;
    for id in &ids[..4] {
        server.grant(id, "documents:read").await;
    }
    let form = selection("ungrant", &ids, &[("target", "documents:read")]);
    let page = browser.post(BULK, &form).await.expect(200);
    page.shows("4 of 5 will change").shows("1: does not hold the capability").shows("Revoke from 4 agents");
    confirm(&browser, &form, &page).await.redirects_to("/console/agents");
    browser.get("/console/agents").await.shows("documents:read revoked from 4 agents.");
    assert_eq!(server.audited("capability.revoked").await.len(), 4);

    server.admin.patch(&format!("/agents/{}", ids[4]), json!({ "owner": "new team" })).await.expect(200);
    let form = selection("transfer", &ids, &[("target", " new team ")]);
    let page = browser.post(BULK, &form).await.expect(200);
    page.shows("4 of 5 will change").shows("1: already has this owner");
    confirm(&browser, &form, &page).await.redirects_to("/console/agents");
    let page = browser.get("/console/agents").await;
    page.shows("4 agents transferred to new team.");
    let owner = async |id: &str| server.admin.get(&format!("/agents/{id}")).await.expect(200)["owner"].clone();
    assert_eq!(owner(&ids[0]).await, "new team");
    let record = &server.audited("agent.updated").await[0];
    assert_eq!(details(record)["changes"]["owner"], json!({ "from": "old-team", "to": "new team" }));
    server.admin.patch(&format!("/agents/{}", ids[1]), json!({ "owner": "third" })).await.expect(200);
    browser.post(UNDO, &[("bulk", &page.hidden("bulk"))]).await.redirects_to("/console/agents");
    browser.get("/console/agents").await.shows("Undone: 3 agents returned to their previous owners.");
    let owners = [owner(&ids[0]).await, owner(&ids[1]).await, owner(&ids[4]).await];
    assert_eq!(owners, ["old-team", "third", "new team"].map(Value::from));
    let empty = selection("transfer", &ids, &[("target", "  ")]);
    browser.post(APPLY, &empty).await.expect(422);
}

async fn labels_are_set_and_removed_and_undone(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let ids = fleet(&server, "worker", 5, "tests").await;
    let label = async |id: &str, labels: Value| {
        server.admin.patch(&format!("/agents/{id}"), json!({ "labels": labels })).await.expect(200);
    };
    label(&ids[0], json!({ "env": "test", "old": "x", "kept": "y" })).await;
    label(&ids[1], json!({ "env": "prod" })).await;
    let labels = async |id: &str| server.admin.get(&format!("/agents/{id}")).await.expect(200)["labels"].clone();
    // Nothing is entered yet.
    let page = browser.post(BULK, &selection("label", &ids, &[])).await.expect(200);
    page.shows("Label 5 agents").shows("Labels to set and remove").shows("Preview changes");
    for bad in ["env", "env!=x", "Env=x", "env in (a,b)", "env=a,env=b", "env=\"x", "<script>"] {
        let form = selection("label", &ids, &[("target", bad)]);
        let page = browser.post(BULK, &form).await.expect(422);
        assert!(page.text.contains("id=\"target-error\""), "{bad}: {}", page.text);
        browser.post(APPLY, &form).await.expect(422);
    }
    let change = "env=prod, team=\"a & b\",!old";
    let form = selection("label", &ids[..4], &[("target", change), ("selector", "!nobody")]);
    let page = browser.post(BULK, &form).await.expect(200);
    page.shows("4 of 4 will change").shows("Label 4 agents</button>").shows("Only these labels change");
    confirm(&browser, &form, &page).await.redirects_to("/console/agents?selector=%21nobody");
    let page = browser.get("/console/agents").await;
    page.shows("4 agents labelled: env=prod, team=&#34;a &#38; b&#34;,!old.");
    assert_eq!(labels(&ids[0]).await, json!({ "env": "prod", "kept": "y", "team": "a & b" }));
    let record = &server.audited("agent.updated").await[0];
    assert_eq!(details(record)["updated_fields"], json!(["labels"]));
    browser
        .get("/console/audit")
        .await
        .shows("zoe labelled worker-00: env=prod, team=&#34;a &#38; b&#34;; removed old");
    let again = selection("label", &ids[..2], &[("target", "env=prod,!old")]);
    browser.post(BULK, &again).await.expect(200).shows("0 of 2 will change").shows("2: already has these labels");

    label(&ids[1], json!({ "env": "other" })).await;
    browser.post(UNDO, &[("bulk", &page.hidden("bulk"))]).await.redirects_to("/console/agents");
    let page = browser.get("/console/agents").await;
    page.shows("Undone: 3 agents have their previous labels again. 1 agent was left as it is");
    assert_eq!(labels(&ids[0]).await, json!({ "env": "test", "kept": "y", "old": "x" }));
    assert_eq!((labels(&ids[1]).await, labels(&ids[2]).await), (json!({ "env": "other" }), json!({})));

    // All that match a selector, also without a selection.
    for form in [
        [("act", "label"), ("all", "matching"), ("selector", "kept=y"), ("target", "found=yes")],
        [("act", "label"), ("owner", ""), ("selector", "found=yes"), ("target", "found=again")],
    ] {
        let page = browser.post(BULK, &form).await.expect(200);
        page.shows("1 of 1 will change").shows("worker-00");
        confirm(&browser, &form, &page).await.expect(303);
    }
    assert_eq!(labels(&ids[0]).await["found"], "again");
    // Who may edit an agent may label it, also one that holds more.
    let boss = server.agent("boss", &["admin:*"]).await;
    let form = selection("label", std::slice::from_ref(&boss.id), &[("target", "env=prod")]);
    let page = browser.post(BULK, &form).await.expect(200);
    confirm(&browser, &form, &page).await.expect(303);
    assert_eq!(labels(&boss.id).await, json!({ "env": "prod" }));
    let viewer = server.signed_in("vic", Role::Viewer).await;
    viewer.post(BULK, &form).await.expect(403);
    // A selector that is not valid selects nothing.
    let broken = [("act", "label"), ("all", "matching"), ("selector", "=x"), ("target", "a=b")];
    browser.post(BULK, &broken).await.expect(422).shows("At character 1 of the selector");
    browser.post(APPLY, &broken).await.expect(422);
}

async fn operators_cannot_exceed_their_authority(db: Database) {
    let server = Server::start(db).await;
    let boss = server.agent("boss", &["admin:*"]).await;
    let plain = server.agent("plain", &["documents:read"]).await;
    let (viewer, operator) =
        (server.signed_in("vic", Role::Viewer).await, server.signed_in("zoe", Role::Operator).await);
    let ids = [boss.id.clone(), plain.id.clone()];
    let targets = [
        ("suspend", "", "agent.suspended"),
        ("ungrant", "admin:*", "capability.revoked"),
        ("grant", "documents:read", "capability.granted"),
        ("transfer", "mine", "agent.updated"),
    ];
    for (act, target, event) in targets {
        let form = selection(act, &ids, &[("target", target)]);
        viewer.post(BULK, &form).await.expect(403);
        viewer.post(APPLY, &form).await.expect(403);
        let before = server.audited(event).await.len();
        let page = operator.post(BULK, &form).await.expect(200);
        page.shows("1: holds admin:*, which you lack").shows("boss");
        if page.text.contains("name=\"seen\"") {
            // Selecting only the agent with more authority changes nothing, whatever the form says.
            let only = selection(act, &ids[..1], &[("target", target)]);
            let page = operator.post(BULK, &only).await.expect(200);
            page.shows("0 of 1 will change");
            confirm(&operator, &only, &page).await.expect(409);
        }
        assert_eq!(server.audited(event).await.len(), before, "{act}");
    }
    viewer.post(UNDO, &[("bulk", "00000000-0000-7000-8000-000000000000")]).await.expect(403);
    // A capability that the operator has no authority to grant.
    let form = selection("grant", &ids[1..], &[("target", "admin:*")]);
    operator.post(BULK, &form).await.expect(422).shows("You cannot grant admin:*");
    let forged: Vec<_> = form.iter().copied().chain([("seen", "0"), ("expected", "")]).collect();
    operator.post(APPLY, &forged).await.expect(422).shows("You cannot grant admin:*");
    assert_eq!(status(&server, &boss.id).await, "active");
    boss.client.get("/agents").await.expect(200);
    plain.client.get("/audit").await.expect(403);
    assert_eq!(server.admin.get(&format!("/agents/{}", boss.id)).await.expect(200)["owner"], "tests");
}

async fn the_last_administrator_stays(db: Database) {
    let server = Server::start(db).await;
    let owner = server.signed_in("zoe", Role::Owner).await;
    let second = server.agent("second", &["admin:*"]).await;
    fleet(&server, "plain", 3, "tests").await;
    // Without a key it could not authenticate, so it does not count.
    let keyless = fleet(&server, "keyless", 1, "tests").await.remove(0);
    server.grant(&keyless, "admin:*").await;
    let form = [("act", "suspend"), ("all", "matching")];
    let page = owner.post(BULK, &form).await.expect(200);
    page.shows("5 of 6 will change");
    page.shows("1: the last active agent that holds admin:* and can authenticate");
    confirm(&owner, &form, &page).await.redirects_to("/console/agents");
    owner.get("/console/agents").await.shows("5 agents suspended. 1 other agent did not change.");
    let left = server.db.texts("SELECT name FROM agents WHERE status = 'active'").await;
    assert_eq!(left.len(), 1);
    assert!(["admin", "second"].contains(&left[0].as_str()), "{left:?}");
    // Nor can the capability be revoked from all.
    let last = if left[0] == "admin" { server.admin.with_token(server.admin.token()) } else { second.client };
    last.get("/agents").await.expect(200);
    let form = [("act", "ungrant"), ("all", "matching"), ("target", "admin:*"), ("status", "active")];
    let page = owner.post(BULK, &form).await.expect(200);
    page.shows("0 of 1 will change");
    confirm(&owner, &form, &page).await.expect(409);
    last.get("/agents").await.expect(200);
}

async fn double_submissions_change_everything_once(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let ids = fleet(&server, "twice", 20, "tests").await;
    let form = selection("suspend", &ids, &[]);
    let page = browser.post(BULK, &form).await.expect(200);
    let (here, there) = (browser.copy(), browser.copy());
    let (first, second) = tokio::join!(confirm(&here, &form, &page), confirm(&there, &form, &page));
    for outcome in [&first, &second] {
        assert!([303, 409].contains(&outcome.status.as_u16()), "{outcome:?}");
    }
    assert_eq!(server.audited("agent.suspended").await.len(), 20);
    let late = confirm(&browser, &form, &page).await.expect(409);
    late.shows("0 of 20 will change").shows("20: already suspended");
    // Two tabs with the same agents, in both of which the same capability is granted.
    server.capability("documents:read").await;
    let before = server.audited("capability.granted").await.len();
    let form = selection("grant", &ids, &[("target", "documents:read")]);
    let page = browser.post(BULK, &form).await.expect(200);
    let (first, second) = tokio::join!(confirm(&here, &form, &page), confirm(&there, &form, &page));
    assert!([&first, &second].iter().any(|page| page.status == 303), "{first:?} {second:?}");
    assert_eq!(server.audited("capability.granted").await.len(), before + 20);
}

async fn broken_forms_change_nothing(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    let ids = fleet(&server, "still", 2, "tests").await;
    for act in ["", "Reactivate", "delete", "export.csv", "export.xml"] {
        let form = selection(act, &ids, &[("seen", "2"), ("target", "x")]);
        browser.post(APPLY, &form).await.expect(422);
    }
    for act in ["", "Reactivate", "delete", "export.xml"] {
        browser.post(BULK, &selection(act, &ids, &[])).await.expect(422);
    }
    let long = "r".repeat(501);
    let form = selection("suspend", &ids, &[("reason", &long)]);
    let page = browser.post(BULK, &form).await.expect(422);
    page.shows("at most 500 characters").shows(&long);
    for (name, value) in [("status", "junk"), ("used", "1d"), ("q", "\u{0}")] {
        browser.post(BULK, &[("act", "suspend"), ("all", "matching"), (name, value)]).await.expect(422);
    }
    assert_eq!(count(&server, "suspended").await, 0);
}
