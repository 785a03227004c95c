//! Frames from templates: what all packets of a kind have in common is written and summed up once, and only what a
//! packet has to itself is filled in, with both checksums finished from the sums of the rest.

use engine::packet::Packet;
use engine::wire::checksum::{checksum, fold, pseudo_header, sum};
use engine::wire::ethernet::{EthernetHeader, HEADER_LENGTH as ETHERNET, MacAddress, TYPE_IPV4};
use engine::wire::ipv4::{FLAG_DONT_FRAGMENT, HEADER_LENGTH as IPV4, Ipv4Header, PROTOCOL_TCP, PROTOCOL_UDP};
use engine::wire::tcp::{HEADER_LENGTH as TCP, TcpHeader};
use engine::wire::udp::{HEADER_LENGTH as UDP, UdpHeader};
use engine::wire::vxlan::{OVERHEAD, VxlanHeader};
use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::link::{Link, Tunnel};
use crate::sizes::CHECK_SEQUENCE;
use crate::tag::Tag;

/// The window that every segment announces: none is ever held up by it.
pub const TCP_WINDOW: u16 = 0xffff;

/// Bytes behind a tag or a TCP header: neither zeros nor a repetition that a shifted copy would hide.
pub static FILLER: [u8; 2048] = {
    let mut bytes = [0; 2048];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = (at as u32).wrapping_mul(0x9e37_79b1).to_be_bytes()[0];
        at += 1;
    }
    bytes
};

/// Addresses and ports of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// From which address.
    pub source: u32,
    /// From which port.
    pub source_port: u16,
    /// To which address.
    pub destination: u32,
    /// To which port.
    pub destination_port: u16,
}

impl Ends {
    /// The way back.
    #[inline(always)]
    pub fn reversed(self) -> Self {
        Self {
            source: self.destination,
            source_port: self.destination_port,
            destination: self.source,
            destination_port: self.source_port,
        }
    }

    #[inline(always)]
    fn sum_of_addresses(self) -> u64 {
        u64::from(self.source) + u64::from(self.destination)
    }

    #[inline(always)]
    fn sum_of_ports(self) -> u64 {
        u64::from(self.source_port) + u64::from(self.destination_port)
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Outer {
    ethernet: EthernetHeader,
    ip: Ipv4Header,
    udp: UdpHeader,
    vxlan: VxlanHeader,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Datagram {
    ethernet: EthernetHeader,
    ip: Ipv4Header,
    udp: UdpHeader,
    tag: Tag,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Segment {
    ethernet: EthernetHeader,
    ip: Ipv4Header,
    tcp: TcpHeader,
}

/// What a TCP header says besides its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpNumbers {
    /// Number of the first byte.
    pub sequence: u32,
    /// Number of the next byte expected.
    pub acknowledgement: u32,
    /// Control bits.
    pub flags: u8,
}

/// All packets of one port, protocol and size.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
    inner_at: usize,
    /// Sum of the IP header with the addresses left out.
    ip_sum: u64,
    /// Sum of pseudo-header, transport header and payload, with addresses, ports and what else varies left out.
    transport_sum: u64,
    outer_checksum: bool,
}

impl Template {
    /// Datagrams in frames of `size` bytes, check sequence included, which is [`crate::sizes::FRAME_MIN`] or more.
    pub fn datagram(link: &Link, size: u16, time_to_live: u8) -> Self {
        let inner = usize::from(size - CHECK_SEQUENCE);
        let udp_length = (inner - ETHERNET - IPV4) as u16;
        let header = UdpHeader {
            source_port: U16::ZERO,
            destination_port: U16::ZERO,
            length: U16::new(udp_length),
            checksum: U16::ZERO,
        };
        let filler = &FILLER[..usize::from(udp_length) - UDP - size_of::<Tag>()];
        let transport = [header.as_bytes(), &[0; size_of::<Tag>()], filler].concat();
        Self::new(link, PROTOCOL_UDP, time_to_live, &transport, inner)
    }

    /// Segments with `payload` bytes, in the smallest frame that holds them.
    pub fn segment(link: &Link, payload: usize, time_to_live: u8) -> Self {
        let header = TcpHeader {
            source_port: U16::ZERO,
            destination_port: U16::ZERO,
            sequence: U32::ZERO,
            acknowledgement: U32::ZERO,
            data_offset: (TCP as u8 / 4) << 4,
            flags: 0,
            window: U16::new(TCP_WINDOW),
            checksum: U16::ZERO,
            urgent: U16::ZERO,
        };
        let transport = [header.as_bytes(), &FILLER[..payload]].concat();
        let inner = ETHERNET + IPV4 + transport.len();
        let least = usize::from(crate::sizes::FRAME_MIN - CHECK_SEQUENCE);
        Self::new(link, PROTOCOL_TCP, time_to_live, &transport, inner.max(least))
    }

    fn new(link: &Link, protocol: u8, time_to_live: u8, transport: &[u8], inner: usize) -> Self {
        let macs =
            link.tunnel.map_or((link.mac, link.gateway_mac), |tunnel| (tunnel.mac, tunnel.gateway_mac));
        let ip = ip_header(protocol, time_to_live, IPV4 + transport.len(), (0, 0));
        let mut frame = [ethernet(macs).as_bytes(), ip.as_bytes(), transport].concat();
        frame.resize(inner, 0);
        let bytes = match &link.tunnel {
            Some(tunnel) => [outer(link, tunnel, inner).as_bytes(), &frame].concat(),
            None => frame,
        };
        Self {
            inner_at: link.inner_at(),
            ip_sum: sum(ip.as_bytes(), 0),
            transport_sum: sum(transport, pseudo_header(0, 0, protocol, transport.len() as u16)),
            outer_checksum: link.tunnel.is_some_and(|tunnel| tunnel.checksum),
            bytes,
        }
    }

    /// Makes the packet a datagram. `entropy` chooses the outer source port. False if the buffer is too small.
    #[inline(always)]
    #[must_use]
    pub fn write_datagram(&self, packet: &mut Packet, ends: &Ends, tag: &Tag, entropy: u32) -> bool {
        if !packet.fill(&self.bytes) {
            return false;
        }
        let Some(inner) = packet.data_mut().get_mut(self.inner_at..) else { return false };
        let Ok((datagram, _)) = Datagram::mut_from_prefix(inner) else { return false };
        self.address(&mut datagram.ip, ends);
        datagram.udp.source_port.set(ends.source_port);
        datagram.udp.destination_port.set(ends.destination_port);
        datagram.tag = *tag;
        let total = self.transport_sum + ends.sum_of_addresses() + ends.sum_of_ports() + tag.sum();
        let checksum = !fold(total);
        // Zero would mean that there is none (RFC 768).
        datagram.udp.checksum.set(if checksum == 0 { 0xffff } else { checksum });
        self.finish(packet, entropy)
    }

    /// Makes the packet a segment, as [`Self::write_datagram`] does.
    #[inline(always)]
    #[must_use]
    pub fn write_segment(&self, packet: &mut Packet, ends: &Ends, numbers: TcpNumbers, entropy: u32) -> bool {
        if !packet.fill(&self.bytes) {
            return false;
        }
        let Some(inner) = packet.data_mut().get_mut(self.inner_at..) else { return false };
        let Ok((segment, _)) = Segment::mut_from_prefix(inner) else { return false };
        self.address(&mut segment.ip, ends);
        segment.tcp.source_port.set(ends.source_port);
        segment.tcp.destination_port.set(ends.destination_port);
        segment.tcp.sequence.set(numbers.sequence);
        segment.tcp.acknowledgement.set(numbers.acknowledgement);
        segment.tcp.flags = numbers.flags;
        let total = self.transport_sum
            + ends.sum_of_addresses()
            + ends.sum_of_ports()
            + u64::from(numbers.sequence)
            + u64::from(numbers.acknowledgement)
            + u64::from(numbers.flags);
        segment.tcp.checksum.set(!fold(total));
        self.finish(packet, entropy)
    }

    #[inline(always)]
    fn address(&self, header: &mut Ipv4Header, ends: &Ends) {
        header.source = ends.source.to_be_bytes();
        header.destination = ends.destination.to_be_bytes();
        header.checksum.set(!fold(self.ip_sum + ends.sum_of_addresses()));
    }

    /// The outer headers' share: a source port that tells flows apart (RFC 7348, section 5, recommends 49152 to 65535).
    #[inline(always)]
    fn finish(&self, packet: &mut Packet, entropy: u32) -> bool {
        if self.inner_at == 0 {
            return true;
        }
        let Ok((outer, inner)) = Outer::mut_from_prefix(packet.data_mut()) else { return false };
        let mixed = entropy.wrapping_mul(0x9e37_79b1) >> 18;
        outer.udp.source_port.set(0xc000 | mixed as u16);
        if self.outer_checksum {
            let header = [outer.udp.as_bytes(), outer.vxlan.as_bytes()];
            let (source, destination) = (outer.ip.source_address(), outer.ip.destination_address());
            let pseudo = pseudo_header(source, destination, PROTOCOL_UDP, outer.udp.length.get());
            let total = sum(inner, sum(header[1], sum(header[0], pseudo)));
            let checksum = !fold(total);
            outer.udp.checksum.set(if checksum == 0 { 0xffff } else { checksum });
        }
        true
    }
}

/// Addresses an inner frame that lies alone in the packet, and puts the link's tunnel around it. False without room.
pub(crate) fn encapsulate(link: &Link, packet: &mut Packet) -> bool {
    let macs = link.tunnel.map_or((link.mac, link.gateway_mac), |tunnel| (tunnel.mac, tunnel.gateway_mac));
    let header = ethernet(macs);
    let Some(front) = packet.data_mut().get_mut(..ETHERNET) else { return false };
    front.copy_from_slice(header.as_bytes());
    let Some(tunnel) = &link.tunnel else { return true };
    let mut outer = outer(link, tunnel, packet.len());
    outer.udp.source_port.set(0xc000);
    if !packet.extend_front(OVERHEAD) {
        return false;
    }
    packet.data_mut()[..OVERHEAD].copy_from_slice(outer.as_bytes());
    true
}

fn ethernet((source, destination): (MacAddress, MacAddress)) -> EthernetHeader {
    EthernetHeader { destination, source, ether_type: U16::new(TYPE_IPV4) }
}

fn ip_header(protocol: u8, time_to_live: u8, length: usize, ends: (u32, u32)) -> Ipv4Header {
    Ipv4Header {
        version_and_length: 0x45,
        traffic_class: 0,
        total_length: U16::new(length as u16),
        // Never fragmented, so it needs no number of its own (RFC 6864, section 4).
        identification: U16::ZERO,
        fragment: U16::new(FLAG_DONT_FRAGMENT),
        time_to_live,
        protocol,
        checksum: U16::ZERO,
        source: ends.0.to_be_bytes(),
        destination: ends.1.to_be_bytes(),
    }
}

fn outer(link: &Link, tunnel: &Tunnel, inner: usize) -> Outer {
    let udp_length = inner + OVERHEAD - ETHERNET - IPV4;
    let mut ip = ip_header(PROTOCOL_UDP, 64, IPV4 + udp_length, (tunnel.local, tunnel.remote));
    ip.checksum = U16::new(checksum(ip.as_bytes()));
    Outer {
        ethernet: ethernet((link.mac, link.gateway_mac)),
        ip,
        udp: UdpHeader {
            source_port: U16::ZERO,
            destination_port: U16::new(tunnel.udp_port),
            length: U16::new(udp_length as u16),
            checksum: U16::ZERO,
        },
        vxlan: VxlanHeader::new(tunnel.vni),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tag::Direction;
    use crate::testing::{plain_link, tunnel_link};
    use engine::pool::{MemoryPool, PacketSource};
    use engine::wire::tcp::{FLAG_ACK, FLAG_SYN};
    use etherparse::{LaxSlicedPacket, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    fn ends(source: u32, source_port: u16, destination: u32, destination_port: u16) -> Ends {
        Ends { source, source_port, destination, destination_port }
    }

    /// The transport header and payload, after an independent parser found lengths and the IP checksum right.
    fn read(frame: &[u8]) -> (etherparse::Ipv4Header, TransportSlice<'_>) {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(etherparse::NetSlice::Ipv4(ip)) = packet.net else { panic!("no IPv4") };
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert!(LaxSlicedPacket::from_ethernet(frame).unwrap().stop_err.is_none());
        (header, packet.transport.unwrap())
    }

    fn packet() -> Packet {
        MemoryPool::new(1).allocate().unwrap()
    }

    proptest! {
        #[test]
        fn datagrams_are_right_to_another_parser(
            source: u32, source_port: u16, destination: u32, destination_port: u16,
            flow: u32, sequence: u32, time: u64, size in 64..1518u16, tunnel: bool, checksum: bool,
        ) {
            let mut link = if tunnel { tunnel_link() } else { plain_link() };
            if let Some(tunnel) = &mut link.tunnel {
                tunnel.checksum = checksum;
            }
            let template = Template::datagram(&link, size, 61);
            let tag = Tag::new(Direction::Request, flow, sequence, time);
            let mut packet = packet();
            prop_assert!(template.write_datagram(
                &mut packet, &ends(source, source_port, destination, destination_port), &tag, flow));
            let mut frame = packet.data();
            if let Some(tunnel) = link.tunnel {
                let (ip, TransportSlice::Udp(udp)) = read(frame) else { panic!("no UDP") };
                prop_assert_eq!(u32::from_be_bytes(ip.source), tunnel.local);
                prop_assert!(udp.source_port() >= 0xc000 && udp.destination_port() == tunnel.udp_port);
                let wanted = udp.to_header().calc_checksum_ipv4(&ip, udp.payload()).unwrap();
                prop_assert_eq!(udp.checksum(), if checksum { wanted } else { 0 });
                prop_assert_eq!(&udp.payload()[..8], &[8, 0, 0, 0, 0, 0, tunnel.vni as u8, 0]);
                frame = &frame[50..];
            }
            prop_assert_eq!(frame.len(), usize::from(size) - 4);
            let (ip, TransportSlice::Udp(udp)) = read(frame) else { panic!("no UDP") };
            prop_assert_eq!((u32::from_be_bytes(ip.source), ip.time_to_live), (source, 61));
            prop_assert_eq!(u32::from_be_bytes(ip.destination), destination);
            prop_assert_eq!((udp.source_port(), udp.destination_port()), (source_port, destination_port));
            prop_assert_eq!(udp.checksum(), udp.to_header().calc_checksum_ipv4(&ip, udp.payload()).unwrap());
            prop_assert_eq!(Tag::read_from_prefix(udp.payload()).unwrap().0, tag);
        }

        #[test]
        fn segments_are_right_to_another_parser(
            source: u32, source_port: u16, destination: u32, destination_port: u16,
            sequence: u32, acknowledgement: u32, payload in 0..1400usize, tunnel: bool,
        ) {
            let link = if tunnel { tunnel_link() } else { plain_link() };
            let template = Template::segment(&link, payload, 64);
            let numbers = TcpNumbers { sequence, acknowledgement, flags: FLAG_SYN | FLAG_ACK };
            let mut packet = packet();
            prop_assert!(template.write_segment(
                &mut packet, &ends(source, source_port, destination, destination_port), numbers, 1));
            let frame = &packet.data()[link.inner_at()..];
            prop_assert_eq!(frame.len(), (54 + payload).max(60));
            let (ip, TransportSlice::Tcp(tcp)) = read(frame) else { panic!("no TCP") };
            prop_assert_eq!((tcp.sequence_number(), tcp.acknowledgment_number()), (sequence, acknowledgement));
            prop_assert!(tcp.syn() && tcp.ack() && !tcp.fin());
            prop_assert_eq!(tcp.payload(), &FILLER[..payload]);
            prop_assert_eq!(tcp.checksum(), tcp.to_header().calc_checksum_ipv4(&ip, tcp.payload()).unwrap());
        }
    }
}
