//! Session affinity: which backend a client's connections to a service port went to, and when the last one began.
//!
//! A learned table, shared by all workers without locks, since a client's connections belong to several of them. Four
//! places a cache line; a client is in its line or nowhere. When the line is full, the place whose last connection is the
//! oldest makes room, and that is counted. Two workers that decide a client's first two connections at one moment agree:
//! a client with no entry is drawn a backend by a hash of what it is, not at random.

use std::sync::atomic::{AtomicU64, Ordering};

/// Clients that share a line.
const WAYS: usize = 4;
/// Key of a place that was never used.
const EMPTY: u64 = 0;
/// Key of a place that is being written.
const BUSY: u64 = u64::MAX;

#[derive(Default)]
#[repr(align(64))]
struct Line {
    keys: [AtomicU64; WAYS],
    /// Backend in the upper half, second of the last connection in the lower one.
    values: [AtomicU64; WAYS],
}

/// A client of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The service port's number, above 0 and the same as long as the port exists.
    pub service: u32,
    /// The client's address before it is masqueraded, in host order.
    pub address: u32,
}

impl Client {
    fn key(self) -> u64 {
        u64::from(self.service) << 32 | u64::from(self.address)
    }

    /// A number drawn for this client and `salt`.
    pub fn hash(self, salt: u64) -> u64 {
        let mixed = (self.key() ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    }
}

/// The table.
pub struct AffinityTable {
    lines: Box<[Line]>,
    secret: u64,
    replaced: AtomicU64,
}

impl AffinityTable {
    /// Room for `capacity` clients, rounded up to whole lines; `secret` spreads them unpredictably.
    pub fn new(capacity: usize, secret: u64) -> Self {
        let lines = capacity.div_ceil(WAYS).max(1);
        Self { lines: (0..lines).map(|_| Line::default()).collect(), secret, replaced: AtomicU64::new(0) }
    }

    /// The secret: what a client with no entry is drawn a backend by.
    pub fn secret(&self) -> u64 {
        self.secret
    }

    /// Clients that had to make room for others so far, their window not being over.
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }

    /// Clients that there is room for.
    pub fn capacity(&self) -> usize {
        self.lines.len() * WAYS
    }

    fn line(&self, client: Client) -> &Line {
        let hash = client.hash(self.secret);
        &self.lines[((u128::from(hash) * self.lines.len() as u128) >> 64) as usize]
    }

    /// The backend of a client's last connection, if that began less than `window_s` ago.
    #[inline]
    pub fn find(&self, client: Client, now_s: u32, window_s: u32) -> Option<u32> {
        let line = self.line(client);
        let key = client.key();
        for way in 0..WAYS {
            if line.keys[way].load(Ordering::Acquire) != key {
                continue;
            }
            let value = line.values[way].load(Ordering::Acquire);
            // Another client may have taken the place between the two reads.
            let is_own = line.keys[way].load(Ordering::Acquire) == key;
            // Another worker's clock may have been read a moment later.
            let is_fresh = now_s.saturating_sub(value as u32) < window_s;
            return (is_own && is_fresh).then_some((value >> 32) as u32);
        }
        None
    }

    /// Notes that a connection of a client began now, and where it went. `window_s` tells which others are worth keeping.
    pub fn note(&self, client: Client, backend: u32, now_s: u32, window_s: u32) {
        let line = self.line(client);
        let (key, value) = (client.key(), u64::from(backend) << 32 | u64::from(now_s));
        let (mut oldest, mut oldest_age) = (0, None);
        for way in 0..WAYS {
            let stood = line.values[way].load(Ordering::Acquire);
            let found = line.keys[way].load(Ordering::Acquire);
            if found == key {
                // Fails if the place has become another's since: whoever took it has written its own value.
                let order = Ordering::AcqRel;
                let _ = line.values[way].compare_exchange(stood, value, order, Ordering::Relaxed);
                return;
            }
            // A place that was never used is older than any.
            let seen = stood as u32;
            let age = if found == EMPTY { u32::MAX } else { now_s.saturating_sub(seen) };
            if found != BUSY && oldest_age.is_none_or(|other| age > other) {
                (oldest, oldest_age) = (way, Some(age));
            }
        }
        let Some(age) = oldest_age else { return };
        let found = line.keys[oldest].load(Ordering::Relaxed);
        // Whoever loses this race leaves its client unnoted, as if the line had been full.
        if found == BUSY
            || line.keys[oldest].compare_exchange(found, BUSY, Ordering::AcqRel, Ordering::Relaxed).is_err()
        {
            return;
        }
        line.values[oldest].store(value, Ordering::Release);
        line.keys[oldest].store(key, Ordering::Release);
        if found != EMPTY && age < window_s {
            self.replaced.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: u32) -> Client {
        Client { service: 7, address }
    }

    #[test]
    fn the_window_slides_with_each_connection() {
        let table = AffinityTable::new(64, 1);
        table.note(client(1), 5, 100, 10);
        assert_eq!(table.find(client(1), 109, 10), Some(5));
        table.note(client(1), 5, 109, 10);
        assert_eq!(table.find(client(1), 118, 10), Some(5));
        assert_eq!(table.find(client(1), 119, 10), None);
        assert_eq!(table.find(Client { service: 8, address: 1 }, 110, 10), None, "another service's");
    }

    #[test]
    fn a_worker_whose_clock_was_read_earlier_finds_the_client_too() {
        let table = AffinityTable::new(4, 1);
        (1..=4).for_each(|address| table.note(client(address), address, 101, 10));
        assert_eq!(table.find(client(1), 100, 10), Some(1));
        table.note(client(5), 5, 100, 10);
        assert_eq!(table.replaced(), 1, "none of the four was over");
    }

    #[test]
    fn when_full_the_oldest_makes_room_and_is_counted() {
        let table = AffinityTable::new(4, 1);
        for address in 1..=4 {
            table.note(client(address), address, address, 1_000);
        }
        table.note(client(5), 5, 10, 1_000);
        assert_eq!((table.find(client(1), 10, 1_000), table.replaced()), (None, 1));
        assert!((2..=5).all(|address| table.find(client(address), 10, 1_000) == Some(address)));
        // One whose window is over is nobody's loss.
        table.note(client(6), 6, 5_000, 1_000);
        assert_eq!(table.replaced(), 1);
    }

    #[test]
    fn workers_that_race_never_see_another_clients_backend() {
        let table = AffinityTable::new(8, 3);
        std::thread::scope(|scope| {
            for worker in 0..2u32 {
                let table = &table;
                scope.spawn(move || {
                    for round in 0..60_000u32 {
                        let address = round % 61 + 1;
                        if let Some(backend) = table.find(client(address), 0, 100) {
                            assert_eq!(backend, address);
                        }
                        table.note(client((address + worker) % 61 + 1), (address + worker) % 61 + 1, 0, 100);
                    }
                });
            }
        });
    }
}
