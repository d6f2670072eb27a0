//! IP addresses and networks.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Returns the address that limits per client apply to: an IPv4 address itself, or the start of the /64 network of an
/// IPv6 address, because a host usually controls a whole /64.
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

/// Returns the network with this prefix length that contains an address. An IPv4-mapped IPv6 address is treated as
/// IPv4.
#[must_use]
pub fn network_of(ip: IpAddr, prefix_len: u8) -> IpNet {
    let ip = ip.to_canonical();
    IpNet::new(ip, prefix_len).map_or_else(|_| ip.into(), |network| network.trunc())
}

/// Parses networks and addresses separated by spaces or commas. IPv4-mapped IPv6 addresses (`::ffff:192.0.2.1`) become
/// IPv4, as they do for clients.
///
/// # Errors
/// Returns the first part that is neither.
pub fn parse_networks(text: &str) -> Result<Vec<IpNet>, String> {
    let parse = |part: &str| {
        let address = || part.parse::<IpAddr>().ok().map(IpNet::from);
        part.parse::<IpNet>().ok().or_else(address).map(canonical).ok_or_else(|| part.to_owned())
    };
    text.split([',', ' ']).filter(|part| !part.is_empty()).map(parse).collect()
}

fn canonical(network: IpNet) -> IpNet {
    /// Bits before the IPv4 address (RFC 4291 §2.5.5.2).
    const PREFIX: u8 = 96;
    let mapped = |network: Ipv6Net| {
        let v4 = network.addr().to_ipv4_mapped()?;
        Ipv4Net::new(v4, network.prefix_len().checked_sub(PREFIX)?).ok()
    };
    match network {
        IpNet::V6(v6) => mapped(v6).map_or(network, IpNet::V4),
        IpNet::V4(_) => network,
    }
}

/// Returns true if an address is globally routable: not loopback, private, link-local or otherwise special-purpose
/// (IANA registries for IPv4 and IPv6, RFC 6890).
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let special = v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_documentation()
                || matches!(
                    (a, b, c),
                    (0 | 240..=255, ..) | (100, 64..=127, _) | (192, 0, 0) | (192, 88, 99) | (198, 18 | 19, _)
                );
            !special
        }
        IpAddr::V6(v6) => {
            // Only 2000::/3 is global unicast, and parts of it are for documentation or for tunnels to IPv4.
            let [a, b, ..] = v6.segments();
            let special = (a == 0x2001 && (b < 0x200 || b == 0xdb8)) || a == 0x2002 || (a == 0x3fff && b < 0x1000);
            a & 0xe000 == 0x2000 && !special
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{is_public, parse_networks};

    #[test]
    fn ipv4_mapped_networks_are_parsed_as_ipv4() {
        for (written, read) in [
            ("10.0.0.1", "10.0.0.1/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("::FFFF:0a00:0001", "10.0.0.1/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            // These contain more than IPv4 addresses. Client addresses in them are IPv6.
            ("::ffff:0:0/95", "::ffff:0.0.0.0/95"),
            ("::/0", "::/0"),
            ("::1", "::1/128"),
            ("::10.0.0.1", "::a00:1/128"),
            ("2001:DB8::/32", "2001:db8::/32"),
        ] {
            let networks = parse_networks(written).unwrap();
            assert_eq!(networks.iter().map(ToString::to_string).collect::<Vec<_>>(), [read], "{written}");
        }
        for bad in ["10.0.0.1/33", "::ffff:10.0.0.1/129", "[::1]", "10.0.0.1:80", "localhost", "010.0.0.1"] {
            assert_eq!(parse_networks(bad).unwrap_err(), bad);
        }
    }

    #[test]
    fn special_purpose_addresses_are_not_public() {
        for public in
            ["1.1.1.1", "8.8.8.8", "172.32.0.1", "192.0.1.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"]
        {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for special in [
            "127.0.0.1",
            "127.255.255.254",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::7f00:1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
    }
}
