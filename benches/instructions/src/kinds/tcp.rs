//! TCP connections to a service through the tunnel: opened, used and closed.

use super::scene::{End, PACKETS, Scene, from_tunnel, tunnelled_answers};
use crate::loads::{self, Load};
use crate::meter::Meter;
use crate::support::packets::{ACK, FIN, SYN, tcp_numbered};

/// A client's address and its service's, by number.
fn ends(number: usize) -> (String, String) {
    let client = format!("172.30.{}.{}:40000", 10 + number / 250, 1 + number % 250);
    (client, format!("10.254.128.{}:80", number % 10))
}

/// One connection a client: the handshake's three segments, data and its acknowledgement, and the four that close it.
pub(crate) fn connections(meter: &mut Meter) {
    let text = loads::configuration(Load::Dnat, loads::capacity(PACKETS), 10);
    let mut scene = Scene::new(&text.replace("protocol = \"udp\"", "protocol = \"tcp\""));
    let count = PACKETS / 2;
    let from_clients = |flags: u8, sequence: u32, acknowledgement: u32, data: &[u8]| -> Vec<Vec<u8>> {
        let segment = |number| {
            let (client, service) = ends(number);
            from_tunnel(&tcp_numbered(&client, &service, flags, sequence, acknowledgement, data))
        };
        (0..count).map(segment).collect()
    };
    let opening = scene.pass(meter, "eth0", 0, &from_clients(SYN, 100, 0, b""), End::Leaves);
    let from_servers = |flags: u8, sequence: u32, acknowledgement: u32| {
        tunnelled_answers(&opening, |from, to| tcp_numbered(from, to, flags, sequence, acknowledgement, b""))
    };
    scene.pass(meter, "eth0", 0, &from_servers(SYN | ACK, 500, 101), End::Leaves);
    scene.pass(meter, "eth0", 0, &from_clients(ACK, 101, 501, b""), End::Leaves);
    meter.ends("tcp, handshake, dnat");
    scene.pass(meter, "eth0", 0, &from_clients(ACK, 101, 501, &[0x5a; 6]), End::Leaves);
    scene.pass(meter, "eth0", 0, &from_servers(ACK, 501, 107), End::Leaves);
    meter.ends("tcp, established, dnat");
    scene.pass(meter, "eth0", 0, &from_clients(FIN | ACK, 107, 501, b""), End::Leaves);
    scene.pass(meter, "eth0", 0, &from_servers(ACK, 501, 108), End::Leaves);
    scene.pass(meter, "eth0", 0, &from_servers(FIN | ACK, 501, 108), End::Leaves);
    scene.pass(meter, "eth0", 0, &from_clients(ACK, 108, 502, b""), End::Leaves);
    meter.ends("tcp, teardown, dnat");
    assert_eq!(scene.world.tracked(), count);
}
