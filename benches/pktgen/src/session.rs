//! The loop: sends at a rate, receives, checks, drains. One thread, all ports.
//!
//! Ports, clock and buffers are arguments, so the same loop runs on devices, on rings to another thread, and in tests
//! against a gateway in memory and virtual time.

use engine::clock::Timestamp;
use engine::port::{BURST, Burst, PortQueue};
use engine::prefetch::prefetch_read;

use crate::outbox::{BACKLOG_MAX, Outbox};
use crate::pace::Pacer;
use crate::traffic::Traffic;

/// Bursts that one turn takes from one port at the most: answers outnumber what a turn makes.
const BURSTS_PER_TURN: usize = 8;
/// With a window, and nothing arriving for so long, what is in flight counts as lost and the window opens again.
const WINDOW_PATIENCE_NS: u64 = 250_000_000;

/// When sending ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After so many packets, or connections.
    Count(u64),
    /// After so many nanoseconds.
    Elapsed(u64),
}

/// One stretch of sending and draining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Packets, or connections, a second; none: as fast as they can be sent.
    pub rate_per_s: Option<u64>,
    /// As many as that at once at the most; 0: what follows from the rate.
    pub burst: u32,
    /// As many as that in flight at the most; 0: any number.
    pub window: u64,
    /// When sending ends.
    pub until: Until,
    /// How long after the last arrival more is waited for, in nanoseconds.
    pub drain_ns: u64,
}

/// How a phase went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Packets, or connections, that were made.
    pub generated: u64,
    /// Those that the rate called for and that were not made in time.
    pub missed: u64,
    /// How long was sent, in nanoseconds.
    pub sending_ns: u64,
    /// From the start to the last arrival, in nanoseconds.
    pub arriving_ns: u64,
}

/// Where a session runs.
pub struct Session<'s> {
    /// The ports, in the scenario's order.
    pub ports: &'s mut [Box<dyn PortQueue>],
    /// Packets to send, and buffers.
    pub outbox: &'s mut Outbox,
    /// The time; read twice a turn and once a burst that arrives.
    pub clock: &'s mut dyn FnMut() -> Timestamp,
}

/// Keeps what is in flight within a window.
struct Window {
    size: u64,
    /// In flight, and never to come.
    given_up: u64,
    stalled_since: Timestamp,
}

impl Window {
    fn room(&mut self, in_flight: u64, now: Timestamp) -> usize {
        if self.size == 0 {
            return usize::MAX;
        }
        // What was given up may come after all.
        self.given_up = self.given_up.min(in_flight);
        let room = self.size.saturating_sub(in_flight - self.given_up);
        if room > 0 {
            self.stalled_since = now;
        } else if now.nanoseconds_since(self.stalled_since) > WINDOW_PATIENCE_NS {
            self.given_up = in_flight;
        }
        usize::try_from(room).unwrap_or(usize::MAX)
    }
}

impl Session<'_> {
    /// Sends as the phase says, then waits for what is still to come.
    pub fn run<T: Traffic>(&mut self, traffic: &mut T, phase: &Phase) -> Passed {
        let start = (self.clock)();
        let mut pacer = Pacer::new(phase.rate_per_s, phase.burst, start);
        let mut window = Window { size: phase.window, given_up: 0, stalled_since: start };
        let mut passed = Passed::default();
        let mut last_arrival = start;
        loop {
            let now = (self.clock)();
            passed.sending_ns = now.nanoseconds_since(start);
            let left = match phase.until {
                Until::Count(count) => count.saturating_sub(passed.generated),
                Until::Elapsed(limit) if passed.sending_ns >= limit => 0,
                Until::Elapsed(_) => u64::MAX,
            };
            if left == 0 {
                break;
            }
            let limit = self.room().min(window.room(traffic.in_flight(), now));
            let due = pacer.due(now, limit.min(usize::try_from(left).unwrap_or(BURST)));
            if due > 0 {
                let made = traffic.generate(due, now, self.outbox);
                pacer.take(made);
                passed.generated += made as u64;
            }
            if let Some(arrival) = self.exchange(traffic) {
                last_arrival = arrival;
            }
            traffic.tend(now);
        }
        passed.missed = pacer.missed();
        let last_arrival = self.drain(traffic, phase.drain_ns, last_arrival);
        passed.arriving_ns = last_arrival.nanoseconds_since(start);
        passed
    }

    /// Packets that may be made now: one burst, less what still waits.
    fn room(&self) -> usize {
        let backlog = (0..self.ports.len()).map(|port| self.outbox.backlog(port as u16)).max().unwrap_or(0);
        BURST.saturating_sub(backlog)
    }

    /// Receives until all has come or nothing has come for `drain_ns`. Gives when the last packet came.
    fn drain<T: Traffic>(
        &mut self,
        traffic: &mut T,
        drain_ns: u64,
        mut last_arrival: Timestamp,
    ) -> Timestamp {
        let start = (self.clock)();
        loop {
            let now = (self.clock)();
            let quiet = now.nanoseconds_since(last_arrival.max(start));
            if (traffic.in_flight() == 0 && self.outbox.is_empty()) || quiet > drain_ns {
                return last_arrival;
            }
            if let Some(arrival) = self.exchange(traffic) {
                last_arrival = arrival;
            }
            traffic.tend(now);
        }
    }

    /// Sends what waits and takes what has arrived. Gives when something arrived.
    fn exchange<T: Traffic>(&mut self, traffic: &mut T) -> Option<Timestamp> {
        self.outbox.flush(self.ports);
        let mut last = None;
        for port in 0..self.ports.len() {
            for _ in 0..BURSTS_PER_TURN {
                if (0..self.ports.len()).any(|port| self.outbox.backlog(port as u16) >= BACKLOG_MAX) {
                    break;
                }
                let mut burst = Burst::new();
                self.ports[port].receive(&mut burst, BURST);
                if burst.is_empty() {
                    break;
                }
                // Another core or a device wrote the bytes: asked for all at once, one wait covers many.
                for packet in &burst {
                    prefetch_read(packet.data_pointer());
                    prefetch_read(packet.data_pointer().wrapping_add(64));
                }
                let now = (self.clock)();
                last = Some(now);
                let full = burst.is_full();
                for packet in burst {
                    traffic.take(port as u16, packet, now, self.outbox);
                }
                if !full {
                    break;
                }
            }
        }
        self.outbox.flush(self.ports);
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_opens_again_when_nothing_comes_back() {
        let mut window = Window { size: 100, given_up: 0, stalled_since: Timestamp(0) };
        assert_eq!((window.room(0, Timestamp(0)), window.room(60, Timestamp(1))), (100, 40));
        assert_eq!(window.room(100, Timestamp(2)), 0);
        assert_eq!(window.room(100, Timestamp(2 + WINDOW_PATIENCE_NS)), 0);
        assert_eq!(window.room(100, Timestamp(3 + WINDOW_PATIENCE_NS)), 100);
        // Forty of the lost have come late.
        assert_eq!(window.room(60, Timestamp(4 + WINDOW_PATIENCE_NS)), 100);
        assert_eq!(window.room(110, Timestamp(5 + WINDOW_PATIENCE_NS)), 50);
    }
}
