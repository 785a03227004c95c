//! A packet by its headers: what the grammar reads and prints, and what bytes are described by.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::borrow::Cow;

use engine::wire::ipv4::{
    HEADER_LENGTH, PROTOCOL_GRE, PROTOCOL_ICMP, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP,
};

/// Bytes of an IPv6 header (RFC 8200, section 3).
pub(super) const IPV6_HEADER_LENGTH: usize = 40;
/// ICMPv6's number (RFC 4443, section 1).
pub(super) const PROTOCOL_ICMPV6: u8 = 58;
/// TCP's flags with their letters, lowest bit first; ACK is a dot too, as tcpdump has it.
pub(super) const FLAGS: [char; 8] = ['F', 'S', 'R', 'P', 'A', 'U', 'E', 'W'];

/// Which protocol, and what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP with source port, destination port and flags.
    Tcp(u16, u16, u8),
    /// UDP with source and destination port.
    Udp(u16, u16),
    /// SCTP with source and destination port.
    Sctp(u16, u16),
    /// An ICMP echo request with its identifier.
    Echo(u16),
    /// GRE.
    Gre,
    /// An ICMP echo reply with its identifier. From bytes alone, like all that follow.
    EchoReply(u16),
    /// Another ICMP message: type and code.
    Icmp(u8, u8),
    /// Another protocol by its number, or one of the above whose header cannot be read: later fragments have none.
    Other(u8),
}

impl Transport {
    /// IP protocol number, in IPv4.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp(..) => PROTOCOL_TCP,
            Self::Udp(..) => PROTOCOL_UDP,
            Self::Sctp(..) => PROTOCOL_SCTP,
            Self::Echo(_) | Self::EchoReply(_) | Self::Icmp(..) => PROTOCOL_ICMP,
            Self::Gre => PROTOCOL_GRE,
            Self::Other(number) => number,
        }
    }

    /// Its name in the grammar; of a protocol that it does not know, the number.
    pub fn name(self) -> Cow<'static, str> {
        let known = match self.number() {
            PROTOCOL_TCP => "tcp",
            PROTOCOL_UDP => "udp",
            PROTOCOL_SCTP => "sctp",
            PROTOCOL_ICMP | PROTOCOL_ICMPV6 => "icmp",
            PROTOCOL_GRE => "gre",
            other => return other.to_string().into(),
        };
        known.into()
    }

    /// Source and destination port, where there are any.
    pub fn ports(self) -> Option<(u16, u16)> {
        match self {
            Self::Tcp(source, destination, _)
            | Self::Udp(source, destination)
            | Self::Sctp(source, destination) => Some((source, destination)),
            _ => None,
        }
    }

    /// An echo's identifier.
    pub fn identifier(self) -> Option<u16> {
        match self {
            Self::Echo(identifier) | Self::EchoReply(identifier) => Some(identifier),
            _ => None,
        }
    }

    /// Bytes of its header without options: RFC 9293, RFC 768, RFC 9260 (the common header), RFC 792, RFC 2784.
    pub(super) fn header_length(self) -> usize {
        match self {
            Self::Tcp(..) => 20,
            Self::Udp(..) | Self::Echo(_) | Self::EchoReply(_) | Self::Icmp(..) => 8,
            Self::Sctp(..) => 12,
            Self::Gre => 4,
            Self::Other(_) => 0,
        }
    }
}

/// From where to where; both ends are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Source and destination.
    V4(Ipv4Addr, Ipv4Addr),
    /// Source and destination.
    V6(Ipv6Addr, Ipv6Addr),
}

impl Addresses {
    /// Both, of whichever family.
    pub fn both(self) -> (IpAddr, IpAddr) {
        match self {
            Self::V4(source, destination) => (source.into(), destination.into()),
            Self::V6(source, destination) => (source.into(), destination.into()),
        }
    }

    /// Both, if they are IPv4.
    pub fn v4(self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        match self {
            Self::V4(source, destination) => Some((source, destination)),
            Self::V6(..) => None,
        }
    }

    /// Bytes of the IP header without options.
    pub(super) fn header_length(self) -> usize {
        match self {
            Self::V4(..) => HEADER_LENGTH,
            Self::V6(..) => IPV6_HEADER_LENGTH,
        }
    }
}

/// A packet that might come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketSpec {
    /// Where it says it comes from, and where it goes.
    pub addresses: Addresses,
    /// Which protocol.
    pub transport: Transport,
    /// Hop limit as it arrives.
    pub time_to_live: u8,
    /// IP total length in bytes.
    pub length: u16,
    /// It must not be fragmented. IPv6 has no such flag: none is fragmented on its way.
    pub dont_fragment: bool,
}

impl PacketSpec {
    /// Where it says it comes from.
    pub fn source(&self) -> IpAddr {
        self.addresses.both().0
    }

    /// Where it goes.
    pub fn destination(&self) -> IpAddr {
        self.addresses.both().1
    }

    /// The headers' bytes: no length is below it.
    pub(super) fn length_min(&self) -> u16 {
        (self.addresses.header_length() + self.transport.header_length()) as u16
    }
}

impl fmt::Display for PacketSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport {
            Transport::Echo(_) => formatter.write_str("icmp echo")?,
            Transport::EchoReply(_) => formatter.write_str("icmp reply")?,
            Transport::Icmp(kind, code) => write!(formatter, "icmp type {kind} code {code}")?,
            transport => match transport.name() {
                Cow::Borrowed(name) => formatter.write_str(name)?,
                Cow::Owned(number) => write!(formatter, "protocol {number}")?,
            },
        }
        let ports = self.transport.ports();
        let source = end(self.source(), ports.map(|ports| ports.0));
        let destination = end(self.destination(), ports.map(|ports| ports.1));
        write!(formatter, " {source} > {destination}")?;
        match self.transport {
            Transport::Tcp(_, _, flags) => write!(formatter, " flags {}", flag_letters(flags))?,
            Transport::Echo(identifier) | Transport::EchoReply(identifier) => {
                write!(formatter, " id {identifier}")?;
            }
            _ => {}
        }
        write!(formatter, " ttl {} len {}", self.time_to_live, self.length)?;
        formatter.write_str(if self.dont_fragment { " df" } else { "" })
    }
}

/// An address as the grammar has it: IPv6 in brackets.
fn end(address: IpAddr, port: Option<u16>) -> String {
    let address = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
    match port {
        Some(port) => format!("{address}:{port}"),
        None => address,
    }
}

/// TCP's flags as letters; `none` without any.
pub fn flag_letters(flags: u8) -> String {
    if flags == 0 {
        return "none".to_owned();
    }
    FLAGS.iter().enumerate().filter(|(bit, _)| flags & 1 << bit != 0).map(|(_, letter)| *letter).collect()
}
