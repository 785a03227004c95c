//! Buffer pools. [`MemoryPool`] needs no EAL: tests, replay and benchmarks run on it; DPDK's mempools are in
//! `port::dpdk`.
//!
//! **Invariant:** a buffer is either in its pool's free list or owned by exactly one [`Packet`].
#![allow(unsafe_code, reason = "lays out buffers by hand, as DPDK's mempools do")]

use core::mem::size_of;
use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::packet::{BUFFER_SIZE, HEADROOM, Packet, PacketHeader, PoolOperations, PrivateLine, private_line};

/// Where a worker takes buffers for packets that it originates or copies.
pub trait PacketSource {
    /// An empty packet behind the usual headroom, or none when the pool is exhausted (a counted drop for the caller).
    fn allocate(&mut self) -> Option<Packet>;
}

/// Bytes of one buffer with header, private line, headroom and data.
const STRIDE: usize = size_of::<PacketHeader>() + size_of::<PrivateLine>() + BUFFER_SIZE as usize;
const _: () = assert!(STRIDE.is_multiple_of(64));

struct Shared {
    memory: NonNull<u8>,
    layout: Layout,
    free: ArrayQueue<usize>,
}

// SAFETY: the memory is reached only through Packets (exclusive owners) and the lock-free list of free buffers.
unsafe impl Send for Shared {}
// SAFETY: as above; the list is Sync and hands each buffer to one taker.
unsafe impl Sync for Shared {}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: allocated in MemoryPool::new with this layout; every Packet out holds an Arc count (see allocate),
        // so none is left when this runs.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) };
    }
}

/// A pool of buffers in ordinary memory. Cheap to clone: clones share the buffers.
#[derive(Clone)]
pub struct MemoryPool {
    shared: Arc<Shared>,
}

static MEMORY_POOL_OPERATIONS: PoolOperations = PoolOperations { free_bulk };

/// Puts buffers back on their pools' free lists.
unsafe fn free_bulk(packets: *mut NonNull<PacketHeader>, count: usize) {
    for index in 0..count {
        // SAFETY: the caller passes `count` owned buffers of memory pools; each private line's owner is the Arc
        // pointer that allocate() leaked for exactly this packet, and is taken back here once.
        unsafe {
            let header = *packets.add(index);
            let shared = Arc::from_raw(private_line(header).owner.cast::<Shared>());
            let offset = header.as_ptr() as usize - shared.memory.as_ptr() as usize;
            // The list has one place for each buffer, so this cannot fail.
            let _ = shared.free.push(offset);
        }
    }
}

impl MemoryPool {
    /// A pool of `count` buffers (at least one).
    pub fn new(count: usize) -> Self {
        let count = count.max(1);
        // A size that overflows is an allocation nobody can serve.
        let layout = Layout::from_size_align(count.saturating_mul(STRIDE), 64)
            .unwrap_or_else(|_| handle_alloc_error(Layout::new::<PacketHeader>()));
        // SAFETY: the layout's size is not zero.
        let memory =
            NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        let shared = Arc::new(Shared { memory, layout, free: ArrayQueue::new(count) });
        let owner = Arc::as_ptr(&shared).cast::<()>();
        for index in 0..count {
            let offset = index * STRIDE;
            // SAFETY: offset + STRIDE lies inside the allocation; both structures are 64-byte aligned there.
            unsafe {
                let header = memory.add(offset).cast::<PacketHeader>();
                let line = header.add(1).cast::<PrivateLine>();
                line.write(PrivateLine { operations: &MEMORY_POOL_OPERATIONS, owner });
                (*header.as_ptr()).buffer = line.add(1).cast::<u8>().as_ptr();
                (*header.as_ptr()).buffer_length = BUFFER_SIZE;
                (*header.as_ptr()).segment_count = 1;
                (*header.as_ptr()).reference_count = 1;
            }
            let _ = shared.free.push(offset);
        }
        Self { shared }
    }

    /// Buffers in the pool.
    pub fn capacity(&self) -> usize {
        self.shared.free.capacity()
    }

    /// Buffers that are out: owned by packets somewhere.
    pub fn in_use(&self) -> usize {
        self.capacity() - self.shared.free.len()
    }

    /// A packet with these bytes, as if received by `port`. None if the pool is empty or the bytes do not fit.
    pub fn packet(&mut self, port: u16, bytes: &[u8]) -> Option<Packet> {
        let mut packet = self.allocate()?;
        packet.set_port(port);
        packet.fill(bytes).then_some(packet)
    }
}

impl PacketSource for MemoryPool {
    fn allocate(&mut self) -> Option<Packet> {
        let offset = self.shared.free.pop()?;
        // The packet keeps the pool's memory alive; free_bulk takes this count back.
        let _ = Arc::into_raw(Arc::clone(&self.shared));
        // SAFETY: offset came from the free list, so the buffer is initialised and nobody else owns it.
        unsafe {
            let header = self.shared.memory.add(offset).cast::<PacketHeader>();
            (*header.as_ptr()).data_offset = HEADROOM;
            (*header.as_ptr()).data_length = 0;
            (*header.as_ptr()).packet_length = 0;
            Some(Packet::from_raw(header))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_buffer_comes_back_and_exhaustion_is_none() {
        let mut pool = MemoryPool::new(3);
        let packets: Vec<_> = (0..3).map(|_| pool.allocate().unwrap()).collect();
        assert!(pool.allocate().is_none());
        assert_eq!(pool.in_use(), 3);
        drop(packets);
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn packet_outlives_its_pool_handle() {
        let packet = MemoryPool::new(1).packet(4, b"bytes").unwrap();
        assert_eq!((packet.data(), packet.port()), (&b"bytes"[..], 4));
    }

    #[test]
    fn extents_never_leave_the_buffer() {
        let mut packet = MemoryPool::new(1).packet(0, &[7; 100]).unwrap();
        assert!(!packet.trim_front(101) && !packet.truncate(101) && !packet.extend_front(129));
        assert!(packet.extend_front(128) && packet.headroom() == 0 && packet.len() == 228);
        assert!(packet.trim_front(178) && packet.truncate(10) && packet.data() == [7; 10]);
        assert!(!packet.fill(&[0; 2049]) && packet.fill(&[1; 2048]) && packet.tailroom() == 0);
        assert!(!packet.resize(2049));
    }

    #[test]
    fn bulk_free_spans_pools() {
        let (mut first, mut second) = (MemoryPool::new(4), MemoryPool::new(4));
        let mut packets = arrayvec::ArrayVec::<Packet, 8>::new();
        for _ in 0..4 {
            packets.push(first.allocate().unwrap());
            packets.push(second.allocate().unwrap());
        }
        Packet::free_bulk(&mut packets);
        assert_eq!((packets.len(), first.in_use(), second.in_use()), (0, 0, 0));
    }
}
