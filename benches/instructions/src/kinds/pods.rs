//! Pods of this node: to services, to pods of other nodes, to the outside, and over the bridge.

use super::scene::{End, PACKETS, Scene, from_tunnel};
use crate::meter::Meter;
use crate::support::packets::{CLIENT_MAC, SYN, ethernet, from_pod, pod_mac, tcp, to_node, udp};
use crate::support::{pod_port, reference};

/// Frames with this many source ports.
fn many(frame: impl Fn(u16) -> Vec<u8>) -> Vec<Vec<u8>> {
    (0..PACKETS as u16).map(|number| frame(20_000 + number)).collect()
}

/// First packets, and the same segments again: a client that has had no answer asks again, on the flow that is there.
pub(crate) fn services(meter: &mut Meter) {
    let data_product = "10.254.116.224:50051";
    type Frame<'a> = &'a dyn Fn(u16) -> Vec<u8>;
    let kinds: [(&str, &str, Frame<'_>); 6] = [
        ("pod to service", pod_port(7), &|port| {
            from_pod(7, &tcp(&format!("172.30.76.7:{port}"), data_product, SYN, b""))
        }),
        ("pod to its own service", pod_port(5), &|port| {
            from_pod(5, &tcp(&format!("172.30.76.5:{port}"), data_product, SYN, b""))
        }),
        ("node port, masquerade", "eth0", &|port| {
            to_node(CLIENT_MAC, &tcp(&format!("192.168.0.50:{port}"), "192.168.0.21:30799", SYN, b""))
        }),
        ("pod to tunnel", pod_port(7), &|port| {
            from_pod(7, &udp(&format!("172.30.76.7:{port}"), "172.30.9.2:2000", &[0x5a; 18]))
        }),
        ("tunnel to pod", "eth0", &|port| {
            from_tunnel(&udp(&format!("172.30.9.2:{port}"), "172.30.76.7:2000", &[0x5a; 18]))
        }),
        ("pod to outside, masquerade", pod_port(7), &|port| {
            from_pod(7, &udp(&format!("172.30.76.7:{port}"), "8.8.8.8:443", &[0x5a; 18]))
        }),
    ];
    for (name, port, frame) in kinds {
        let mut scene = Scene::new(&reference());
        let frames = many(frame);
        scene.pass(meter, port, 0, &frames, End::Leaves);
        meter.ends(&format!("{name}, first packet"));
        scene.pass(meter, port, 0, &frames, End::Leaves);
        meter.ends(&format!("{name}, established"));
    }
}

/// Frames that stay on the bridge.
pub(crate) fn bridge(meter: &mut Meter) {
    let mut scene = Scene::new(&reference());
    let bridged = many(|port| {
        let packet = udp(&format!("172.30.76.7:{port}"), "172.30.76.6:2000", &[0x5a; 18]);
        ethernet(&pod_mac(6), &pod_mac(7), 0x0800, &packet)
    });
    scene.pass(meter, pod_port(7), 0, &bridged, End::Leaves);
    meter.ends("bridged, first packet");
    scene.pass(meter, pod_port(7), 0, &bridged, End::Leaves);
    meter.ends("bridged, established");
    let other = many(|_| ethernet(&pod_mac(6), &pod_mac(7), 0x86dd, &[0; 46]));
    scene.pass(meter, pod_port(7), 0, &other, End::Leaves);
    meter.ends("bridged, not IPv4");
    let broadcast = many(|_| ethernet("ff:ff:ff:ff:ff:ff", &pod_mac(7), 0x88b5, &[0; 46]));
    scene.pass(meter, pod_port(7), 0, &broadcast, End::Leaves);
    meter.ends("bridged, flooded to four ports");
}
