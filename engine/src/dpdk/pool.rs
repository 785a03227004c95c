//! DPDK's mempools as pools of packets.
#![allow(unsafe_code, reason = "foreign functions on buffers that packets own")]

use core::ffi::{c_int, c_void};
use core::ptr::NonNull;
use std::ffi::CString;

use crate::dpdk::Eal;
use crate::dpdk::shim::{self, Mempool, PoolSetup};
use crate::packet::{BUFFER_SIZE, PRIVATE_SIZE, Packet, PacketHeader, PoolOperations, PrivateLine};
use crate::pool::PacketSource;

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// A name that DPDK cannot take.
    #[error("`{0}` cannot name a pool: 1 to 25 letters, digits, `_` or `-`")]
    Name(String),
    /// No buffers.
    #[error("pool `{0}` has no buffers: give it at least 2")]
    Empty(String),
    /// DPDK refused.
    #[error(
        "pool `{name}` of {count} buffers was not made: {reason}. The buffers of all pools must not exceed those \
         that DPDK was started for, and pools need different names"
    )]
    Refused {
        /// The pool's name.
        name: String,
        /// Its buffers.
        count: u32,
        /// DPDK's reason.
        reason: String,
    },
}

static OPERATIONS: PoolOperations = PoolOperations { free_bulk };

/// Gives buffers back to their mempools, through the calling thread's cache if it is registered.
///
/// rte_pktmbuf_free_bulk leaves each as DPDK wants a free one: one segment, no next, a count of 1. Nothing in Rust
/// changes these three, and drivers and rte_pktmbuf_alloc hand buffers out in that state.
unsafe fn free_bulk(packets: *mut NonNull<PacketHeader>, count: usize) {
    // SAFETY: the caller passes `count` owned buffers with these operations, which only mempools' buffers have. A
    // count comes from arrays of packets in memory and fits 32 bits.
    unsafe { shim::pollgate_free_bulk(packets, count as u32) }
}

/// A mempool. Cheap to copy; copies are the same pool. A worker takes packets from its own copy.
///
/// Pools are never destroyed: packets, devices and other threads' caches point into them until the process ends.
#[derive(Clone, Copy, Debug)]
pub struct DpdkPool {
    mempool: NonNull<Mempool>,
    capacity: u32,
}

// SAFETY: mempools may be used from any thread, registered or not.
unsafe impl Send for DpdkPool {}
// SAFETY: as above; the methods that take &self only read counters or addresses.
unsafe impl Sync for DpdkPool {}

/// Most buffers that a thread keeps to itself before it gives half of them back.
const CACHE_SIZE: u32 = 256;
/// DPDK's limit is 31, of which it takes some for the names of the pool's ring and memory.
const NAME_MAX: usize = 25;

impl DpdkPool {
    /// A pool of `count` buffers, on a NUMA node or wherever there is memory. Threads may each keep up to 384 free
    /// buffers in their caches, which others then do not find: count them in.
    pub fn create(eal: &Eal, name: &str, count: u32, numa_node: Option<u32>) -> Result<Self, PoolError> {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        let c_name = CString::new(name).ok().filter(|_| plain && !name.is_empty() && name.len() <= NAME_MAX);
        let Some(c_name) = c_name else { return Err(PoolError::Name(name.into())) };
        if count < 2 {
            return Err(PoolError::Empty(name.into()));
        }
        let line = PrivateLine { operations: &OPERATIONS, owner: core::ptr::null() };
        let setup = PoolSetup {
            count,
            // DPDK wants 1.5 times the cache to fit into the pool; beyond that, a small pool should not vanish in
            // one thread's cache.
            cache_size: CACHE_SIZE.min(count / 8),
            socket: numa_node.and_then(|node| i32::try_from(node).ok()).unwrap_or(ANY_SOCKET),
            private_size: PRIVATE_SIZE,
            buffer_size: BUFFER_SIZE,
            dense: u8::from(eal.memory().dense),
            private_line: (&raw const line).cast::<c_void>(),
        };
        let mut error: c_int = 0;
        // SAFETY: EAL runs; name, setup and line live through the call, which copies them. The line is as large as
        // the private size (asserted in packet.rs), and what it points to is static.
        let mempool =
            unsafe { shim::pollgate_pool_create(c_name.as_ptr(), &raw const setup, &raw mut error) };
        match NonNull::new(mempool) {
            Some(mempool) => Ok(Self { mempool, capacity: count }),
            None => Err(PoolError::Refused { name: name.into(), count, reason: shim::error_text(error) }),
        }
    }

    /// Buffers in the pool.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Buffers that are out: owned by packets, or posted to a device that runs. Walks over all threads' caches, so
    /// it is for the control thread; exact when no thread uses the pool meanwhile.
    pub fn in_use(&self) -> usize {
        // SAFETY: pools live until the process ends.
        unsafe { shim::pollgate_pool_in_use(self.mempool.as_ptr()) as usize }
    }

    pub(crate) fn as_raw(&self) -> *mut Mempool {
        self.mempool.as_ptr()
    }
}

/// SOCKET_ID_ANY.
const ANY_SOCKET: i32 = -1;

impl PacketSource for DpdkPool {
    #[inline]
    fn allocate(&mut self) -> Option<Packet> {
        // SAFETY: pools live until the process ends. What comes back is reset by DPDK (empty, behind its headroom,
        // which is ours), has the private line that create() wrote, and belongs to nobody else.
        unsafe {
            NonNull::new(shim::pollgate_allocate(self.mempool.as_ptr()))
                .map(|header| Packet::from_raw(header))
        }
    }
}
