//! Decides which refusals of a window get a record of their own.
//!
//! The total has four shares. One is common: first come, first served. One is reserved for agents, one for people and
//! their accounts, and one for quiet networks. Once the common share is used up, each principal or network may use its
//! reserve until it has [`FEW`] records. So that a flood from many networks cannot use up the reserve for quiet ones,
//! every wider network around an address has a limit too: half the limit of the next wider one.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;

use super::KnownPrincipal;
use crate::domain::{
    audit::RefusalBounds,
    credential::network::{network, network_of},
};

/// Records that a principal or a network may have before it is noisy.
const FEW: u32 = 10;
/// Prefix lengths of the limited networks around an address, the widest first: the sizes in which registries, providers
/// and sites get addresses.
const IPV4_WIDTHS: &[u8] = &[0, 8, 16, 24, 32];
const IPV6_WIDTHS: &[u8] = &[0, 16, 32, 40, 48, 64];

/// A count of records with a limit.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Counter {
    Known(KnownPrincipal),
    Network(IpNet),
    /// The records of this network from the share for quiet networks.
    Quiet(IpNet),
    Common,
    Agents,
    People,
}

type Limit = (Counter, u32);

/// The records of a window. Its size is limited because the number of records is.
#[derive(Default)]
pub(super) struct Budget(HashMap<Counter, u32>);

impl Budget {
    /// Counts a record and returns true if one of the shares has room for it.
    pub(super) fn admit(&mut self, known: Option<KnownPrincipal>, ip: Option<IpAddr>, bounds: RefusalBounds) -> bool {
        shares(known, ip, bounds).iter().any(|limits| self.take(limits))
    }

    fn take(&mut self, limits: &[Limit]) -> bool {
        let has_room = limits.iter().all(|(counter, max)| self.0.get(counter).is_none_or(|count| count < max));
        if has_room {
            for (counter, _) in limits {
                *self.0.entry(*counter).or_default() += 1;
            }
        }
        has_room
    }

    pub(super) fn absorb(&mut self, other: Self) {
        for (counter, count) in other.0 {
            *self.0.entry(counter).or_default() += count;
        }
    }
}

/// Returns the shares that a record may use, each with all limits that the record must keep there.
fn shares(known: Option<KnownPrincipal>, ip: Option<IpAddr>, bounds: RefusalBounds) -> Vec<Vec<Limit>> {
    let quarter = bounds.total / 4;
    let own = match (known, ip) {
        (Some(known), _) => Some(Counter::Known(known)),
        (None, Some(ip)) => Some(Counter::Network(network(ip).into())),
        (None, None) => None,
    };
    let own_up_to = |max: u32| own.map(|own| (own, max.min(bounds.each))).into_iter();
    let mut shares = vec![own_up_to(u32::MAX).chain([(Counter::Common, bounds.total - 3 * quarter)]).collect()];
    if let Some(known) = known {
        let reserve = match known {
            KnownPrincipal::Agent(_) => Counter::Agents,
            KnownPrincipal::Person(_) | KnownPrincipal::Account(_) => Counter::People,
        };
        shares.push(own_up_to(FEW).chain([(reserve, quarter)]).collect());
    }
    if let Some(ip) = ip {
        shares.push(own_up_to(FEW).chain(quiet(ip, quarter)).collect());
    }
    shares
}

/// IPv4 and IPv6 each get half of the share for quiet networks.
fn quiet(ip: IpAddr, share: u32) -> impl Iterator<Item = Limit> {
    let ip = ip.to_canonical();
    let widths = if ip.is_ipv4() { IPV4_WIDTHS } else { IPV6_WIDTHS };
    widths.iter().scan(share, move |max, width| {
        *max = (*max / 2).max(1);
        Some((Counter::Quiet(network_of(ip, *width)), *max))
    })
}
