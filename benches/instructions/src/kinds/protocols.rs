//! Through the tunnel, what is neither UDP nor TCP; and errors about flows.

use super::scene::{End, INNER_PACKET, PACKETS, Scene, from_tunnel};
use crate::loads::{self, Load};
use crate::meter::Meter;
use crate::support::packets::{self, echo, icmp_error, ipv4_with, sctp};

/// The first packet of each flow, and the same again.
fn twice(meter: &mut Meter, name: &str, text: &str, packet: impl Fn(usize) -> Vec<u8>) {
    let mut scene = Scene::new(text);
    let frames: Vec<_> = (0..PACKETS).map(|number| from_tunnel(&packet(number))).collect();
    scene.pass(meter, "eth0", 0, &frames, End::Leaves);
    meter.ends(&format!("{name}, first packet"));
    scene.pass(meter, "eth0", 0, &frames, End::Leaves);
    meter.ends(&format!("{name}, established"));
}

/// SCTP, whose checksum is computed anew over the whole packet; echoes; and a protocol that has neither ports nor echoes.
pub(crate) fn others(meter: &mut Meter) {
    let client = |number: usize| format!("172.30.{}.{}", 10 + number / 250, 1 + number % 250);
    let configuration = |load| loads::configuration(load, loads::capacity(PACKETS), 10);
    let with_sctp = configuration(Load::Dnat).replace("protocol = \"udp\"", "protocol = \"sctp\"");
    twice(meter, "sctp, dnat", &with_sctp, |number| {
        let service = format!("10.254.128.{}", number % 10);
        ipv4_with(&client(number), &service, 132, 64, &sctp(40_000, 80))
    });
    let plain = configuration(Load::Plain);
    twice(meter, "echo, plain", &plain, |number| echo(&client(number), "172.30.9.2", false, 7));
    const GRE: u8 = 47;
    twice(meter, "gre, plain", &plain, |number| {
        ipv4_with(&client(number), "172.30.9.2", GRE, 64, &[0x5a; 26])
    });
}

/// Errors of routers behind the gateway: about flows that it translates, and about flows that it does not know.
pub(crate) fn errors(meter: &mut Meter) {
    let mut scene = Scene::of_load(Load::Dnat, PACKETS);
    let unknown = Scene::of_load(Load::Dnat, PACKETS);
    for frame in loads::frames(Load::Dnat, PACKETS, 10).iter() {
        scene.world.send("eth0", frame);
        scene.world.turn();
    }
    let errors: Vec<_> = scene
        .sent()
        .iter()
        .map(|frame| {
            let quoted = &frame[INNER_PACKET..];
            let source = packets::read_ip(quoted).source.to_string();
            from_tunnel(&icmp_error("172.30.9.0", &source, 3, 1, quoted))
        })
        .collect();
    for (mut scene, name, reason) in [
        (scene, "icmp error, flow translated", "icmp_error_tracked"),
        (unknown, "icmp error, no flow", "icmp_error_untracked"),
    ] {
        scene.pass(meter, "eth0", 0, &errors, End::Dropped(reason));
        meter.ends(name);
    }
}
