//! The client's IP address, used for rate limits and audit records.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::extract::{ConnectInfo, Request};
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The IP address of the client that sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientIp(pub IpAddr);

/// The proxies whose `X-Forwarded-For` header is trusted.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// Trusts all proxies in these networks.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks.into())
    }

    fn contain(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&ip))
    }

    /// Returns the peer, or the rightmost address in `X-Forwarded-For` that is not a trusted proxy if the peer is one.
    /// Clients can forge any addresses to the left of it.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let lines = headers.get_all(FORWARDED).iter().rev();
        // Split as bytes: invalid UTF-8 from the client must not hide the address that a proxy appended to the same
        // line.
        let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        for hop in hops {
            if !self.contain(client) {
                break;
            }
            let Some(ip) = str::from_utf8(hop).ok().and_then(|hop| parse_hop(hop.trim())) else { break };
            client = ip.to_canonical();
        }
        client
    }
}

/// Parses an address as proxies write it: bare, in brackets, or with a port.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bare = hop.parse().ok();
    let with_port = || hop.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    bare.or_else(with_port).or_else(in_brackets)
}

/// Stores the [`ClientIp`] in the extensions of a request.
pub(in crate::web) fn record(proxies: &TrustedProxies, request: &mut Request) {
    if let Some(&ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>() {
        let client = ClientIp(proxies.client(peer.ip(), request.headers()));
        request.extensions_mut().insert(client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::credential::network::parse_networks;

    fn client(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let proxies = TrustedProxies::new(parse_networks(&trusted.join(",")).unwrap());
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED, line.parse().unwrap());
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn clients_cannot_forge_their_address() {
        assert_eq!(client(&[], "203.0.113.9", &["10.0.0.1"]), "203.0.113.9");
        assert_eq!(client(&["10.0.0.0/8"], "203.0.113.9", &["10.0.0.1"]), "203.0.113.9");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.2", &["1.1.1.1, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.2", &["1.1.1.1", "203.0.113.9, 10.0.0.3"]), "203.0.113.9");
    }

    #[test]
    fn an_invalid_hop_ends_the_search() {
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.2", &["1.1.1.1, junk"]), "10.0.0.2");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.2", &["junk, 10.0.0.3"]), "10.0.0.3");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.2", &[]), "10.0.0.2");
    }

    #[test]
    fn invalid_utf8_does_not_hide_other_hops() {
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let from = |line: &[u8]| {
            let headers = HeaderMap::from_iter([(FORWARDED, http::HeaderValue::from_bytes(line).unwrap())]);
            proxies.client([10, 0, 0, 2].into(), &headers).to_string()
        };
        assert_eq!(from(b"\xff, 203.0.113.9"), "203.0.113.9");
        assert_eq!(from(b"1.1.1.1, \xff, 203.0.113.9, 10.0.0.3"), "203.0.113.9");
        assert_eq!(from(b"203.0.113.9, \xff"), "10.0.0.2");
    }

    #[test]
    fn addresses_are_parsed_in_every_notation() {
        assert_eq!(client(&["::1/128"], "::1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client(&["::1/128"], "::1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(client(&["::1/128"], "::1", &["203.0.113.9:1234"]), "203.0.113.9");
        for trusted in ["10.0.0.0/8", "::ffff:10.0.0.0/104", "::ffff:10.0.0.1"] {
            for peer in ["10.0.0.1", "::ffff:10.0.0.1"] {
                assert_eq!(client(&[trusted], peer, &["::ffff:203.0.113.9"]), "203.0.113.9", "{trusted} {peer}");
            }
        }
    }
}
