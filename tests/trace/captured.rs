//! Packets as bytes: from captures and in hexadecimal.

use pipelines::control::kubernetes::ObjectStore;
use pipelines::trace::captured::{Asked, Captured, FRAME_MAX};
use pipelines::trace::grammar::PacketSpec;
use pipelines::trace::json::Verdict;
use pipelines::trace::{Ingress, Question, trace};
use serde_json::{Value, json};

use crate::pipeline::{bytes, left};
use crate::support::packets::*;
use crate::support::{World, reference};
use crate::{CASES, REFERENCE, repository, run, schema, traced};

fn ask(world: &World, packet: impl Into<Asked>, ingress: Option<Ingress>) -> Value {
    let question = Question { packet: packet.into(), ingress, seed: 3 };
    let trace = trace(&world.configuration, &ObjectStore::new(), &|_| None, &question).unwrap();
    serde_json::to_value(trace).unwrap()
}

fn port(name: &str) -> Option<Ingress> {
    Some(Ingress::Port(name.to_owned()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn bytes_are_traced_as_the_same_packet_in_words() {
    let world = World::new(&reference());
    for (packet, ..) in CASES {
        let mut spec: PacketSpec = packet.parse().unwrap();
        let ip = bytes(&spec);
        spec.length = ip.len() as u16;
        let said = ask(&world, spec, None);
        assert_eq!(ask(&world, Captured::ip(&ip).unwrap(), None), said, "{packet}");
        // Captured where nobody has the gateway's MACs.
        let frame = ethernet("02:00:00:00:00:aa", "02:00:00:00:00:bb", 0x0800, &ip);
        let mut captured = ask(&world, Captured::frame(&frame).unwrap(), None);
        let parse = captured.pointer_mut("/steps/0/result").unwrap();
        *parse = parse.as_str().unwrap().replace(", with the MACs of stations there", "").into();
        assert_eq!(captured, said, "{packet}");
    }
}

#[test]
fn a_tunnels_datagrams_are_traced_as_coming_through_the_tunnel() {
    let world = World::new(&reference());
    let spec: PacketSpec = "tcp 172.30.9.9:40000 > 10.254.116.224:50051".parse().unwrap();
    let via = ask(&world, spec, Some(Ingress::Tunnel(1, "192.168.0.22".parse().unwrap())));
    let datagram = from_tunnel(&bytes(&spec));
    let elsewhere = [&[2, 0, 0, 0, 0, 0xaa][..], &datagram[6..]].concat();
    for (frame, ingress) in [(&datagram, None), (&elsewhere, None), (&datagram, port("eth0"))] {
        let mut captured = ask(&world, Captured::frame(frame).unwrap(), ingress);
        assert_eq!(captured["packet"]["ingress"]["interface"], "flannel.1");
        captured["packet"]["ingress"]["derived"] = json!(false);
        captured["steps"][0] = via["steps"][0].clone();
        assert_eq!(captured, via);
    }
    // What parse and vxlan_decap say of other tunnels.
    let wrong = tunnel_with(2, VTEP_MAC, &bytes(&spec));
    assert_eq!(ask(&world, Captured::frame(&wrong).unwrap(), None)["reason"], "vni_unknown");
    let wrong = tunnel_with(1, NODE_2_VTEP_MAC, &bytes(&spec));
    assert_eq!(ask(&world, Captured::frame(&wrong).unwrap(), None)["reason"], "inner_foreign_mac");
}

/// Frames at a port of the reference cluster, and what becomes of them.
fn frames() -> Vec<(&'static str, &'static str, Vec<u8>, Verdict, &'static str)> {
    use Verdict::{Deliver, Drop, Forward};
    let (pod, remote) = ("172.30.76.7", "172.30.9.2");
    let datagram = udp("172.30.76.7:40000", "172.30.9.2:2000", &[1; 20]);
    let error = |to: &str| icmp_error("192.168.0.50", to, 3, 3, &datagram[..28]);
    let mut fragment = datagram.clone();
    fragment[6..8].copy_from_slice(&[0x00, 0x03]);
    fix_ipv4(&mut fragment);
    let ipv6 = [&[0x60, 0, 0, 0, 0, 0, 59, 64][..], &[0x20; 32]].concat();
    let tagged = [&[0, 5, 0x08, 0][..], &datagram].concat();
    let timestamp = ipv4_with(pod, remote, 1, 64, &[13, 0, 0, 0, 0, 0, 0, 0]);
    let group = udp("172.30.76.7:5353", "224.0.0.251:5353", &[1; 20]);
    let mdns = ethernet("01:00:5e:00:00:fb", &pod_mac(7), 0x0800, &group);
    vec![
        ("pod's", "business-manager-1", from_pod(7, &datagram), Forward, "routed"),
        ("reply", "business-manager-1", from_pod(7, &echo(pod, remote, true, 9)), Drop, "icmp_unsolicited"),
        ("timestamp", "business-manager-1", from_pod(7, &timestamp), Drop, "icmp_type_unsupported"),
        ("error", "eth0", to_node(CLIENT_MAC, &error(pod)), Drop, "icmp_error_untracked"),
        (
            "host's error",
            "eth0",
            to_node(CLIENT_MAC, &error("192.168.0.21")),
            Deliver,
            "an ICMP error to 192.",
        ),
        ("fragment", "business-manager-1", from_pod(7, &fragment), Drop, "fragment"),
        ("cut", "business-manager-1", from_pod(7, &datagram[..40]), Drop, "ipv4_truncated"),
        (
            "ESP",
            "business-manager-1",
            from_pod(7, &ipv4_with(pod, remote, 50, 64, &[0; 8])),
            Forward,
            "routed",
        ),
        ("IPv6", "eth0", ethernet(NODE_MAC, CLIENT_MAC, 0x86dd, &ipv6), Drop, "ether_type_unsupported"),
        ("tag", "eth0", ethernet(NODE_MAC, CLIENT_MAC, 0x8100, &tagged), Drop, "vlan_tag"),
        ("foreign", "eth0", ethernet(NODE_2_MAC, CLIENT_MAC, 0x0800, &datagram), Drop, "foreign_mac"),
        (
            "bad MAC",
            "eth0",
            ethernet(NODE_MAC, "00:00:00:00:00:00", 0x0800, &datagram),
            Drop,
            "source_mac_invalid",
        ),
        (
            "bridged IPv6",
            "business-manager-1",
            ethernet(&pod_mac(5), &pod_mac(7), 0x86dd, &ipv6),
            Forward,
            "stays on",
        ),
        ("group", "business-manager-1", mdns, Forward, "stays on the bridge"),
    ]
}

#[test]
fn the_pipeline_does_with_frames_what_the_trace_says() {
    for (name, at, frame, verdict, reason) in frames() {
        let mut world = World::new(&reference());
        let trace = ask(&world, Captured::frame(&frame).unwrap(), port(at));
        assert_eq!(
            (&trace["verdict"], trace["reason"].as_str().unwrap().contains(reason)),
            (&json!(verdict), true),
            "{name}: {trace:#}"
        );
        assert_eq!(crate::schema::problems(&schema(), &trace), Vec::<String>::new(), "{name}");
        let before = world.drops();
        world.send(at, &frame);
        world.turn();
        let sent = left(&mut world);
        let dropped: Vec<&str> =
            world.drops().iter().filter(|drop| !before.contains(drop)).map(|drop| drop.0).collect();
        match verdict {
            Verdict::Drop => assert_eq!((sent.len(), dropped), (0, vec![reason]), "{name}"),
            Verdict::Deliver => assert_eq!((sent.len(), sent[0].0.as_str()), (1, "host"), "{name}"),
            _ => {
                let is_flooded = trace["egress"]["port"] == "docker0" && reason.starts_with("stays");
                assert!(!sent.is_empty() && dropped.is_empty(), "{name}: {dropped:?}");
                assert!(is_flooded || trace["egress"]["port"] == sent[0].0, "{name}: {trace:#}");
            }
        }
        world.assert_balanced();
    }
}

#[test]
fn captures_are_read_by_record() {
    let fixture = "tests/fixtures/kernel-vxlan.pcap";
    let ask = |more: &[&str]| {
        let output = run(&[&["--config", REFERENCE, "--pcap", fixture, "--json"], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let trace: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(crate::schema::problems(&schema(), &trace), Vec::<String>::new());
        trace
    };
    let first = ask(&[]);
    assert_eq!(first["packet"]["text"], "tcp 172.30.9.2:60388 > 172.30.76.5:50051 flags S ttl 63 len 60 df");
    assert_eq!(first["packet"]["ingress"]["remote"], "192.168.0.22");
    // The first records are ARP.
    let number = (1..10).find(|number| {
        let output = run(&["--config", REFERENCE, "--pcap", fixture, "--number", &number.to_string()]);
        output.status.success()
    });
    assert_eq!(ask(&["--number", &number.unwrap().to_string()]), first);
    for (arguments, message) in [
        (
            &["--pcap", fixture, "--number", "1"][..],
            "record 1 of tests/fixtures/kernel-vxlan.pcap: a frame of EtherType 0x0806 (ARP)",
        ),
        (&["--pcap", fixture, "--number", "999"], "has 27 records, so there is no number 999"),
        (&["--pcap", fixture, "--number", "0"], "0 is not in 1.."),
        (&["--pcap", "nowhere.pcap"], "cannot open nowhere.pcap"),
        (&["--pcap", REFERENCE], "is no capture file"),
        (&["--hex", "45000014", "--number", "1"], "--number N is a record's of a capture"),
        (&["--hex", "4500001g"], "--hex: bytes, line 1, column 1: `4500001g`; expected pairs"),
        (&["--hex", "45000014"], "IPv4's has 20 bytes, and 4 are there"),
        (&["--hex", "ff"], "1 bytes are no Ethernet frame"),
        (&["--hex", "ffffffffffff0200000000010806"], "EtherType 0x0806 (ARP) is no IP packet"),
        (&["--hex", "0200000000020200000000010800"], "the frame ends before it"),
        (&["--hex", "020000000002020000000001080055"], "its version is 5, not 4 or 6"),
        (&["--hex", "", "--pcap", fixture], "cannot be used with"),
        (&["--hex", ""], "there are none"),
        (&["--packet", "gre 1.2.3.4 > 1.2.3.5", "--hex", "00"], "cannot be used with"),
        (&[], "--packet <PACKET>|--pcap <FILE>|--hex <BYTES>"),
    ] {
        let output = run(&[&["--config", REFERENCE], arguments].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?} {text}");
        assert!(text.contains(message), "{arguments:?}: {text}");
    }
}

#[test]
fn frames_that_no_buffer_holds_are_refused() {
    let longest = FRAME_MAX - 14 - 28;
    let frame = |length: usize| from_pod(7, &udp("172.30.76.7:1", "172.30.9.2:2", &vec![0; length]));
    let world = World::new(&reference());
    let tunnel = Some(Ingress::Tunnel(1, "192.168.0.22".parse().unwrap()));
    let trace = ask(&world, Captured::frame(&frame(longest)).unwrap(), tunnel);
    assert_ne!(trace["reason"], "ethernet_truncated");
    let error = Captured::frame(&frame(longest + 1)).unwrap_err().to_string();
    assert!(error.contains(&format!("a frame of {} bytes is longer", FRAME_MAX + 1)), "{error}");
}

#[test]
fn a_capture_that_kept_the_beginning_of_a_packet_says_enough() {
    let spec: PacketSpec = "udp 172.30.76.7:40000 > 172.30.9.2:2000 len 1400".parse().unwrap();
    let frame = from_pod(7, &bytes(&spec));
    // A pcap file by hand (draft-ietf-opsawg-pcap): header, one record of 64 bytes of the frame's.
    let mut file = [0xa1b2_c3d4u32, 0x0002_0004, 0, 0, 64, 1].map(u32::to_be_bytes).concat();
    file.extend([0, 0, 64, frame.len() as u32].map(u32::to_be_bytes).concat());
    file.extend(&frame[..64]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.pcap");
    std::fs::write(&path, file).unwrap();
    let (captured, missing) = Captured::from_file(&path, None).unwrap();
    assert_eq!(missing, frame.len() - 64);
    let world = World::new(&reference());
    let (cut, whole) = (ask(&world, captured, None), ask(&world, Captured::frame(&frame).unwrap(), None));
    assert_eq!(cut, whole);
}

#[test]
fn hexadecimal_is_a_frame_or_a_packet() {
    let spec: PacketSpec = "tcp 172.30.76.7:40000 > 10.254.116.224:50051".parse().unwrap();
    let said = traced(REFERENCE, &spec.to_string(), &[]);
    let ip = bytes(&spec);
    let frame = from_pod(7, &ip);
    let dump =
        frame.chunks(16).enumerate().map(|(line, bytes)| format!("\t{:#06x}:  {}\n", line * 16, hex(bytes)));
    for text in [hex(&ip), hex(&frame), dump.collect()] {
        let output = run(&["--config", REFERENCE, "--hex", &text, "--json"]);
        let trace: Value = serde_json::from_slice(&output.stdout).unwrap();
        for key in ["packet", "verdict", "chosen", "translated", "egress", "flow"] {
            assert_eq!(trace[key], said[key], "{key} of {text}");
        }
    }
    // A source address that looks like an EtherType, in a packet all the same.
    let spec: PacketSpec = "udp 8.0.0.1:53 > 172.30.76.7:5353".parse().unwrap();
    let captured = Captured::from_hex(&hex(&bytes(&spec))).unwrap();
    assert_eq!(captured.spec(), &spec);
    // And a MAC that begins as an IP header does.
    let frame = ethernet("44:00:00:00:00:01", CLIENT_MAC, 0x0800, &bytes(&spec));
    assert_eq!(Captured::from_hex(&hex(&frame)).unwrap().spec(), &spec);
}

#[test]
fn ipv6_is_what_parse_says() {
    for (packet, protocol, port) in [
        ("tcp [2001:db8::1]:1000 > [fd00::1]:80", "tcp", json!(1000)),
        ("udp [2001:db8::1]:1000 > [fd00::1]:80 ttl 1", "udp", json!(1000)),
        ("icmp echo [2001:db8::1] > [fd00::1] id 7", "icmp", Value::Null),
        ("gre [2001:db8::1] > [fd00::1]", "gre", Value::Null),
    ] {
        for more in
            [&[][..], &["--in", "business-manager-1"], &["--in", "host"], &["--via", "1@192.168.0.22"]]
        {
            let trace = traced(REFERENCE, packet, more);
            assert_eq!(
                (&trace["verdict"], &trace["reason"]),
                (&json!("drop"), &json!("ether_type_unsupported"))
            );
            let told = &trace["packet"];
            assert_eq!((&told["source"], &told["destination"]), (&json!("2001:db8::1"), &json!("fd00::1")));
            assert_eq!((&told["protocol"], &told["source_port"]), (&json!(protocol), &port));
            assert_eq!(told["text"].as_str().unwrap().parse::<PacketSpec>(), packet.parse());
        }
    }
    for file in ["configs/service-balancer.toml", "configs/reference-cluster.toml"] {
        let path = repository().join(file);
        assert_eq!(
            traced(path.to_str().unwrap(), "gre [::1] > [::2]", &[])["reason"],
            "ether_type_unsupported"
        );
    }
    let output = run(&["--config", REFERENCE, "--packet", "gre [::1] > 10.0.0.1"]);
    assert_eq!(output.status.code(), Some(2));
}
