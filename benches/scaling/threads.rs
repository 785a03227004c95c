//! Workers on threads and cores of their own, for a while, by the real clock.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use core_affinity::CoreId;
use engine::clock::{MonotonicClock, cycles};
use engine::counters::Account;
use engine::worker::{REASON_HAND_OFF_FULL, Worker, WorkerCounters};
use pipelines::gateway::Gateway;

use crate::support::calibration;
use crate::world::World;

/// Turns before the count begins: caches warm, rings fill.
const RAMP: Duration = Duration::from_millis(10);

/// What one worker did meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lap {
    pub(crate) received: u64,
    pub(crate) transmitted: u64,
    pub(crate) handed_off: u64,
    pub(crate) refused_by_rings: u64,
    pub(crate) cycles: u64,
    pub(crate) seconds: f64,
    pub(crate) calibration: f64,
}

impl Lap {
    pub(crate) fn per_second(&self) -> f64 {
        self.transmitted as f64 / self.seconds
    }
}

/// Packets a second of all.
pub(crate) fn total(laps: &[Lap]) -> f64 {
    laps.iter().map(Lap::per_second).sum()
}

/// The cores that this process may use.
pub(crate) fn cores() -> Vec<CoreId> {
    core_affinity::get_core_ids().unwrap_or_default()
}

pub(crate) fn pin(core: CoreId) {
    assert!(core_affinity::set_for_current(core), "cannot run on core {}", core.id);
}

/// Says that a worker has ended, also when it panics: nobody waits for it then.
struct MarkEnd<'a>(&'a AtomicUsize);

impl Drop for MarkEnd<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// Runs each worker on its core for `length`; `beside` runs on this thread until it sees that they have ended.
pub(crate) fn run(
    world: &mut World,
    cores: &[CoreId],
    length: Duration,
    beside: impl FnOnce(&mut World, &dyn Fn() -> bool),
) -> Vec<Lap> {
    let workers = core::mem::take(&mut world.workers);
    let (count, clock) = (workers.len(), world.clock);
    assert!(cores.len() >= count, "a core for each worker");
    let (barrier, ended) = (Barrier::new(count), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, (mut worker, core)) in workers.into_iter().zip(cores).enumerate() {
            let (barrier, ended) = (&barrier, &ended);
            let counters = world.handles[number].counters.clone();
            // As the running process does, each thread has its worker in memory of its own.
            threads.push(scope.spawn(move || {
                let mark = MarkEnd(ended);
                let is_pinned = core_affinity::set_for_current(*core);
                let calibration = calibration();
                barrier.wait();
                assert!(is_pinned, "cannot run on core {}", core.id);
                turn_for(&mut worker, clock, RAMP);
                let lap = lap(&mut worker, clock, length, &counters, calibration);
                drop(mark);
                // Until all have ended: others may still hand packets on to this one.
                while ended.load(Ordering::Acquire) < count {
                    worker.turn(clock.now());
                }
                (worker, lap)
            }));
        }
        beside(world, &|| ended.load(Ordering::Acquire) == count);
        let results = threads.into_iter().map(|thread| thread.join().expect("a worker has panicked"));
        let (workers, laps): (Vec<_>, Vec<_>) = results.unzip();
        world.workers = workers;
        laps
    })
}

fn turn_for(worker: &mut Worker<Gateway>, clock: MonotonicClock, length: Duration) {
    let until = clock.now() + length;
    loop {
        let now = clock.now();
        worker.turn(now);
        if now >= until {
            return;
        }
    }
}

fn lap(
    worker: &mut Worker<Gateway>,
    clock: MonotonicClock,
    length: Duration,
    counters: &WorkerCounters,
    calibration: f64,
) -> Lap {
    let read = || {
        [Account::Received, Account::Transmitted, Account::HandedOff]
            .map(|account| counters.accounts.get(account as usize))
    };
    let refused = || counters.drops.get(usize::from(REASON_HAND_OFF_FULL));
    let (started, started_cycles, before, refused_before) = (clock.now(), cycles(), read(), refused());
    turn_for(worker, clock, length);
    let after = read();
    Lap {
        received: after[0] - before[0],
        transmitted: after[1] - before[1],
        handed_off: after[2] - before[2],
        refused_by_rings: refused() - refused_before,
        cycles: cycles() - started_cycles,
        seconds: clock.now().since(started).as_secs_f64(),
        calibration,
    }
}
