//! What an API key may be used for at most. Set when the key is made, and never widened.

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use ipnet::IpNet;

use super::network::parse_networks;
use crate::domain::{
    capability::{CapabilityName, CapabilitySet},
    error::Invalid,
    token::LIFE_MAX,
};

/// The limits of an API key; by default there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// The capabilities that its tokens may carry, as far as the agent holds them; all of them when `None`.
    pub capabilities: Option<CapabilitySet>,
    /// From where it works; from everywhere when empty.
    pub networks: Box<[IpNet]>,
    /// Longest life of its tokens, in seconds.
    pub token_life: Option<u32>,
    /// How many more tokens may be issued for it.
    pub uses_left: Option<i64>,
}

impl KeyLimits {
    /// Most capabilities that a key names.
    pub const CAPABILITIES_MAX: usize = 100;
    /// Most networks that a key works from.
    pub const NETWORKS_MAX: usize = 50;
    /// What the life of its tokens may be limited to, in seconds.
    pub const TOKEN_LIFE: RangeInclusive<i64> = 1..=LIFE_MAX.as_secs().cast_signed();
    /// How many tokens a key may be limited to.
    pub const USES: RangeInclusive<i64> = 1..=1_000_000_000;

    /// Whether there is any limit.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        *self != Self::default()
    }

    /// Whether the key works from this address.
    #[must_use]
    pub fn admits(&self, ip: Option<IpAddr>) -> bool {
        let contains = |ip: IpAddr| self.networks.iter().any(|network| network.contains(&ip.to_canonical()));
        self.networks.is_empty() || ip.is_some_and(contains)
    }

    /// What of `held` the key's tokens may carry.
    #[must_use]
    pub fn narrow(&self, held: &CapabilitySet) -> CapabilitySet {
        self.capabilities.as_ref().map_or_else(|| held.clone(), |allowed| held.intersection(allowed))
    }

    /// What of `life` the key's tokens may live.
    #[must_use]
    pub fn shorten(&self, life: Duration) -> Duration {
        self.token_life.map_or(life, |seconds| life.min(Duration::from_secs(seconds.into())))
    }

    /// Reads capabilities, separated by spaces.
    ///
    /// # Errors
    /// When one is no name of a capability, or there are too many.
    pub fn parse_capabilities(text: &str) -> Result<CapabilitySet, Invalid> {
        CapabilityName::parse_several(text, Self::CAPABILITIES_MAX)
    }

    /// Reads networks in CIDR notation (RFC 4632) and addresses, separated by spaces or commas.
    ///
    /// # Errors
    /// When one is neither, or there are too many.
    pub fn parse_networks(text: &str) -> Result<Box<[IpNet]>, Invalid> {
        let networks = parse_networks(text).map_err(|part| {
            Invalid::new("network", format!("Input should hold addresses and networks; {part:?} is neither"))
        })?;
        if networks.len() > Self::NETWORKS_MAX {
            return Err(Invalid::new("too_long", format!("At most {} networks", Self::NETWORKS_MAX)));
        }
        Ok(networks.into())
    }
}
