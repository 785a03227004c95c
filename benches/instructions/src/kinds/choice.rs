//! First packets whose backend is not drawn at random: by what is remembered of the client, or by the consistent hash.

use super::scene::{End, PACKETS, Scene, from_tunnel};
use crate::loads::{self, Load};
use crate::meter::Meter;
use crate::support::packets::udp;

/// The services of the loads, each with one more line.
fn configuration(line: &str) -> String {
    let text = loads::configuration(Load::Dnat, loads::capacity(2 * PACKETS), 10);
    text.replace("cluster_ip =", &format!("{line}\ncluster_ip ="))
}

/// A datagram of each client, from the same port each.
fn of_clients(port: u16) -> Vec<Vec<u8>> {
    let datagram = |number: usize| {
        let client = format!("172.30.{}.{}:{port}", 10 + number / 250, 1 + number % 250);
        from_tunnel(&udp(&client, &format!("10.254.128.{}:80", number % 10), &[0x5a; 18]))
    };
    (0..PACKETS).map(datagram).collect()
}

/// Session affinity, and Maglev's table.
pub(crate) fn remembered_and_hashed(meter: &mut Meter) {
    let mut scene = Scene::new(&configuration("session_affinity_s = 10800"));
    scene.pass(meter, "eth0", 0, &of_clients(20_000), End::Leaves);
    meter.ends("affinity, first packet of a new client");
    scene.pass(meter, "eth0", 0, &of_clients(20_001), End::Leaves);
    meter.ends("affinity, first packet of a known client");
    assert_eq!(scene.world.tracked(), 2 * PACKETS);
    let mut scene = Scene::new(&configuration("algorithm = \"maglev\""));
    scene.pass(meter, "eth0", 0, &of_clients(20_000), End::Leaves);
    meter.ends("maglev, first packet");
}
