//! An IPv4 prefix.

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

/// An IPv4 prefix: base address in host order with the host bits zero, and a length of 0 to 32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ipv4Prefix {
    base: u32,
    length: u8,
}

impl Ipv4Prefix {
    /// All addresses.
    pub const ALL: Self = Self { base: 0, length: 0 };

    /// The prefix of this length that holds `address`; none for a length above 32.
    pub fn new(address: Ipv4Addr, length: u8) -> Option<Self> {
        (length <= 32).then(|| Self { base: u32::from(address) & mask(length), length })
    }

    /// One address.
    pub fn host(address: Ipv4Addr) -> Self {
        Self { base: u32::from(address), length: 32 }
    }

    /// The first address, in host order.
    pub fn base(self) -> u32 {
        self.base
    }

    /// The length, 0 to 32.
    pub fn length(self) -> u8 {
        self.length
    }

    /// The last address, in host order.
    pub fn last(self) -> u32 {
        self.base | !mask(self.length)
    }

    /// Whether `address` (host order) lies inside.
    #[inline(always)]
    pub fn contains(self, address: u32) -> bool {
        (address ^ self.base) & mask(self.length) == 0
    }

    /// Whether the two share an address: one contains the other.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }
}

#[inline(always)]
fn mask(length: u8) -> u32 {
    if length == 0 { 0 } else { u32::MAX << (32 - u32::from(length)) }
}

impl fmt::Display for Ipv4Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", Ipv4Addr::from(self.base), self.length)
    }
}

impl fmt::Debug for Ipv4Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Why a text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParsePrefixError {
    /// Not `address/length`.
    #[error("not an IPv4 prefix: an address, a slash and a length are wanted, as in 172.30.0.0/16")]
    Form,
    /// A length above 32.
    #[error("prefix length {0} is above 32")]
    Length(u8),
    /// Bits are set behind the prefix.
    #[error("address bits are set behind the prefix length; {0} was probably meant")]
    HostBits(Ipv4Prefix),
}

impl FromStr for Ipv4Prefix {
    type Err = ParsePrefixError;

    fn from_str(text: &str) -> Result<Self, ParsePrefixError> {
        let (address, length) = text.split_once('/').ok_or(ParsePrefixError::Form)?;
        let address: Ipv4Addr = address.parse().map_err(|_| ParsePrefixError::Form)?;
        let length: u8 = length.parse().map_err(|_| ParsePrefixError::Form)?;
        let prefix = Self::new(address, length).ok_or(ParsePrefixError::Length(length))?;
        if prefix.base == u32::from(address) { Ok(prefix) } else { Err(ParsePrefixError::HostBits(prefix)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_refuses() {
        let prefix: Ipv4Prefix = "172.30.0.0/16".parse().unwrap();
        assert!(prefix.contains(0xac1e_ffff) && !prefix.contains(0xac1f_0000));
        assert_eq!(prefix.last(), 0xac1e_ffff);
        assert_eq!(
            "10.1.2.3/8".parse::<Ipv4Prefix>().unwrap_err().to_string(),
            "address bits are set behind the prefix length; 10.0.0.0/8 was probably meant"
        );
        assert_eq!("10.0.0.0/33".parse::<Ipv4Prefix>(), Err(ParsePrefixError::Length(33)));
        assert_eq!("10.0.0.0".parse::<Ipv4Prefix>(), Err(ParsePrefixError::Form));
        assert!(Ipv4Prefix::ALL.contains(u32::MAX) && Ipv4Prefix::ALL.overlaps(prefix));
    }
}
