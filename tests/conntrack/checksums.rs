//! Checksums of translated packets, computed here by the definitions: what was right is right, what was wrong is wrong.

use crate::support::packets::*;
use crate::support::{World, pod_port, reference};

/// The reference with two services of one local backend each, at another port.
fn with_services() -> String {
    let mut text = reference();
    for (name, address, protocol, port, backend) in [
        ("resolver", "10.254.7.1", "udp", 53, "172.30.76.5:5353"),
        ("signalling", "10.254.7.2", "sctp", 3868, "172.30.76.5:3900"),
        ("same-port", "10.254.7.3", "sctp", 3868, "172.30.76.5:3868"),
        ("web", "10.254.7.4", "tcp", 80, "172.30.76.5:8080"),
    ] {
        text += &format!(
            "\n[[service]]\nnamespace = \"default\"\nname = \"{name}\"\ncluster_ip = \"{address}\"\n\n\
             [[service.ports]]\nprotocol = \"{protocol}\"\nport = {port}\nbackends = [{{ address = \"{backend}\" }}]\n"
        );
    }
    text
}

fn through(world: &mut World, packet: &[u8]) -> Vec<u8> {
    let mut sent = world.exchange(pod_port(7), &from_pod(7, packet), pod_port(5));
    assert_eq!(sent.len(), 1, "{:?}", world.drops());
    sent.remove(0).split_off(14)
}

#[test]
fn sctp_gets_its_crc_when_a_port_changes() {
    let mut world = World::new(&with_services());
    let segment = sctp(5_000, 3_868);
    let sent = through(&mut world, &ipv4_with("172.30.76.7", "10.254.7.2", 132, 64, &segment));
    let leaving = &sent[20..];
    assert_eq!((&leaving[..4], &leaving[12..]), (&[0x13, 0x88, 0x0f, 0x3c][..], &segment[12..]));
    assert_eq!(leaving[8..12], crc32c(leaving));
    let answer = ipv4_with("172.30.76.5", "172.30.76.7", 132, 64, &sctp(3_900, 5_000));
    let back = world.exchange(pod_port(5), &from_pod(5, &answer), pod_port(7)).remove(0).split_off(34);
    assert_eq!((&back[..4], &back[8..12]), (&[0x0f, 0x1c, 0x13, 0x88][..], &crc32c(&back)[..]));
    // A wrong one does not become right.
    let mut wrong = segment.clone();
    wrong[20] ^= 0x10;
    let sent = through(&mut world, &ipv4_with("172.30.76.7", "10.254.7.2", 132, 64, &wrong));
    assert_ne!(sent[28..32], crc32c(&sent[20..]));
    // The CRC covers no addresses.
    let sent = through(&mut world, &ipv4_with("172.30.76.7", "10.254.7.3", 132, 64, &segment));
    assert_eq!(sent[20..], segment);
    world.assert_drops(&[]);
    assert_eq!(world.accounts(), "received 4, transmitted 4");
    world.assert_balanced();
}

#[test]
fn datagram_without_a_checksum_stays_without() {
    let mut world = World::new(&with_services());
    let mut packet = udp("172.30.76.7:4000", "10.254.7.1:53", b"query");
    packet[26..28].copy_from_slice(&[0, 0]);
    let sent = through(&mut world, &packet);
    assert_eq!((&sent[22..24], &sent[26..28]), (&5_353u16.to_be_bytes()[..], &[0, 0][..]));
    let mut answer = udp("172.30.76.5:5353", "172.30.76.7:4000", b"answer");
    answer[26..28].copy_from_slice(&[0, 0]);
    let back = world.exchange(pod_port(5), &from_pod(5, &answer), pod_port(7));
    assert_eq!((read(&back[0]).from(), &back[0][40..42]), ("10.254.7.1:53".to_owned(), &[0, 0][..]));
    world.assert_drops(&[]);
    world.assert_balanced();
}

/// Ones' complement sum of 16-bit words.
fn sum(words: &[u16]) -> u16 {
    words.iter().fold(0u32, |sum, word| {
        let sum = sum + u32::from(*word);
        (sum & 0xffff) + (sum >> 16)
    }) as u16
}

#[test]
fn checksum_that_computes_to_zero_is_sent_as_ones() {
    let mut world = World::new(&with_services());
    // What leaves: 172.30.76.7:4000 to 172.30.76.5:5353, two bytes of payload; twice the length, once the protocol.
    let fixed = sum(&[0xac1e, 0x4c07, 0xac1e, 0x4c05, 17, 10, 4_000, 5_353, 10]);
    let packet = udp("172.30.76.7:4000", "10.254.7.1:53", &(0xffff - fixed).to_be_bytes());
    let sent = through(&mut world, &packet);
    assert_eq!(sent[26..28], [0xff, 0xff]);
    // And its neighbours, which compute to 1 and to ones.
    for (payload, expected) in
        [(0xfffe - fixed, [0x00, 0x01]), ((0xffff - fixed).wrapping_add(1), [0xff, 0xfe])]
    {
        let packet = udp("172.30.76.7:4000", "10.254.7.1:53", &payload.to_be_bytes());
        assert_eq!(through(&mut world, &packet)[26..28], expected);
    }
    world.assert_drops(&[]);
    world.assert_balanced();
}

#[test]
fn wrong_checksum_stays_wrong() {
    let mut world = World::new(&with_services());
    for (at, packet) in [
        (36, tcp("172.30.76.7:4000", "10.254.7.4:80", SYN, b"payload")),
        (26, udp("172.30.76.7:4000", "10.254.7.1:53", b"payload")),
    ] {
        let right = through(&mut world, &packet);
        read_ip(&right);
        let mut damaged = packet.clone();
        *damaged.last_mut().unwrap() ^= 0x04;
        let sent = through(&mut world, &damaged);
        assert_eq!(sent[at..at + 2], right[at..at + 2], "the same checksum over other bytes");
        assert_ne!(sent.last(), right.last());
        let mut other = packet.clone();
        other[at + 1] ^= 1;
        assert_ne!(through(&mut world, &other)[at..at + 2], right[at..at + 2]);
    }
    world.assert_drops(&[]);
    world.assert_balanced();
}

/// Every translation of every kind of packet, with odd lengths and hop limits: pnet finds all checksums right.
#[test]
fn translated_packets_are_right_whatever_their_bytes() {
    let mut world = World::new(&with_services());
    for length in 0..70usize {
        let payload: Vec<u8> = (0..length).map(|byte| (byte * 37 + length) as u8).collect();
        let ttl = 2 + (length * 3) as u8;
        let client = format!("172.30.76.7:{}", 1_000 + length * 901);
        for packet in [
            tcp(&client, "10.254.7.4:80", SYN, &payload),
            udp(&client, "10.254.7.1:53", &payload),
            udp(&client, "172.30.76.5:53", &payload),
        ] {
            let seen = read_ip(&through(&mut world, &with_ipv4_byte(&packet, 8, ttl)));
            assert_eq!((seen.ttl, seen.payload), (ttl - 1, payload.clone()));
        }
        let leaving =
            world.exchange(pod_port(7), &from_pod(7, &udp(&client, "8.8.8.8:53", &payload)), "eth0");
        assert_eq!(read(&leaving[0]).payload, payload);
    }
    world.assert_drops(&[]);
    world.assert_balanced();
}
