//! A packet: a handle to one buffer, laid out as DPDK's `rte_mbuf` so that every port can share it.
//!
//! The header's first 128 bytes have the layout of `struct rte_mbuf` (DPDK 22.11 and later, `rte_mbuf_core.h`); the
//! C shim asserts each offset that is read here at compile time. Behind it lies a private line that the pool writes
//! once and that says how the buffer goes home, then headroom, then data. `next` and `buf_iova` move between DPDK
//! configurations and are never touched from Rust.
//!
//! **Invariant:** a `Packet` owns its buffer. Dropping it gives the buffer back to the pool it came from; ports that
//! take it over (a device's transmit queue) forget it.
#![allow(unsafe_code, reason = "packet memory is shared with devices and is reached through raw pointers")]

use core::mem::{ManuallyDrop, size_of};
use core::ptr::NonNull;
use core::slice;

/// Bytes kept free in front of a packet when a port receives it: room for outer headers.
pub const HEADROOM: u16 = 128;
/// Size of the private line between the header and the headroom, in bytes.
pub const PRIVATE_SIZE: u16 = 64;
/// Size of a buffer's headroom and data together, in bytes: 2,048 for data, as DPDK's own default.
pub const BUFFER_SIZE: u16 = 2048 + HEADROOM;

/// The first 128 bytes of a buffer: `struct rte_mbuf`.
#[repr(C, align(64))]
pub struct PacketHeader {
    pub(crate) buffer: *mut u8,
    pub(crate) iova_or_next: u64,
    pub(crate) data_offset: u16,
    pub(crate) reference_count: u16,
    pub(crate) segment_count: u16,
    pub(crate) port: u16,
    pub(crate) offload_flags: u64,
    pub(crate) packet_type: u32,
    pub(crate) packet_length: u32,
    pub(crate) data_length: u16,
    pub(crate) vlan_tag: u16,
    pub(crate) hash: [u32; 2],
    pub(crate) vlan_tag_outer: u16,
    pub(crate) buffer_length: u16,
    pub(crate) pool: *mut core::ffi::c_void,
    pub(crate) second_line: [u64; 8],
}

const _: () = assert!(size_of::<PacketHeader>() == 128);

/// How buffers of a pool go home. One per kind of pool.
pub struct PoolOperations {
    /// Takes `count` buffers back. All of them belong to pools with these operations.
    ///
    /// # Safety
    /// `packets` points to `count` valid buffers that nobody else holds.
    pub free_bulk: unsafe fn(packets: *mut NonNull<PacketHeader>, count: usize),
}

/// The line behind the header. Written once, by the pool, before the buffer is first handed out.
#[repr(C, align(64))]
pub struct PrivateLine {
    /// How this buffer goes home.
    pub operations: &'static PoolOperations,
    /// The pool, for operations that need it; meaning is theirs.
    pub owner: *const (),
}

const _: () = assert!(size_of::<PrivateLine>() == PRIVATE_SIZE as usize);

/// An owned packet. One segment; its bytes are `data()`.
#[repr(transparent)]
pub struct Packet(NonNull<PacketHeader>);

// SAFETY: a Packet owns its buffer exclusively (no aliasing handle exists), and pools accept buffers from any thread.
unsafe impl Send for Packet {}

impl Packet {
    /// Takes ownership of a buffer.
    ///
    /// # Safety
    /// `header` points to an initialised buffer of a pool (header, private line, data) that nobody else holds.
    #[inline(always)]
    pub unsafe fn from_raw(header: NonNull<PacketHeader>) -> Self {
        Self(header)
    }

    /// Gives up ownership without freeing: for rings and devices.
    #[inline(always)]
    pub fn into_raw(self) -> NonNull<PacketHeader> {
        ManuallyDrop::new(self).0
    }

    #[inline(always)]
    fn header(&self) -> &PacketHeader {
        // SAFETY: the handle owns an initialised header for as long as it lives (invariant of from_raw).
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    fn header_mut(&mut self) -> &mut PacketHeader {
        // SAFETY: as above, and &mut self makes the access exclusive.
        unsafe { self.0.as_mut() }
    }

    /// Address of the packet's first byte, for prefetching only.
    #[inline(always)]
    pub fn data_pointer(&self) -> *const u8 {
        let header = self.header();
        header.buffer.wrapping_add(usize::from(header.data_offset))
    }

    /// Asks the cache for the buffer's header line.
    #[inline(always)]
    pub fn prefetch_header(&self) {
        crate::prefetch::prefetch_read(self.0.as_ptr().cast::<u8>());
    }

    /// Asks the cache for the lines in which headers are, those behind a tunnel's too.
    #[inline(always)]
    pub fn prefetch_headers(&self) {
        let start = self.data_pointer();
        crate::prefetch::prefetch_read(start);
        crate::prefetch::prefetch_read(start.wrapping_add(64));
    }

    /// Length of the packet's bytes.
    #[inline(always)]
    pub fn len(&self) -> usize {
        usize::from(self.header().data_length)
    }

    /// Whether the packet has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Segments the device delivered the packet in; ports are configured so that this is 1.
    #[inline(always)]
    pub fn segment_count(&self) -> u16 {
        self.header().segment_count
    }

    /// The port that the packet came in by.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        self.header().port
    }

    /// Sets the port that the packet came in by. Written by ports on receive and by whoever originates a packet.
    #[inline(always)]
    pub fn set_port(&mut self, port: u16) {
        self.header_mut().port = port;
    }

    /// The packet's bytes.
    #[inline(always)]
    pub fn data(&self) -> &[u8] {
        let header = self.header();
        // SAFETY: data_offset + data_length <= buffer_length is kept by every method here and by the ports (invariant
        // of from_raw), and the buffer lives as long as the handle.
        unsafe {
            slice::from_raw_parts(
                header.buffer.add(usize::from(header.data_offset)),
                usize::from(header.data_length),
            )
        }
    }

    /// The packet's bytes, to write.
    #[inline(always)]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let header = self.header_mut();
        // SAFETY: as in data(), and &mut self makes the access exclusive.
        unsafe {
            slice::from_raw_parts_mut(
                header.buffer.add(usize::from(header.data_offset)),
                usize::from(header.data_length),
            )
        }
    }

    /// Bytes free in front of the packet.
    #[inline(always)]
    pub fn headroom(&self) -> usize {
        usize::from(self.header().data_offset)
    }

    /// Bytes free behind the packet.
    #[inline(always)]
    pub fn tailroom(&self) -> usize {
        let header = self.header();
        usize::from(header.buffer_length)
            .saturating_sub(usize::from(header.data_offset) + usize::from(header.data_length))
    }

    #[inline(always)]
    fn set_extent(&mut self, offset: u16, length: u16) {
        let header = self.header_mut();
        header.data_offset = offset;
        header.data_length = length;
        header.packet_length = u32::from(length);
    }

    /// Cuts `count` bytes off the front; they become headroom. False, and nothing changed, if there are fewer.
    #[inline(always)]
    #[must_use]
    pub fn trim_front(&mut self, count: usize) -> bool {
        let (offset, length) = (self.header().data_offset, self.header().data_length);
        if count > usize::from(length) {
            return false;
        }
        self.set_extent(offset + count as u16, length - count as u16);
        true
    }

    /// Adds `count` bytes of whatever lies there to the front. False, and nothing changed, without the headroom.
    #[inline(always)]
    #[must_use]
    pub fn extend_front(&mut self, count: usize) -> bool {
        let (offset, length) = (self.header().data_offset, self.header().data_length);
        if count > usize::from(offset) {
            return false;
        }
        self.set_extent(offset - count as u16, length + count as u16);
        true
    }

    /// Cuts the packet to `length` bytes (Ethernet padding, for one). False, and nothing changed, if it is shorter.
    #[inline(always)]
    #[must_use]
    pub fn truncate(&mut self, length: usize) -> bool {
        if length > self.len() {
            return false;
        }
        self.set_extent(self.header().data_offset, length as u16);
        true
    }

    /// Empties the packet, puts it behind the usual headroom, and copies `bytes` in. False if they do not fit.
    #[must_use]
    pub fn fill(&mut self, bytes: &[u8]) -> bool {
        if usize::from(HEADROOM) + bytes.len() > usize::from(self.header().buffer_length) {
            return false;
        }
        self.set_extent(HEADROOM, bytes.len() as u16);
        self.data_mut().copy_from_slice(bytes);
        true
    }

    /// Lets the packet be `length` bytes long, the new ones being whatever lies there. False if they do not fit.
    #[must_use]
    pub fn resize(&mut self, length: usize) -> bool {
        if self.headroom() + length > usize::from(self.header().buffer_length) {
            return false;
        }
        self.set_extent(self.header().data_offset, length as u16);
        true
    }

    /// Gives many packets back at once: one call per run of packets with the same kind of pool.
    pub fn free_bulk<const N: usize>(packets: &mut arrayvec::ArrayVec<Packet, N>) {
        let count = packets.len();
        let start = packets.as_mut_ptr().cast::<NonNull<PacketHeader>>();
        // SAFETY: the packets leave the vector before they are freed, so nothing drops them again; Packet is
        // repr(transparent) over NonNull<PacketHeader>, so the pointers may be read as such. The vector's memory
        // outlives the loop, since nothing is pushed to it meanwhile.
        unsafe {
            packets.set_len(0);
            let mut from = 0;
            while from < count {
                let operations = private_line(*start.add(from)).operations;
                let mut to = from + 1;
                while to < count && core::ptr::eq(private_line(*start.add(to)).operations, operations) {
                    to += 1;
                }
                (operations.free_bulk)(start.add(from), to - from);
                from = to;
            }
        }
    }
}

/// The private line of a buffer.
///
/// # Safety
/// `header` points to a buffer that a pool has initialised.
#[inline(always)]
pub unsafe fn private_line<'a>(header: NonNull<PacketHeader>) -> &'a PrivateLine {
    // SAFETY: every pool puts an initialised private line right behind the header (caller's promise).
    unsafe { header.add(1).cast::<PrivateLine>().as_ref() }
}

impl Drop for Packet {
    fn drop(&mut self) {
        // SAFETY: the handle owns the buffer and is not used again.
        unsafe {
            let mut raw = self.0;
            (private_line(raw).operations.free_bulk)(&raw mut raw, 1);
        }
    }
}

impl core::fmt::Debug for Packet {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "Packet(port {}, {} bytes)", self.port(), self.len())
    }
}
