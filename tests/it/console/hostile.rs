//! Malicious text in every field of every form is rejected or displayed as text, never as markup.

use aims::domain::Role;
use serde_json::json;

use crate::{
    both,
    support::{Browser, Database, Page, Server},
};

both!(hostile_text_is_never_markup);

/// Texts that try to break out of attributes, elements, comments, scripts, styles, encodings and lines. Variants follow
/// below.
const SEEDS: [&str; 25] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'><svg onload=alert(1)>",
    "</title><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "<!--<script>alert(1)</script>-->",
    "]]><script>alert(1)</script>",
    "javascript:alert(1)",
    "\" onfocus=\"alert(1)\" autofocus=\"",
    "' onmouseover='alert(1)",
    "{{7*7}}{% include 'x' %}",
    "<a href=javascript:alert(1)>x</a>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "\\u003cscript\\u003ealert(1)",
    "=HYPERLINK(\"http://x\",\"y\")",
    "'; DROP TABLE agents; --",
    "\u{202E}gnp.exe",
    "a\u{0}b",
    "line\r\nSet-Cookie: a=b",
    "<hx-partial hx-target=\"body\"></hx-partial>",
    "hx-get=\"/console/sign-out\" hx-on:load=\"alert(1)\"",
];

/// Returns two hundred texts.
fn texts() -> Vec<String> {
    let vary = |seed: &str| {
        [
            seed.to_owned(),
            format!("x{seed}"),
            seed.to_uppercase(),
            format!("{seed}{seed}"),
            format!("\"{seed}"),
            format!("</div>{seed}"),
            format!("`{seed}`"),
            format!("{}{seed}", "A".repeat(100)),
        ]
    };
    SEEDS.iter().flat_map(|seed| vary(seed)).collect()
}

/// Asserts that a page contains the text only in escaped form.
fn assert_harmless(page: &Page, text: &str, place: &str) {
    assert!(page.status.as_u16() < 500, "{place}: {text:?} gave {}", page.status);
    let shown = &page.text;
    for mark in [
        "<script>",
        "<SCRIPT>",
        "<img src",
        "<IMG SRC",
        "<svg onload",
        "<SVG ONLOAD",
        "<iframe",
        "<IFRAME",
        "<math",
        "<MATH",
        "<hx-partial",
        "<HX-PARTIAL",
        "<!--",
        "onfocus=\"",
        "<a href=javascript",
    ] {
        assert!(!shown.contains(mark), "{place}: {text:?} came out as {mark}");
    }
    assert!(!page.headers.contains_key("set-cookie") || !page.headers["set-cookie"].to_str().unwrap().contains("a=b"));
}

async fn send(browser: &Browser, path: &str, form: &[(&str, &str)], text: &str) {
    let page = browser.post(path, form).await;
    let (status, location) = (page.status, page.location().to_owned());
    assert_harmless(&page, text, path);
    if status == 303 && location.starts_with("/console") {
        assert_harmless(&browser.get(&location).await, text, &location);
    }
}

async fn hostile_text_is_never_markup(db: Database) {
    let server = Server::start_with(db, &[("AUDIT_REFUSALS_PER_MINUTE", "1000000")]).await;
    let browser = server.signed_in("zoe", Role::Owner).await;
    let agent = server.agent("target", &[]).await;
    let path = format!("/console/agents/{}", agent.id);
    let texts = texts();
    assert_eq!(texts.len(), 200);
    for (n, text) in texts.iter().enumerate() {
        let t = text.as_str();
        let name = format!("hostile-{n}");
        send(
            &browser,
            "/console/agents",
            &[("name", t), ("owner", t), ("agent_type", t), ("description", t), ("metadata_json", t)],
            t,
        )
        .await;
        let form = [("name", name.as_str()), ("owner", t), ("agent_type", "llm"), ("description", t)];
        send(&browser, "/console/agents", &form, t).await;
        send(&browser, &path, &[("owner", t), ("agent_type", "llm"), ("description", t), ("version", t)], t).await;
        let labels = format!("hostile={t}");
        send(&browser, &path, &[("owner", "o"), ("agent_type", "llm"), ("labels", &labels)], t).await;
        send(&browser, &path, &[("owner", "o"), ("agent_type", "llm"), ("labels", t)], t).await;
        let quoted = format!("hostile=\"{}\"", t.replace('\\', "\\\\").replace('"', "\\\""));
        for change in [t, &quoted] {
            send(&browser, "/console/agents/bulk", &[("act", "label"), ("id", &agent.id), ("target", change)], t).await;
            for list in ["/console/agents", "/console/keys"] {
                let query = serde_urlencoded::to_string([("selector", change)]).unwrap();
                assert_harmless(&browser.get(&format!("{list}?{query}")).await, t, list);
            }
        }
        send(
            &browser,
            &format!("{path}/keys"),
            &[("name", t), ("life", t), ("expires_on", t), ("id", t), ("scope", t), ("allowed_networks", t)],
            t,
        )
        .await;
        send(&browser, &format!("{path}/revoke"), &[("confirm", t), ("reason", t)], t).await;
        send(&browser, "/console/capabilities", &[("name", t), ("description", t)], t).await;
        send(&browser, "/console/resources", &[("name", t), ("identifier", t), ("scope", t)], t).await;
        let identifier = format!("https://{name}.example");
        send(&browser, "/console/resources", &[("name", t), ("identifier", &identifier), ("scope", "")], t).await;
        let jwk = json!({
            "kty": "EC",
            "crv": "P-256",
            "kid": t,
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        });
        for jwk in [t, &jwk.to_string()] {
            send(&browser, &format!("{path}/public-keys"), &[("jwk", jwk)], t).await;
        }
        send(&browser, &format!("{path}/delegates"), &[("delegate", t)], t).await;
        let claims = format!("sub={t}");
        for issuer in [t, "https://issuer.example"] {
            let form = [("issuer", issuer), ("jwks_uri", ""), ("audience", t), ("claims", claims.as_str())];
            send(&browser, &format!("{path}/federated-identities"), &form, t).await;
        }
        send(&browser, "/console/account/passkeys", &[("name", t), ("credential", t)], t).await;
        send(&browser, "/console/signing-keys/rotate", &[("when", t)], t).await;
        send(&browser, "/console/administrators", &[("recipient", t), ("role", "viewer")], t).await;
        let form = [("username", t), ("password", t), ("next", t), ("waiting_path", t), ("waiting_body", t)];
        let stranger = server.browser();
        send(&stranger, "/console/sign-in", &form, t).await;
        for field in ["q", "status", "owner", "type", "sort", "cursor"] {
            let query = serde_urlencoded::to_string([(field, t)]).unwrap();
            assert_harmless(&browser.get(&format!("/console/agents?{query}")).await, t, field);
        }
        for field in ["actor", "action", "resource_id", "from", "cursor"] {
            let query = serde_urlencoded::to_string([(field, t)]).unwrap();
            assert_harmless(&browser.get(&format!("/console/audit?{query}")).await, t, field);
        }
        let query = serde_urlencoded::to_string([("q", t)]).unwrap();
        assert_harmless(&browser.get(&format!("/console/palette?{query}")).await, t, "palette");
    }
    // Accepted text is displayed verbatim on every page.
    for path in [
        "/console",
        "/console/agents",
        "/console/keys",
        "/console/capabilities",
        "/console/resources",
        "/console/account",
        "/console/audit",
        "/console/administrators",
    ] {
        assert_harmless(&browser.get(path).await.expect(200), "all of them", path);
    }
    for path in [path.clone(), format!("{path}/keys")] {
        assert_harmless(&browser.get(&path).await.expect(200), "all of them", &path);
    }
    assert_eq!(server.db.count("SELECT COUNT(*) FROM public_keys").await, 1);
    assert!(server.db.count("SELECT COUNT(*) FROM resources").await > 100);
}
