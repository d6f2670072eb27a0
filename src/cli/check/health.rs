//! `aims healthcheck`

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use reqwest::{Client, Response, Url, redirect::Policy};
use serde_json::Value;

use crate::cli::{Failure, config};

/// Time limit of the request. A readiness check takes at most 3 seconds.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of the response, in bytes.
const SIZE_MAX: usize = 16 * 1_024;
/// Maximum length of the reason that is shown, in characters.
const SHOWN_MAX: usize = 500;

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The URL of the service, such as `http://10.0.0.5:8000`. By default the service at `LISTEN_ADDR`.
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
}

pub(in crate::cli) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let urls = match arguments.url {
        Some(url) => vec![url],
        None => local_urls(config()?.listen_addr)?,
    };
    let mut failure = "no address to ask".to_owned();
    for url in urls {
        match ask(url).await {
            Ok(response) => return judge(response).await,
            Err(error) => failure = chain(&error),
        }
    }
    Err(format!("the service does not respond: {failure}").into())
}

/// Returns where a service that listens on `address` can be reached from this machine. A wildcard IPv6 address usually
/// accepts IPv4 too, which is the only way if the loopback interface has no IPv6 address.
fn local_urls(address: SocketAddr) -> Result<Vec<Url>, Failure> {
    let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    let hosts = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![v4],
        IpAddr::V6(ip) if ip.is_unspecified() => vec![v6, v4],
        ip => vec![ip],
    };
    hosts.into_iter().map(|ip| Ok(Url::parse(&format!("http://{}", SocketAddr::new(ip, address.port())))?)).collect()
}

async fn ask(mut url: Url) -> Result<Response, reqwest::Error> {
    url.set_path("/readyz");
    let client = Client::builder().no_proxy().redirect(Policy::none()).timeout(TIMEOUT);
    // A container without certificate authorities can still ask over plain HTTP.
    let client = if url.scheme() == "https" { client } else { client.tls_certs_only([]) };
    client.build()?.get(url).send().await
}

async fn judge(mut response: Response) -> Result<ExitCode, Failure> {
    let status = response.status();
    let mut body = Vec::new();
    while body.len() < SIZE_MAX
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    match (status.as_u16(), body.get("status").and_then(Value::as_str)) {
        (200, Some("ok")) => Ok(ExitCode::SUCCESS),
        (503, Some("failing")) => Err(format!("not ready: {}", failing(&body)).into()),
        (status, _) => Err(format!("the response is not that of AIMS: it has the status {status}").into()),
    }
}

/// Lists the failing checks with their reasons. The text comes from the network, so it is cut and made harmless.
fn failing(body: &Value) -> String {
    let checks = body.get("checks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |check: &Value, member: &str| check.get(member).and_then(Value::as_str).map(str::to_owned);
    let failing = checks.iter().filter(|check| text(check, "status").as_deref() == Some("failing"));
    let described = failing.filter_map(|check| {
        let (name, reason) = (text(check, "name")?, text(check, "reason"));
        Some(reason.map_or(name.clone(), |reason| format!("{name} ({reason})")))
    });
    let described = described.collect::<Vec<_>>().join(", ");
    described.chars().filter(|c| !c.is_control()).take(SHOWN_MAX).collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_addresses_are_asked_on_the_loopback_interface() {
        for (listen, expected) in [
            ("127.0.0.1:8000", &["http://127.0.0.1:8000/"][..]),
            ("10.0.0.5:80", &["http://10.0.0.5/"]),
            ("0.0.0.0:8000", &["http://127.0.0.1:8000/"]),
            ("[::]:8000", &["http://[::1]:8000/", "http://127.0.0.1:8000/"]),
            ("[::1]:8000", &["http://[::1]:8000/"]),
        ] {
            let urls: Vec<_> = local_urls(listen.parse().unwrap()).unwrap().into_iter().map(String::from).collect();
            assert_eq!(urls, expected, "{listen}");
        }
    }

    #[test]
    fn a_response_cannot_write_to_the_terminal() {
        let check = serde_json::json!({ "name": "x\u{1b}[2J", "status": "failing", "reason": "y\n".repeat(1_000) });
        let shown = failing(&serde_json::json!({ "checks": [check, 1, null, { "status": "failing" }] }));
        assert!(shown.starts_with("x[2J (yyy") && shown.len() == SHOWN_MAX && !shown.contains(char::is_control));
    }
}
