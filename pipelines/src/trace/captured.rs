//! Packets as bytes: from captures, or written in hexadecimal. What the pipeline makes of them is `parse`'s to say; here
//! is read what describes them, and nothing is refused but what is no IP packet.

use std::path::{Path, PathBuf};

use engine::packet::{BUFFER_SIZE, HEADROOM};
use engine::port::pcap::{CaptureError, CaptureReader};
use engine::wire::checksum;
use engine::wire::ethernet::{
    EthernetHeader, HEADER_LENGTH, MacAddress, TYPE_ARP, TYPE_IPV4, TYPE_IPV6, TYPE_SERVICE_VLAN, TYPE_VLAN,
};
use engine::wire::ipv4::{self, Ipv4Header, PROTOCOL_UDP};
use engine::wire::udp::UdpHeader;
use engine::wire::vxlan::{self, VxlanHeader};
use zerocopy::FromBytes;

use super::headers::{TUNNEL_HEADERS, with_ether_type};
use super::hex::{self, ParseHexError};
use super::packet::PacketSpec;
use super::{describe, headers};
use crate::table::OverlayTable;

/// Longest frame: what a buffer holds beside the headers of a tunnel.
pub const FRAME_MAX: usize = (BUFFER_SIZE - HEADROOM) as usize - vxlan::OVERHEAD;
/// VLAN tags that are looked behind. The pipeline drops what has any.
const TAGS_MAX: usize = 2;
/// Two MACs, which are in front of the EtherType.
const MACS: usize = 12;

/// Why bytes are no packet to ask about.
#[derive(Debug, thiserror::Error)]
pub enum CapturedError {
    /// Not bytes.
    #[error(transparent)]
    Hex(#[from] ParseHexError),
    /// No capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Too short for an Ethernet header.
    #[error("{0} bytes are no Ethernet frame, which has 14 at least, and no IP packet")]
    NoFrame(usize),
    /// Another protocol's.
    #[error("a frame of EtherType {0:#06x}{name} is no IP packet", name = ether_type_name(*.0))]
    NoIp(u16),
    /// An IP header is not all there, or is of another version.
    #[error("no IP header that could be read: {0}")]
    Header(String),
    /// Longer than a buffer.
    #[error(
        "a frame of {0} bytes is longer than the {FRAME_MAX} that a buffer of the gateway holds beside a tunnel's \
         headers: none arrives like that; capture with offloads (GRO, TSO) off"
    )]
    TooLong(usize),
    /// A record's number is wrong.
    #[error("{} has {records} records, so there is no number {number}", path.display())]
    NoRecord {
        /// The file.
        path: PathBuf,
        /// Its records.
        records: u64,
        /// The number.
        number: u64,
    },
    /// There is no IP packet.
    #[error("none of the {records} records of {} is an IP packet", path.display())]
    NoPacket {
        /// The file.
        path: PathBuf,
        /// Its records.
        records: u64,
    },
    /// A record is no packet.
    #[error("record {number} of {}: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Which record.
        number: u64,
        /// Why.
        source: Box<CapturedError>,
    },
}

fn ether_type_name(ether_type: u16) -> &'static str {
    match ether_type {
        TYPE_ARP => " (ARP)",
        // IEEE 802.3: below this the field is a length.
        0..0x600 => " (a length: IEEE 802.3)",
        _ => "",
    }
}

/// A packet as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Destination and source MAC, where there were any.
    macs: Option<[u8; MACS]>,
    /// The frame from the EtherType on.
    tail: Vec<u8>,
    /// Where in the tail the IP header begins.
    ip_offset: usize,
    spec: PacketSpec,
}

/// A VXLAN datagram, to the gateway's end of the tunnel.
pub(super) struct Datagram {
    pub(super) vni: u32,
    pub(super) remote: u32,
    /// The packet inside, if there is one.
    pub(super) inner: Option<PacketSpec>,
}

impl Captured {
    /// An Ethernet frame.
    pub fn frame(bytes: &[u8]) -> Result<Self, CapturedError> {
        let (header, _) =
            EthernetHeader::ref_from_prefix(bytes).map_err(|_| CapturedError::NoFrame(bytes.len()))?;
        let mut ether_type = header.ether_type.get();
        let mut ip_offset = HEADER_LENGTH - MACS;
        for _ in 0..TAGS_MAX {
            if !matches!(ether_type, TYPE_VLAN | TYPE_SERVICE_VLAN) {
                break;
            }
            // IEEE 802.1Q, section 9: two bytes of tag, then the next EtherType.
            let next = bytes.get(MACS + ip_offset + 2..).and_then(|rest| rest.first_chunk());
            ether_type = u16::from_be_bytes(*next.ok_or(CapturedError::NoIp(ether_type))?);
            ip_offset += 4;
        }
        if !matches!(ether_type, TYPE_IPV4 | TYPE_IPV6) {
            return Err(CapturedError::NoIp(ether_type));
        }
        let (macs, tail) = bytes.split_at(MACS);
        Self::new(macs.first_chunk().copied(), tail.to_vec(), ip_offset)
    }

    /// An IP packet.
    pub fn ip(bytes: &[u8]) -> Result<Self, CapturedError> {
        let ether_type =
            if bytes.first().is_some_and(|first| first >> 4 == 6) { TYPE_IPV6 } else { TYPE_IPV4 };
        Self::new(None, with_ether_type(ether_type, bytes), size_of::<u16>())
    }

    fn new(macs: Option<[u8; MACS]>, tail: Vec<u8>, ip_offset: usize) -> Result<Self, CapturedError> {
        let ip = tail.get(ip_offset..).unwrap_or_default();
        let spec = describe::packet(ip).map_err(CapturedError::Header)?;
        if MACS + tail.len() > FRAME_MAX {
            return Err(CapturedError::TooLong(MACS + tail.len()));
        }
        Ok(Self { macs, tail, ip_offset, spec })
    }

    /// An Ethernet frame or an IP packet, whichever the bytes are, in hexadecimal.
    pub fn from_hex(text: &str) -> Result<Self, CapturedError> {
        let bytes = hex::parse(text)?;
        let ether_type =
            bytes.get(MACS..).and_then(|rest| rest.first_chunk()).copied().map(u16::from_be_bytes);
        let is_frame =
            matches!(ether_type, Some(TYPE_IPV4 | TYPE_IPV6 | TYPE_ARP | TYPE_VLAN | TYPE_SERVICE_VLAN));
        // A MAC may begin as an IP header does, and an address as an EtherType: the header's sum tells.
        let is_ip = match bytes.first().map(|first| first >> 4) {
            Some(4) => !is_frame || bytes.get(..ipv4::HEADER_LENGTH).is_some_and(checksum::is_valid),
            Some(6) => !is_frame,
            _ => false,
        };
        if is_ip { Self::ip(&bytes) } else { Self::frame(&bytes) }
    }

    /// The packet of a record of a capture, counted from one; none given: the first IP packet. What a capture did not keep
    /// of it is filled with zeros; how many there are comes with it.
    pub fn from_file(path: &Path, number: Option<u64>) -> Result<(Self, usize), CapturedError> {
        let mut reader = CaptureReader::open(path)?;
        let path = path.to_owned();
        let mut records = 0;
        while let Some(record) = reader.next_record()? {
            records += 1;
            if number.is_some_and(|number| number != records) {
                continue;
            }
            let original = (record.original_length as usize).max(record.bytes.len());
            let missing = original - record.bytes.len();
            let mut bytes = record.bytes.to_vec();
            // Longer ones are refused all the same.
            bytes.resize(original.min(FRAME_MAX + 1).max(bytes.len()), 0);
            match Self::frame(&bytes) {
                Err(CapturedError::NoIp(_) | CapturedError::NoFrame(_)) if number.is_none() => {}
                Err(CapturedError::TooLong(_)) => {
                    let source = Box::new(CapturedError::TooLong(original));
                    return Err(CapturedError::Record { path, number: records, source });
                }
                Err(source) => {
                    return Err(CapturedError::Record { path, number: records, source: Box::new(source) });
                }
                Ok(captured) => return Ok((captured, missing)),
            }
        }
        Err(match number {
            Some(number) => CapturedError::NoRecord { path, records, number },
            None => CapturedError::NoPacket { path, records },
        })
    }

    /// What it is.
    pub fn spec(&self) -> &PacketSpec {
        &self.spec
    }

    /// The whole frame in hexadecimal; of an IP packet without one that alone. True: a frame.
    pub fn to_hex(&self) -> (String, bool) {
        match &self.macs {
            Some(macs) => (hex::print(macs) + &hex::print(&self.tail), true),
            None => (hex::print(self.ip_bytes()), false),
        }
    }

    fn ip_bytes(&self) -> &[u8] {
        self.tail.get(self.ip_offset..).unwrap_or_default()
    }

    pub(super) fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// The MAC that it is for, where it has one.
    pub(super) fn destination_mac(&self) -> Option<MacAddress> {
        self.macs.as_ref()?.first_chunk().copied().map(MacAddress)
    }

    /// The frame with the MACs that it was captured with; without any: none.
    pub(super) fn as_captured(&self) -> Option<Vec<u8>> {
        self.macs.as_ref().map(|macs| [macs, &self.tail[..]].concat())
    }

    /// The datagram that it is, if that is for this end of the tunnel (RFC 7348, section 4.1).
    pub(super) fn datagram(&self, overlay: &OverlayTable) -> Option<Datagram> {
        let bytes = self.ip_bytes();
        let (outer, _) = Ipv4Header::ref_from_prefix(bytes).ok()?;
        let is_ours = outer.version() == 4
            && outer.protocol == PROTOCOL_UDP
            && outer.destination_address() == overlay.local
            && !outer.is_fragment();
        let payload = bytes.get(outer.header_length()..).filter(|_| is_ours)?;
        let (udp, rest) = UdpHeader::ref_from_prefix(payload).ok()?;
        let (vxlan, _) = VxlanHeader::ref_from_prefix(rest).ok()?;
        if udp.destination_port.get() != overlay.udp_port {
            return None;
        }
        let inner = payload.get(TUNNEL_HEADERS..).unwrap_or_default();
        let inner = Self::frame(inner).ok().map(|inner| inner.spec);
        Some(Datagram { vni: vxlan.vni(), remote: outer.source_address(), inner })
    }
}

/// A packet to ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// In words.
    Said(PacketSpec),
    /// As bytes.
    Captured(Captured),
}

impl From<PacketSpec> for Asked {
    fn from(packet: PacketSpec) -> Self {
        Self::Said(packet)
    }
}

impl From<Captured> for Asked {
    fn from(packet: Captured) -> Self {
        Self::Captured(packet)
    }
}

impl Asked {
    /// What it is.
    pub fn spec(&self) -> &PacketSpec {
        match self {
            Self::Said(spec) => spec,
            Self::Captured(captured) => captured.spec(),
        }
    }

    /// The frame from the EtherType on.
    pub(super) fn tail(&self) -> Vec<u8> {
        match self {
            Self::Said(spec) => headers::tail(spec),
            Self::Captured(captured) => captured.tail().to_vec(),
        }
    }

    pub(super) fn captured(&self) -> Option<&Captured> {
        match self {
            Self::Said(_) => None,
            Self::Captured(captured) => Some(captured),
        }
    }
}
