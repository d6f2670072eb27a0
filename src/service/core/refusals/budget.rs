//! Which refusals of a window are recorded one by one.
//!
//! The total bound has four parts. One is common: first come, first served. One is reserved for agents, one for people and their
//! accounts, and one for quiet networks. Once the common part is used up, each principal or network may draw on its reserve until
//! it has [`FEW`] records. To keep a flood from many networks from using up the reserve for quiet ones, every wider network around an
//! address has a bound too: half the bound of the next wider one.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;

use super::Known;
use crate::domain::{
    audit::RefusalBounds,
    credential::network::{around, network},
};

/// Records that a principal or a network may have before it counts as noisy.
const FEW: u32 = 10;
/// Widths of the networks around an address that are bounded, the widest first: those in which registries, providers and sites
/// are given addresses.
const IPV4_WIDTHS: &[u8] = &[0, 8, 16, 24, 32];
const IPV6_WIDTHS: &[u8] = &[0, 16, 32, 40, 48, 64];

/// What records are counted against.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Account {
    Known(Known),
    Network(IpNet),
    /// What this network drew from the part for quiet networks.
    Quiet(IpNet),
    Common,
    Agents,
    People,
}

type Bound = (Account, u32);

/// The records of a window. It holds no more than was recorded, so it is bounded as the records are.
#[derive(Default)]
pub(super) struct Budget(HashMap<Account, u32>);

impl Budget {
    /// Counts a record and returns true, if one of the parts has room for it.
    pub(super) fn admit(&mut self, known: Option<Known>, ip: Option<IpAddr>, bounds: RefusalBounds) -> bool {
        ways(known, ip, bounds).iter().any(|way| self.take(way))
    }

    fn take(&mut self, way: &[Bound]) -> bool {
        let has_room = way.iter().all(|(account, most)| self.0.get(account).is_none_or(|taken| taken < most));
        if has_room {
            for (account, _) in way {
                *self.0.entry(*account).or_default() += 1;
            }
        }
        has_room
    }

    pub(super) fn absorb(&mut self, other: Self) {
        for (account, taken) in other.0 {
            *self.0.entry(account).or_default() += taken;
        }
    }
}

/// The bounds that a record must keep, for each part that it may be counted against.
fn ways(known: Option<Known>, ip: Option<IpAddr>, bounds: RefusalBounds) -> Vec<Vec<Bound>> {
    let quarter = bounds.total / 4;
    let own = match (known, ip) {
        (Some(known), _) => Some(Account::Known(known)),
        (None, Some(ip)) => Some(Account::Network(network(ip).into())),
        (None, None) => None,
    };
    let own_up_to = |most: u32| own.map(|own| (own, most.min(bounds.each))).into_iter();
    let mut ways = vec![own_up_to(u32::MAX).chain([(Account::Common, bounds.total - 3 * quarter)]).collect()];
    if let Some(known) = known {
        let reserve = match known {
            Known::Agent(_) => Account::Agents,
            Known::Person(_) | Known::Account(_) => Account::People,
        };
        ways.push(own_up_to(FEW).chain([(reserve, quarter)]).collect());
    }
    if let Some(ip) = ip {
        ways.push(own_up_to(FEW).chain(quiet(ip, quarter)).collect());
    }
    ways
}

/// IPv4 and IPv6 each get half of the part for quiet networks.
fn quiet(ip: IpAddr, share: u32) -> impl Iterator<Item = Bound> {
    let ip = ip.to_canonical();
    let widths = if ip.is_ipv4() { IPV4_WIDTHS } else { IPV6_WIDTHS };
    widths.iter().scan(share, move |most, width| {
        *most = (*most / 2).max(1);
        Some((Account::Quiet(around(ip, *width)), *most))
    })
}
