//! Counts of the refusals that are not recorded one by one.

use std::{cmp::Reverse, collections::HashMap, net::IpAddr};

use ipnet::IpNet;

use super::Known;
use crate::domain::credential::network::around;

/// Most principals, and networks of each family, that are counted apart.
const MOST: usize = 4_096;
/// Most principals, and most networks, that a summary names.
const NAMED: usize = 10;
/// How much wider the next wider network is, in bits.
const STEP: u8 = 8;

/// What a summary names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Known(Known),
    /// A host, in the form in which limits see it.
    One(IpAddr),
    Network(IpNet),
}

/// Refusals of a window by principal, and by network where the principal is not known.
pub(super) struct Suppressed {
    known: HashMap<Known, u64>,
    ipv4: Networks,
    ipv6: Networks,
    /// Refusals for which neither a principal nor a network is counted.
    unplaced: u64,
}

impl Default for Suppressed {
    fn default() -> Self {
        Self { known: HashMap::new(), ipv4: Networks::of_hosts(32, 16), ipv6: Networks::of_hosts(64, 32), unplaced: 0 }
    }
}

impl Suppressed {
    pub(super) fn add(&mut self, known: Option<Known>, ip: Option<IpAddr>) {
        if let Some(known) = known.filter(|known| self.known.len() < MOST || self.known.contains_key(known)) {
            *self.known.entry(known).or_default() += 1;
            return;
        }
        match ip.map(|ip| ip.to_canonical()) {
            Some(ip @ IpAddr::V4(_)) => self.ipv4.add(ip, 1),
            Some(ip @ IpAddr::V6(_)) => self.ipv6.add(ip, 1),
            None => self.unplaced += 1,
        }
    }

    pub(super) fn absorb(&mut self, other: Self) {
        for (known, count) in other.known {
            if self.known.len() < MOST || self.known.contains_key(&known) {
                *self.known.entry(known).or_default() += count;
            } else {
                self.unplaced += count;
            }
        }
        self.ipv4.absorb(other.ipv4);
        self.ipv6.absorb(other.ipv6);
        self.unplaced += other.unplaced;
    }

    pub(super) fn total(&self) -> u64 {
        self.known.values().sum::<u64>() + self.ipv4.total() + self.ipv6.total() + self.unplaced
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// The principals and the networks that were counted most, and how many refusals the others had.
    pub(super) fn most(&self) -> (Vec<(Source, u64)>, u64) {
        let known = self.known.iter().map(|(known, count)| (Source::Known(*known), *count)).collect();
        let mut networks = self.ipv4.telling().sources();
        networks.extend(self.ipv6.telling().sources());
        let mut named = largest(known);
        named.extend(largest(networks));
        let told: u64 = named.iter().map(|(_, count)| count).sum();
        (named, self.total() - told)
    }
}

/// Counts of networks of one width.
#[derive(Clone)]
struct Networks {
    counts: HashMap<IpNet, u64>,
    width: u8,
    /// The width of a host.
    host: u8,
    /// The widest network that a summary names by choice.
    widest: u8,
}

impl Networks {
    fn of_hosts(host: u8, widest: u8) -> Self {
        Self { counts: HashMap::new(), width: host, host, widest }
    }

    /// Counts wider networks once there are too many.
    fn add(&mut self, ip: IpAddr, count: u64) {
        let mut network = around(ip, self.width);
        while self.counts.len() >= MOST && !self.counts.contains_key(&network) {
            *self = self.widened();
            network = around(ip, self.width);
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
            *widened.counts.entry(around(network.addr(), widened.width)).or_default() += count;
        }
        widened
    }

    fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The same counts, grouped by the narrowest networks for which the ones that a summary names have half of all; unchanged if
    /// there are none.
    fn telling(&self) -> Self {
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
            network if self.width == self.host => Source::One(network.addr()),
            network => Source::Network(*network),
        };
        self.counts.iter().map(|(network, count)| (source(network), *count)).collect()
    }
}

fn largest(mut sources: Vec<(Source, u64)>) -> Vec<(Source, u64)> {
    sources.sort_by_key(|(_, count)| Reverse(*count));
    sources.truncate(NAMED);
    sources
}
