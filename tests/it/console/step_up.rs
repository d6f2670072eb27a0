//! Actions that issue a credential, widen authority or cannot be undone ask for a recent proof of identity and then
//! continue.

use std::time::Duration;

use aims::{
    domain::{AdministratorId, Role},
    service::{Caller, people::administrators},
    web::{
        console::routes,
        demand::{Demand, Listed},
    },
};
use reqwest::Method;
use serde_json::json;

use super::account::{code, secret};
use crate::{
    both,
    support::{Browser, COOKIE, Database, PASSWORD, Page, Server},
};

both!(
    every_sensitive_form_requires_a_proof,
    codes_must_be_entered_again_after_the_proof,
    private_keys_are_not_kept_during_the_proof,
    sensitive_actions_require_a_proof_and_then_continue,
    page_that_requires_a_proof_is_shown_afterwards,
    wrong_proof_has_no_effect,
    secrets_are_not_kept_during_the_proof,
);

async fn prove(browser: &Browser, page: &Page) -> Page {
    let (path, body) = (page.hidden("waiting_path"), page.hidden("waiting_body"));
    browser.post("/console/confirm", &[("password", PASSWORD), ("waiting_path", &path), ("waiting_body", &body)]).await
}

async fn sensitive_actions_require_a_proof_and_then_continue(db: Database) {
    let server = Server::start_with(db, &[("JWT_EXPIRATION_MINUTES", "1440")]).await;
    let target = server.agent("target", &["admin:*"]).await;
    let plain = server.agent("plain", &[]).await;
    let admin = server.capability("admin:*").await;
    let (target_path, plain_path) = (format!("/console/agents/{}", target.id), format!("/console/agents/{}", plain.id));
    let person = server.person("ada", Role::Viewer).await;
    let browser = server.signed_in("zoe", Role::Owner).await;

    let key = [("name", "k"), ("life", "90")];
    let acts: [(String, Vec<(&str, &str)>); 7] = [
        (format!("{target_path}/keys"), key.to_vec()),
        (format!("{target_path}/keys/{}/rotate", target.key_id), vec![("grace", "24")]),
        (format!("{plain_path}/grants"), vec![("capability", &admin)]),
        (format!("{plain_path}/keys/{}/revoke", plain.key_id), vec![]),
        (format!("{plain_path}/revoke"), vec![("confirm", "plain"), ("reason", "gone & \"done\"")]),
        (format!("{plain_path}/delete"), vec![("confirm", "plain")]),
        (format!("/console/administrators/{person}/disable"), vec![]),
    ];
    for (path, form) in &acts {
        server.clock.advance(Duration::from_mins(11));
        let before = server.admin.get("/audit?limit=1").await.expect(200)[0]["seq"].clone();
        let cookie = browser.cookie(COOKIE);
        let page = browser.post(path, form).await.expect(401);
        page.shows("Confirm your identity");
        let after = server.admin.get("/audit?limit=1").await.expect(200)[0]["seq"].clone();
        assert_eq!(before, after, "{path} must have no effect without a proof");

        let stale = browser.copy();
        let page = prove(&browser, &page).await.expect(200);
        assert_ne!(browser.cookie(COOKIE), cookie, "a proof must rotate the session cookie");
        stale.get("/console/account").await.expect(303);
        page.shows(&format!("action=\"{path}\""));
        let kept: Vec<_> = form.iter().map(|(name, _)| (*name, page.hidden(name))).collect();
        let kept: Vec<_> = kept.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(&kept, form);
        let done = browser.post(path, &kept).await;
        assert!([200, 303].contains(&done.status.as_u16()), "{path}: {}", done.text);
    }
    assert_eq!(server.audited("console.proof_renewed").await.len(), acts.len());

    // Revoking access in a way that can be undone needs no proof.
    server.clock.advance(Duration::from_mins(11));
    let other = server.agent("other", &[]).await;
    browser.post(&format!("/console/agents/{}/suspend", other.id), &[]).await.expect(303);
}

/// A form that requires a proof, with valid fields.
struct SensitiveForm {
    path: String,
    form: Vec<(&'static str, String)>,
    /// Fields that are not kept and must be entered again.
    secrets: Vec<(&'static str, String)>,
    /// The status and the audit record once the action is allowed.
    done: (u16, Option<&'static str>),
}

/// Covers every form of the console's route table. A form that is not listed here fails the test.
async fn every_sensitive_form_requires_a_proof(db: Database) {
    let server = Server::start_with(db, &[("JWT_EXPIRATION_MINUTES", "1440")]).await;
    server.person("keeper", Role::Owner).await;
    let newest = async || server.admin.get("/audit?limit=1").await.expect(200)[0].clone();
    let forms: Vec<_> = routes::list().into_iter().filter(|route| route.method == Method::POST).collect();
    let mut sensitive = 0;
    for (n, Listed { path, demand, .. }) in forms.into_iter().enumerate() {
        let Demand::Action(action) = demand else { continue };
        let (name, role) = (format!("person-{n}"), action.demands_role());
        let form = form(&server, &path, n).await;
        let browser = server.signed_in(&name, role).await;
        server.clock.advance(Duration::from_mins(11));
        let Some(SensitiveForm { path, form, secrets, done }) = form else {
            let page = browser.post(&fill_in(&path), &[("password", "x")]).await;
            let is_confirmation = path.starts_with("/console/confirm");
            assert!(is_confirmation || !page.text.contains("Confirm your identity"), "{path}");
            continue;
        };
        sensitive += 1;
        let borrowed: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let all: Vec<_> =
            borrowed.iter().copied().chain(secrets.iter().map(|(name, value)| (*name, value.as_str()))).collect();
        let before = newest().await;
        let page = browser.post(&path, &all).await;
        assert_eq!(page.status.as_u16(), 401, "{path} must ask a {role} for a proof: {}", page.text);
        page.shows("Confirm your identity");
        assert_eq!(newest().await["seq"], before["seq"], "{path} must have no effect without a proof");

        let page = prove(&browser, &page).await.expect(200);
        page.shows(&format!("action=\"{path}\""));
        let kept: Vec<_> = form.iter().map(|(name, _)| (*name, page.hidden(name))).collect();
        assert_eq!(kept, form, "{path} must keep the input");
        let page = if secrets.is_empty() {
            browser.post(&path, &borrowed).await
        } else {
            browser.post(&path, &borrowed).await.expect(422);
            browser.post(&path, &all).await
        };
        assert_eq!(page.status.as_u16(), done.0, "{path} must continue: {}", page.text);
        if let Some(action) = done.1 {
            assert_eq!(newest().await["action"], action, "{path}");
        }
    }
    assert_eq!(sensitive, 39, "update this count for a new form that requires a proof");
}

const UNKNOWN_ID: &str = "00000000-0000-7000-8000-000000000000";

fn fill_in(path: &str) -> String {
    ["{id}", "{key}", "{capability}"].iter().fold(path.to_owned(), |path, part| path.replace(part, UNKNOWN_ID))
}

/// Returns a valid form of a row that requires a proof; `None` if the row requires none.
#[expect(clippy::too_many_lines, reason = "a table, with a few lines for each form")]
async fn form(server: &Server, row: &str, n: usize) -> Option<SensitiveForm> {
    let agent = server.agent(&format!("agent-{n}"), &[]).await;
    let person = server.person(&format!("target-{n}"), Role::Viewer).await;
    let uri = format!("https://mcp.example/{n}");
    let resource = json!({ "identifier": uri, "name": "Tools" });
    let passwords = || vec![("new_password", PASSWORD.to_owned()), ("repeat_password", PASSWORD.to_owned())];
    let (mut id, mut key, mut secrets) = (agent.id.clone(), UNKNOWN_ID.to_owned(), Vec::new());
    let owned = |form: &[(&'static str, &str)]| form.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let (form, done): (Vec<_>, _) = match row {
        // Sessions, and the forms that ask for the proof.
        "/console/sign-out"
        | "/console/confirm"
        | "/console/confirm/passkey/options"
        | "/console/confirm/passkey"
        | "/console/account/sessions"
        // Change nothing.
        | "/console/search"
        | "/console/keys/find"
        | "/console/audit/find"
        // Personal preferences.
        | "/console/overview/dismiss"
        | "/console/overview/restore"
        | "/console/audit/views"
        | "/console/audit/views/{id}/delete"
        // Asks for a proof if it undoes a suspension.
        | "/console/agents/bulk/undo"
        // Asks for the current password itself.
        | "/console/account/password"
        // Grants no access.
        | "/console/agents/{id}"
        | "/console/capabilities"
        | "/console/capabilities/{id}"
        | "/console/audit/verify"
        // Removes access and can be undone.
        | "/console/agents/bulk"
        | "/console/agents/{id}/suspend"
        | "/console/agents/{id}/grants/{capability}/remove"
        | "/console/capabilities/{id}/holders/{key}/remove"
        | "/console/agents/{id}/tokens/end"
        | "/console/agents/{id}/delegates/{key}/remove" => return None,

        // With a key; without one it grants no access.
        "/console/agents" => {
            let form = [("name", &*format!("new-{n}")), ("owner", "tests"), ("agent_type", "llm"), ("key", "on")];
            let key = [("key_name", "k"), ("life", "never")];
            (owned(&[form.as_slice(), &key].concat()), (200, Some("key.created")))
        }
        "/console/agents/bulk/apply" => {
            server.admin.post_empty(&format!("/agents/{id}/suspend")).await.expect(200);
            let reviewer = server.signed_in(&format!("reviewer-{n}"), Role::Operator).await;
            let form = [("act", "reactivate"), ("id", id.as_str())];
            let seen = reviewer.post("/console/agents/bulk", &form).await.expect(200).hidden("seen");
            (owned(&[form[0], form[1], ("seen", &seen)]), (303, Some("agent.reactivated")))
        }
        "/console/agents/{id}/reactivate" => {
            server.admin.post_empty(&format!("/agents/{id}/suspend")).await.expect(200);
            (Vec::new(), (303, Some("agent.reactivated")))
        }
        "/console/agents/{id}/revoke" => {
            (owned(&[("confirm", &format!("agent-{n}"))]), (303, Some("agent.revoked")))
        }
        "/console/agents/{id}/delete" => {
            (owned(&[("confirm", &format!("agent-{n}"))]), (303, Some("agent.deleted")))
        }
        "/console/agents/{id}/keys" => (owned(&[("name", "k"), ("life", "never")]), (200, Some("key.created"))),
        "/console/agents/{id}/keys/{key}/rotate" => {
            key.clone_from(&agent.key_id);
            (owned(&[("grace", "24")]), (200, Some("key.rotated")))
        }
        "/console/agents/{id}/keys/{key}/revoke" => {
            key.clone_from(&agent.key_id);
            (Vec::new(), (303, Some("key.revoked")))
        }
        "/console/keys/bulk" => (owned(&[("act", "revoke"), ("id", &agent.key_id)]), (200, None)),
        "/console/keys/bulk/revoke" => (owned(&[("id", &agent.key_id)]), (303, Some("key.revoked"))),
        "/console/keys/bulk/rotate" => {
            (owned(&[("id", &agent.key_id), ("end_old", "24")]), (200, Some("key.rotated")))
        }
        "/console/agents/{id}/grants" => {
            let capability = server.capability("keys:manage").await;
            (owned(&[("capability", &capability)]), (303, Some("capability.granted")))
        }
        "/console/capabilities/{id}/holders" => {
            id = server.capability("keys:manage").await;
            (owned(&[("agent", &format!("agent-{n}"))]), (303, Some("capability.granted")))
        }
        "/console/capabilities/{id}/grants" => {
            id = server.capability("keys:manage").await;
            (owned(&[("agents", &format!("agent-{n}"))]), (200, None))
        }
        "/console/capabilities/{id}/grants/apply" => {
            id = server.capability("keys:manage").await;
            let reviewer = server.signed_in(&format!("reviewer-{n}"), Role::Operator).await;
            let (path, agents) = (format!("/console/capabilities/{id}/grants"), format!("agent-{n}"));
            let seen = reviewer.post(&path, &[("agents", &agents)]).await.expect(200).hidden("seen");
            (owned(&[("agents", &agents), ("seen", &seen)]), (303, Some("capability.granted")))
        }
        "/console/capabilities/{id}/delete" => {
            id = server.capability(&format!("gone:{n}")).await;
            let reviewer = server.signed_in(&format!("reviewer-{n}"), Role::Owner).await;
            let seen = reviewer.get(&format!("/console/capabilities/{id}/impact")).await.expect(200).hidden("seen");
            (owned(&[("confirm", &format!("gone:{n}")), ("seen", &seen)]), (303, Some("capability.deleted")))
        }
        "/console/agents/{id}/public-keys" => {
            (owned(&[("jwk", &jwk().to_string())]), (303, Some("public_key.registered")))
        }
        "/console/agents/{id}/public-keys/{key}/remove" => {
            let registered = server.admin.post(&format!("/agents/{id}/public-keys"), jwk()).await.expect(201);
            registered[0]["id"].as_str().unwrap().clone_into(&mut key);
            (Vec::new(), (303, Some("public_key.removed")))
        }
        "/console/agents/{id}/federated-identities" => {
            let form = [("issuer", "https://issuer.example"), ("audience", "aims"), ("claims", "sub=x")];
            (owned(&form), (303, Some("federated_identity.added")))
        }
        "/console/agents/{id}/federated-identities/{key}/remove" => {
            let trust = json!({ "issuer": "https://issuer.example", "audience": "aims", "claims": { "sub": "y" } });
            let added = server.admin.post(&format!("/agents/{id}/federated-identities"), trust).await.expect(201);
            added["id"].as_str().unwrap().clone_into(&mut key);
            (Vec::new(), (303, Some("federated_identity.removed")))
        }
        "/console/agents/{id}/delegates" => {
            server.agent(&format!("delegate-{n}"), &[]).await;
            (owned(&[("delegate", &format!("delegate-{n}"))]), (303, Some("delegate.added")))
        }
        "/console/resources" => {
            let form = [("identifier", uri.as_str()), ("name", "Tools"), ("scope", "agents:read")];
            (owned(&form), (303, Some("resource.created")))
        }
        "/console/resources/{id}" => {
            let created = server.admin.post("/resources", resource).await.expect(201);
            created["id"].as_str().unwrap().clone_into(&mut id);
            (owned(&[("name", "Tools"), ("scope", "agents:read")]), (303, Some("resource.updated")))
        }
        "/console/resources/{id}/delete" => {
            let created = server.admin.post("/resources", resource).await.expect(201);
            created["id"].as_str().unwrap().clone_into(&mut id);
            (Vec::new(), (303, Some("resource.deleted")))
        }
        // Rejected or accepted, depending on the age of the next key.
        "/console/signing-keys/rotate" => (owned(&[("when", "")]), (303, None)),
        "/console/administrators" => {
            (owned(&[("recipient", "Ada"), ("role", "operator")]), (200, Some("invitation.created")))
        }
        // There is no passkey to delete.
        "/console/administrators/{id}/factors/{key}" => {
            (id, key) = (person.to_string(), "passkeys".to_owned());
            (Vec::new(), (303, None))
        }
        "/console/administrators/{id}" => {
            id = person.to_string();
            (owned(&[("display_name", "Zed"), ("role", "owner")]), (303, Some("administrator.updated")))
        }
        "/console/administrators/{id}/disable" => {
            id = person.to_string();
            (Vec::new(), (303, Some("administrator.disabled")))
        }
        "/console/administrators/{id}/enable" => {
            disable(server, person).await;
            id = person.to_string();
            (Vec::new(), (303, Some("administrator.enabled")))
        }
        "/console/administrators/{id}/password" => {
            (id, secrets) = (person.to_string(), passwords());
            (owned(&[("every_factor", "on")]), (303, Some("administrator.password_changed")))
        }
        // None is configured here; the next test enables one.
        "/console/account/authenticator" | "/console/account/authenticator/remove" => (Vec::new(), (303, None)),
        // Rejected without an authenticator.
        "/console/account/recovery-codes" => (Vec::new(), (400, None)),
        // Called by a script, and there is no authenticator here.
        "/console/account/passkeys/options" => (Vec::new(), (200, None)),
        "/console/account/passkeys" => (owned(&[("name", "laptop"), ("credential", "junk")]), (303, None)),
        "/console/account/passkeys/{id}/remove"
        | "/console/administrators/invitations/{id}/renew"
        | "/console/administrators/invitations/{id}/withdraw" => {
            UNKNOWN_ID.clone_into(&mut id);
            (Vec::new(), (404, None))
        }
        other => panic!("decide whether {other} requires a recent proof"),
    };
    let path = row.replace("{id}", &id).replace("{key}", &key);
    Some(SensitiveForm { path, form, secrets, done })
}

fn jwk() -> serde_json::Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
}

async fn disable(server: &Server, person: AdministratorId) {
    administrators::disable(&server.services, &Caller::system(), person).await.unwrap();
}

async fn codes_must_be_entered_again_after_the_proof(db: Database) {
    let server = Server::start(db).await;
    let browser = server.signed_in("zoe", Role::Viewer).await;
    let path = "/console/account/authenticator";
    let shown = secret(&browser.get(path).await.expect(200));
    server.clock.advance(Duration::from_mins(11));
    let typed = code(&server, &shown);
    let page = browser.post(path, &[("code", &typed)]).await.expect(401);
    assert!(!page.text.contains(&typed), "{}", page.text);
    prove(&browser, &page).await.expect(200);
    let page = browser.post(path, &[]).await.expect(422);
    assert_eq!(secret(&page), shown, "the pending secret must stay the same");
    browser.post(path, &[("code", &code(&server, &shown))]).await.expect(200).shows("<li><code>");
}

async fn private_keys_are_not_kept_during_the_proof(db: Database) {
    let server = Server::start(db).await;
    let agent = server.agent("target", &[]).await;
    let browser = server.signed_in("zoe", Role::Operator).await;
    server.clock.advance(Duration::from_mins(11));
    let mut private = jwk();
    private["d"] = json!("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
    let path = format!("/console/agents/{}/public-keys", agent.id);
    let page = browser.post(&path, &[("jwk", &private.to_string())]).await.expect(401);
    assert!(!page.text.contains("nWGxne"), "{}", page.text);
    let page = prove(&browser, &page).await.expect(200);
    assert!(!page.text.contains("nWGxne"), "{}", page.text);
}

async fn page_that_requires_a_proof_is_shown_afterwards(db: Database) {
    let server = Server::start_with(db, &[("JWT_EXPIRATION_MINUTES", "1440")]).await;
    let agent = server.agent("target", &[]).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let keys = format!("/console/agents/{}/keys/new", agent.id);
    for path in ["/console/administrators/new", "/console/signing-keys/replace", &keys] {
        server.clock.advance(Duration::from_mins(11));
        let page = browser.get(path).await.expect(401);
        let next = page.hidden("next");
        let form = [("password", PASSWORD), ("next", &next)];
        browser.post("/console/confirm", &form).await.redirects_to(path);
        browser.get(path).await.expect(200);
    }
    // A script that is denied the passkey options redirects the browser here.
    server.clock.advance(Duration::from_mins(11));
    let page = browser.get("/console/account/passkeys").await.expect(401);
    let form = [("password", PASSWORD), ("next", &page.hidden("next"))];
    browser.post("/console/confirm", &form).await.redirects_to("/console/account/passkeys");
    browser.get("/console/account/passkeys").await.redirects_to("/console/account");
    browser.get("/console/account").await.shows("You can add the passkey now");
}

async fn wrong_proof_has_no_effect(db: Database) {
    let server = Server::start_with(db, &[("JWT_EXPIRATION_MINUTES", "1440")]).await;
    let target = server.agent("target", &[]).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    server.clock.advance(Duration::from_mins(11));
    let path = format!("/console/agents/{}/revoke", target.id);
    let page = browser.post(&path, &[("confirm", "target")]).await.expect(401);
    let (waiting, body) = (page.hidden("waiting_path"), page.hidden("waiting_body"));
    let form = [("password", "wrong"), ("waiting_path", waiting.as_str()), ("waiting_body", body.as_str())];
    let page = browser.post("/console/confirm", &form).await.expect(401);
    assert_eq!(page.hidden("waiting_path"), path);
    browser.post(&path, &[("confirm", "target")]).await.expect(401);
    server.browser().post("/console/confirm", &form).await.expect(401);
    assert_eq!(server.admin.get(&format!("/agents/{}", target.id)).await.expect(200)["status"], "active");
}

async fn secrets_are_not_kept_during_the_proof(db: Database) {
    let server = Server::start_with(db, &[("JWT_EXPIRATION_MINUTES", "1440")]).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    server.clock.advance(Duration::from_mins(11));
    let form = [
        ("username", "ada"),
        ("display_name", "Ada"),
        ("role", "viewer"),
        ("new_password", "a lighthouse in the fog"),
        ("repeat_password", "a lighthouse in the fog"),
    ];
    let page = browser.post("/console/administrators", &form).await.expect(401);
    assert!(!page.text.contains("lighthouse"), "{}", page.text);
    page.shows("username=ada");
}
