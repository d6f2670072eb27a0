//! Names full of markup, in a real browser that would execute it.

use aims::domain::Role;
use serde_json::json;

use super::{Display, in_browser, server, signed_in_owner};

in_browser!(user_input_is_never_executed);

async fn user_input_is_never_executed() {
    let server = server().await;
    server.person("zoe", Role::Owner).await;
    let chrome = signed_in_owner(&server, Display::DEFAULT).await;
    let texts = [
        "<script>window.hurt=1</script>",
        "\"><img src=x onerror=window.hurt=1>",
        "'><svg onload=window.hurt=1>",
        "</title></textarea><script>window.hurt=1</script>",
        "<iframe srcdoc='<script>parent.hurt=1</script>'>",
        "<hx-partial hx-target=\"body\">gone</hx-partial>",
        "\" hx-get=\"/console/sign-out\" hx-trigger=\"load\" x=\"",
        &"W".repeat(128),
        &"﷽".repeat(60),
    ];
    let mut agents = Vec::new();
    for (n, text) in texts.iter().enumerate() {
        let body = json!({ "name": format!("hostile-{n}"), "owner": text, "description": text.repeat(20) });
        let agent = server.admin.post("/agents", body).await.expect(201);
        server
            .admin
            .patch(
                &format!("/agents/{}", agent["id"].as_str().unwrap()),
                json!({ "owner": format!("{text}!").chars().take(128).collect::<String>() }),
            )
            .await
            .expect(200);
        agents.push(agent["id"].as_str().unwrap().to_owned());
    }
    let record = server.audited("agent.updated").await[0]["seq"].as_i64().unwrap();
    let mut paths = vec![
        "/console".to_owned(),
        "/console/agents".to_owned(),
        "/console/audit".to_owned(),
        format!("/console/audit/{record}"),
    ];
    paths.extend(agents.iter().map(|id| format!("/console/agents/{id}")));
    paths.extend(agents.iter().map(|id| format!("/console/agents/{id}/edit")));
    for path in paths {
        chrome.goto(&path).await;
        let state = chrome.run("return [window.hurt ?? null, document.documentElement.scrollWidth - innerWidth, document.querySelectorAll('iframe, main script, hx-partial').length]").await;
        assert_eq!(state[0], json!(null), "{path}");
        assert!(state[1].as_i64().unwrap() <= 0, "{path} is too wide by {}", state[1]);
        assert_eq!(state[2], 0, "{path}");
    }
    // Content that htmx swaps in is escaped as well.
    chrome.goto("/console/agents").await;
    chrome.fill("#q", "hostile").await;
    chrome.wait_for_path(|path| path.contains("q=hostile")).await;
    assert_eq!(chrome.run("return window.hurt ?? null").await, json!(null));
    chrome.assert_no_errors().await;
}
