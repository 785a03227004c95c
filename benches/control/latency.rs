//! From a change of one endpoint to its first use: objects and tables on this thread, a worker on another that polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::clock::MonotonicClock;
use engine::pool::MemoryPool;
use engine::port::PortQueue;
use engine::port::memory::MemoryPort;
use pipelines::assembly::{WorkerInput, assemble};
use pipelines::control::build::{Builder, HostFacts};
use pipelines::control::config;
use pipelines::control::kubernetes::ObjectStore;
use pipelines::gateway::Gauge;

use crate::cluster::Cluster;
use crate::support::packets;

pub(crate) struct Measured {
    /// Taking the object over.
    pub(crate) object: Duration,
    /// Making tables of it.
    pub(crate) tables: Duration,
    /// From before the object is taken over to the first packet that the worker sends by it.
    pub(crate) worker_median: Duration,
    /// The same, in the slowest hundredth.
    pub(crate) worker_high: Duration,
}

/// Lets nobody wait for a thread that has ended.
struct Unblock<'a>(&'a AtomicU64);

impl Drop for Unblock<'_> {
    fn drop(&mut self) {
        self.0.store(u64::MAX, Ordering::Release);
    }
}

/// Takes one endpoint of a service out and in again, each time another service's. The service has one endpoint that is
/// ready at a time, so that the first packet that follows the change shows it.
pub(crate) fn measure(cluster: &Cluster, changes: usize) -> Measured {
    let configuration = config::parse(&cluster.configuration(), "bench.toml").unwrap().configuration;
    let mut store = ObjectStore::new();
    store.replace_file("a.json", Some(cluster.json().as_bytes()));
    let mut builder = Builder::new(1, HostFacts::default());
    let tables = builder.build_with(&configuration, &store).unwrap();
    let (mut pool, port) = (MemoryPool::new(4_096), MemoryPort::new());
    let ports = vec![Some(Box::new(port.clone()) as Box<dyn PortQueue>)];
    let input = WorkerInput { ports, source: Box::new(pool.clone()) };
    let assembly = assemble(&configuration, tables, vec![input], 1).unwrap();
    let (mut publisher, mut workers) = (assembly.publisher, assembly.workers);
    let gauges = assembly.handles[0].gauges.clone();
    let (stop, used) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut times = (Vec::new(), Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let clock = MonotonicClock::new();
            let mut flow = 0u32;
            // The thread that waits for this one ends with it.
            let _guard = Unblock(&used);
            // The first turn takes the tables over: static next hops are there.
            workers[0].turn(clock.now());
            while !stop.load(Ordering::Relaxed) {
                // A new flow in each turn: whoever has the new tables decides by them.
                flow += 1;
                let frame = packets::from_tunnel(&packets::udp(
                    &format!("172.30.9.{}:{}", 2 + flow % 200, 1_024 + flow / 200 % 60_000),
                    &format!("{}:80", cluster.service_address(0)),
                    b"x",
                ));
                port.inject(pool.packet(0, &frame).expect("a buffer"));
                workers[0].turn(clock.now());
                let sent = std::iter::from_fn(|| port.take_transmitted()).count() as u64;
                assert!(sent > 0, "a packet leaves in each turn");
                used.store(gauges.get(Gauge::Generation as usize), Ordering::Release);
            }
        });
        for change in 0..changes {
            let service = change * 7_919 % cluster.services;
            let unready = (change % 2 == 0 && cluster.endpoints > 1).then_some(0);
            let object = cluster.slice(service, unready);
            let start = Instant::now();
            let concerned = store.put(object, "bench").services;
            let taken_over = Instant::now();
            builder.reclaim(gauges.get(Gauge::SweptGeneration as usize));
            let tables = builder.update(&store, &concerned).unwrap();
            let generation = tables.generation;
            let built = Instant::now();
            publisher.publish(Arc::new(tables));
            while used.load(Ordering::Acquire) < generation {
                std::hint::spin_loop();
            }
            times.0.push(taken_over - start);
            times.1.push(built - taken_over);
            times.2.push(start.elapsed());
            publisher.reclaim();
        }
        stop.store(true, Ordering::Relaxed);
    });
    times.2.sort_unstable();
    Measured {
        object: crate::median(times.0),
        tables: crate::median(times.1),
        worker_high: times.2[times.2.len() * 99 / 100],
        worker_median: crate::median(times.2),
    }
}
