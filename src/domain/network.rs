//! Addresses as limits see them.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// The unit that limits apply to: an IPv4 address itself, but all of an IPv6 /64, which is what one host is given.
#[must_use]
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// Reads networks and addresses, separated by spaces or commas.
///
/// # Errors
/// The first part that is neither.
pub fn parse_networks(text: &str) -> Result<Vec<IpNet>, String> {
    let parse = |part: &str| {
        let address = || part.parse::<IpAddr>().ok().map(IpNet::from);
        part.parse::<IpNet>().ok().or_else(address).ok_or_else(|| part.to_owned())
    };
    text.split([',', ' ']).filter(|part| !part.is_empty()).map(parse).collect()
}
