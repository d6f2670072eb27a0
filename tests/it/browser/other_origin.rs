//! A page of another origin. The browser blocks responses that the page may not read.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{Chrome, Display, in_browser};
use crate::support::{Database, Server, TestClock};

in_browser!(page_of_another_origin_can_get_a_token_and_nothing_else, page_of_a_configured_origin_can_call_the_api,);

/// Serves an empty page until the test ends, and returns its origin.
async fn serve_page() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read(&mut [0; 4_096]).await;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\nConnection: close\r\n\r\n";
            let _ = connection.write_all(format!("{head}<!doctype html>").as_bytes()).await;
        }
    });
    origin
}

/// Fetches each request from the page; returns the statuses, or `null` where the browser hides the response.
async fn fetch_statuses(chrome: &Chrome, server: &Server, requests: &Value) -> Value {
    let script = format!(
        "const done = arguments[arguments.length - 1];
         Promise.all({requests}.map(([path, options]) =>
           fetch('{}' + path, options).then((answer) => answer.status, () => null))).then(done)",
        server.url
    );
    chrome.run_async(&script).await
}

async fn page_of_another_origin_can_get_a_token_and_nothing_else() {
    let server = Server::start_at(TestClock::real(), Database::sqlite(), &[]).await;
    let agent = server.agent("page", &["agents:read"]).await;
    let chrome = Chrome::start(&server.url, Display::DEFAULT).await;
    chrome.goto(&serve_page().await).await;
    let script = format!(
        "const done = arguments[arguments.length - 1];
         (async () => {{
           const asked = {{ headers: {{ 'MCP-Protocol-Version': '2025-11-25' }} }};
           const metadata = await (await fetch('{url}/.well-known/oauth-authorization-server', asked)).json();
           const keys = await (await fetch('{url}/.well-known/jwks.json')).json();
           const form = new URLSearchParams({{ grant_type: 'client_credentials' }});
           const headers = {{ Authorization: 'Basic ' + btoa('{id}:{key}'), DPoP: 'junk' }};
           const bound = await fetch('{url}/oauth/token', {{ method: 'POST', body: form, headers }});
           delete headers.DPoP;
           const token = await (await fetch('{url}/oauth/token', {{ method: 'POST', body: form, headers }})).json();
           return [metadata.issuer, keys.keys.length > 0, bound.status, bound.headers.get('DPoP-Nonce') !== null, token.scope];
         }})().then(done, (error) => done(String(error)))",
        url = server.url,
        id = agent.id,
        key = agent.raw_key,
    );
    assert_eq!(chrome.run_async(&script).await, json!(["https://aims.test", true, 400, true, "agents:read"]));
    let bearer = json!({ "headers": { "Authorization": format!("Bearer {}", agent.client.token()) } });
    let hidden = json!([
        ["/agents", bearer],
        ["/api/v1/agents", bearer],
        ["/_health", {}],
        ["/console/sign-in", {}],
        ["/oauth/introspect", { "method": "POST" }],
    ]);
    assert_eq!(fetch_statuses(&chrome, &server, &hidden).await, json!([null, null, null, null, null]));
}

async fn page_of_a_configured_origin_can_call_the_api() {
    let page = serve_page().await;
    let server = Server::start_at(TestClock::real(), Database::sqlite(), &[("CORS_ORIGINS", page.as_str())]).await;
    let agent = server.agent("page", &["agents:read"]).await;
    let chrome = Chrome::start(&server.url, Display::DEFAULT).await;
    chrome.goto(&page).await;
    let bearer = json!({ "headers": { "Authorization": format!("Bearer {}", agent.client.token()) } });
    let patch = json!({
        "method": "PATCH",
        "headers": { "Authorization": format!("Bearer {}", agent.client.token()), "Content-Type": "application/json" },
        "body": "{}",
    });
    let requests = json!([
        ["/agents", bearer],
        [format!("/api/v1/agents/{}", agent.id), patch],
        ["/auth/token", { "method": "POST", "headers": { "X-API-Key": agent.raw_key } }],
        ["/console/sign-in", {}],
        ["/agents", { "credentials": "include" }],
    ]);
    assert_eq!(fetch_statuses(&chrome, &server, &requests).await, json!([200, 403, 200, null, null]));
}
