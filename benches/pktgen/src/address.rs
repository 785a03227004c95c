//! Contiguous sets of addresses, ports and endpoints, as a plan names them: membership and enumeration by arithmetic.

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

use serde::Deserialize;

/// Why a text names no set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Not an address, a range or a prefix.
    #[error("`{0}` is no set of addresses: write `10.0.0.1`, `10.0.0.1-10.0.0.9` or `10.0.0.0/24`")]
    Addresses(String),
    /// Not a port or a range of ports.
    #[error("`{0}` is no set of ports: write `80` or `1024-65535`, none of them 0")]
    Ports(String),
    /// Not an endpoint.
    #[error("`{0}` is no set of endpoints: write `10.0.0.1:80`, or a set of addresses with a port behind it")]
    Endpoints(String),
}

/// IPv4 addresses that follow on each other; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AddressRange {
    first: u32,
    last: u32,
}

impl AddressRange {
    /// How many there are: up to 2^32.
    pub fn count(self) -> u64 {
        u64::from(self.last - self.first) + 1
    }

    /// The one at this place, counted round and round.
    #[inline(always)]
    pub fn at(self, place: u32) -> u32 {
        self.first.wrapping_add(place)
    }

    /// Whether the address is among them.
    #[inline(always)]
    pub fn contains(self, address: u32) -> bool {
        (self.first..=self.last).contains(&address)
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let wrong = || RangeError::Addresses(text.to_owned());
        let address = |part: &str| part.parse::<Ipv4Addr>().map(u32::from).map_err(|_| wrong());
        let (first, last) = if let Some((first, last)) = text.split_once('-') {
            (address(first)?, address(last)?)
        } else if let Some((base, length)) = text.split_once('/') {
            let length = length.parse::<u32>().ok().filter(|length| *length <= 32).ok_or_else(wrong)?;
            let host_bits = u32::MAX.checked_shr(length).unwrap_or(0);
            let first = address(base)? & !host_bits;
            (first, first | host_bits)
        } else {
            (address(text)?, address(text)?)
        };
        if first <= last { Ok(Self { first, last }) } else { Err(wrong()) }
    }
}

impl TryFrom<String> for AddressRange {
    type Error = RangeError;

    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (Ipv4Addr::from(self.first), Ipv4Addr::from(self.last));
        if first == last { write!(formatter, "{first}") } else { write!(formatter, "{first}-{last}") }
    }
}

/// Ports that follow on each other; at least one, none of them 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// How many there are.
    pub fn count(self) -> u32 {
        u32::from(self.last - self.first) + 1
    }

    /// The one at this place.
    #[inline(always)]
    pub fn at(self, place: u32) -> u16 {
        self.first.wrapping_add(place as u16)
    }
}

impl FromStr for PortRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let wrong = || RangeError::Ports(text.to_owned());
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |part: &str| part.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
        let (first, last) = (port(first)?, port(last)?);
        if first <= last { Ok(Self { first, last }) } else { Err(wrong()) }
    }
}

impl TryFrom<String> for PortRange {
    type Error = RangeError;

    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

/// Endpoints with one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct EndpointRange {
    /// Their addresses.
    pub addresses: AddressRange,
    /// Their port.
    pub port: u16,
}

impl EndpointRange {
    /// Whether the endpoint is among them.
    #[inline(always)]
    pub fn contains(self, address: u32, port: u16) -> bool {
        port == self.port && self.addresses.contains(address)
    }
}

impl FromStr for EndpointRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let wrong = || RangeError::Endpoints(text.to_owned());
        let (addresses, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        Ok(Self { addresses: addresses.parse().map_err(|_| wrong())?, port })
    }
}

impl TryFrom<String> for EndpointRange {
    type Error = RangeError;

    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_one_a_range_or_a_prefix() {
        let range = |text: &str| text.parse::<AddressRange>().map(|range| (range.to_string(), range.count()));
        assert_eq!(range("10.0.0.7"), Ok(("10.0.0.7".into(), 1)));
        assert_eq!(range("10.0.0.1-10.0.1.0"), Ok(("10.0.0.1-10.0.1.0".into(), 256)));
        assert_eq!(range("10.0.3.9/22"), Ok(("10.0.0.0-10.0.3.255".into(), 1024)));
        assert_eq!(range("0.0.0.0/0").map(|range| range.1), Ok(1 << 32));
        for wrong in ["", "10.0.0", "10.0.0.2-10.0.0.1", "10.0.0.0/33", "10.0.0.0/-1", "a-b", "10.0.0.1:80"] {
            assert_eq!(range(wrong), Err(RangeError::Addresses(wrong.into())));
        }
        let some: AddressRange = "10.0.0.8/29".parse().unwrap();
        assert_eq!(some.at(3), u32::from(Ipv4Addr::new(10, 0, 0, 11)));
        assert!(some.contains(some.at(7)) && !some.contains(some.at(8)));
    }

    #[test]
    fn ports_and_endpoints() {
        let ports: PortRange = "1024-65535".parse().unwrap();
        assert_eq!((ports.count(), ports.at(0), ports.at(64_511)), (64_512, 1024, 65_535));
        for wrong in ["0", "5-4", "70000", "x", ""] {
            assert_eq!(wrong.parse::<PortRange>(), Err(RangeError::Ports(wrong.into())));
        }
        let endpoints: EndpointRange = "10.0.0.2-10.0.0.4:8080".parse().unwrap();
        assert!(endpoints.contains(0x0a00_0004, 8080) && !endpoints.contains(0x0a00_0004, 80));
        for wrong in ["10.0.0.1", "10.0.0.1:0", "x:80", "10.0.0.1:"] {
            assert_eq!(wrong.parse::<EndpointRange>(), Err(RangeError::Endpoints(wrong.into())));
        }
    }
}
