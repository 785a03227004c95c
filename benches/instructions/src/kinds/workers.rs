//! Packets that arrive at a worker that does not own their flow.

use engine::counters::Account;
use engine::port::BURST;

use super::scene::{End, PACKETS, Scene};
use crate::loads::{self, Load};
use crate::meter::Meter;
use crate::support::World;

/// Established flows of the second worker that arrive at the first: handed over there, forwarded here.
pub(crate) fn strays(meter: &mut Meter) {
    let text = loads::configuration(Load::Dnat, loads::capacity(PACKETS), 10);
    let mut scene = Scene { world: World::with(&text, 2, 1) };
    let mut strays = Vec::new();
    for frame in loads::frames(Load::Dnat, PACKETS, 10).iter() {
        let before = scene.world.account(Account::HandedOff);
        scene.world.send_to("eth0", 0, frame);
        scene.world.turn();
        if scene.world.account(Account::HandedOff) > before {
            strays.push(frame.clone());
        }
    }
    scene.sent();
    assert!(strays.len() > PACKETS / 4, "about half of them");
    scene.pass(meter, "eth0", 0, &strays[..BURST * 8], End::HandedOver);
    meter.ends("stray, handed over");
    // What the second worker gets lies in its ring now.
    let (worker, now) = (&mut scene.world.workers[1], scene.world.now);
    let mut taken = 0;
    meter.count(BURST * 8, || {
        while taken < BURST * 8 {
            taken += worker.turn(now);
        }
    });
    meter.ends("stray, taken in, dnat established");
    assert_eq!(scene.sent().len(), BURST * 8);
}
