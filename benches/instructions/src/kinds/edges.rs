//! What is answered by the gateway itself, what is dropped, and what time does.

use engine::counters::Account;
use engine::port::BURST;

use super::scene::{End, PACKETS, Scene};
use crate::loads::{self, Load};
use crate::meter::Meter;
use crate::support::packets::{
    CLIENT_MAC, NODE_MAC, SYN, arp_request, echo, ethernet, from_pod, pod_mac, tcp, to_node, udp,
    with_ipv4_byte,
};
use crate::support::{pod_port, reference};

/// Answers of which there are only so many a second: a burst, and then uncounted seconds.
fn seldom(meter: &mut Meter, name: &str, port: &str, frame: impl Fn(u16) -> Vec<u8>) {
    let mut scene = Scene::new(&reference());
    for round in 0..8 {
        scene.world.jump_s(1);
        let frames: Vec<_> = (0..BURST as u16).map(|step| frame(20_000 + round * 100 + step)).collect();
        let before = scene.world.account(Account::Transmitted);
        scene.turn(meter, port, 0, &frames);
        assert_eq!(scene.world.account(Account::Transmitted) - before, frames.len() as u64, "{name}");
        scene.sent();
    }
    meter.ends(name);
}

/// ARP, echo, and ICMP errors.
pub(crate) fn answers(meter: &mut Meter) {
    let mut scene = Scene::new(&reference());
    let sender = (&*pod_mac(7), "172.30.76.7");
    let requests = vec![arp_request(sender, "172.30.76.1"); PACKETS];
    scene.pass(meter, pod_port(7), 0, &requests, End::Leaves);
    meter.ends("arp request, answered");
    seldom(meter, "echo to the gateway, answered", "eth0", |number| {
        to_node(CLIENT_MAC, &echo("192.168.0.50", "192.168.0.21", false, number))
    });
    seldom(meter, "service without backends, rejected", pod_port(7), |port| {
        from_pod(7, &udp(&format!("172.30.76.7:{port}"), "10.254.0.2:53", &[0x5a; 18]))
    });
    seldom(meter, "hop limit ends, time exceeded", pod_port(7), |port| {
        let packet = udp(&format!("172.30.76.7:{port}"), "172.30.9.2:2000", &[0x5a; 18]);
        from_pod(7, &with_ipv4_byte(&packet, 8, 1))
    });
    let mut scene = Scene::new(&reference());
    let punted: Vec<_> = (0..PACKETS as u16)
        .map(|number| {
            let client = format!("192.168.0.50:{}", 20_000 + number);
            to_node(CLIENT_MAC, &tcp(&client, "192.168.0.21:22", SYN, b""))
        })
        .collect();
    for burst in punted.chunks(BURST * 4) {
        scene.world.jump_s(1);
        scene.pass(meter, "eth0", 0, burst, End::HandedOver);
        scene.world.sent_to_host();
    }
    meter.ends("to the host, first packet");
}

/// Packets that end for a reason, early and late.
pub(crate) fn drops(meter: &mut Meter) {
    let packet = udp("172.30.76.7:20000", "172.30.9.2:2000", &[0x5a; 18]);
    let mut damaged = packet.clone();
    damaged[10] ^= 1;
    for (name, reason, frame) in [
        (
            "dropped, not for this MAC",
            "foreign_mac",
            ethernet("02:00:00:00:00:77", CLIENT_MAC, 0x0800, &packet),
        ),
        ("dropped, IPv4 checksum", "ipv4_checksum", ethernet(NODE_MAC, CLIENT_MAC, 0x0800, &damaged)),
        ("dropped, truncated", "ipv4_truncated", ethernet(NODE_MAC, CLIENT_MAC, 0x0800, &packet[..19])),
        ("dropped, TCP flags", "tcp_invalid", {
            to_node(CLIENT_MAC, &tcp("192.168.0.50:20000", "172.30.76.7:80", 0x07, b""))
        }),
    ] {
        let mut scene = Scene::new(&reference());
        scene.pass(meter, "eth0", 0, &vec![frame; PACKETS], End::Dropped(reason));
        meter.ends(name);
    }
}

/// The millisecond's slice of expiry over flows that stay, for each pair looked at.
pub(crate) fn expiry(meter: &mut Meter) {
    let mut scene = Scene::of_load(Load::Dnat, PACKETS);
    for frame in loads::frames(Load::Dnat, PACKETS, 10).iter() {
        scene.world.send("eth0", frame);
    }
    scene.world.turn();
    for _ in 0..16 {
        scene.world.now.0 += 1_000_000;
        let (worker, now) = (&mut scene.world.workers[0], scene.world.now);
        meter.count(pipelines::gateway::SWEEP_PAIRS as usize, || {
            worker.turn(now);
        });
    }
    assert_eq!(scene.world.tracked(), PACKETS);
    meter.ends("expiry, one pair");
}
