//! Stands in for the `capsule-ffi` crate: the names that capsule 0.1.5 uses, on DPDK 22.11. Names, types and their spelling
//! are capsule's, not ours.
#![allow(non_camel_case_types, non_upper_case_globals, non_snake_case, clippy::missing_safety_doc)]

use std::os::raw::{c_char, c_int, c_uint, c_void};

/// RSS is asked for with more than one core only, and the shim's `rte_eth_dev_configure` knows no RSS: none.
pub const ETH_RSS_IP: u64 = 0;
pub const ETH_RSS_TCP: u64 = 0;
pub const ETH_RSS_UDP: u64 = 0;
pub const ETH_RSS_SCTP: u64 = 0;
pub const DEV_TX_OFFLOAD_MBUF_FAST_FREE: u64 = 0x10000;
pub const RTE_MBUF_DEFAULT_BUF_SIZE: u32 = 2176;

/// DPDK's own layout: shim.c asserts it.
#[repr(C)]
pub struct rte_mbuf {
    pub buf_addr: *mut c_void,
    _iova: u64,
    pub data_off: u16,
    _references: [u16; 3],
    _flags: u64,
    _packet_type: u32,
    pub pkt_len: u32,
    pub data_len: u16,
    _vlan: u16,
    _hash: [u32; 2],
    _vlan_outer: u16,
    pub buf_len: u16,
    pub pool: *mut rte_mempool,
}

/// The beginning of DPDK's own layout: shim.c asserts it.
#[repr(C)]
pub struct rte_mempool {
    pub name: [c_char; 26],
    _pool_data: *mut c_void,
    _pool_config: *mut c_void,
    _zone: *const c_void,
    pub flags: c_uint,
    pub socket_id: c_int,
    pub size: u32,
    pub cache_size: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct rte_eth_dev_info {
    pub driver_name: *const c_char,
    pub rx_offload_capa: u64,
    pub tx_offload_capa: u64,
    pub flow_type_rss_offloads: u64,
    pub max_rx_queues: u16,
    pub max_tx_queues: u16,
}

impl Default for rte_eth_dev_info {
    fn default() -> Self {
        Self {
            driver_name: c"".as_ptr(),
            rx_offload_capa: 0,
            tx_offload_capa: 0,
            flow_type_rss_offloads: 0,
            max_rx_queues: 0,
            max_tx_queues: 0,
        }
    }
}

pub mod rte_eth_rx_mq_mode {
    pub const ETH_MQ_RX_RSS: u32 = 1;
}

/// What of a port's configuration capsule sets.
#[derive(Default)]
pub struct rte_eth_conf {
    pub rxmode: rte_eth_rxmode,
    pub rx_adv_conf: rte_eth_rx_adv_conf,
    pub txmode: rte_eth_txmode,
}

#[derive(Default)]
pub struct rte_eth_rxmode {
    pub mq_mode: u32,
}

#[derive(Default)]
pub struct rte_eth_rx_adv_conf {
    pub rss_conf: rte_eth_rss_conf,
}

#[derive(Default)]
pub struct rte_eth_rss_conf {
    pub rss_hf: u64,
}

#[derive(Default)]
pub struct rte_eth_txmode {
    pub offloads: u64,
}

#[repr(C)]
#[derive(Default)]
pub struct rte_ether_addr {
    pub addr_bytes: [u8; 6],
}

#[repr(C)]
pub struct rte_cpuset_t([u64; 16]);

unsafe extern "C" {
    pub fn rte_eal_cleanup() -> c_int;
    pub fn rte_strerror(errno: c_int) -> *const c_char;
    pub fn rte_socket_id() -> c_uint;
    pub fn rte_socket_count() -> c_uint;
    pub fn rte_socket_id_by_idx(index: c_uint) -> c_int;
    pub fn rte_eth_dev_socket_id(port: u16) -> c_int;
    pub fn rte_eth_dev_get_port_by_name(name: *const c_char, port: *mut u16) -> c_int;
    pub fn rte_eth_dev_adjust_nb_rx_tx_desc(port: u16, receive: *mut u16, transmit: *mut u16) -> c_int;
    pub fn rte_eth_rx_queue_setup(
        port: u16,
        queue: u16,
        descriptors: u16,
        socket: c_uint,
        configuration: *const c_void,
        pool: *mut rte_mempool,
    ) -> c_int;
    pub fn rte_eth_tx_queue_setup(
        port: u16,
        queue: u16,
        descriptors: u16,
        socket: c_uint,
        configuration: *const c_void,
    ) -> c_int;
    pub fn rte_eth_dev_start(port: u16) -> c_int;
    pub fn rte_eth_dev_stop(port: u16) -> c_int;
    pub fn rte_eth_dev_close(port: u16) -> c_int;
    pub fn rte_eth_promiscuous_enable(port: u16) -> c_int;
    pub fn rte_eth_promiscuous_disable(port: u16) -> c_int;
    pub fn rte_eth_allmulticast_enable(port: u16) -> c_int;
    pub fn rte_eth_allmulticast_disable(port: u16) -> c_int;
    pub fn rte_eth_macaddr_get(port: u16, address: *mut rte_ether_addr) -> c_int;
    pub fn rte_pktmbuf_pool_create(
        name: *const c_char,
        count: c_uint,
        cache: c_uint,
        private: u16,
        room: u16,
        socket: c_int,
    ) -> *mut rte_mempool;
    pub fn rte_mempool_free(pool: *mut rte_mempool);

    #[link_name = "peer_register_threads"]
    fn register_threads(wanted: bool);
    #[link_name = "peer_errno"]
    pub fn _rte_errno() -> c_int;
    #[link_name = "peer_eal_init"]
    pub fn rte_eal_init(count: c_int, arguments: *mut *mut c_char) -> c_int;
    #[link_name = "peer_thread_set_affinity"]
    pub fn rte_thread_set_affinity(set: *mut rte_cpuset_t) -> c_int;
    #[link_name = "peer_eth_dev_info_get"]
    pub fn rte_eth_dev_info_get(port: u16, info: *mut rte_eth_dev_info) -> c_int;
    fn peer_eth_dev_configure(port: u16, receive: u16, transmit: u16, tx_offloads: u64) -> c_int;
    #[link_name = "peer_pktmbuf_alloc"]
    pub fn _rte_pktmbuf_alloc(pool: *mut rte_mempool) -> *mut rte_mbuf;
    #[link_name = "peer_pktmbuf_free"]
    pub fn _rte_pktmbuf_free(packet: *mut rte_mbuf);
    #[link_name = "peer_pktmbuf_alloc_bulk"]
    pub fn _rte_pktmbuf_alloc_bulk(
        pool: *mut rte_mempool,
        packets: *mut *mut rte_mbuf,
        count: c_uint,
    ) -> c_int;
    #[link_name = "peer_mempool_put_bulk"]
    pub fn _rte_mempool_put_bulk(pool: *mut rte_mempool, objects: *const *mut c_void, count: c_uint);
    #[link_name = "peer_eth_rx_burst"]
    pub fn _rte_eth_rx_burst(port: u16, queue: u16, packets: *mut *mut rte_mbuf, count: u16) -> u16;
    #[link_name = "peer_eth_tx_burst"]
    pub fn _rte_eth_tx_burst(port: u16, queue: u16, packets: *mut *mut rte_mbuf, count: u16) -> u16;
}

/// Whether capsule's threads are to be registered with EAL, so that they have a cache in mempools. Before the runtime is
/// built. Registered if nobody asks.
pub fn set_thread_registration(wanted: bool) {
    unsafe { register_threads(wanted) }
}

pub unsafe fn rte_eth_dev_configure(port: u16, receive: u16, transmit: u16, conf: &rte_eth_conf) -> c_int {
    unsafe { peer_eth_dev_configure(port, receive, transmit, conf.txmode.offloads) }
}

/// This peer runs on one socket; no libnuma for that.
pub unsafe fn numa_node_of_cpu(_cpu: c_int) -> c_int {
    0
}

/// DPDK 22.11 has deprecated KNI and Debian's kernel has no module for it: every call fails.
#[repr(C)]
pub struct rte_kni {
    _private: [u8; 0],
}

#[derive(Default)]
pub struct rte_kni_conf {
    pub name: [c_char; 32],
    pub group_id: u16,
    pub mbuf_size: u32,
    pub mac_addr: [u8; 6],
}

#[derive(Default)]
pub struct rte_kni_ops {
    pub port_id: u16,
    pub change_mtu: Option<extern "C" fn(u16, c_uint) -> c_int>,
    pub config_network_if: Option<extern "C" fn(u16, u8) -> c_int>,
    pub config_mac_address: Option<extern "C" fn(u16, *mut u8) -> c_int>,
    pub config_promiscusity: Option<extern "C" fn(u16, u8) -> c_int>,
}

pub unsafe fn rte_kni_init(_count: c_uint) -> c_int {
    -1
}

pub unsafe fn rte_kni_close() {}

pub unsafe fn rte_kni_alloc(_: &mut rte_mempool, _: &rte_kni_conf, _: &mut rte_kni_ops) -> *mut rte_kni {
    std::ptr::null_mut()
}

pub unsafe fn rte_kni_release(_: &mut rte_kni) -> c_int {
    -1
}

pub unsafe fn rte_kni_handle_request(_: &mut rte_kni) -> c_int {
    -1
}

pub unsafe fn rte_kni_rx_burst(_: &mut rte_kni, _: *mut *mut rte_mbuf, _: c_uint) -> c_uint {
    0
}

pub unsafe fn rte_kni_tx_burst(_: &mut rte_kni, _: *mut *mut rte_mbuf, _: c_uint) -> c_uint {
    0
}
