//! The packet of a trace as bytes through the pipeline, held against what the trace says.

use std::collections::BTreeSet;
use std::net::IpAddr;

use pipelines::control::kubernetes::ObjectStore;
use pipelines::trace::grammar::{PacketSpec, Transport};
use pipelines::trace::{Question, trace};
use serde_json::{Value, json};

use crate::support::packets::*;
use crate::support::{World, pod_port};

/// The packet's bytes, by pnet.
pub(crate) fn bytes(packet: &PacketSpec) -> Vec<u8> {
    let (source, destination) = (packet.source().to_string(), packet.destination().to_string());
    let padding = |headers: u16| vec![0x5a; usize::from(packet.length - headers)];
    let ends = packet
        .transport
        .ports()
        .map(|(from, to)| (format!("{source}:{from}"), format!("{destination}:{to}")));
    let (from, to) = ends.unwrap_or_default();
    let built = match packet.transport {
        Transport::Tcp(_, _, flags) => tcp(&from, &to, flags, &padding(40)),
        Transport::Udp(..) => udp(&from, &to, &padding(28)),
        Transport::Echo(identifier) => echo(&source, &destination, false, identifier),
        Transport::Sctp(from, to) => {
            let header = [from.to_be_bytes(), to.to_be_bytes()].concat();
            ipv4_with(&source, &destination, 132, 64, &[header, vec![0; 8], padding(32)].concat())
        }
        Transport::Gre => ipv4_with(&source, &destination, 47, 64, &[0, 0, 8, 0]),
        other => unreachable!("not in the grammar: {other:?}"),
    };
    let built = with_ipv4_byte(&built, 6, if packet.dont_fragment { 0x40 } else { 0 });
    with_ipv4_byte(&built, 8, packet.time_to_live)
}

/// Lets the packet arrive where the trace says that it does.
fn arrive(world: &mut World, packet: &PacketSpec, trace: &Value) {
    let bytes = bytes(packet);
    let last = |address: std::net::Ipv4Addr| address.octets()[3];
    match trace["packet"]["ingress"]["interface"].as_str().unwrap() {
        "host" => {
            let frame = ethernet("02:70:67:00:00:01", "02:00:00:00:00:99", 0x0800, &bytes);
            world.send_from_host(&frame);
        }
        "flannel.1" => world.send("eth0", &from_tunnel(&bytes)),
        "eth0" => world.send("eth0", &to_node(CLIENT_MAC, &bytes)),
        _ => {
            let (source, to) = packet.addresses.v4().unwrap();
            let from = last(source);
            let is_neighbour = to.octets()[..3] == [172, 30, 76] && last(to) > 1;
            let mac = if is_neighbour { pod_mac(last(to)) } else { BRIDGE_MAC.to_owned() };
            assert_eq!(trace["packet"]["ingress"]["port"], pod_port(from));
            world.send(pod_port(from), &ethernet(&mac, &pod_mac(from), 0x0800, &bytes));
        }
    }
    world.turn();
}

/// All that left since it was last asked, by port; `host` for the host's own stack.
pub(crate) fn left(world: &mut World) -> Vec<(String, Vec<u8>)> {
    let names: Vec<String> = world.configuration.ports.iter().map(|port| port.name.clone()).collect();
    let mut frames = Vec::new();
    for name in names {
        frames.extend(world.sent(&name).into_iter().map(|frame| (name.clone(), frame)));
    }
    frames.extend(world.sent_to_host().into_iter().map(|frame| ("host".to_owned(), frame)));
    frames
}

/// Asserts that a packet that left is as the trace says.
fn assert_left_as(trace: &Value, packet: &PacketSpec, port: &str, frame: &[u8]) {
    let egress = &trace["egress"];
    let seen = match egress["vxlan"].as_object() {
        None => read(frame),
        Some(vxlan) => {
            let (outer, vni, inner) = read_tunnel(frame);
            let said = json!({
                "vni": vni, "local": outer.source, "remote": outer.destination,
                "inner_destination_mac": inner.destination_mac, "udp_port": outer.ports.1,
            });
            assert_eq!(&Value::Object(vxlan.clone()), &said, "{trace:#}");
            inner
        }
    };
    assert_eq!(egress["port"].as_str().unwrap_or("host"), port, "{trace:#}");
    let hops = u8::from(
        trace["verdict"] == "forward"
            && trace["packet"]["ingress"]["interface"] != "host"
            && trace["reason"] != "stays on the bridge",
    );
    assert_eq!(seen.ttl, packet.time_to_live - hops, "{trace:#}");
    let translated = &trace["translated"];
    let or = |key: &str, otherwise: &str| translated[key].as_str().unwrap_or(otherwise).to_owned();
    assert_eq!(seen.source.to_string(), or("source", &packet.source().to_string()), "{trace:#}");
    assert_eq!(
        seen.destination.to_string(),
        or("destination", &packet.destination().to_string()),
        "{trace:#}"
    );
    if let (Some((from, to)), 6 | 17) = (packet.transport.ports(), seen.protocol) {
        assert_eq!(u64::from(seen.ports.1), translated["destination_port"].as_u64().unwrap_or(to.into()));
        match trace["snat"]["ports"].as_str().and_then(|ports| ports.split_once('-')) {
            Some((first, last)) => {
                assert!(
                    (first.parse::<u16>().unwrap()..=last.parse().unwrap()).contains(&seen.ports.0),
                    "{trace:#}"
                );
            }
            None => assert_eq!(seen.ports.0, from),
        }
    }
}

/// Asserts that what left is the ICMP error that the trace says, to the packet's sender.
fn assert_refused_as(trace: &Value, packet: &PacketSpec, frame: &[u8]) {
    let is_tunnelled = trace["packet"]["ingress"]["interface"] == "flannel.1";
    let error = if is_tunnelled { read_tunnel(frame).2 } else { read(frame) };
    let code = match trace["reject_with"].as_str().unwrap() {
        "icmp-port-unreachable" => 0x0303,
        "icmp-fragmentation-needed" => 0x0304,
        "icmp-time-exceeded" => 0x0b00,
        other => panic!("{other}"),
    };
    assert_eq!((error.protocol, error.flags), (1, code), "{trace:#}");
    assert_eq!(error.destination.to_string(), packet.source().to_string());
}

/// Traces for every candidate: as many seeds as it takes to draw each.
pub(crate) fn traces(world: &World, packet: &PacketSpec) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    for seed in 0..100 {
        let question = Question { packet: (*packet).into(), ingress: None, seed };
        let trace = trace(&world.configuration, &ObjectStore::new(), &|_| None, &question).unwrap();
        let candidates = trace.candidates.len();
        let trace = serde_json::to_value(trace).unwrap();
        if !found.iter().any(|other| other["chosen"] == trace["chosen"]) {
            found.push(trace);
        }
        if found.len() >= candidates {
            return found;
        }
    }
    panic!("{packet}: some candidate is never drawn: {found:#?}");
}

/// The trace that speaks of what left: the one that chose the backend which the packet went to.
fn matching<'a>(traces: &'a [Value], frames: &[(String, Vec<u8>)]) -> &'a Value {
    if traces.len() == 1 {
        return &traces[0];
    }
    let destinations: Vec<String> = frames
        .iter()
        .map(|(port, frame)| if port == "eth0" { read_tunnel(frame).2.to() } else { read(frame).to() })
        .collect();
    let endpoint = |trace: &Value| {
        format!("{}:{}", trace["chosen"]["address"].as_str().unwrap(), trace["chosen"]["port"])
    };
    let found = traces.iter().find(|trace| destinations.contains(&endpoint(trace)));
    found.unwrap_or_else(|| panic!("{destinations:?} is no candidate"))
}

/// Sends a case's packet as bytes, several times from different ports, and holds what happens against its traces.
pub(crate) fn compare(world: &mut World, packet: &PacketSpec) -> BTreeSet<String> {
    let mut chosen = BTreeSet::new();
    for number in 0..20 {
        let mut packet = *packet;
        let before = world.drops();
        match &mut packet.transport {
            Transport::Tcp(from, ..) | Transport::Udp(from, _) | Transport::Sctp(from, _) => *from += number,
            Transport::Echo(identifier) => *identifier += number,
            Transport::Gre if number > 0 => break,
            _ => {}
        }
        let traces = traces(world, &packet);
        let flows: Vec<usize> = world.workers.iter().map(|worker| worker.pipeline.flows().len()).collect();
        arrive(world, &packet, &traces[0]);
        let frames = left(world);
        let trace = matching(&traces, &frames);
        chosen.insert(trace["chosen"].to_string());
        let dropped: Vec<(&str, u64)> = world
            .drops()
            .into_iter()
            .map(|(name, count)| (name, count - before.iter().find(|b| b.0 == name).map_or(0, |b| b.1)))
            .filter(|drop| drop.1 > 0)
            .collect();
        let reason = trace["reason"].as_str().unwrap();
        match trace["verdict"].as_str().unwrap() {
            "forward" | "deliver" => {
                assert_eq!((frames.len(), &dropped[..]), (1, &[][..]), "{packet}: {trace:#}");
                if reason.contains("answers it") {
                    let answer = read(&frames[0].1);
                    assert_eq!((answer.flags, IpAddr::from(answer.destination)), (0, packet.source()));
                } else {
                    assert_left_as(trace, &packet, &frames[0].0, &frames[0].1);
                }
            }
            "reject" => {
                assert_eq!((frames.len(), &dropped[..]), (1, &[(reason, 1)][..]), "{packet}");
                assert_refused_as(trace, &packet, &frames[0].1);
            }
            _ => assert_eq!((frames.len(), &dropped[..]), (0, &[(reason, 1)][..]), "{packet}: {trace:#}"),
        }
        let owner = trace["flow"]["owner"].as_u64();
        for (worker, before) in flows.iter().enumerate() {
            let made = world.workers[worker].pipeline.flows().len() - before;
            assert_eq!(
                made,
                usize::from(owner == Some(worker as u64)),
                "{packet} at worker {worker}: {trace:#}"
            );
        }
    }
    chosen
}
