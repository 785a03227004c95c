//! Workers on threads of their own, as they run: packets arrive anywhere and are handed over, tables and next hops change
//! meanwhile. Under ThreadSanitizer (`scripts/sanitize.sh thread`) any other thing that they share is reported.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::clock::Timestamp;
use engine::counters::Account;
use engine::worker::IdlePolicy;
use pipelines::assembly::WorkerHandle;
use pipelines::control::config;
use pipelines::gateway::Gauge;

use crate::support::World;
use crate::support::packets::*;
use crate::{assert_whole, frame_from, left, side_of, text};

const WORKERS: usize = 4;
const FLOWS: usize = 240;
/// Times that each flow's packet arrives.
const ROUNDS: usize = 4;

/// A packet of each flow, to services, pods, through the tunnel and out: what is asked for first of all is masqueraded ports
/// and next hops.
fn send(world: &mut World, round: usize) {
    let ends = [
        ("172.30.76.7", "10.254.7.1:53"),
        ("172.30.9.9", "10.254.7.1:53"),
        ("172.30.76.6", "8.8.8.8:53"),
        ("192.168.0.50", "172.30.76.3:53"),
        ("172.30.76.3", "172.30.9.2:53"),
    ];
    for flow in 0..FLOWS {
        let (source, destination) = ends[flow % ends.len()];
        let packet = udp(&format!("{source}:{}", 2_000 + flow), destination, &[round as u8; 18]);
        let to = destination.split_once(':').map_or(destination, |parts| parts.0);
        let frame = frame_from(source, to, &packet);
        world.send_to(side_of(source).0, (flow + round) % WORKERS, &frame);
    }
}

#[test]
fn threads_share_nothing_but_rings_tables_and_next_hops() {
    let service = "\n[[service]]\nnamespace = \"default\"\nname = \"resolver\"\ncluster_ip = \"10.254.7.1\"\n\n\
        [[service.ports]]\nprotocol = \"udp\"\nport = 53\n\
        backends = [{ address = \"172.30.76.5:53\" }, { address = \"172.30.9.2:53\" }]\n";
    let texts = [text(), text().replace("02:00:c0:a8:00:01", "02:00:c0:a8:00:aa")].map(|text| text + service);
    let parsed =
        texts.each_ref().map(|text| config::parse(text, "test.toml").expect("a configuration").configuration);
    let mut world = World::with(&texts[0], WORKERS, 3);
    (0..ROUNDS).for_each(|round| send(&mut world, round));
    let (start, began, stop) = (world.now, Instant::now(), AtomicBool::new(false));
    let clock = || Timestamp(start.0 + began.elapsed().as_nanos() as u64);
    let World { workers, handles, publisher, builder, objects, .. } = &mut world;
    std::thread::scope(|scope| {
        for worker in workers.iter_mut() {
            let (stop, clock) = (&stop, &clock);
            scope.spawn(move || worker.run(stop, IdlePolicy::Sleep { max_us: 50 }, clock));
        }
        let done = || -> u64 {
            let ended = [Account::Transmitted, Account::Dropped];
            let of = |handle: &WorkerHandle| -> u64 {
                ended.iter().map(|account| handle.counters.accounts.get(*account as usize)).sum()
            };
            handles.iter().map(of).sum()
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        for change in 1.. {
            let tables = builder.build_with(&parsed[change % 2], objects).expect("tables");
            publisher.publish(Arc::new(tables));
            publisher.reclaim();
            if change >= 20 && done() >= (FLOWS * ROUNDS) as u64 || Instant::now() > deadline {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    world.now = clock();
    world.turn();
    let count = left(&mut world).len();
    assert_eq!(count, FLOWS * ROUNDS, "{:?} {}", world.drops(), world.accounts());
    assert!(world.account(Account::HandedOff) > 0, "some were strays");
    assert_eq!(world.gauge(Gauge::FlowsCreated) as usize, FLOWS);
    assert_whole(&world, FLOWS);
    world.assert_balanced();
}
