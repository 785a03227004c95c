//! Tables that one thread publishes and many threads read without locks.
//!
//! A snapshot is immutable once published. The publisher (the control thread) swaps one pointer; each reader (a
//! worker) loads it once a batch, so within a batch it sees one generation and never a mixture. What was replaced is
//! retired, and freed on the publisher's thread once no reader can still hold it.
//!
//! Reclamation is by quiescent states (Desnoyers et al., "User-Level Implementations of Read-Copy Update", IEEE TPDS
//! 23(2), 2012, section 5.1): asking for the next snapshot says that the last one is no longer used, so a reader pays
//! one load of a shared line that changes only when tables do. A reader that sleeps says so and delays nobody.
//!
//! **Invariant:** a snapshot retired by generation `g` is freed only after every reader has either announced `g` or
//! later, or slept. **Absent on purpose:** reference counting by readers, waiting by anyone.
//!
//! **Bound:** nothing is freed behind a reader that neither loads nor sleeps, so [`Publisher::publish`] says how many
//! retired snapshots wait. Readers load once a batch, so it is one or two; a publisher that sees the number grow holds
//! further changes back and merges them.
#![allow(unsafe_code, reason = "readers use a snapshot through a raw pointer, without counting references")]

use core::ptr::NonNull;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam::utils::CachePadded;

use crate::sync::{Arc, AtomicPtr, AtomicU64, Ordering, fence};

/// What a reader announces while it sleeps: later than any generation.
const ASLEEP: u64 = u64::MAX;

struct Shared<T> {
    /// The current snapshot. Written by the publisher, before `generation`.
    current: CachePadded<AtomicPtr<T>>,
    /// Number of the current snapshot. Written by the publisher.
    generation: CachePadded<AtomicU64>,
    /// The generation that each reader has last announced. Written by that reader alone.
    announced: Box<[CachePadded<AtomicU64>]>,
    /// Keeps snapshots alive. Used by the publisher alone; it is here so that they outlive the last reader.
    owned: Mutex<Owned<T>>,
}

struct Owned<T> {
    current: std::sync::Arc<T>,
    /// Replaced snapshots with the generation that replaced each, oldest first.
    retired: VecDeque<(u64, std::sync::Arc<T>)>,
}

impl<T> Shared<T> {
    fn owned(&self) -> MutexGuard<'_, Owned<T>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one side that publishes.
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
}

/// One reader's side.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    place: usize,
    /// What this reader has announced, or [`ASLEEP`].
    seen: u64,
    /// The snapshot last loaded. Valid while `seen` is not [`ASLEEP`].
    loaded: NonNull<T>,
}

// SAFETY: a reader is one thread's view of a `T` that other threads view too, and it may be the last to drop it.
unsafe impl<T: Send + Sync> Send for Reader<T> {}

/// A snapshot with a fixed number of readers. They count as asleep until their first load.
pub fn snapshot<T>(initial: std::sync::Arc<T>, readers: usize) -> (Publisher<T>, Vec<Reader<T>>) {
    let pointer = address(&initial);
    let shared = Arc::new(Shared {
        current: CachePadded::new(AtomicPtr::new(pointer.as_ptr())),
        generation: CachePadded::new(AtomicU64::new(0)),
        announced: (0..readers).map(|_| CachePadded::new(AtomicU64::new(ASLEEP))).collect(),
        owned: Mutex::new(Owned { current: initial, retired: VecDeque::new() }),
    });
    let readers = (0..readers)
        .map(|place| Reader { shared: Arc::clone(&shared), place, seen: ASLEEP, loaded: pointer })
        .collect();
    (Publisher { shared }, readers)
}

fn address<T>(tables: &std::sync::Arc<T>) -> NonNull<T> {
    NonNull::from(&**tables)
}

impl<T> Publisher<T> {
    /// Makes `tables` the current snapshot, frees what can be freed, and says how many retired ones still wait.
    pub fn publish(&mut self, tables: std::sync::Arc<T>) -> usize {
        let generation = self.generation() + 1;
        let pointer = address(&tables);
        {
            let mut owned = self.shared.owned();
            let replaced = core::mem::replace(&mut owned.current, tables);
            owned.retired.push_back((generation, replaced));
        }
        // In this order: a reader that sees the generation sees this pointer or a later one.
        self.shared.current.store(pointer.as_ptr(), Ordering::Release);
        self.shared.generation.store(generation, Ordering::Release);
        self.reclaim();
        self.retired()
    }

    /// Frees the retired snapshots that no reader can hold any more, and says how many these were.
    pub fn reclaim(&mut self) -> usize {
        // Pairs with the fence of a reader that wakes: either its announcement is seen below, or it sees every
        // pointer stored until here, and so nothing that is retired.
        fence(Ordering::SeqCst);
        let passed = self
            .shared
            .announced
            .iter()
            .map(|announced| announced.load(Ordering::Acquire))
            .min()
            .unwrap_or(ASLEEP);
        let mut freed = Vec::new();
        {
            let retired = &mut self.shared.owned().retired;
            while retired.front().is_some_and(|(replaced_by, _)| *replaced_by <= passed) {
                freed.extend(retired.pop_front());
            }
        }
        freed.len()
    }

    /// Retired snapshots that are not freed yet.
    pub fn retired(&self) -> usize {
        self.shared.owned().retired.len()
    }

    /// The current snapshot, to build the next one from.
    pub fn current(&self) -> std::sync::Arc<T> {
        std::sync::Arc::clone(&self.shared.owned().current)
    }

    /// How many times something was published.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Relaxed)
    }
}

impl<T> Reader<T> {
    /// The current snapshot, for one batch. Says that the one loaded before is no longer used.
    #[inline]
    pub fn load(&mut self) -> &T {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation != self.seen {
            self.refresh(generation);
        }
        // SAFETY: the publisher keeps what it retired with a generation later than this reader's announcement, and
        // `refresh` loaded this pointer at that announcement's generation or a later one. The borrow ends before
        // `self` can announce anything else.
        unsafe { self.loaded.as_ref() }
    }

    /// Announces `generation` and takes the snapshot over.
    #[cold]
    fn refresh(&mut self, generation: u64) {
        let waking = self.seen == ASLEEP;
        self.seen = generation;
        // Release: every use of the snapshot held until now happens before its memory is freed.
        self.announced().store(generation, Ordering::Release);
        if waking {
            // Until this is seen, the publisher takes this reader for asleep: see the fence in `reclaim`.
            fence(Ordering::SeqCst);
        }
        let pointer = self.shared.current.load(Ordering::Acquire);
        self.loaded = NonNull::new(pointer).unwrap_or(self.loaded);
    }

    /// Says that this reader uses no snapshot until its next load. To be called before blocking for long.
    pub fn sleep(&mut self) {
        self.seen = ASLEEP;
        self.announced().store(ASLEEP, Ordering::Release);
    }

    /// The generation of the snapshot last loaded, or of one before it; none while asleep.
    pub fn generation(&self) -> Option<u64> {
        (self.seen != ASLEEP).then_some(self.seen)
    }

    fn announced(&self) -> &AtomicU64 {
        &self.shared.announced[self.place]
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.sleep();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn readers_see_what_was_published_and_hold_back_what_they_use() {
        let (mut publisher, mut readers) = snapshot(Arc::new(0), 2);
        assert_eq!((*readers[0].load(), readers[0].generation()), (0, Some(0)));
        assert_eq!(publisher.publish(Arc::new(1)), 1);
        assert_eq!(publisher.publish(Arc::new(2)), 2);
        assert_eq!((publisher.reclaim(), *publisher.current(), publisher.generation()), (0, 2, 2));
        assert_eq!(*readers[0].load(), 2);
        assert_eq!((publisher.reclaim(), publisher.retired()), (2, 0));
    }

    #[test]
    fn a_sleeping_or_dropped_reader_delays_nothing() {
        let (mut publisher, mut readers) = snapshot(Arc::new(0), 2);
        readers[0].load();
        readers[1].load();
        assert_eq!(publisher.publish(Arc::new(1)), 1);
        readers[0].sleep();
        assert_eq!((readers[0].generation(), publisher.reclaim()), (None, 0));
        drop(readers.pop());
        assert_eq!(publisher.reclaim(), 1);
        assert_eq!(*readers[0].load(), 1);
        assert_eq!(publisher.publish(Arc::new(2)), 1);
    }

    #[test]
    fn without_readers_all_is_freed_at_once() {
        let (mut publisher, readers) = snapshot(Arc::new(0), 0);
        assert!(readers.is_empty());
        assert_eq!(publisher.publish(Arc::new(1)), 0);
    }

    #[test]
    fn snapshots_outlive_the_publisher_and_go_with_the_last_reader() {
        let first = Arc::new(7);
        let (mut publisher, mut readers) = snapshot(Arc::clone(&first), 1);
        readers[0].load();
        publisher.publish(Arc::new(8));
        drop(publisher);
        assert_eq!((*readers[0].load(), Arc::strong_count(&first)), (8, 2));
        drop(readers);
        assert_eq!(Arc::strong_count(&first), 1);
    }

    /// Tables that notice when they are read after they were freed, as far as a plain test can.
    struct Tables {
        number: usize,
        double: usize,
        freed: Arc<AtomicUsize>,
    }

    impl Drop for Tables {
        fn drop(&mut self) {
            self.double = 0;
            self.freed.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn threads_see_whole_snapshots_of_growing_number() {
        let freed = Arc::new(AtomicUsize::new(0));
        let tables = |number| Arc::new(Tables { number, double: 2 * number, freed: Arc::clone(&freed) });
        let (mut publisher, readers) = snapshot(tables(0), 2);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (place, mut reader) in readers.into_iter().enumerate() {
                let done = &done;
                scope.spawn(move || {
                    let (mut last, mut rounds) = (0, 0);
                    while !done.load(Ordering::Relaxed) {
                        let seen = reader.load();
                        assert!(seen.number >= last && seen.double == 2 * seen.number);
                        (last, rounds) = (seen.number, rounds + 1);
                        if rounds % (3 + place) == 0 {
                            reader.sleep();
                        }
                    }
                });
            }
            for number in 1..20_000 {
                publisher.publish(tables(number));
            }
            done.store(true, Ordering::Relaxed);
        });
        publisher.reclaim();
        assert_eq!((publisher.retired(), freed.load(Ordering::Relaxed)), (0, 19_999));
    }
}

#[cfg(all(test, loom))]
mod loom_model {
    use loom::cell::UnsafeCell;

    use super::*;

    /// Contents whose reads and whose end loom orders: freeing what a reader may still read fails the model.
    struct Tables(UnsafeCell<u32>);

    // SAFETY: loom checks every access to the cell.
    unsafe impl Sync for Tables {}

    impl Tables {
        fn new(number: u32) -> std::sync::Arc<Self> {
            std::sync::Arc::new(Self(UnsafeCell::new(number)))
        }

        fn number(&self) -> u32 {
            // SAFETY: written only by drop, which loom checks to be ordered after this.
            self.0.with(|number| unsafe { *number })
        }
    }

    impl Drop for Tables {
        fn drop(&mut self) {
            // SAFETY: exclusive, as loom checks.
            self.0.with_mut(|number| unsafe { *number = u32::MAX });
        }
    }

    #[test]
    fn nothing_is_freed_while_a_reader_uses_it() {
        loom::model(|| {
            let (mut publisher, mut readers) = snapshot(Tables::new(0), 1);
            let mut reader = readers.remove(0);
            let worker = loom::thread::spawn(move || {
                let first = reader.load().number();
                let second = reader.load().number();
                assert!(first <= second && second <= 2);
            });
            publisher.publish(Tables::new(1));
            publisher.publish(Tables::new(2));
            worker.join().unwrap();
            publisher.reclaim();
            assert_eq!(publisher.retired(), 0);
        });
    }

    #[test]
    fn a_reader_that_sleeps_and_wakes_never_sees_freed_tables() {
        loom::model(|| {
            let (mut publisher, mut readers) = snapshot(Tables::new(0), 1);
            let mut reader = readers.remove(0);
            let worker = loom::thread::spawn(move || {
                let first = reader.load().number();
                reader.sleep();
                let second = reader.load().number();
                assert!(first <= second && second <= 1);
            });
            publisher.publish(Tables::new(1));
            publisher.reclaim();
            worker.join().unwrap();
        });
    }

    #[test]
    fn the_slowest_of_two_readers_counts() {
        loom::model(|| {
            let (mut publisher, mut readers) = snapshot(Tables::new(0), 2);
            let mut other = readers.remove(1);
            let mut reader = readers.remove(0);
            other.load();
            let worker = loom::thread::spawn(move || {
                reader.load().number();
                reader.sleep();
            });
            assert_eq!(publisher.publish(Tables::new(1)), 1);
            assert_eq!(other.load().number(), 1);
            worker.join().unwrap();
            assert_eq!(publisher.reclaim(), 1);
        });
    }
}
