//! Declarations of `shim.c`, the C side of the binding, and the same layout assertions on this side.
#![allow(unsafe_code, reason = "foreign functions")]

use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::offset_of;
use core::ptr::NonNull;

use crate::packet::PacketHeader;

// The numbers that shim.c asserts for struct rte_mbuf. Its size is asserted in packet.rs.
const _: () = {
    assert!(offset_of!(PacketHeader, buffer) == 0);
    assert!(offset_of!(PacketHeader, data_offset) == 16);
    assert!(offset_of!(PacketHeader, reference_count) == 18);
    assert!(offset_of!(PacketHeader, segment_count) == 20);
    assert!(offset_of!(PacketHeader, port) == 22);
    assert!(offset_of!(PacketHeader, offload_flags) == 24);
    assert!(offset_of!(PacketHeader, packet_type) == 32);
    assert!(offset_of!(PacketHeader, packet_length) == 36);
    assert!(offset_of!(PacketHeader, data_length) == 40);
    assert!(offset_of!(PacketHeader, vlan_tag) == 42);
    assert!(offset_of!(PacketHeader, hash) == 44);
    assert!(offset_of!(PacketHeader, buffer_length) == 54);
    assert!(offset_of!(PacketHeader, pool) == 56);
    assert!(crate::packet::HEADROOM == 128);
};

/// `struct rte_mempool`, known to DPDK alone.
#[repr(C)]
pub(crate) struct Mempool {
    _opaque: [u8; 0],
}

/// `struct pollgate_pool_setup`.
#[repr(C)]
pub(crate) struct PoolSetup {
    pub(crate) count: u32,
    pub(crate) cache_size: u32,
    pub(crate) socket: i32,
    pub(crate) private_size: u16,
    pub(crate) buffer_size: u16,
    pub(crate) dense: u8,
    pub(crate) private_line: *const c_void,
}

/// `struct pollgate_port_description`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct PortDescription {
    pub(crate) driver: [u8; 64],
    pub(crate) mac: [u8; 6],
    pub(crate) min_mtu: u16,
    pub(crate) max_mtu: u16,
    pub(crate) max_receive_queues: u16,
    pub(crate) max_transmit_queues: u16,
    pub(crate) socket: i32,
    pub(crate) min_receive_buffer: u32,
    pub(crate) hashes: u8,
    pub(crate) fast_free: u8,
}

/// `struct pollgate_port_setup`.
#[repr(C)]
pub(crate) struct PortSetup {
    pub(crate) port: u16,
    pub(crate) queue_pairs: u16,
    pub(crate) mtu: u16,
    pub(crate) hash: u8,
    pub(crate) fast_free: u8,
}

/// What a device has counted since it was started (`struct rte_eth_stats`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStatistics {
    /// Packets received.
    pub received_packets: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Packets that arrived while the receive queue was full.
    pub receive_missed: u64,
    /// Packets that arrived broken.
    pub receive_errors: u64,
    /// Times that no buffer was left to receive into.
    pub receive_no_buffer: u64,
    /// Packets transmitted.
    pub transmitted_packets: u64,
    /// Bytes transmitted.
    pub transmitted_bytes: u64,
    /// Packets that could not be transmitted.
    pub transmit_errors: u64,
}

type Packets = *mut NonNull<PacketHeader>;

unsafe extern "C" {
    pub(crate) fn pollgate_eal_init(count: c_int, arguments: *mut *mut c_char) -> c_int;
    fn pollgate_version() -> *const c_char;
    fn pollgate_error_text(error: c_int) -> *const c_char;
    pub(crate) fn pollgate_thread_register() -> c_int;
    pub(crate) fn pollgate_thread_unregister();

    pub(crate) fn pollgate_pool_create(
        name: *const c_char,
        setup: *const PoolSetup,
        error: *mut c_int,
    ) -> *mut Mempool;
    pub(crate) fn pollgate_pool_in_use(pool: *const Mempool) -> u32;
    pub(crate) fn pollgate_allocate(pool: *mut Mempool) -> *mut PacketHeader;
    pub(crate) fn pollgate_free_bulk(packets: Packets, count: u32);

    pub(crate) fn pollgate_port_find(name: *const c_char, port: *mut u16) -> c_int;
    pub(crate) fn pollgate_port_describe(port: u16, description: *mut PortDescription) -> c_int;
    pub(crate) fn pollgate_port_configure(setup: *const PortSetup) -> c_int;
    pub(crate) fn pollgate_port_adjust_descriptors(port: u16, receive: *mut u16, transmit: *mut u16)
    -> c_int;
    pub(crate) fn pollgate_port_queue_setup(
        port: u16,
        queue: u16,
        receive: u16,
        transmit: u16,
        pool: *mut Mempool,
    ) -> c_int;
    pub(crate) fn pollgate_port_set_mtu(port: u16, mtu: u16) -> c_int;
    pub(crate) fn pollgate_port_promiscuous(port: u16) -> c_int;
    pub(crate) fn pollgate_port_start(port: u16) -> c_int;
    pub(crate) fn pollgate_port_scatters(port: u16, queue: u16) -> c_int;
    pub(crate) fn pollgate_port_stop(port: u16) -> c_int;
    pub(crate) fn pollgate_port_close(port: u16) -> c_int;
    pub(crate) fn pollgate_port_link(port: u16, speed_mbps: *mut u32) -> c_int;
    pub(crate) fn pollgate_port_statistics(port: u16, statistics: *mut PortStatistics) -> c_int;
    pub(crate) fn pollgate_receive(port: u16, queue: u16, packets: Packets, count: u16) -> u16;
    pub(crate) fn pollgate_transmit(port: u16, queue: u16, packets: Packets, count: u16) -> u16;
}

/// The release of DPDK that the process runs with, for people.
pub fn version() -> String {
    // SAFETY: returns a string that lives as long as the process and takes no state.
    unsafe { CStr::from_ptr(pollgate_version()) }.to_string_lossy().into_owned()
}

/// The text of an errno value that DPDK returned, its own values included.
pub(crate) fn error_text(error: c_int) -> String {
    // SAFETY: returns a string in this thread's storage, valid until its next call; it is copied at once.
    let text = unsafe { CStr::from_ptr(pollgate_error_text(error)) };
    format!("{} ({})", text.to_string_lossy(), error.saturating_abs())
}
