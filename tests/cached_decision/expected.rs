//! What must leave of a packet, read by an implementation that is not ours.

use std::net::Ipv4Addr;

use engine::table::flow::FlowKey;
use pnet::packet::icmp::{self, IcmpPacket};
use pnet::packet::ipv4::{self, Ipv4Packet};
use pnet::packet::tcp::{self, TcpPacket};
use pnet::packet::udp::{self, UdpPacket};

use crate::scene::NODE;
use crate::support::ip;
use crate::support::packets::{crc32c, fix_ipv4, read_ip};
use crate::traffic::{ICMP, SCTP, Sent, TCP, UDP};

/// Whether a frame is one of the gateway's own tunnel packets.
pub fn is_tunnel(frame: &[u8]) -> bool {
    frame.len() > 64
        && frame[23] == UDP
        && frame[26..30] == ip(NODE).octets()
        && frame[36..38] == 8_472u16.to_be_bytes()
}

/// The frame with the outer identification set to zero, the checksum over it having been right.
pub fn without_running_number(mut frame: Vec<u8>) -> Vec<u8> {
    if is_tunnel(&frame) {
        let outer = Ipv4Packet::new(&frame[14..]).expect("an outer header");
        assert_eq!(outer.get_checksum(), ipv4::checksum(&outer), "outer header: {frame:02x?}");
        frame[18..20].fill(0);
        fix_ipv4(&mut frame[14..]);
    }
    frame
}

/// Asserts that a tunnel packet has an outer checksum if it should, and that one is right.
pub fn assert_outer_checksum(frame: &[u8], is_wanted: bool) {
    let datagram = UdpPacket::new(&frame[34..]).expect("a UDP header");
    let address = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
    let right = if is_wanted { udp::ipv4_checksum(&datagram, &address(26), &address(30)) } else { 0 };
    assert_eq!(datagram.get_checksum(), right, "outer checksum: {frame:02x?}");
}

/// Asserts that what left is the packet that came, rewritten to `to` and nothing else.
pub fn assert_rewritten(sent: &Sent, to: &FlowKey, port: &str, frame: &[u8]) {
    let packet = if is_tunnel(frame) { &frame[64..] } else { &frame[14..] };
    let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let (packet, came) = (&packet[..length], &sent.packet);
    if packet[9] == ICMP
        && (sent.key.protocol != ICMP || ![0, 8].contains(&packet[usize::from(packet[0] & 0x0f) * 4]))
    {
        // An error that was made here about it.
        read_ip(packet);
        return;
    }
    let header = usize::from(came[0] & 0x0f) * 4;
    assert_eq!((packet[0], packet.len(), packet[9]), (came[0], came.len(), came[9]), "{sent:02x?}");
    assert_eq!(packet[12..16], to.source.to_be_bytes(), "source: {sent:02x?}");
    assert_eq!(packet[16..20], to.destination.to_be_bytes(), "destination: {sent:02x?}");
    // A frame for another station stays on the bridge unless its destination is rewritten.
    let is_bridged = sent.is_bridged() && to.destination == sent.key.destination;
    if is_bridged {
        assert_eq!(frame[..14], sent.frame[..14], "no header but the sender's own: {sent:02x?}");
    }
    let is_hop = !is_bridged && port != "host" && sent.port != "host";
    assert_eq!(packet[8], came[8] - u8::from(is_hop), "hop limit: {sent:02x?}");
    assert_eq!(packet[1], traffic_class(sent), "DSCP and ECN: {sent:02x?}");
    if is_tunnel(frame) {
        assert_eq!(frame[15] & 3, packet[1] & 3, "normal mode (RFC 6040, section 4.1): {sent:02x?}");
    }
    assert_eq!((&packet[4..8], &packet[20..header]), (&came[4..8], &came[20..header]), "{sent:02x?}");
    let read = Ipv4Packet::new(packet).expect("a header");
    assert_eq!(read.get_checksum(), ipv4::checksum(&read), "header checksum: {sent:02x?}");
    assert_transport(sent, to, packet, header);
}

/// DSCP stays; congestion on the way through the tunnel is noted (RFC 6040, section 4.2).
fn traffic_class(sent: &Sent) -> u8 {
    const ECT_0: u8 = 2;
    const ECT_1: u8 = 1;
    let inner = sent.packet[1];
    let outer = if sent.is_tunnelled() { sent.frame[15] & 3 } else { 0 };
    let ecn = match (inner & 3, outer) {
        (ECT_0 | ECT_1, 3) => 3,
        (ECT_0, ECT_1) => ECT_1,
        (ecn, _) => ecn,
    };
    inner & !3 | ecn
}

fn assert_transport(sent: &Sent, to: &FlowKey, packet: &[u8], header: usize) {
    let (left, came) = (&packet[header..], &sent.packet[header..]);
    let (ports, checksum) = match sent.key.protocol {
        TCP => (Some([to.source_port, to.destination_port]), 16..18),
        UDP => (Some([to.source_port, to.destination_port]), 6..8),
        SCTP => (Some([to.source_port, to.destination_port]), 8..12),
        ICMP => (None, 2..4),
        _ => (None, 0..0),
    };
    let mut expected = came.to_vec();
    match ports {
        Some([source, destination]) => {
            expected[..2].copy_from_slice(&source.to_be_bytes());
            expected[2..4].copy_from_slice(&destination.to_be_bytes());
        }
        None if sent.key.protocol == ICMP => {
            expected[4..6].copy_from_slice(&to.source_port.max(to.destination_port).to_be_bytes());
        }
        None => {}
    }
    // Whatever is the checksum's is looked at below.
    expected[checksum.clone()].copy_from_slice(&left[checksum]);
    assert_eq!(left, expected, "transport: {sent:02x?}");
    let is_unsummed = sent.key.protocol == UDP && came[6..8] == [0, 0];
    if is_unsummed {
        assert_eq!(left[6..8], [0, 0], "none stays none: {sent:02x?}");
    } else {
        let is_right = has_right_checksum(sent.key.protocol, left, to);
        // A wrong one stays wrong: it is the receiver's to see.
        assert_eq!(
            is_right,
            !sent.shape.is_damaged || !has_checksum(sent.key.protocol),
            "{sent:02x?} {packet:02x?}"
        );
    }
}

fn has_checksum(protocol: u8) -> bool {
    [TCP, UDP, ICMP, SCTP].contains(&protocol)
}

fn has_right_checksum(protocol: u8, transport: &[u8], key: &FlowKey) -> bool {
    let (source, destination) = (Ipv4Addr::from(key.source), Ipv4Addr::from(key.destination));
    match protocol {
        TCP => {
            let tcp = TcpPacket::new(transport).expect("a TCP header");
            tcp.get_checksum() == tcp::ipv4_checksum(&tcp, &source, &destination)
        }
        UDP => {
            let udp = UdpPacket::new(transport).expect("a UDP header");
            udp.get_checksum() == udp::ipv4_checksum(&udp, &source, &destination)
        }
        ICMP => {
            let message = IcmpPacket::new(transport).expect("an ICMP header");
            message.get_checksum() == icmp::checksum(&message)
        }
        SCTP => transport[8..12] == crc32c(transport),
        _ => true,
    }
}
