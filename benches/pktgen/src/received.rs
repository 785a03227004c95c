//! Reads a frame that came back and verifies every checksum on the way, before anything in it is believed.

use engine::wire::arp::{ArpPacket, OPERATION_REPLY, OPERATION_REQUEST};
use engine::wire::checksum::{fold, is_valid, pseudo_header, sum};
use engine::wire::ethernet::{EthernetHeader, TYPE_ARP, TYPE_IPV4};
use engine::wire::ipv4::{HEADER_LENGTH as IPV4, Ipv4Header, PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP};
use engine::wire::tcp::TcpHeader;
use engine::wire::udp::{HEADER_LENGTH as UDP, UdpHeader};
use engine::wire::vxlan::{FLAG_VNI, VxlanHeader};
use zerocopy::FromBytes;

use crate::fault::Fault;
use crate::link::{Link, Tunnel};
use crate::template::{Ends, TcpNumbers};

/// What stands behind the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Datagram,
    /// TCP.
    Segment(TcpNumbers),
}

/// A packet whose lengths and checksums are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'p> {
    /// Its addresses and ports.
    pub ends: Ends,
    /// Hops left.
    pub time_to_live: u8,
    /// UDP or TCP.
    pub transport: Transport,
    /// What that carries.
    pub payload: &'p [u8],
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading<'p> {
    /// A datagram or a segment.
    Traffic(Received<'p>),
    /// None of these.
    Aside(Aside),
}

/// A frame that carries no traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// A question by ARP for an address of ours.
    ArpRequest,
    /// An ICMP message.
    Icmp,
    /// Something else that is no concern of a test: other protocols, ARP announcements.
    Other,
    /// Something wrong.
    Faulty(Fault),
}

/// How frames are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// From a gateway: MAC addresses and tunnel are its and ours.
    Gateway,
    /// From a mirror that sends frames back with or without their MAC addresses exchanged, and nothing else changed:
    /// testpmd's modes io, mac and macswap. MAC addresses are not looked at.
    Mirror,
}

/// Reads a frame that came in over this link.
#[inline]
pub fn read<'p>(link: &Link, peer: Peer, frame: &'p [u8]) -> Reading<'p> {
    match checked(link, peer, frame) {
        Ok(reading) => reading,
        Err(fault) => Reading::Aside(Aside::Faulty(fault)),
    }
}

#[inline(always)]
fn checked<'p>(link: &Link, peer: Peer, frame: &'p [u8]) -> Result<Reading<'p>, Fault> {
    let (ethernet, packet) = split::<EthernetHeader>(frame)?;
    let ours = ethernet.destination == link.mac && ethernet.source == link.gateway_mac;
    match ethernet.ether_type.get() {
        TYPE_IPV4 => {}
        TYPE_ARP => return Ok(arp(link, packet)),
        _ => return Ok(Reading::Aside(Aside::Other)),
    }
    if !ours && peer == Peer::Gateway {
        return Err(Fault::LinkAddress);
    }
    let Some(tunnel) = &link.tunnel else { return inner(packet) };
    match outer(tunnel, peer, packet)? {
        Some(frame) => {
            let (ethernet, packet) = split::<EthernetHeader>(frame)?;
            let ours = ethernet.destination == tunnel.mac && ethernet.source == tunnel.gateway_mac;
            match ethernet.ether_type.get() {
                TYPE_IPV4 if ours || peer == Peer::Mirror => inner(packet),
                TYPE_IPV4 => Err(Fault::LinkAddress),
                _ => Ok(Reading::Aside(Aside::Other)),
            }
        }
        // Not tunnelled, so none of the traffic: what the gateway says to its neighbour.
        None => match inner(packet) {
            Ok(Reading::Traffic(_)) | Err(_) => Err(Fault::Tunnel),
            other => other,
        },
    }
}

#[inline(always)]
fn split<T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned>(
    bytes: &[u8],
) -> Result<(&T, &[u8]), Fault> {
    T::ref_from_prefix(bytes).map_err(|_| Fault::Length)
}

fn arp<'p>(link: &Link, packet: &'p [u8]) -> Reading<'p> {
    let is_ours = |address| link.addresses.is_some_and(|ours| ours.contains(u32::from_be_bytes(address)));
    match ArpPacket::ref_from_prefix(packet) {
        Ok((arp, _)) if arp.operation.get() == OPERATION_REQUEST && is_ours(arp.target_address) => {
            Reading::Aside(Aside::ArpRequest)
        }
        _ => Reading::Aside(Aside::Other),
    }
}

/// The IP header, and what is behind it up to its total length (Ethernet padding cut off). We send no options and no
/// fragments, so none come back.
#[inline(always)]
fn ipv4(packet: &[u8], checksum_fault: Fault) -> Result<(&Ipv4Header, &[u8]), Fault> {
    let (header, _) = split::<Ipv4Header>(packet)?;
    let total = usize::from(header.total_length.get());
    if header.version_and_length != 0x45 || header.is_fragment() || total < IPV4 {
        return Err(Fault::Length);
    }
    let rest = packet.get(IPV4..total).ok_or(Fault::Length)?;
    if packet.get(..IPV4).is_some_and(is_valid) { Ok((header, rest)) } else { Err(checksum_fault) }
}

/// The inner frame of a tunnel packet; none for a packet that is no tunnel's.
#[inline(always)]
fn outer<'p>(tunnel: &Tunnel, peer: Peer, packet: &'p [u8]) -> Result<Option<&'p [u8]>, Fault> {
    let (header, datagram) = ipv4(packet, Fault::OuterChecksum)?;
    if header.protocol != PROTOCOL_UDP {
        return Ok(None);
    }
    let (udp, payload) = split::<UdpHeader>(datagram)?;
    if udp.destination_port.get() != tunnel.udp_port {
        return Ok(None);
    }
    let (source, destination) = (header.source_address(), header.destination_address());
    let wanted = match peer {
        Peer::Gateway => (tunnel.remote, tunnel.local),
        Peer::Mirror => (tunnel.local, tunnel.remote),
    };
    let (vxlan, frame) = split::<VxlanHeader>(payload)?;
    if (source, destination) != wanted || vxlan.flags != FLAG_VNI || vxlan.vni() != tunnel.vni {
        return Err(Fault::Tunnel);
    }
    if usize::from(udp.length.get()) != datagram.len() {
        return Err(Fault::Length);
    }
    // Zero: the sender made none (RFC 7348, section 5).
    if udp.checksum.get() != 0 && !transport_is_valid(header, datagram) {
        return Err(Fault::OuterChecksum);
    }
    Ok(Some(frame))
}

#[inline(always)]
fn transport_is_valid(header: &Ipv4Header, transport: &[u8]) -> bool {
    let (source, destination) = (header.source_address(), header.destination_address());
    let pseudo = pseudo_header(source, destination, header.protocol, transport.len() as u16);
    fold(sum(transport, pseudo)) == 0xffff
}

#[inline(always)]
fn inner(packet: &[u8]) -> Result<Reading<'_>, Fault> {
    let (header, rest) = ipv4(packet, Fault::IpChecksum)?;
    let ends = |source_port, destination_port| Ends {
        source: header.source_address(),
        source_port,
        destination: header.destination_address(),
        destination_port,
    };
    let time_to_live = header.time_to_live;
    match header.protocol {
        PROTOCOL_UDP => {
            let (udp, payload) = split::<UdpHeader>(rest)?;
            if usize::from(udp.length.get()) != rest.len() || rest.len() < UDP {
                return Err(Fault::Length);
            }
            // We send a checksum, so it must not get lost on the way either.
            if udp.checksum.get() == 0 || !transport_is_valid(header, rest) {
                return Err(Fault::TransportChecksum);
            }
            let ends = ends(udp.source_port.get(), udp.destination_port.get());
            let transport = Transport::Datagram;
            Ok(Reading::Traffic(Received { ends, time_to_live, transport, payload }))
        }
        PROTOCOL_TCP => {
            let (tcp, _) = split::<TcpHeader>(rest)?;
            let payload = rest.get(tcp.header_length().max(size_of::<TcpHeader>())..).ok_or(Fault::Length)?;
            if !transport_is_valid(header, rest) {
                return Err(Fault::TransportChecksum);
            }
            let transport = Transport::Segment(TcpNumbers {
                sequence: tcp.sequence.get(),
                acknowledgement: tcp.acknowledgement.get(),
                flags: tcp.flags,
            });
            let ends = ends(tcp.source_port.get(), tcp.destination_port.get());
            Ok(Reading::Traffic(Received { ends, time_to_live, transport, payload }))
        }
        PROTOCOL_ICMP => Ok(Reading::Aside(Aside::Icmp)),
        _ => Ok(Reading::Aside(Aside::Other)),
    }
}

/// Turns an ARP request into its answer: the address that is asked for is at our MAC (RFC 826).
pub fn answer_arp(link: &Link, frame: &mut [u8]) -> bool {
    let Ok((ethernet, rest)) = EthernetHeader::mut_from_prefix(frame) else { return false };
    let Ok((arp, _)) = ArpPacket::mut_from_prefix(rest) else { return false };
    ethernet.destination = arp.sender_mac;
    ethernet.source = link.mac;
    arp.operation.set(OPERATION_REPLY);
    arp.target_mac = arp.sender_mac;
    core::mem::swap(&mut arp.sender_address, &mut arp.target_address);
    arp.sender_mac = link.mac;
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tag::{Direction, Tag};
    use crate::template::Template;
    use crate::testing::{plain_link, tunnel_link};
    use engine::pool::{MemoryPool, PacketSource};
    use proptest::prelude::*;

    const ENDS: Ends =
        Ends { source: 0x0a00_0001, source_port: 1_000, destination: 0x0a00_0002, destination_port: 80 };

    fn frame(link: &Link, size: u16) -> Vec<u8> {
        let mut packet = MemoryPool::new(1).allocate().unwrap();
        let tag = Tag::new(Direction::Request, 1, 2, 3);
        assert!(Template::datagram(link, size, 64).write_datagram(&mut packet, &ENDS, &tag, 9));
        packet.data().to_vec()
    }

    /// What the other end of the cable reads.
    fn fault_after(link: &Link, change: impl Fn(&mut Vec<u8>)) -> Option<Fault> {
        let mut frame = frame(link, 64);
        change(&mut frame);
        match read(&link.reversed(), Peer::Gateway, &frame) {
            Reading::Aside(Aside::Faulty(fault)) => Some(fault),
            _ => None,
        }
    }

    #[test]
    fn what_we_send_the_other_end_reads() {
        for link in [plain_link(), tunnel_link()] {
            let frame = frame(&link, 300);
            let Reading::Traffic(received) = read(&link.reversed(), Peer::Gateway, &frame) else { panic!() };
            assert_eq!((received.ends, received.time_to_live, received.payload.len()), (ENDS, 64, 254));
            assert_eq!(received.transport, Transport::Datagram);
            assert!(matches!(read(&link, Peer::Mirror, &frame), Reading::Traffic(same) if same == received));
        }
    }

    #[test]
    fn every_header_is_looked_at() {
        let (plain, tunnel) = (plain_link(), tunnel_link());
        let set = |at: usize, value: u8| move |frame: &mut Vec<u8>| frame[at] = value;
        assert_eq!(fault_after(&plain, |_| ()), None);
        assert_eq!(fault_after(&plain, set(0, 0x06)), Some(Fault::LinkAddress));
        assert_eq!(fault_after(&plain, set(11, 0xee)), Some(Fault::LinkAddress));
        assert_eq!(fault_after(&plain, set(14, 0x46)), Some(Fault::Length));
        assert_eq!(fault_after(&plain, set(20, 0x20)), Some(Fault::Length));
        assert_eq!(fault_after(&plain, set(22, 9)), Some(Fault::IpChecksum));
        assert_eq!(fault_after(&plain, set(39, 99)), Some(Fault::Length));
        assert_eq!(fault_after(&plain, set(59, 99)), Some(Fault::TransportChecksum));
        assert_eq!(fault_after(&plain, |frame| frame[40..42].fill(0)), Some(Fault::TransportChecksum));
        assert_eq!(fault_after(&plain, |frame| frame.truncate(59)), Some(Fault::Length));
        assert_eq!(fault_after(&plain, |frame| frame.extend([0; 9])), None);

        assert_eq!(fault_after(&tunnel, |_| ()), None);
        assert_eq!(fault_after(&tunnel, set(22, 9)), Some(Fault::OuterChecksum));
        assert_eq!(fault_after(&tunnel, set(40, 1)), Some(Fault::OuterChecksum));
        // The ends' last bytes exchanged: other addresses, the same sum.
        assert_eq!(fault_after(&tunnel, |frame| frame.swap(29, 33)), Some(Fault::Tunnel));
        assert_eq!(fault_after(&tunnel, |frame| frame[36..38].fill(7)), Some(Fault::Tunnel));
        assert_eq!(fault_after(&tunnel, set(42, 0)), Some(Fault::Tunnel));
        assert_eq!(fault_after(&tunnel, set(48, 3)), Some(Fault::Tunnel));
        assert_eq!(fault_after(&tunnel, set(55, 0xee)), Some(Fault::LinkAddress));
        assert_eq!(fault_after(&tunnel, set(72, 9)), Some(Fault::IpChecksum));
        assert_eq!(fault_after(&tunnel, set(109, 99)), Some(Fault::TransportChecksum));
    }

    #[test]
    fn what_is_no_traffic_is_told_apart() {
        let mut link = plain_link();
        let mut bytes = frame(&link.reversed(), 64);
        bytes[23] = PROTOCOL_ICMP;
        assert_eq!(read(&link, Peer::Gateway, &bytes), Reading::Aside(Aside::Faulty(Fault::IpChecksum)));
        bytes[24..26].fill(0);
        let sum = engine::wire::checksum::checksum(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(read(&link, Peer::Gateway, &bytes), Reading::Aside(Aside::Icmp));
        bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
        assert_eq!(read(&link, Peer::Gateway, &bytes), Reading::Aside(Aside::Other));

        let request = ArpPacket::new(OPERATION_REQUEST, link.gateway_mac, 1, Default::default(), 7);
        bytes[12..14].copy_from_slice(&TYPE_ARP.to_be_bytes());
        bytes.splice(14.., zerocopy::IntoBytes::as_bytes(&request).iter().copied());
        assert_eq!(read(&link, Peer::Gateway, &bytes), Reading::Aside(Aside::Other));
        link.addresses = Some("0.0.0.5-0.0.0.9".parse().unwrap());
        assert_eq!(read(&link, Peer::Gateway, &bytes), Reading::Aside(Aside::ArpRequest));
        assert!(answer_arp(&link, &mut bytes));
        let answer = ArpPacket::new(OPERATION_REPLY, link.mac, 7, link.gateway_mac, 1);
        assert_eq!(ArpPacket::ref_from_bytes(&bytes[14..]).unwrap().sender_mac, answer.sender_mac);
        assert_eq!(zerocopy::IntoBytes::as_bytes(&answer), &bytes[14..]);
        assert_eq!((&bytes[..6], &bytes[6..12]), (&link.gateway_mac.0[..], &link.mac.0[..]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..120usize) {
            for link in [plain_link(), tunnel_link()] {
                let _ = read(&link, Peer::Gateway, &bytes);
                let mut frame = frame(&link.reversed(), 64);
                frame.truncate(cut);
                prop_assert!(!matches!(read(&link, Peer::Gateway, &frame), Reading::Traffic(_)) || cut >= 110
                    || (link.tunnel.is_none() && cut >= 60));
            }
        }

        #[test]
        fn no_changed_byte_of_a_packet_goes_unnoticed(at in 14..60usize, change in 1..=255u8) {
            // All that the checksums cover: what follows Ethernet's header. A checksum of two bytes misses no change
            // of one byte.
            let link = plain_link();
            let found = fault_after(&link, |frame| frame[at] ^= change);
            prop_assert!(found.is_some(), "byte {}", at);
        }
    }
}
