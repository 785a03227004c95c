//! The views of `engine::wire` against etherparse, which knows the same protocols from elsewhere.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use engine::wire::arp::ArpPacket;
use engine::wire::checksum;
use engine::wire::ethernet::{EthernetHeader, MacAddress, TYPE_ARP, TYPE_IPV4};
use engine::wire::icmp::{self, IcmpHeader};
use engine::wire::ipv4::{self, Ipv4Header};
use engine::wire::tcp::{self, TcpHeader};
use engine::wire::udp::UdpHeader;
use engine::wire::vxlan::VxlanHeader;
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, IcmpEchoHeader, Icmpv4Type, IpFragOffset, IpHeaders, IpNumber,
    PacketBuilder,
};
use proptest::prelude::*;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

type Mac = [u8; 6];

/// What stands in front of the transport header: the MACs and an IPv4 header with options.
fn network() -> impl Strategy<Value = (Mac, Mac, etherparse::Ipv4Header)> {
    let words = proptest::collection::vec(any::<[u8; 4]>(), 0..=10);
    let fields = (any::<u8>(), any::<u16>(), any::<u16>(), any::<u8>(), any::<[u8; 4]>(), any::<[u8; 4]>());
    (any::<Mac>(), any::<Mac>(), fields, words).prop_map(|(source, destination, fields, options)| {
        let (class, identification, fragment, time_to_live, from, to) = fields;
        let header = etherparse::Ipv4Header {
            dscp: (class >> 2).try_into().unwrap(),
            ecn: (class & 3).try_into().unwrap(),
            identification,
            dont_fragment: fragment & 0x4000 != 0,
            more_fragments: fragment & 0x2000 != 0,
            fragment_offset: IpFragOffset::try_new(fragment & 0x1fff).unwrap(),
            time_to_live,
            source: from,
            destination: to,
            options: options.as_flattened().try_into().unwrap(),
            ..Default::default()
        };
        (source, destination, header)
    })
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    // Short ones for their edges, long ones for lengths and sums above 8 bits.
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..50),
        proptest::collection::vec(any::<u8>(), 300..1400)
    ]
}

fn tcp_header() -> impl Strategy<Value = etherparse::TcpHeader> {
    let numbers = (any::<u16>(), any::<u16>(), any::<u32>(), any::<u32>(), any::<u16>(), any::<u16>());
    (numbers, any::<u8>(), 0..=10usize).prop_map(|(numbers, flags, option_words)| {
        let (source, destination, sequence, acknowledgement, window, urgent) = numbers;
        let mut header = etherparse::TcpHeader::new(source, destination, sequence, window);
        header.acknowledgment_number = acknowledgement;
        header.urgent_pointer = urgent;
        let flag = |bit: u8| flags & 1 << bit != 0;
        (header.fin, header.syn, header.rst, header.psh) = (flag(0), flag(1), flag(2), flag(3));
        (header.ack, header.urg, header.ece, header.cwr) = (flag(4), flag(5), flag(6), flag(7));
        // No-operations (RFC 9293, section 3.2): options of any length that is a multiple of four.
        header.set_options_raw(&vec![1; option_words * 4]).unwrap();
        header
    })
}

fn view<T: FromBytes + Immutable + KnownLayout + Unaligned>(bytes: &[u8]) -> (&T, &[u8]) {
    T::ref_from_prefix(bytes).ok().unwrap()
}

/// Checks the frame's outer headers field by field, and returns the IPv4 header with what it carries.
fn check_network<'a>(
    frame: &'a [u8],
    macs: (Mac, Mac),
    expected: &etherparse::Ipv4Header,
    protocol: IpNumber,
) -> Result<(&'a Ipv4Header, &'a [u8]), TestCaseError> {
    let (ethernet, packet) = view::<EthernetHeader>(frame);
    prop_assert_eq!((ethernet.source.0, ethernet.destination.0), macs);
    prop_assert_eq!(ethernet.ether_type.get(), TYPE_IPV4);
    let (header, _) = view::<Ipv4Header>(packet);
    prop_assert_eq!((header.version(), header.header_length()), (4, expected.header_len()));
    prop_assert_eq!(usize::from(header.total_length.get()), packet.len());
    prop_assert_eq!(header.traffic_class, expected.dscp.value() << 2 | expected.ecn.value());
    prop_assert_eq!(header.identification.get(), expected.identification);
    let fragment = header.fragment.get();
    prop_assert_eq!(fragment & ipv4::FLAG_DONT_FRAGMENT != 0, expected.dont_fragment);
    prop_assert_eq!(fragment & ipv4::FLAG_MORE_FRAGMENTS != 0, expected.more_fragments);
    prop_assert_eq!(fragment & ipv4::FRAGMENT_OFFSET_MASK, expected.fragment_offset.value());
    prop_assert_eq!(header.is_fragment(), expected.is_fragmenting_payload());
    prop_assert_eq!((header.time_to_live, header.protocol), (expected.time_to_live, protocol.0));
    prop_assert_eq!((header.source, header.destination), (expected.source, expected.destination));
    prop_assert_eq!(header.source_address().to_be_bytes(), expected.source);
    prop_assert_eq!(header.destination_address().to_be_bytes(), expected.destination);

    let mut bytes = packet[..header.header_length()].to_vec();
    prop_assert!(checksum::is_valid(&bytes));
    bytes[10..12].fill(0);
    prop_assert_eq!(checksum::checksum(&bytes), header.checksum.get());
    let (independent, _) = etherparse::Ipv4Header::from_slice(packet).unwrap();
    prop_assert_eq!(independent.calc_header_checksum(), header.checksum.get());
    Ok((header, &packet[header.header_length()..]))
}

/// The checksum field of a TCP or UDP segment, from its bytes with the field set to zero.
fn segment_checksum(header: &Ipv4Header, segment: &[u8], field: usize) -> u16 {
    let mut bytes = segment.to_vec();
    bytes[field..field + 2].fill(0);
    let (source, destination) = (header.source_address(), header.destination_address());
    let pseudo = checksum::pseudo_header(source, destination, header.protocol, bytes.len() as u16);
    !checksum::fold(checksum::sum(&bytes, pseudo))
}

/// UDP sends a checksum of zero as its other representation, since zero says that there is none (RFC 768).
fn udp_form(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// What a translation of the destination adds to the checksum.
fn translation(old: &Ipv4Header, old_port: u16, new_address: [u8; 4], new_port: u16) -> u16 {
    let address = checksum::delta_u32(old.destination_address(), u32::from_be_bytes(new_address));
    checksum::fold(address + checksum::delta_u16(old_port, new_port))
}

proptest! {
    #[test]
    fn udp_over_ipv4(
        (source, destination, ip) in network(), from: u16, to: u16, payload in payload(), new: ([u8; 4], u16),
    ) {
        let build = |ip: &etherparse::Ipv4Header, to: u16| {
            let mut frame = Vec::new();
            let ip = IpHeaders::Ipv4(ip.clone(), Default::default());
            let builder = PacketBuilder::ethernet2(source, destination).ip(ip).udp(from, to);
            builder.write_to_vec(&mut frame, &payload).unwrap();
            frame
        };
        let frame = build(&ip, to);
        let (header, segment) = check_network(&frame, (source, destination), &ip, IpNumber::UDP)?;
        let (udp, rest) = view::<UdpHeader>(segment);
        prop_assert_eq!((udp.source_port.get(), udp.destination_port.get()), (from, to));
        prop_assert_eq!((usize::from(udp.length.get()), rest), (segment.len(), payload.as_slice()));
        prop_assert_eq!(udp_form(segment_checksum(header, segment, 6)), udp.checksum.get());

        let translated = build(&etherparse::Ipv4Header { destination: new.0, ..ip.clone() }, new.1);
        let (_, packet) = view::<EthernetHeader>(&translated);
        let (after, _) = view::<UdpHeader>(&packet[ip.header_len()..]);
        let updated = checksum::update(udp.checksum.get(), translation(header, to, new.0, new.1));
        prop_assert_eq!(udp_form(updated), after.checksum.get());
    }

    #[test]
    fn tcp_over_ipv4(
        (source, destination, ip) in network(), expected in tcp_header(), payload in payload(), new: ([u8; 4], u16),
    ) {
        let build = |ip: &etherparse::Ipv4Header, tcp: &etherparse::TcpHeader| {
            let mut frame = Vec::new();
            let ip = IpHeaders::Ipv4(ip.clone(), Default::default());
            let builder = PacketBuilder::ethernet2(source, destination).ip(ip).tcp_header(tcp.clone());
            builder.write_to_vec(&mut frame, &payload).unwrap();
            frame
        };
        let frame = build(&ip, &expected);
        let (header, segment) = check_network(&frame, (source, destination), &ip, IpNumber::TCP)?;
        let (seen, _) = view::<TcpHeader>(segment);
        let ports = (seen.source_port.get(), seen.destination_port.get());
        prop_assert_eq!(ports, (expected.source_port, expected.destination_port));
        prop_assert_eq!(seen.sequence.get(), expected.sequence_number);
        prop_assert_eq!(seen.acknowledgement.get(), expected.acknowledgment_number);
        prop_assert_eq!(seen.header_length(), expected.header_len());
        prop_assert_eq!(&segment[seen.header_length()..], payload.as_slice());
        let flags = [
            (tcp::FLAG_FIN, expected.fin), (tcp::FLAG_SYN, expected.syn), (tcp::FLAG_RST, expected.rst),
            (tcp::FLAG_PSH, expected.psh), (tcp::FLAG_ACK, expected.ack),
        ];
        for (flag, is_set) in flags {
            prop_assert_eq!(seen.flags & flag != 0, is_set, "flag {:#x}", flag);
        }
        prop_assert_eq!((seen.window.get(), seen.urgent.get()), (expected.window_size, expected.urgent_pointer));
        prop_assert_eq!(segment_checksum(header, segment, 16), seen.checksum.get());

        let mut moved = expected.clone();
        moved.destination_port = new.1;
        let translated = build(&etherparse::Ipv4Header { destination: new.0, ..ip.clone() }, &moved);
        let (_, packet) = view::<EthernetHeader>(&translated);
        let (after, _) = view::<TcpHeader>(&packet[ip.header_len()..]);
        let delta = translation(header, expected.destination_port, new.0, new.1);
        prop_assert_eq!(checksum::update(seen.checksum.get(), delta), after.checksum.get());
    }

    #[test]
    fn icmp_over_ipv4(
        (source, destination, ip) in network(), is_request: bool, id: u16, seq: u16, payload in payload(),
    ) {
        let echo = IcmpEchoHeader { id, seq };
        let message = if is_request { Icmpv4Type::EchoRequest(echo) } else { Icmpv4Type::EchoReply(echo) };
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(source, destination)
            .ip(IpHeaders::Ipv4(ip.clone(), Default::default()))
            .icmpv4(message);
        builder.write_to_vec(&mut frame, &payload).unwrap();
        let (_, message) = check_network(&frame, (source, destination), &ip, IpNumber::ICMP)?;
        let (header, rest) = view::<IcmpHeader>(message);
        let kind = if is_request { icmp::TYPE_ECHO_REQUEST } else { icmp::TYPE_ECHO_REPLY };
        prop_assert_eq!((header.message_type, header.code), (kind, 0));
        prop_assert_eq!((header.identifier.get(), header.sequence.get()), (id, seq));
        prop_assert_eq!(rest, payload.as_slice());
        prop_assert!(checksum::is_valid(message) && !icmp::is_error(kind));
    }

    #[test]
    fn arp(source: Mac, is_request: bool, sender: [u8; 4], target_mac: Mac, target: [u8; 4]) {
        let operation = if is_request { ArpOperation::REQUEST } else { ArpOperation::REPLY };
        let expected = ArpEthIpv4Packet {
            operation,
            sender_mac: source,
            sender_ipv4: sender,
            target_mac,
            target_ipv4: target,
        };
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(source, [0xff; 6]).arp(expected.clone().into());
        builder.write_to_vec(&mut frame).unwrap();
        let (ethernet, packet) = view::<EthernetHeader>(&frame);
        prop_assert_eq!((ethernet.ether_type.get(), ethernet.destination), (TYPE_ARP, MacAddress::BROADCAST));
        let (seen, rest) = view::<ArpPacket>(packet);
        prop_assert!(seen.is_ethernet_ipv4() && rest.is_empty());
        prop_assert_eq!(seen.operation.get(), operation.0);
        prop_assert_eq!((seen.sender_mac.0, seen.sender_address), (source, sender));
        prop_assert_eq!((seen.target_mac.0, seen.target_address), (target_mac, target));
        let made = ArpPacket::new(
            operation.0,
            MacAddress(source),
            u32::from_be_bytes(sender),
            MacAddress(target_mac),
            u32::from_be_bytes(target),
        );
        prop_assert_eq!(made.as_bytes(), expected.to_bytes());
    }

    /// Whatever the bytes, both read the same, wherever etherparse finds them valid.
    #[test]
    fn arbitrary_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 60..120), words in 5..=15u8) {
        bytes[0] = 0x40 | words;
        let (expected, _) = etherparse::Ipv4Header::from_slice(&bytes).unwrap();
        let (seen, _) = view::<Ipv4Header>(&bytes);
        prop_assert_eq!(seen.header_length(), expected.header_len());
        prop_assert_eq!((seen.total_length.get(), seen.checksum.get()), (expected.total_len, expected.header_checksum));
        prop_assert_eq!(seen.is_fragment(), expected.is_fragmenting_payload());

        bytes[12] = words << 4;
        let (expected, _) = etherparse::TcpHeader::from_slice(&bytes).unwrap();
        let (seen, _) = view::<TcpHeader>(&bytes);
        prop_assert_eq!(seen.header_length(), expected.header_len());
        prop_assert_eq!((seen.sequence.get(), seen.checksum.get()), (expected.sequence_number, expected.checksum));
        prop_assert_eq!(seen.flags & tcp::FLAG_SYN != 0, expected.syn);

        let expected = etherparse::UdpHeader::from_slice(&bytes).unwrap().0;
        let (seen, _) = view::<UdpHeader>(&bytes);
        prop_assert_eq!((seen.length.get(), seen.checksum.get()), (expected.length, expected.checksum));
    }

    #[test]
    fn vxlan_is_rfc_7348s(vni in 0..1u32 << 24, received: [u8; 8]) {
        // Section 5: flags RRRRIRRR, 24 reserved bits, 24 bits of VNI, 8 reserved bits.
        let [_, high, middle, low] = vni.to_be_bytes();
        let header = VxlanHeader::new(vni);
        prop_assert_eq!(header.as_bytes(), [0b0000_1000, 0, 0, 0, high, middle, low, 0]);
        prop_assert_eq!(header.vni(), vni);
        // Reserved bits are ignored on receipt.
        let seen = view::<VxlanHeader>(&received).0;
        prop_assert_eq!(seen.vni().to_be_bytes(), [0, received[4], received[5], received[6]]);
        prop_assert_eq!(seen.flags, received[0]);
    }

    #[test]
    fn mac_addresses_print_parse_and_count(octets: Mac, text in "[0-9a-fA-F:]{0,20}") {
        let mac = MacAddress(octets);
        prop_assert_eq!(mac.to_string().parse::<MacAddress>(), Ok(mac));
        prop_assert_eq!(MacAddress::from_u64(mac.to_u64()), mac);
        prop_assert_eq!(mac.is_multicast(), octets[0] % 2 == 1);
        if let Ok(parsed) = text.parse::<MacAddress>() {
            prop_assert_eq!(parsed.to_string(), text.to_lowercase());
        }
    }
}

/// A view over `LENGTH` bytes exists, over fewer it does not, and it writes back the bytes that it shows.
fn exists_only_over_enough<T>(length: usize)
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned,
{
    let bytes: Vec<u8> = (1..=length as u8 + 1).collect();
    assert_eq!((size_of::<T>(), align_of::<T>()), (length, 1));
    for short in 0..length {
        assert!(T::ref_from_prefix(&bytes[..short]).is_err(), "{short} of {length} bytes");
    }
    let (header, rest) = view::<T>(&bytes);
    assert_eq!((header.as_bytes(), rest), (&bytes[..length], &bytes[length..]));
}

#[test]
fn views_exist_only_over_enough_bytes() {
    exists_only_over_enough::<EthernetHeader>(engine::wire::ethernet::HEADER_LENGTH);
    exists_only_over_enough::<ArpPacket>(engine::wire::arp::LENGTH);
    exists_only_over_enough::<Ipv4Header>(ipv4::HEADER_LENGTH);
    exists_only_over_enough::<TcpHeader>(tcp::HEADER_LENGTH);
    exists_only_over_enough::<UdpHeader>(engine::wire::udp::HEADER_LENGTH);
    exists_only_over_enough::<IcmpHeader>(icmp::HEADER_LENGTH);
    exists_only_over_enough::<VxlanHeader>(engine::wire::vxlan::HEADER_LENGTH);
}

/// RFC 1122, section 3.2.2: which messages report errors and which ask or answer.
#[test]
fn icmp_errors_are_told_from_queries() {
    let errors: Vec<u8> = (0..=255).filter(|&kind| icmp::is_error(kind)).collect();
    assert_eq!(errors, [3, 4, 5, 11, 12]);
}

#[test]
fn texts_that_are_no_mac_are_refused() {
    for text in [
        "",
        "02:42:67:05:b5",
        "02:42:67:05:b5:30:11",
        "2:42:67:05:b5:30",
        "02-42-67-05-b5-30",
        "+2:42:67:05:b5:30",
    ] {
        assert!(text.parse::<MacAddress>().is_err(), "{text}");
    }
}
