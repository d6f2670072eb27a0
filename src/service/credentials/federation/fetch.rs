//! Reads small JSON documents from elsewhere, without letting whoever names the address reach into this machine or its network, or
//! hold the service up.

use std::{net::IpAddr, net::SocketAddr, sync::Arc, time::Duration};

use reqwest::{
    Client, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use serde_json::Value;

use crate::domain::{
    credential::network::is_public,
    text::json::{self},
};

/// Longest time that a document may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time that a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest document, in bytes.
const SIZE_MAX: usize = 256 * 1_024;

/// Why there is no document. For the log.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The address is not one that may be asked.
    #[error("the address is not https, or not that of a host of the public internet")]
    Address,
    /// Nobody answers in time.
    #[error("there is no answer")]
    Connection(#[from] reqwest::Error),
    /// The answer is none.
    #[error("the answer has the status {0}")]
    Status(u16),
    /// The answer has no end.
    #[error("the answer is larger than 256 KiB")]
    Size,
    /// The answer is something else.
    #[error("the answer is no such document")]
    Content,
}

/// Reads a JSON document over https. Where private addresses are allowed, over http as well, and from anywhere.
///
/// # Errors
/// [`FetchError`].
pub async fn json(url: &str, allow_private: bool) -> Result<Value, FetchError> {
    let url = Url::parse(url).map_err(|_| FetchError::Address)?;
    // Names are checked when they are resolved; what is no name is not resolved.
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
    let mut response = client.get(url).header("accept", "application/json").send().await?;
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

/// Resolves names to those of their addresses that may be asked. What it gives is what is connected to, so that a name which
/// changes its address meanwhile gains nothing.
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
