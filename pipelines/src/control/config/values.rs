//! The kinds of values that stand in a configuration file, each refused for reasons that name what would be right.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use engine::wire::ethernet::MacAddress;
use toml::de::DeValue;

use super::model::{DpdkMemory, Idle, PortRole, Protocol};
use super::reader::{Fault, Readable, closest};
use crate::prefix::{Ipv4Prefix, ParsePrefixError};

fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Fault> {
    value.as_str().ok_or(Fault::Type)
}

fn content<T>(wrong: impl Into<String>, right: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Content(wrong.into(), right.into()))
}

impl Readable for bool {
    const WANTED: &'static str = "true or false";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        value.as_bool().ok_or(Fault::Type)
    }
}

/// Free text without control characters: it is shown in logs and given to C libraries.
impl Readable for String {
    const WANTED: &'static str = "a string";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = text(value)?;
        if text.chars().any(char::is_control) {
            return content("which holds a control character", "write visible characters alone");
        }
        Ok(text.to_owned())
    }
}

/// The name of a port or an interface.
pub(crate) struct InterfaceText(pub(crate) String);

impl Readable for InterfaceText {
    const WANTED: &'static str = "a string";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = text(value)?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
            return content("which is no name", "use 1 to 64 letters, digits, dots, dashes and underscores");
        }
        Ok(Self(text.to_owned()))
    }
}

/// A name of Kubernetes (service, namespace, service port): a DNS label, RFC 1123 section 2.1.
pub(crate) struct Label(pub(crate) String);

impl Readable for Label {
    const WANTED: &'static str = "a string";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = text(value)?;
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let ends = text.starts_with('-') || text.ends_with('-');
        if text.is_empty() || text.len() > 63 || ends || !text.bytes().all(allowed) {
            return content(
                "which is no DNS label",
                "use 1 to 63 small letters, digits and dashes, with no dash at either end",
            );
        }
        Ok(Self(text.to_owned()))
    }
}

/// A DPDK device: a PCI address or a vdev string, with the driver's arguments behind commas.
pub(crate) struct Device(pub(crate) String);

impl Readable for Device {
    const WANTED: &'static str = "a string";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = String::read(value)?;
        let name = text.split(',').next().unwrap_or_default();
        let vdev = name.strip_prefix("net_").is_some_and(|driver| !driver.is_empty());
        if !vdev && !is_pci_address(name) {
            let right = if is_pci_address(&format!("0000:{name}")) {
                format!("write the PCI domain too: \"0000:{text}\"")
            } else {
                "write a PCI address, as in \"0000:01:00.0\", or a vdev, as in \"net_tap0,iface=pg-eth0\""
                    .to_owned()
            };
            return content("which is no DPDK device", right);
        }
        if text.contains(char::is_whitespace) {
            return content(
                "which holds a blank",
                "write driver and arguments with commas alone between them",
            );
        }
        if let Some(interface) = device_argument(&text, "iface").filter(|name| name.len() > 15) {
            let wrong = format!("whose interface name is {} characters long", interface.len());
            return content(wrong, "use 15 at the most: Linux takes no more (IFNAMSIZ)");
        }
        Ok(Self(text))
    }
}

/// Whether `text` is a PCI address with its domain: `0000:01:00.0`.
pub(crate) fn is_pci_address(text: &str) -> bool {
    let form = b"0000:00:00.0";
    text.len() == form.len()
        && text.bytes().zip(form).enumerate().all(|(place, (byte, wanted))| match wanted {
            b'0' if place == form.len() - 1 => (b'0'..=b'7').contains(&byte),
            b'0' => byte.is_ascii_hexdigit(),
            separator => byte == *separator,
        })
}

/// The value of one argument of a device string.
pub(crate) fn device_argument<'d>(device: &'d str, name: &str) -> Option<&'d str> {
    device.split(',').skip(1).find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
}

/// A Unix socket's path.
impl Readable for PathBuf {
    const WANTED: &'static str = "a string";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = String::read(value)?;
        // The kernel's sun_path holds 108 bytes with the closing zero, unix(7).
        if !text.starts_with('/') || text.ends_with('/') || text.len() > 107 {
            return content(
                "which cannot be a socket's path",
                "write the full path of a file, of 107 bytes at the most, as in \"/run/pollgate/control.sock\"",
            );
        }
        Ok(Self::from(text))
    }
}

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

/// First and last port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl PortRange {
    pub(crate) fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl core::fmt::Display for PortRange {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "{}-{}", self.first, self.last)
    }
}

impl Readable for PortRange {
    const WANTED: &'static str = "a string with the first and the last port, as in \"30000-32767\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let ends = text(value)?.split_once('-').and_then(|(first, last)| {
            Some((first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?))
        });
        match ends {
            Some((first, last)) if first > last => content(
                "whose first port is above its last",
                format!("write the smaller one first: \"{last}-{first}\""),
            ),
            Some((first, last)) if first > 0 => Ok(Self { first, last }),
            _ => content(
                "which is no range of ports",
                "write the first and the last, from 1 to 65535, with a dash, as in \"30000-32767\"",
            ),
        }
    }
}

/// One of a few words.
fn choice<T: Copy>(value: &DeValue<'_>, choices: &[(&'static str, T)]) -> Result<T, Fault> {
    let text = text(value)?;
    if let Some((_, chosen)) = choices.iter().find(|(word, _)| *word == text) {
        return Ok(*chosen);
    }
    let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    let near = closest(&text.to_ascii_lowercase(), choices.iter().map(|(word, _)| *word));
    let right = near.map_or_else(
        || format!("write one of {}", words.join(", ")),
        |word| format!("did you mean \"{word}\"?"),
    );
    content(format!("not one of {}", words.join(", ")), right)
}

impl Readable for DpdkMemory {
    const WANTED: &'static str = "\"auto\", \"huge\" or \"none\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        choice(value, &[("auto", Self::Auto), ("huge", Self::Huge), ("none", Self::None)])
    }
}

impl Readable for Idle {
    const WANTED: &'static str = "\"poll\" or \"sleep\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        choice(value, &[("poll", Self::Poll), ("sleep", Self::Sleep)])
    }
}

impl Readable for PortRole {
    const WANTED: &'static str = "\"underlay\" or \"pod\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        choice(value, &[("underlay", Self::Underlay), ("pod", Self::Pod)])
    }
}

impl Readable for Protocol {
    const WANTED: &'static str = "\"tcp\", \"udp\" or \"sctp\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        choice(value, &[("tcp", Self::Tcp), ("udp", Self::Udp), ("sctp", Self::Sctp)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{expect, expect_one, parsed};
    use super::*;

    /// One change, one finding at the changed value.
    #[track_caller]
    fn one(from: &str, key: &str, value: &str, path: &str, said: &str) {
        expect_one(from, &format!("{key} = {value}"), ("error", value, path, said));
    }

    #[test]
    fn addresses_are_one_hosts() {
        let vtep = |value: &str, said: &str| {
            one("address = \"172.30.76.0\"", "address", value, "overlay.address", said);
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
            one("pod_network = \"172.30.0.0/16\"", "pod_network", value, "overlay.pod_network", said);
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
            one("address = \"172.30.76.1/24\"", "address", value, "bridge.address", said);
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
            one("mac = \"02:42:67:05:b5:30\"", "mac", value, "bridge.mac", said);
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
            one("address = \"172.30.76.7:8080\"", "address", value, path, said);
        };
        backend("\"172.30.76.7\"", "with no port");
        backend("\"172.30.76.7:0\"", "whose port is none; write a port from 1 to 65535");
        backend("\"172.30.76.7:65536\"", "whose port is none");
        backend("\"[::1]:80\"", "write an IPv4 address, a colon and a port");
        backend("\"127.0.0.1:80\"", "a loopback address");
        one(
            "listen = \"127.0.0.1:9106\"",
            "listen",
            "\"localhost:9106\"",
            "metrics.listen",
            "write an IP address",
        );
    }

    #[test]
    fn ranges_of_ports_have_two_ends() {
        let range = |value: &str, said: &str| {
            one(
                "node_port_range = \"30000-32767\"",
                "node_port_range",
                value,
                "services.node_port_range",
                said,
            );
        };
        range("\"30000\"", "which is no range of ports");
        range("\"0-32767\"", "which is no range of ports");
        range("\"32767-30000\"", "write the smaller one first: \"30000-32767\"");
        range(
            "[30000, 32767]",
            "`node_port_range` is an array; write a string with the first and the last port",
        );
    }

    #[test]
    fn words_are_those_that_are_known() {
        one("memory = \"none\"", "memory", "\"hugh\"", "dpdk.memory", "\"none\"; did you mean \"huge\"?");
        one("idle = \"sleep\"", "idle", "\"Poll\"", "workers.idle", "did you mean \"poll\"?");
        one("idle = \"sleep\"", "idle", "\"doze off\"", "workers.idle", "write one of \"poll\", \"sleep\"");
        one("protocol = \"udp\"", "protocol", "\"dccp\"", "service[3].ports[0].protocol", "\"sctp\"");
    }

    #[test]
    fn names_are_fit_for_what_they_name() {
        one("name = \"docker0\"", "name", "\"docker 0\"", "bridge.name", "use 1 to 64 letters");
        one("name = \"docker0\"", "name", "\"\"", "bridge.name", "which is no name");
        for name in ["Business", "-a", "a-", "a.b", ""] {
            let value = format!("\"{name}\"");
            one("name = \"business-manager\"", "name", &value, "service[0].name", "which is no DNS label");
        }
        one("name = \"node-1\"", "name", "\"a\\tb\"", "node.name", "holds a control character");
        one(
            "socket = \"/run/pollgate/control.sock\"",
            "socket",
            "\"control.sock\"",
            "control.socket",
            "write the full path",
        );
    }

    #[test]
    fn devices_are_dpdks() {
        let device = |value: &str, said: &str| {
            one("device = \"net_tap1,iface=pg-bm1\"", "device", value, "ports[1].device", said);
        };
        device("\"eth0\"", "which is no DPDK device; write a PCI address");
        device("\"01:00.0\"", "write the PCI domain too: \"0000:01:00.0\"");
        device("\"net_tap1, iface=pg-bm1\"", "which holds a blank");
        device("\"net_tap1,iface=business-manager-1\"", "whose interface name is 18 characters long; use 15");
        assert!(
            is_pci_address("0000:af:1f.7")
                && !is_pci_address("0000:01:00.8")
                && !is_pci_address("0000.01:00:0")
        );
        assert_eq!(device_argument("net_tap0,mac=x,iface=pg0", "iface"), Some("pg0"));
        assert_eq!(device_argument("net_tap0,iface", "iface"), None);
    }

    #[test]
    fn long_texts_are_cut() {
        let long = "x".repeat(100);
        let said = format!("`name` is \"{}...\", which", "x".repeat(60));
        one("name = \"docker0\"", "name", &format!("\"{long}\""), "bridge.name", &said);
    }
}
