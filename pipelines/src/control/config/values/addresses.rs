//! Addresses and prefixes. Those that cannot be a host's are refused (RFC 6890 section 2.2.2).

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use engine::wire::ethernet::MacAddress;
use toml::de::DeValue;

use super::{content, text};
use crate::control::config::readable::{Fault, Readable};
use crate::prefix::{Ipv4Prefix, ParsePrefixError};

/// The address of one host. Those that cannot be any host's are refused (RFC 6890 section 2.2.2): this network,
/// loopback, multicast, reserved and broadcast.
impl Readable for Ipv4Addr {
    const WANTED: &'static str = "an IPv4 address, as in \"192.168.0.21\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        host_address(text(value)?)
    }
}

fn host_address(text: &str) -> Result<Ipv4Addr, Fault> {
    let Ok(address) = text.parse::<Ipv4Addr>() else {
        if text.parse::<Ipv6Addr>().is_ok() {
            return content("which is an IPv6 address", "write an IPv4 address: IPv6 is not forwarded");
        }
        return match text.split_once('/') {
            Some((address, _)) if address.parse::<Ipv4Addr>().is_ok() => {
                content("which is more than one address", format!("write \"{address}\", without a length"))
            }
            _ => content("which is no IPv4 address", "write four numbers with dots, as in \"192.168.0.21\""),
        };
    };
    match martian(address) {
        Some(kind) => content(format!("which is {kind}"), "write the address of one host"),
        None => Ok(address),
    }
}

/// Why an address can be no host's.
fn martian(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets()[0] {
        _ if address.is_broadcast() => Some("the broadcast address"),
        0 => Some("in 0.0.0.0/8, \"this network\""),
        127 => Some("a loopback address"),
        224..=239 => Some("a multicast address"),
        240..=255 => Some("in 240.0.0.0/4, which is reserved"),
        _ => None,
    }
}

impl Readable for Ipv4Prefix {
    const WANTED: &'static str = "a prefix, as in \"172.30.0.0/16\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = text(value)?;
        let prefix = match text.parse::<Self>() {
            Ok(prefix) => prefix,
            Err(ParsePrefixError::HostBits(prefix)) => {
                return content("with address bits behind the length", format!("write \"{prefix}\""));
            }
            Err(ParsePrefixError::Length(_)) => {
                return content("whose length is above 32", "write a length from 0 to 32");
            }
            Err(ParsePrefixError::Form) => {
                return content(
                    "which is no IPv4 prefix",
                    "write an address, a slash and a length, as in \"172.30.0.0/16\"",
                );
            }
        };
        // A default route begins with 0 too; it is more than "this network".
        match martian(Ipv4Addr::from(prefix.base())) {
            Some(kind) if prefix.length() >= 3 => {
                content(format!("which is {kind}"), "write a prefix that hosts can be in")
            }
            _ => Ok(prefix),
        }
    }
}

/// The address of an interface with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceAddress {
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: Ipv4Prefix,
}

impl Readable for InterfaceAddress {
    const WANTED: &'static str = "an address and a length, as in \"192.168.0.21/24\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = text(value)?;
        let Some((address, length)) = text.split_once('/') else {
            return content("with no prefix length", format!("write one behind it, as in \"{text}/24\""));
        };
        let address = host_address(address)?;
        let prefix = length.parse().ok().filter(|length| *length > 0);
        let Some(prefix) = prefix.and_then(|length| Ipv4Prefix::new(address, length)) else {
            return content("whose prefix length is none", "write a length from 1 to 32 behind the slash");
        };
        // With 31 bits both addresses are hosts' (RFC 3021), with 32 there is one alone.
        if prefix.length() < 31 {
            let number = u32::from(address);
            if number == prefix.base() || number == prefix.last() {
                let which = if number == prefix.base() { "first" } else { "last" };
                return content(
                    format!("the {which} address of {prefix}, which is no host's"),
                    "write one between the first and the last",
                );
            }
        }
        Ok(Self { address, prefix })
    }
}

impl Readable for MacAddress {
    const WANTED: &'static str = "a MAC address, as in \"02:42:67:05:b5:30\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let Ok(mac) = text(value)?.parse::<Self>() else {
            return content(
                "which is no MAC address",
                "write six two-digit hexadecimal numbers with colons, as in \"02:42:67:05:b5:30\"",
            );
        };
        if mac.is_unicast() {
            return Ok(mac);
        }
        let kind = if mac == Self::BROADCAST {
            "which is the broadcast address"
        } else if mac.is_multicast() {
            "which is a group's address"
        } else {
            "which is nobody's address"
        };
        content(kind, "write one station's: the first number even, not all zero")
    }
}

/// Where the metrics server listens; loopback and any address are right there.
impl Readable for SocketAddr {
    const WANTED: &'static str = "an address and a port, as in \"127.0.0.1:9106\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        text(value)?.parse().or_else(|_| {
            content(
                "which is no address with a port",
                "write an IP address, a colon and a port, as in \"127.0.0.1:9106\"",
            )
        })
    }
}

/// Where connections go.
impl Readable for SocketAddrV4 {
    const WANTED: &'static str = "an IPv4 address and a port, as in \"172.30.76.7:8080\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = text(value)?;
        let Some((address, port)) = text.rsplit_once(':').filter(|_| !text.contains('[')) else {
            return content(
                "with no port",
                "write an IPv4 address, a colon and a port, as in \"172.30.76.7:8080\"",
            );
        };
        let address = host_address(address)?;
        match port.parse() {
            Ok(port) if port > 0 => Ok(Self::new(address, port)),
            _ => content("whose port is none", "write a port from 1 to 65535 behind the colon"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::control::config::testing::{expect, expect_at_value, parsed};

    #[test]
    fn addresses_are_one_hosts() {
        let vtep = |value: &str, said: &str| {
            expect_at_value("address = \"172.30.76.0\"", "address", value, "overlay.address", said);
        };
        vtep("\"172.30.76\"", "\"172.30.76\", which is no IPv4 address; write four numbers with dots");
        vtep("\"172.30.76.0/24\"", "which is more than one address; write \"172.30.76.0\", without a length");
        vtep("\"fd00::1\"", "IPv6 is not forwarded");
        vtep("\"0.1.2.3\"", "in 0.0.0.0/8, \"this network\"");
        vtep("\"127.0.0.1\"", "a loopback address");
        vtep("\"224.0.0.1\"", "a multicast address");
        vtep("\"255.255.255.255\"", "the broadcast address");
        vtep("\"250.0.0.1\"", "which is reserved");
        vtep("[]", "`address` is an array; write an IPv4 address");
    }

    #[test]
    fn prefixes_have_no_bits_behind_them() {
        let network = |value: &str, said: &str| {
            expect_at_value(
                "pod_network = \"172.30.0.0/16\"",
                "pod_network",
                value,
                "overlay.pod_network",
                said,
            );
        };
        network("\"172.30.0.1/16\"", "with address bits behind the length; write \"172.30.0.0/16\"");
        network("\"172.30.0.0/33\"", "write a length from 0 to 32");
        network("\"172.30.0.0\"", "which is no IPv4 prefix; write an address, a slash and a length");
        network("\"224.0.0.0/8\"", "a multicast address; write a prefix that hosts can be in");
        network("\"127.0.0.0/8\"", "a loopback address");
    }

    #[test]
    fn interface_addresses_are_hosts_of_their_networks() {
        let bridge = |value: &str, said: &str| {
            expect_at_value("address = \"172.30.76.1/24\"", "address", value, "bridge.address", said);
        };
        bridge("\"172.30.76.1\"", "with no prefix length; write one behind it, as in \"172.30.76.1/24\"");
        bridge("\"172.30.76.0/24\"", "the first address of 172.30.76.0/24");
        bridge("\"172.30.76.255/24\"", "the last address of 172.30.76.0/24");
        bridge("\"172.30.76.1/0\"", "write a length from 1 to 32");
        bridge("\"172.30.76.1/x\"", "write a length from 1 to 32");
        bridge("\"x/24\"", "which is no IPv4 address");
        let text = |value: &str| {
            format!(
                "[[ports]]\nname = \"a\"\nrole = \"underlay\"\nmac = \"02:00:00:00:00:01\"\naddress = \"{value}\"\n"
            )
        };
        expect(&text("10.0.0.0/31"), &[]);
        assert_eq!(parsed(&text("10.0.0.9/30")).ports[0].prefix, "10.0.0.8/30".parse().ok());
    }

    #[test]
    fn macs_are_one_stations() {
        let bridge = |value: &str, said: &str| {
            expect_at_value("mac = \"02:42:67:05:b5:30\"", "mac", value, "bridge.mac", said);
        };
        bridge("\"02:42:67:05:b5\"", "which is no MAC address");
        bridge("\"01:00:5e:00:00:01\"", "which is a group's address; write one station's");
        bridge("\"ff:ff:ff:ff:ff:ff\"", "which is the broadcast address");
        bridge("\"00:00:00:00:00:00\"", "which is nobody's address");
    }

    #[test]
    fn backends_and_servers_have_ports() {
        let backend = |value: &str, said: &str| {
            let path = "service[0].ports[0].backends[0].address";
            expect_at_value("address = \"172.30.76.7:8080\"", "address", value, path, said);
        };
        backend("\"172.30.76.7\"", "with no port");
        backend("\"172.30.76.7:0\"", "whose port is none; write a port from 1 to 65535");
        backend("\"172.30.76.7:65536\"", "whose port is none");
        backend("\"[::1]:80\"", "write an IPv4 address, a colon and a port");
        backend("\"127.0.0.1:80\"", "a loopback address");
        expect_at_value(
            "listen = \"127.0.0.1:9106\"",
            "listen",
            "\"localhost:9106\"",
            "metrics.listen",
            "write an IP address",
        );
    }
}
