//! The binding to DPDK 22.11 and later: the environment ([`Eal`]), pools of buffers ([`DpdkPool`]) and the threads
//! that use them ([`ThreadRegistration`]). Its ports are in [`crate::port::dpdk`].
//!
//! In order: read [`available_cores`], [`Eal::start`], [`DpdkPool::create`], open ports, start workers. Each worker
//! pins itself, then takes a [`ThreadRegistration`] and keeps it while it polls. At the end workers are joined,
//! ports stopped, and [`DpdkPool::in_use`] is 0.
//!
//! **Invariants:** EAL starts once in a process and its memory stays until the process ends, so no handle can outlive
//! what it points to. All that is `static inline` in DPDK is called through `shim.c`, whose assertions tie `struct
//! rte_mbuf` to [`crate::packet::PacketHeader`].
//!
//! Run on net_null, net_ring, net_pcap and net_tap. PCI devices, RSS and hugepages on several NUMA nodes are written
//! to DPDK's documentation and untested.

mod eal;
pub(crate) mod ethdev;
mod memory;
mod pool;
pub(crate) mod shim;
mod thread;

pub use crate::host::available_cores;
pub use crate::port::device::{DeviceError, DeviceKind, classify_device};
pub use eal::{Eal, EalConfiguration, EalError};
pub use memory::{MemoryChoice, MemoryError, MemoryPlan};
pub use pool::{DpdkPool, PoolError};
pub use shim::version;
pub use thread::{RegistrationError, ThreadRegistration};
