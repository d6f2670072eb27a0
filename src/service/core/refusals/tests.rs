use std::net::Ipv6Addr;

use uuid::Uuid;

use super::*;

const BOUNDS: RefusalBounds = RefusalBounds { each: 60, total: 1_000 };
const START: Timestamp = Timestamp::from_secs(1_767_268_800);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn agent(n: u128) -> KnownPrincipal {
    KnownPrincipal::Agent(AgentId(Uuid::from_u128(n)))
}

fn person(n: u128) -> KnownPrincipal {
    KnownPrincipal::Person(AdministratorId(Uuid::from_u128(n)))
}

fn account(n: u128) -> KnownPrincipal {
    KnownPrincipal::Account(AdministratorId(Uuid::from_u128(n)))
}

/// Returns the first address of the `n`th network of this width that starts at `within`.
fn nth(within: &str, width: u32, n: u32) -> IpAddr {
    let within: Ipv6Addr = within.parse().unwrap();
    Ipv6Addr::from_bits(within.to_bits() | (u128::from(n) << (128 - width))).into()
}

fn v4(n: u32) -> IpAddr {
    IpAddr::V4((u32::from_be_bytes([100, 0, 0, 0]) + n).into())
}

fn admit(refusals: &Refusals, known: impl Into<Option<KnownPrincipal>>, ip: IpAddr, now: Timestamp) -> bool {
    refusals.admit(known.into(), Some(ip), now, BOUNDS)
}

/// Adds refusals of unknown principals. Returns how many of them get a record.
fn flood(refusals: &Refusals, addresses: impl Iterator<Item = IpAddr>) -> u32 {
    addresses.map(|ip| u32::from(admit(refusals, None, ip, START))).sum()
}

#[test]
fn a_flood_from_many_networks_leaves_room_for_others() {
    type Flood = (&'static str, fn(u32) -> IpAddr);
    let floods: [Flood; 6] = [
        ("one site", |n| nth("2001:db8::", 64, n)),
        ("44 sites", |n| nth("2001:db8::", 56, n)),
        ("a provider", |n| nth("2001:db8::", 48, n)),
        ("many providers", |n| nth("2001::", 32, n)),
        ("all of IPv6", |n| nth("::", 16, n)),
        ("IPv4", |n| v4(n * 256)),
    ];
    for (name, address) in floods {
        let refusals = Refusals::default();
        let recorded = flood(&refusals, (0..11_200).map(address));
        assert!((250..=375).contains(&recorded), "{name}: {recorded}");
        for n in 0..5 {
            assert!(admit(&refusals, account(1), ip("203.0.113.9"), START), "{name}: sign-in {n}");
        }
        assert!(admit(&refusals, agent(1), ip("203.0.113.9"), START), "{name}: an agent");
        assert!(admit(&refusals, None, ip("203.0.113.9"), START), "{name}: a quiet address");
        let other = if name == "all of IPv6" { "203.0.113.10" } else { "2a00::1" };
        assert!(admit(&refusals, None, ip(other), START), "{name}: a quiet address elsewhere");
        assert_eq!(refusals.suppressed(), u64::from(11_200 - recorded), "{name}");
    }
}

#[test]
fn a_flood_from_sites_leaves_room_for_their_neighbours() {
    for width in [64, 56] {
        let refusals = Refusals::default();
        flood(&refusals, (0..11_200).map(|n| nth("2001:db8::", width, n)));
        assert!(admit(&refusals, None, ip("2001:db8:ffff::1"), START), "/{width}");
    }
}

#[test]
fn the_total_is_limited_whoever_is_refused() {
    let refusals = Refusals::default();
    let mut recorded = 0;
    for n in 0..3_000_u32 {
        for known in [None, Some(agent(n.into())), Some(account(n.into())), Some(person(n.into()))] {
            for address in [v4(n << 12), nth("2000::", 20, n)] {
                recorded += u32::from(admit(&refusals, known, address, START));
            }
        }
    }
    assert!(recorded <= BOUNDS.total, "{recorded}");
    assert_eq!(refusals.suppressed(), u64::from(3_000 * 8 - recorded));
    let window = refusals.end(START, true).unwrap();
    let (named, others) = window.window.as_ref().unwrap().suppressed.summary();
    assert_eq!(named.len(), 20);
    assert_eq!(named.iter().map(|(_, count)| count).sum::<u64>() + others, u64::from(3_000 * 8 - recorded));
}

#[test]
fn each_principal_and_network_has_a_limit() {
    let refusals = Refusals::default();
    for known in [Some(agent(1)), Some(account(1)), None] {
        let recorded = (0..1_000).filter(|n| {
            let address = if known.is_some() { v4(*n) } else { v4(0) };
            admit(&refusals, known, address, START)
        });
        assert_eq!(recorded.count(), 60, "{known:?}");
    }
}

#[test]
fn guessing_a_password_leaves_room_for_the_owner_of_the_account() {
    let refusals = Refusals::default();
    flood(&refusals, (0..1_000).map(v4));
    for n in 0..1_000 {
        admit(&refusals, account(1), v4(n), START);
    }
    assert!(admit(&refusals, person(1), v4(0), START));
}

#[test]
fn a_new_minute_has_a_new_budget() {
    let later = START.plus(WINDOW);
    let refusals = Refusals::default();
    // Nothing was suppressed, so the next window can begin without a summary.
    assert_eq!((0..60).filter(|_| admit(&refusals, None, v4(0), START)).count(), 60);
    assert!(admit(&refusals, None, v4(0), later));
    // The clock was set back.
    assert_eq!((0..61).filter(|_| admit(&refusals, None, v4(0), START)).count(), 60);
    assert!(refusals.end(START, false).is_none());
    // A window continues until its counts are recorded.
    assert!(!admit(&refusals, None, v4(0), later));
    drop(refusals.end(later, false).unwrap());
    assert_eq!(refusals.suppressed(), 2);
    let ended = refusals.end(later, false).unwrap();
    assert!(admit(&refusals, None, v4(0), later));
    ended.recorded();
    assert_eq!(refusals.suppressed(), 0);
}

#[test]
fn a_summary_names_the_networks_with_the_most_refusals() {
    let summary = |addresses: &mut dyn Iterator<Item = IpAddr>| {
        let mut suppressed = Suppressed::default();
        addresses.for_each(|ip| suppressed.add(None, Some(ip)));
        suppressed.summary()
    };
    let network = |text: &str| Source::Network(text.parse().unwrap());
    // A few hosts are named individually.
    let (named, others) = summary(&mut [ip("203.0.113.1"), ip("203.0.113.1"), ip("2001:db8::1")].into_iter());
    let hosts = [(Source::Host("203.0.113.1".parse().unwrap()), 2), (Source::Host("2001:db8::".parse().unwrap()), 1)];
    assert_eq!((named.as_slice(), others), (hosts.as_slice(), 0));
    // Of many hosts, the network around them is named.
    for (n, expected) in [(200, "2001:db8::/56"), (11_200, "2001:db8::/48")] {
        let (named, others) = summary(&mut (0..n).map(|n| nth("2001:db8::", 64, n)));
        assert_eq!((named.as_slice(), others), ([(network(expected), u64::from(n))].as_slice(), 0));
    }
    assert_eq!(summary(&mut (0..200).map(v4)).0, [(network("100.0.0.0/24"), 200)]);
    // Hosts without a common network are named individually.
    let (named, others) = summary(&mut (0..200).map(|n| v4(n << 16)));
    assert!(named.iter().all(|(source, count)| matches!(source, Source::Host(_)) && *count == 1), "{named:?}");
    assert_eq!((named.len(), others), (10, 190));
    // A host with many refusals is named in a flood that is too large to count each network, and of another address
    // family.
    let loud = ip("203.0.113.1");
    let flood = (0..200_000).flat_map(|n| [nth("2001:db8::", 64, n), nth("2001:db9::", 48, n), loud]);
    let (named, others) = summary(&mut flood.into_iter());
    assert!(named.contains(&(Source::Host(loud), 200_000)), "{named:?}");
    assert_eq!(named.iter().map(|(_, count)| count).sum::<u64>() + others, 600_000);
}
