//! Addresses as limits see them.

use std::net::{IpAddr, Ipv6Addr};

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
