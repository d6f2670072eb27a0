//! Counts the refusals that do not get a record of their own.

use std::{cmp::Reverse, collections::HashMap, net::IpAddr};

use ipnet::IpNet;

use super::KnownPrincipal;
use crate::domain::credential::network::network_of;

/// Maximum number of principals, and of networks of each family, with a count of their own.
const COUNTERS_MAX: usize = 4_096;
/// Maximum number of principals, and of networks, that a summary names.
const NAMED_MAX: usize = 10;
/// Bits by which the prefix of the next wider network is shorter.
const STEP: u8 = 8;

/// A source of refusals that a summary names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Known(KnownPrincipal),
    /// A host: an IPv4 address, or the first address of an IPv6 `/64`.
    Host(IpAddr),
    Network(IpNet),
}

/// Counts by principal, or by network if the principal is not known.
pub(super) struct Suppressed {
    known: HashMap<KnownPrincipal, u64>,
    ipv4: Networks,
    ipv6: Networks,
    /// Refusals without a principal or network of their own.
    other: u64,
}

impl Default for Suppressed {
    fn default() -> Self {
        Self { known: HashMap::new(), ipv4: Networks::of_hosts(32, 16), ipv6: Networks::of_hosts(64, 32), other: 0 }
    }
}

impl Suppressed {
    pub(super) fn add(&mut self, known: Option<KnownPrincipal>, ip: Option<IpAddr>) {
        if let Some(known) = known.filter(|known| self.known.len() < COUNTERS_MAX || self.known.contains_key(known)) {
            *self.known.entry(known).or_default() += 1;
            return;
        }
        match ip.map(|ip| ip.to_canonical()) {
            Some(ip @ IpAddr::V4(_)) => self.ipv4.add(ip, 1),
            Some(ip @ IpAddr::V6(_)) => self.ipv6.add(ip, 1),
            None => self.other += 1,
        }
    }

    pub(super) fn absorb(&mut self, other: Self) {
        for (known, count) in other.known {
            if self.known.len() < COUNTERS_MAX || self.known.contains_key(&known) {
                *self.known.entry(known).or_default() += count;
            } else {
                self.other += count;
            }
        }
        self.ipv4.absorb(other.ipv4);
        self.ipv6.absorb(other.ipv6);
        self.other += other.other;
    }

    pub(super) fn total(&self) -> u64 {
        self.known.values().sum::<u64>() + self.ipv4.total() + self.ipv6.total() + self.other
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// Returns the principals and networks with the most refusals, and the number of all other refusals.
    pub(super) fn summary(&self) -> (Vec<(Source, u64)>, u64) {
        let known = self.known.iter().map(|(known, count)| (Source::Known(*known), *count)).collect();
        let mut networks = self.ipv4.grouped().sources();
        networks.extend(self.ipv6.grouped().sources());
        let mut named = largest(known);
        named.extend(largest(networks));
        let sum: u64 = named.iter().map(|(_, count)| count).sum();
        (named, self.total() - sum)
    }
}

/// Counts of networks with the same prefix length.
#[derive(Clone)]
struct Networks {
    counts: HashMap<IpNet, u64>,
    /// The prefix length.
    width: u8,
    /// The prefix length of a single host.
    host: u8,
    /// The shortest prefix that [`Networks::grouped`] chooses.
    widest: u8,
}

impl Networks {
    fn of_hosts(host: u8, widest: u8) -> Self {
        Self { counts: HashMap::new(), width: host, host, widest }
    }

    /// Adds to the count of a network. Switches to wider networks once there are too many.
    fn add(&mut self, ip: IpAddr, count: u64) {
        let mut network = network_of(ip, self.width);
        while self.counts.len() >= COUNTERS_MAX && !self.counts.contains_key(&network) {
            *self = self.widened();
            network = network_of(ip, self.width);
        }
        *self.counts.entry(network).or_default() += count;
    }

    fn absorb(&mut self, other: Self) {
        while self.width > other.width {
            *self = self.widened();
        }
        for (network, count) in other.counts {
            self.add(network.addr(), count);
        }
    }

    fn widened(&self) -> Self {
        let mut widened = Self { counts: HashMap::new(), width: self.width.saturating_sub(STEP), ..*self };
        for (network, count) in &self.counts {
            *widened.counts.entry(network_of(network.addr(), widened.width)).or_default() += count;
        }
        widened
    }

    fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Groups the counts by the narrowest networks of which the largest ones have at least half of all refusals.
    /// Returns them unchanged if no width achieves this.
    fn grouped(&self) -> Self {
        let mut candidate = self.clone();
        loop {
            let named: u64 = largest(candidate.sources()).iter().map(|(_, count)| count).sum();
            if named.saturating_mul(2) >= self.total() {
                return candidate;
            }
            if candidate.width <= self.widest {
                return self.clone();
            }
            candidate = candidate.widened();
        }
    }

    fn sources(&self) -> Vec<(Source, u64)> {
        let source = |network: &IpNet| match network {
            network if self.width == self.host => Source::Host(network.addr()),
            network => Source::Network(*network),
        };
        self.counts.iter().map(|(network, count)| (source(network), *count)).collect()
    }
}

fn largest(mut sources: Vec<(Source, u64)>) -> Vec<(Source, u64)> {
    sources.sort_by_key(|(_, count)| Reverse(*count));
    sources.truncate(NAMED_MAX);
    sources
}
