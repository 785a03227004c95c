//! A bounded single-producer, single-consumer ring of packets between two threads.
//!
//! A cache line costs hundreds of cycles to cross between cores, so both sides move packets in batches: one release
//! store publishes many entries, and each side keeps a private copy of the other's index and reads the shared one only
//! when that copy says full or empty.
//!
//! **Invariant:** entries in `[head, tail)` belong to the ring; the producer alone writes `tail`, the consumer alone
//! writes `head`. What does not fit is given back to the producer, which counts it; nothing waits.
#![allow(unsafe_code, reason = "slots are written by one thread and read by the other without locks")]

use core::mem::MaybeUninit;

use crossbeam::utils::CachePadded;

use crate::sync::{Arc, AtomicUsize, Ordering, UnsafeCell};

struct Shared<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// Next entry to take. Written by the consumer.
    head: CachePadded<AtomicUsize>,
    /// Next place to fill. Written by the producer.
    tail: CachePadded<AtomicUsize>,
}

// SAFETY: a slot is accessed by the producer before the release store of `tail` that covers it, and by the consumer
// after the acquire load that sees that store and before its own release store of `head`; never by both at once.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: the slots own their entries; T: Send lets them move with the ring.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // Both ends are gone, and their reference counts ordered what they did before this.
        let (head, tail) = (self.head.load(Ordering::Relaxed), self.tail.load(Ordering::Relaxed));
        let mask = self.slots.len() - 1;
        for place in 0..tail.wrapping_sub(head) {
            let slot = &self.slots[head.wrapping_add(place) & mask];
            // SAFETY: nobody else has the ring any more, and [head, tail) are initialised entries that nobody took.
            slot.with_mut(|entry| unsafe { (*entry).assume_init_drop() });
        }
    }
}

/// The end that puts entries in.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    head_seen: usize,
}

/// The end that takes entries out.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    tail_seen: usize,
}

/// A ring for `capacity` entries, rounded up to a power of two.
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(2).next_power_of_two();
    let shared = Arc::new(Shared {
        slots: (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
        head: CachePadded::new(AtomicUsize::new(0)),
        tail: CachePadded::new(AtomicUsize::new(0)),
    });
    (
        Producer { shared: Arc::clone(&shared), tail: 0, head_seen: 0 },
        Consumer { shared, head: 0, tail_seen: 0 },
    )
}

impl<T> Producer<T> {
    /// Entries the ring holds at the most.
    pub fn capacity(&self) -> usize {
        self.shared.slots.len()
    }

    /// Puts in as many of `entries` as fit, oldest first, and leaves the rest.
    pub fn push_batch<const N: usize>(&mut self, entries: &mut arrayvec::ArrayVec<T, N>) {
        if self.free() < entries.len() {
            self.head_seen = self.shared.head.load(Ordering::Acquire);
        }
        let count = self.free().min(entries.len());
        let mask = self.shared.slots.len() - 1;
        for (place, entry) in entries.drain(..count).enumerate() {
            let slot = &self.shared.slots[self.tail.wrapping_add(place) & mask];
            // SAFETY: [tail, tail + count) is free (head_seen is never ahead of head), and only this producer writes.
            slot.with_mut(|free| unsafe { (*free).write(entry) });
        }
        self.tail = self.tail.wrapping_add(count);
        self.shared.tail.store(self.tail, Ordering::Release);
    }

    /// Puts one entry in, or gives it back when the ring is full.
    pub fn push(&mut self, entry: T) -> Result<(), T> {
        let mut entries = arrayvec::ArrayVec::<T, 1>::new();
        entries.push(entry);
        self.push_batch(&mut entries);
        entries.pop().map_or(Ok(()), Err)
    }

    fn free(&self) -> usize {
        self.shared.slots.len() - self.tail.wrapping_sub(self.head_seen)
    }
}

impl<T> Consumer<T> {
    /// Takes at the most `limit` entries, oldest first.
    pub fn pop_batch(&mut self, limit: usize, mut take: impl FnMut(T)) -> usize {
        if self.tail_seen == self.head {
            self.tail_seen = self.shared.tail.load(Ordering::Acquire);
        }
        let count = self.tail_seen.wrapping_sub(self.head).min(limit);
        let mask = self.shared.slots.len() - 1;
        for _ in 0..count {
            let slot = &self.shared.slots[self.head & mask];
            // SAFETY: head < tail_seen <= tail, so the slot holds an entry; head moves past it before `take` can
            // panic, and dropping the consumer publishes that, so it is read once.
            let entry = slot.with_mut(|filled| unsafe { (*filled).assume_init_read() });
            self.head = self.head.wrapping_add(1);
            take(entry);
        }
        if count > 0 {
            self.shared.head.store(self.head, Ordering::Release);
        }
        count
    }

    /// Takes the oldest entry.
    pub fn pop(&mut self) -> Option<T> {
        let mut taken = None;
        self.pop_batch(1, |entry| taken = Some(entry));
        taken
    }

    /// Entries waiting, as of now.
    pub fn len(&self) -> usize {
        self.shared.tail.load(Ordering::Acquire).wrapping_sub(self.head)
    }

    /// Whether nothing waits, as of now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        // A `take` that panicked left entries taken but not published as taken; the ring must not drop them again.
        self.shared.head.store(self.head, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn full_ring_gives_back_and_keeps_order() {
        let (mut producer, mut consumer) = ring(4);
        let mut entries: arrayvec::ArrayVec<u32, 6> = (0..6).collect();
        producer.push_batch(&mut entries);
        assert_eq!(entries.as_slice(), [4, 5]);
        assert_eq!(producer.push(9), Err(9));
        let mut taken = vec![];
        assert_eq!(consumer.pop_batch(3, |entry| taken.push(entry)), 3);
        producer.push_batch(&mut entries);
        while let Some(entry) = consumer.pop() {
            taken.push(entry);
        }
        assert_eq!((taken, entries.len()), (vec![0, 1, 2, 3, 4, 5], 0));
    }

    #[test]
    fn entries_left_behind_are_dropped() {
        let counted = Arc::new(());
        let (mut producer, consumer) = ring(8);
        for _ in 0..5 {
            producer.push(Arc::clone(&counted)).unwrap();
        }
        drop((producer, consumer));
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn entries_taken_by_a_panicking_reader_are_dropped_once() {
        let counted = Arc::new(());
        let (mut producer, mut consumer) = ring(4);
        for _ in 0..3 {
            producer.push(Arc::clone(&counted)).unwrap();
        }
        let result = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
            consumer.pop_batch(3, |_| panic!("the reader fails"));
        }));
        assert!(result.is_err());
        assert_eq!(Arc::strong_count(&counted), 3);
        drop((producer, consumer));
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn threads_see_every_entry_once_in_order() {
        let (mut producer, mut consumer) = ring(64);
        let sender = std::thread::spawn(move || {
            for number in 0..200_000u32 {
                while producer.push(number).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while expected < 200_000 {
            if consumer.pop_batch(32, |number| {
                assert_eq!(number, expected);
                expected += 1;
            }) == 0
            {
                std::thread::yield_now();
            }
        }
        sender.join().unwrap();
    }
}

#[cfg(all(test, loom))]
mod loom_model {
    use super::*;

    /// Two slots and three entries: the ring wraps, runs full and runs empty.
    #[test]
    fn entries_arrive_once_in_order() {
        loom::model(|| {
            let (mut producer, mut consumer) = ring::<Box<u32>>(2);
            let sender = loom::thread::spawn(move || {
                for number in 0..3 {
                    let mut entry = Box::new(number);
                    while let Err(refused) = producer.push(entry) {
                        entry = refused;
                        loom::thread::yield_now();
                    }
                }
            });
            let mut expected = 0;
            while expected < 3 {
                match consumer.pop() {
                    Some(number) => {
                        assert_eq!(*number, expected);
                        expected += 1;
                    }
                    None => loom::thread::yield_now(),
                }
            }
            sender.join().unwrap();
        });
    }

    /// Whoever goes last drops what is left; loom reports a leak or an unordered access.
    #[test]
    fn what_is_left_is_dropped_by_the_last_end() {
        loom::model(|| {
            let (mut producer, mut consumer) = ring::<Box<u32>>(2);
            let sender = loom::thread::spawn(move || {
                let _ = producer.push(Box::new(1));
                let _ = producer.push(Box::new(2));
            });
            let taken = consumer.pop();
            assert!(taken.is_none_or(|number| *number == 1));
            drop(consumer);
            sender.join().unwrap();
        });
    }
}
