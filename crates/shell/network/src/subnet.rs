//! The addresses of a lab. Pure.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Prefixes that a lab may have: from /16, as the nodes' number is limited anyway, to /28, below
/// which only a few nodes have room.
const PREFIX_BITS: std::ops::RangeInclusive<u8> = 16..=28;

/// Why a text is not a subnet for a lab.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a subnet: use an IPv4 network like 10.99.0.0/24, with a prefix of /16 to /28")]
pub struct SubnetError {
    text: String,
}

/// An IPv4 network. It need not be unique on the machine: each lab has namespaces of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

impl Default for Subnet {
    /// `10.99.0.0/24`.
    fn default() -> Self {
        Self { network: Ipv4Addr::new(10, 99, 0, 0), prefix: 24 }
    }
}

impl Subnet {
    /// How many nodes have room: all addresses but the network's and the broadcast's.
    pub fn nodes_max(&self) -> usize {
        (1_usize << (32 - self.prefix)) - 2
    }

    /// The address of the node with this index, counted from 0.
    pub fn address(&self, index: usize) -> Option<Ipv4Addr> {
        let offset = u32::try_from(index).ok()?.checked_add(1)?;
        (index < self.nodes_max()).then(|| Ipv4Addr::from(u32::from(self.network) + offset))
    }

    /// The length of the prefix, in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let error = || SubnetError { text: text.to_owned() };
        let (network, prefix) = text.split_once('/').ok_or_else(error)?;
        let network: Ipv4Addr = network.parse().map_err(|_| error())?;
        let prefix: u8 = prefix.parse().map_err(|_| error())?;
        if !PREFIX_BITS.contains(&prefix) || u32::from(network) << prefix != 0 {
            return Err(error());
        }
        Ok(Self { network, prefix })
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_get_the_addresses_between_network_and_broadcast() {
        let subnet = Subnet::default();
        assert_eq!(subnet.to_string(), "10.99.0.0/24");
        assert_eq!(subnet.address(0), Some(Ipv4Addr::new(10, 99, 0, 1)));
        assert_eq!(subnet.address(253), Some(Ipv4Addr::new(10, 99, 0, 254)));
        assert_eq!(subnet.address(254), None);
    }

    #[test]
    fn what_is_not_a_network_of_a_usable_size_is_refused() {
        assert!("10.1.0.0/16".parse::<Subnet>().is_ok());
        for bad in
            ["", "10.99.0.0", "10.99.0.1/24", "10.99.0.0/8", "10.99.0.0/31", "10.99.0.0/99", "fe80::/64"]
        {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }
}
