//! Whole TCP connections, both sides of them: ten packets each, many connections at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use engine::packet::Packet;
use engine::wire::tcp::{FLAG_ACK, FLAG_FIN, FLAG_SYN};

use crate::traffic::{Ends, Services, Template, Traffic, client, service_of};

/// Packets of a connection: who sends (the client: true), flags, sequence and acknowledgement counted from the first byte
/// of each side, payload.
const STEPS: [(bool, u8, u32, u32, &[u8]); 10] = [
    (true, FLAG_SYN, 0, 0, b""),
    (false, FLAG_SYN | FLAG_ACK, 0, 1, b""),
    (true, FLAG_ACK, 1, 1, b""),
    (true, FLAG_ACK, 1, 1, b"asks"),
    (false, FLAG_ACK, 1, 5, b"answers"),
    (true, FLAG_ACK, 5, 8, b"asks"),
    (false, FLAG_ACK, 8, 9, b"answers"),
    (true, FLAG_FIN | FLAG_ACK, 9, 15, b""),
    (false, FLAG_FIN | FLAG_ACK, 15, 10, b""),
    (true, FLAG_ACK, 10, 16, b""),
];
/// Packets of one connection.
pub(crate) const PACKETS_EACH: u64 = STEPS.len() as u64;

/// First sequence numbers of the client and of the backend.
const FIRST: (u32, u32) = (1_000_000, 7_000_000);

/// How far the traffic is; written by the thread that makes it.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) begun: AtomicU64,
    pub(crate) finished: AtomicU64,
    /// No connection begins any more.
    pub(crate) is_ending: AtomicBool,
}

/// A place for one connection after the other.
#[derive(Clone, Copy)]
struct Place {
    connection: u64,
    /// Its next packet.
    step: u8,
    /// Turns that this place lets pass before its first connection, so that the places are at different steps.
    wait: u8,
}

/// Connections that go on side by side: each in turn sends one packet, so that a burst has packets of as many connections,
/// at all steps.
pub(crate) struct Conversations {
    templates: Vec<Template>,
    services: Services,
    /// Where the one endpoint of the first service is; the others' follow.
    first_backend: u32,
    places: Vec<Place>,
    at: usize,
    /// Places whose last connection is over, while nothing begins any more.
    idle: usize,
    progress: Arc<Progress>,
}

impl Conversations {
    /// `open` connections at a time.
    pub(crate) fn new(services: Services, first_backend: u32, open: usize, progress: &Arc<Progress>) -> Self {
        let template = |step: &(bool, u8, u32, u32, &[u8])| {
            let (is_client, flags, sequence, acknowledgement, payload) = *step;
            let (mine, other) = if is_client { FIRST } else { (FIRST.1, FIRST.0) };
            let acknowledged = if flags & FLAG_ACK == 0 { 0 } else { other + acknowledgement };
            Template::tcp(flags, mine + sequence, acknowledged, payload)
        };
        let place = |number: usize| Place { connection: 0, step: 0, wait: (number % STEPS.len()) as u8 };
        Self {
            templates: STEPS.iter().map(template).collect(),
            services,
            first_backend,
            places: (0..open).map(place).collect(),
            at: 0,
            idle: 0,
            progress: Arc::clone(progress),
        }
    }

    /// Addresses and ports as the packet arrives: the backend's answers bear its own address, and are for the client.
    fn ends(&self, connection: u64, is_client: bool) -> Ends {
        if is_client {
            return self.services.ends(connection);
        }
        let (destination, destination_port) = client(connection);
        let source = self.first_backend + service_of(connection, self.services.count);
        Ends { source, source_port: 8080, destination, destination_port }
    }

    /// The next place with a packet to send; none if nothing goes on any more.
    fn turn_to_next(&mut self) -> Option<usize> {
        loop {
            let place = self.at;
            self.at = if place + 1 < self.places.len() { place + 1 } else { 0 };
            let Place { step, wait, .. } = self.places[place];
            if wait > 0 {
                self.places[place].wait -= 1;
                continue;
            }
            if step > 0 {
                return Some(place);
            }
            if self.progress.is_ending.load(Ordering::Relaxed) {
                // All places in a row have nothing to go on with.
                self.idle += 1;
                if self.idle >= self.places.len() {
                    return None;
                }
                continue;
            }
            self.places[place].connection = count(&self.progress.begun);
            return Some(place);
        }
    }
}

/// Counts one more; gives what was counted before. For the one thread that writes.
fn count(counter: &AtomicU64) -> u64 {
    let before = counter.load(Ordering::Relaxed);
    counter.store(before + 1, Ordering::Relaxed);
    before
}

impl Traffic for Conversations {
    fn next(&mut self, packet: &mut Packet) -> bool {
        let Some(place) = self.turn_to_next() else { return false };
        self.idle = 0;
        let Place { connection, step, .. } = self.places[place];
        let ends = self.ends(connection, STEPS[usize::from(step)].0);
        let is_last = usize::from(step) + 1 == STEPS.len();
        self.places[place].step = if is_last { 0 } else { step + 1 };
        if is_last {
            count(&self.progress.finished);
        }
        self.templates[usize::from(step)].write(packet, &ends)
    }
}
