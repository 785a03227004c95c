//! The exception link: packets between the workers and the host's own stack.
//!
//! An empty poll of a TAP device is a system call, so no worker does it. A thread on the control side does, moves what
//! arrives into the first worker's ring (ownership hands it on from there), and what the workers send to the host into
//! the device. When nothing moves it sleeps, longer and longer up to a millisecond.
//!
//! **Invariant:** received + taken = handed in + transmitted + dropped, after each step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arrayvec::ArrayVec;
use engine::counters::Counters;
use engine::packet::Packet;
use engine::port::{BURST, Burst, PortQueue};
use engine::ring::{Consumer, Producer};
use engine::worker::HandOff;

use crate::control::signals;
use crate::control::worker_threads::{ThreadEntry, ThreadError};
use crate::ownership::visit;
use crate::table::interface::HOST_PORT;

/// What is counted of the link; places in its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum HostCounter {
    /// Came from the host's stack.
    Received,
    /// Handed on to the workers.
    HandedIn,
    /// Came from the host's stack while the ring to the workers was full.
    DroppedFromHost,
    /// Taken from the workers' rings.
    Taken,
    /// Handed to the host's stack.
    Transmitted,
    /// The device took no more.
    DroppedToHost,
}

impl HostCounter {
    /// All, with their names.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Received, "host_received"),
        (Self::HandedIn, "host_handed_in"),
        (Self::DroppedFromHost, "host_dropped_from_host"),
        (Self::Taken, "host_taken"),
        (Self::Transmitted, "host_transmitted"),
        (Self::DroppedToHost, "host_dropped_to_host"),
    ];
}

/// The longest sleep when nothing moves.
const SLEEP_MAX_US: u64 = 1_000;
/// Empty steps before the first sleep.
const IDLE_STEPS: u32 = 16;
/// Batches moved one way in one step, so that neither way waits for the other for long.
const BATCHES: usize = 8;

/// The link, not running yet.
pub struct HostLink {
    queue: Box<dyn PortQueue>,
    to_host: Vec<Consumer<Packet>>,
    from_host: Producer<HandOff>,
    counters: Counters,
}

impl HostLink {
    /// A link between a device's queue, all workers' rings to the host and the first worker's ring from it.
    pub fn new(
        queue: Box<dyn PortQueue>,
        to_host: Vec<Consumer<Packet>>,
        from_host: Producer<HandOff>,
    ) -> Self {
        Self { queue, to_host, from_host, counters: Counters::new(HostCounter::ALL.len()) }
    }

    /// Its [`HostCounter`] row.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Moves what waits on either side, within bounds. Gives how many packets that were.
    pub fn step(&mut self) -> usize {
        self.take_from_host() + self.give_to_host()
    }

    fn take_from_host(&mut self) -> usize {
        let mut moved = 0;
        for _ in 0..BATCHES {
            let mut burst = Burst::new();
            self.queue.receive(&mut burst, BURST);
            let count = burst.len();
            let mut arrived: ArrayVec<HandOff, BURST> = burst
                .into_iter()
                .map(|mut packet| {
                    packet.set_port(HOST_PORT);
                    HandOff { packet, visit: visit::NONE }
                })
                .collect();
            self.from_host.push_batch(&mut arrived);
            let refused = arrived.len();
            self.count(HostCounter::Received, count);
            self.count(HostCounter::HandedIn, count - refused);
            self.count(HostCounter::DroppedFromHost, refused);
            moved += count;
            if count < BURST {
                break;
            }
        }
        moved
    }

    fn give_to_host(&mut self) -> usize {
        let mut moved = 0;
        for ring in 0..self.to_host.len() {
            for _ in 0..BATCHES {
                let mut burst = Burst::new();
                let count = self.to_host[ring].pop_batch(BURST, |packet| burst.push(packet));
                if count == 0 {
                    break;
                }
                self.queue.transmit(&mut burst);
                let refused = burst.len();
                Packet::free_bulk(&mut burst);
                self.count(HostCounter::Taken, count);
                self.count(HostCounter::Transmitted, count - refused);
                self.count(HostCounter::DroppedToHost, refused);
                moved += count;
            }
        }
        moved
    }

    fn count(&self, counter: HostCounter, amount: usize) {
        self.counters.add(counter as usize, amount as u64);
    }

    fn run(&mut self, stop: &AtomicBool) {
        let mut idle_steps = 0u32;
        while !stop.load(Ordering::Relaxed) {
            if self.step() > 0 {
                idle_steps = 0;
                continue;
            }
            idle_steps = idle_steps.saturating_add(1);
            if idle_steps > IDLE_STEPS {
                let sleep_us = SLEEP_MAX_US.min(1 << (idle_steps - IDLE_STEPS).min(16));
                std::thread::sleep(Duration::from_micros(sleep_us));
            }
        }
        // The workers have stopped: what they sent last still goes out.
        while self.give_to_host() > 0 {}
    }
}

/// The running link. Dropping it stops it.
pub struct HostThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<HostLink>>,
}

impl HostThread {
    /// Starts the link on a thread of the control side.
    pub fn start(mut link: HostLink, entry: &ThreadEntry) -> Result<Self, ThreadError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, entry) = (Arc::clone(&stop), Arc::clone(entry));
        let (ready, started) = std::sync::mpsc::channel();
        let body = move || {
            signals::block_in_this_thread();
            let entered = entry();
            let result = entered.as_ref().map(|_| ()).map_err(|reason| format!("exception link: {reason}"));
            let is_ready = result.is_ok();
            // Whoever starts waits for this.
            let _ = ready.send(result);
            if is_ready {
                link.run(&flag);
            }
            link
        };
        let thread = std::thread::Builder::new().name("host".to_owned()).spawn(body)?;
        match started.recv().unwrap_or_else(|_| Err("the exception link ended before it started".into())) {
            Ok(()) => Ok(Self { stop, thread: Some(thread) }),
            Err(reason) => Err(ThreadError::Enter(reason)),
        }
    }

    /// Whether the thread still runs.
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Stops the link, to be called when the workers have stopped. None: it had met a defect.
    pub fn stop(mut self) -> Option<HostLink> {
        self.join()
    }

    fn join(&mut self) -> Option<HostLink> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take()?.join().ok()
    }
}

impl Drop for HostThread {
    fn drop(&mut self) {
        self.join();
    }
}

#[cfg(test)]
mod tests {
    use engine::pool::{MemoryPool, PacketSource};
    use engine::ring::ring;

    use super::*;

    /// A device with packets to receive, which takes at the most `room`.
    struct Device {
        waiting: Vec<Packet>,
        room: usize,
    }

    impl PortQueue for Device {
        fn receive(&mut self, burst: &mut Burst, limit: usize) {
            while burst.len() < limit
                && let Some(packet) = self.waiting.pop()
            {
                burst.push(packet);
            }
        }

        fn transmit(&mut self, burst: &mut Burst) {
            let count = burst.len().min(self.room);
            self.room -= count;
            burst.drain(..count);
        }
    }

    #[test]
    fn packets_cross_both_ways_and_full_rings_are_counted() {
        let mut pool = MemoryPool::new(256);
        let mut packets = |count: usize| (0..count).filter_map(|_| pool.allocate()).collect::<Vec<_>>();
        let (mut worker_sends, to_host) = ring(64);
        let (from_host, mut worker_takes) = ring(64);
        for packet in packets(50) {
            worker_sends.push(packet).unwrap();
        }
        let device = Device { waiting: packets(100), room: 40 };
        let mut link = HostLink::new(Box::new(device), vec![to_host], from_host);
        assert_eq!(link.step(), 150);
        let counts: Vec<u64> =
            HostCounter::ALL.iter().map(|(counter, _)| link.counters().get(*counter as usize)).collect();
        assert_eq!(counts, [100, 64, 36, 50, 40, 10]);
        let mut ports = std::collections::BTreeSet::new();
        worker_takes.pop_batch(64, |hand_off| {
            ports.insert(hand_off.packet.port());
        });
        assert_eq!(ports, [HOST_PORT].into());
        assert_eq!(link.step(), 0);
        drop((link, worker_sends, worker_takes));
        assert_eq!(pool.in_use(), 0);
    }
}
