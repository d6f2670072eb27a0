//! Limits on the use of an API key. Set when the key is created, and never widened.

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use ipnet::IpNet;

use super::network::parse_networks;
use crate::domain::{
    capability::{CapabilityName, CapabilitySet},
    invalid::Invalid,
    token::LIFE_MAX,
};

/// The limits of an API key. The default is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Capabilities that its tokens can carry, if the agent holds them; all that the agent holds if `None`.
    pub capabilities: Option<CapabilitySet>,
    /// Networks from which the key works; all networks if empty.
    pub networks: Box<[IpNet]>,
    /// Maximum lifetime of its tokens, in seconds.
    pub token_life: Option<u32>,
    /// Number of tokens that can still be issued for it; no limit if `None`.
    pub uses_left: Option<i64>,
}

impl KeyLimits {
    /// Maximum number of capabilities.
    pub const CAPABILITIES_MAX: usize = 100;
    /// Maximum number of networks.
    pub const NETWORKS_MAX: usize = 50;
    /// Range of the token lifetime, in seconds.
    pub const TOKEN_LIFE: RangeInclusive<i64> = 1..=LIFE_MAX.as_secs().cast_signed();
    /// Range of the number of tokens.
    pub const USES: RangeInclusive<i64> = 1..=1_000_000_000;

    /// Returns true if there is any limit.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        *self != Self::default()
    }

    /// Returns true if the key works from this IP address. An unknown address is allowed only if no networks are set.
    #[must_use]
    pub fn admits(&self, ip: Option<IpAddr>) -> bool {
        let contains = |ip: IpAddr| self.networks.iter().any(|network| network.contains(&ip.to_canonical()));
        self.networks.is_empty() || ip.is_some_and(contains)
    }

    /// Returns the capabilities in `held` that the key's tokens can carry.
    #[must_use]
    pub fn narrow(&self, held: &CapabilitySet) -> CapabilitySet {
        self.capabilities.as_ref().map_or_else(|| held.clone(), |allowed| held.intersection(allowed))
    }

    /// Returns the lifetime of the key's tokens: `life`, unless the limit is shorter.
    #[must_use]
    pub fn shorten(&self, life: Duration) -> Duration {
        self.token_life.map_or(life, |seconds| life.min(Duration::from_secs(seconds.into())))
    }

    /// Parses capabilities separated by spaces.
    ///
    /// # Errors
    /// If a name is not valid for a capability, or there are more than [`Self::CAPABILITIES_MAX`].
    pub fn parse_capabilities(text: &str) -> Result<CapabilitySet, Invalid> {
        CapabilityName::parse_set(text, Self::CAPABILITIES_MAX)
    }

    /// Parses IP addresses and networks in CIDR notation (RFC 4632), separated by spaces or commas.
    ///
    /// # Errors
    /// If a part is neither, or there are more than [`Self::NETWORKS_MAX`].
    pub fn parse_networks(text: &str) -> Result<Box<[IpNet]>, Invalid> {
        let networks = parse_networks(text).map_err(Invalid::Network)?;
        if networks.len() > Self::NETWORKS_MAX {
            return Err(Invalid::new("too_long", format!("At most {} networks", Self::NETWORKS_MAX)));
        }
        Ok(networks.into())
    }
}
