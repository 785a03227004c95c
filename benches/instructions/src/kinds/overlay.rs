//! Datagrams through the tunnel, in and out again.

use super::scene::{End, INNER_PACKET, PACKETS, Scene, tunnelled_answers};
use crate::loads::{self, Load};
use crate::meter::Meter;
use crate::support::packets::{self, udp};

/// First packets, later ones, and answers: plain, to a service, and masqueraded as well.
pub(crate) fn udp_flows(meter: &mut Meter) {
    for (load, name) in [(Load::Plain, "plain"), (Load::Dnat, "dnat"), (Load::Masquerade, "masquerade")] {
        let mut scene = Scene::of_load(load, PACKETS);
        let frames = loads::frames(load, PACKETS, 10);
        let left = scene.pass(meter, "eth0", 0, &frames, End::Leaves);
        meter.ends(&format!("{name}, first packet"));
        scene.pass(meter, "eth0", 0, &frames, End::Leaves);
        meter.ends(&format!("{name}, established"));
        if load != Load::Plain {
            let answers = tunnelled_answers(&left, |from, to| udp(from, to, &[0x5a; 18]));
            // The first answer looks its next hop up; later ones have it in their entry.
            scene.pass(meter, "eth0", 0, &answers, End::Leaves);
            meter.ends(&format!("{name}, first answer"));
            scene.pass(meter, "eth0", 0, &answers, End::Leaves);
            meter.ends(&format!("{name}, answer"));
        }
        assert_eq!(scene.world.tracked(), PACKETS);
        if load == Load::Dnat {
            // A sender that computes outer checksums: they are verified over the whole datagram.
            let summed: Vec<_> =
                frames.iter().map(|frame| packets::from_tunnel(&frame[INNER_PACKET..])).collect();
            scene.pass(meter, "eth0", 0, &summed, End::Leaves);
            meter.ends("dnat, established, outer checksum");
        }
    }
}

/// First packets when every flow made needs another's place.
pub(crate) fn full_table(meter: &mut Meter) {
    for (load, name) in [(Load::Dnat, "dnat"), (Load::Masquerade, "masquerade")] {
        let capacity = PACKETS / 2;
        let mut scene = Scene::new(&loads::configuration(load, capacity, 10));
        let frames = loads::frames(load, PACKETS, 10);
        let (filling, rest) = frames.split_at(capacity);
        for frame in filling {
            scene.world.send("eth0", frame);
            scene.world.turn();
        }
        scene.sent();
        scene.pass(meter, "eth0", 0, rest, End::Leaves);
        assert_eq!(scene.world.tracked(), capacity);
        meter.ends(&format!("{name}, first packet, table full"));
    }
}
