//! Fetches small JSON documents from other hosts. A URL from a caller cannot reach this machine or its network, and a
//! slow host cannot block the service.

use std::{net::IpAddr, net::SocketAddr, sync::Arc, time::Duration};

use reqwest::{
    Client, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use serde_json::Value;

use crate::{
    domain::{
        credential::network::is_public,
        text::json::{self},
    },
    telemetry::traces,
};

/// Maximum time of a request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum size of a document, in bytes.
const SIZE_MAX: usize = 256 * 1_024;

/// Why a document cannot be fetched. For the log.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL is not https, or its host has no public address.
    #[error("the URL is not https, or its host has no public IP address")]
    Address,
    /// The request failed or timed out.
    #[error("the request failed")]
    Connection(#[from] reqwest::Error),
    /// The status is not 200.
    #[error("the response has the status {0}")]
    Status(u16),
    /// The response is too large.
    #[error("the response is larger than 256 KiB")]
    Size,
    /// The response is not the expected document.
    #[error("the response is not the expected document")]
    Content,
}

/// Fetches a JSON document over https. With `allow_private`, http and private addresses are allowed too.
///
/// # Errors
/// [`FetchError`].
pub async fn json(url: &str, allow_private: bool) -> Result<Value, FetchError> {
    let url = Url::parse(url).map_err(|_| FetchError::Address)?;
    // Host names are checked when they are resolved. IP addresses are not resolved, so they are checked here.
    let literal = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
    if !allow_private && (url.scheme() != "https" || literal.is_some_and(|ip| !is_public(ip))) {
        return Err(FetchError::Address);
    }
    let client = Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .https_only(!allow_private)
        .dns_resolver(Arc::new(Resolver { allow_private }))
        .build()?;
    let span = traces::Span::of_outgoing("GET", url.host_str().unwrap_or_default());
    let sending = async {
        let request = client.get(url).header("accept", "application/json");
        let request =
            traces::traceparent().into_iter().fold(request, |request, (name, value)| request.header(name, value));
        request.send().await
    };
    let mut response = span.run(sending).await.inspect_err(|_| span.failed())?;
    span.responded(response.status());
    if response.status() != 200 {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > SIZE_MAX {
            return Err(FetchError::Size);
        }
    }
    json::read(&body).map_err(|_| FetchError::Content)
}

/// Resolves host names to their allowed addresses. The client connects to exactly these, so DNS rebinding has no
/// effect.
struct Resolver {
    allow_private: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|address| allow_private || is_public(address.ip())).collect();
            if allowed.is_empty() {
                return Err(FetchError::Address.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}
