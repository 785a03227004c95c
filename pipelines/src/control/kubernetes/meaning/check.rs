//! Checks of single values, as the API server makes them.
//!
//! Source: staging/src/k8s.io/apimachinery/pkg/util/validation/validation.go and `ValidateNonSpecialIP` of
//! pkg/apis/core/validation/validation.go. Stricter on purpose: an address with leading zeros, or IPv4 written as IPv6
//! (`::ffff:10.0.0.1`), is read as something else by other programs, so it is refused here (CVE-2021-29923).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::notes::{Notes, shown};
use super::path::Path;
use crate::control::config::model::Protocol;
use crate::prefix::Ipv4Prefix;

const LABEL_LENGTH: usize = 63;
const SUBDOMAIN_LENGTH: usize = 253;

/// Whether it is a label of RFC 1123: lower-case letters, digits and inner hyphens, 63 at the most.
pub(super) fn is_dns_label(text: &str) -> bool {
    let edge =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.len() <= LABEL_LENGTH
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| edge(Some(byte)) || *byte == b'-')
}

/// Whether it is a subdomain of RFC 1123: such labels with dots between them, 253 characters at the most. The API server
/// does not bound the labels of a subdomain, DNS does; so does this.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= SUBDOMAIN_LENGTH && text.split('.').all(is_dns_label)
}

/// An address that is not for any endpoint or service.
pub(super) fn special(address: IpAddr) -> Option<&'static str> {
    let v4 = |address: Ipv4Addr| {
        [
            (address.is_unspecified(), "the unspecified address"),
            (address.is_loopback(), "a loopback address"),
            (address.is_link_local(), "a link-local address"),
            (address.is_multicast(), "a multicast address"),
            (address.is_broadcast(), "the broadcast address"),
        ]
    };
    let v6 = |address: Ipv6Addr| {
        [
            (address.is_unspecified(), "the unspecified address"),
            (address.is_loopback(), "a loopback address"),
            (address.is_unicast_link_local(), "a link-local address"),
            (address.is_multicast(), "a multicast address"),
            (false, ""),
        ]
    };
    let kinds = match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => v6(address),
    };
    kinds.into_iter().find_map(|(is_so, name)| is_so.then_some(name))
}

/// An address of either family, of whatever use.
pub(super) fn any_address(text: &str, path: Path<'_>, notes: &mut Notes) -> Option<IpAddr> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            notes.error(path, format!("{} is IPv4 written as IPv6", shown(text)), "write it as IPv4");
            None
        }
        Ok(address) => Some(address),
        Err(_) => {
            let right = "give an address, as in 10.0.0.1; no leading zeros, no name, no port";
            notes.error(path, format!("{} is no IP address", shown(text)), right);
            None
        }
    }
}

/// An address that packets can be sent to.
pub(super) fn address(text: &str, path: Path<'_>, notes: &mut Notes) -> Option<IpAddr> {
    let address = any_address(text, path, notes)?;
    if let Some(name) = special(address) {
        notes.error(
            path,
            format!("{} is {name}", shown(text)),
            "give an address that packets can be sent to",
        );
        return None;
    }
    Some(address)
}

/// A prefix of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cidr {
    /// IPv4.
    V4(Ipv4Prefix),
    /// IPv6, which is not used yet.
    V6,
}

/// A prefix. Bits behind the length are cut off, as Go's `net.ParseCIDR` does.
pub(super) fn cidr(text: &str, path: Path<'_>, notes: &mut Notes) -> Option<Cidr> {
    let parsed = text.split_once('/').and_then(|(address, length)| {
        let length: u8 = Some(length).filter(|length| is_plain_number(length))?.parse().ok()?;
        match address.parse().ok()? {
            IpAddr::V4(address) => Ipv4Prefix::new(address, length).map(Cidr::V4),
            IpAddr::V6(_) => (length <= 128).then_some(Cidr::V6),
        }
    });
    if parsed.is_none() {
        notes.error(path, format!("{} is no prefix", shown(text)), "give one, as in 10.0.0.0/8");
    }
    parsed
}

/// Digits alone, without a sign or leading zeros: what Rust and Go read alike.
pub(super) fn is_plain_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
}

/// A port from 1 to 65,535.
pub(super) fn port(number: i32, path: Path<'_>, notes: &mut Notes) -> Option<u16> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    if port.is_none() {
        notes.error(path, format!("{number} is no port"), "give 1 to 65535");
    }
    port
}

/// A protocol; TCP if none is given.
pub(super) fn protocol(text: Option<&str>, path: Path<'_>, notes: &mut Notes) -> Option<Protocol> {
    match text {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(other) => {
            notes.error(path, format!("{} is no protocol", shown(other)), "give TCP, UDP or SCTP");
            None
        }
    }
}

/// The name of a port: empty, or a DNS label.
pub(super) fn port_name(name: &str, path: Path<'_>, notes: &mut Notes) {
    if !name.is_empty() && !is_dns_label(name) {
        notes.error(path, format!("{} is no name of a port", shown(name)), LABEL);
    }
}

/// What is right instead of what is no DNS label.
pub(super) const LABEL: &str =
    "use lower-case letters, digits and hyphens, a letter or digit at both ends, 63 characters at the most";

/// What is right instead of what is no DNS subdomain.
pub(super) const SUBDOMAIN: &str = "use lower-case letters, digits, hyphens and dots, a letter or digit at both ends, 253 characters at the most";

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(check: impl FnOnce(&mut Notes)) -> Option<String> {
        let mut notes = Notes::default();
        check(&mut notes);
        notes.into_vec().pop().map(|note| note.wrong)
    }

    #[test]
    fn names() {
        for (text, label, subdomain) in [
            ("a", true, true),
            ("web-1", true, true),
            ("1web", true, true),
            ("node-1.example.org", false, true),
            ("", false, false),
            ("-a", false, false),
            ("a-", false, false),
            ("A", false, false),
            ("a_b", false, false),
            ("a..b", false, false),
            ("a.", false, false),
            ("ä", false, false),
        ] {
            assert_eq!((is_dns_label(text), is_dns_subdomain(text)), (label, subdomain), "{text}");
        }
        assert!(is_dns_label(&"a".repeat(63)) && !is_dns_label(&"a".repeat(64)));
        assert!(!is_dns_subdomain(&["a"; 127].join("b.")));
    }

    #[test]
    fn addresses() {
        for (text, wrong) in [
            ("10.0.0.1", None),
            ("fd00::1", None),
            ("010.0.0.1", Some("`010.0.0.1` is no IP address")),
            ("10.0.0.256", Some("`10.0.0.256` is no IP address")),
            ("10.0.0.1:80", Some("`10.0.0.1:80` is no IP address")),
            ("fe80::1%eth0", Some("`fe80::1%eth0` is no IP address")),
            (" 10.0.0.1", Some("` 10.0.0.1` is no IP address")),
            ("::ffff:10.0.0.1", Some("`::ffff:10.0.0.1` is IPv4 written as IPv6")),
            ("0.0.0.0", Some("`0.0.0.0` is the unspecified address")),
            ("127.1.2.3", Some("`127.1.2.3` is a loopback address")),
            ("169.254.169.254", Some("`169.254.169.254` is a link-local address")),
            ("224.0.0.1", Some("`224.0.0.1` is a multicast address")),
            ("239.1.1.1", Some("`239.1.1.1` is a multicast address")),
            ("255.255.255.255", Some("`255.255.255.255` is the broadcast address")),
            ("::", Some("`::` is the unspecified address")),
            ("::1", Some("`::1` is a loopback address")),
            ("fe80::1", Some("`fe80::1` is a link-local address")),
            ("ff02::1", Some("`ff02::1` is a multicast address")),
        ] {
            let found = refused(|notes| {
                address(text, Path::of("ip"), notes);
            });
            assert_eq!(found.as_deref(), wrong, "{text}");
        }
    }

    #[test]
    fn prefixes_ports_and_protocols() {
        let read = |text| cidr(text, Path::of("c"), &mut Notes::default());
        assert_eq!(read("10.1.2.3/8"), Some(Cidr::V4("10.0.0.0/8".parse().unwrap())));
        assert_eq!(read("fd00::/64"), Some(Cidr::V6));
        for text in
            ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/08", "fd00::/129", "a/8", "/8", "10.0.0.0/"]
        {
            assert_eq!(read(text), None, "{text}");
        }
        for (number, expected) in
            [(-1, None), (0, None), (1, Some(1)), (65_535, Some(65_535)), (65_536, None)]
        {
            assert_eq!(port(number, Path::of("p"), &mut Notes::default()), expected);
        }
        for (text, expected) in [
            (None, Some(Protocol::Tcp)),
            (Some("UDP"), Some(Protocol::Udp)),
            (Some("SCTP"), Some(Protocol::Sctp)),
            (Some("tcp"), None),
            (Some(""), None),
        ] {
            assert_eq!(protocol(text, Path::of("p"), &mut Notes::default()), expected);
        }
    }
}
