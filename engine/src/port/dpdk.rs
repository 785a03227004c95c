//! Ports on DPDK's ethdevs: PCI devices, and the virtual ones from net_tap to net_null.
//!
//! **Invariants:** a device that is started has no queue that two threads use, because a queue is taken once and used
//! through `&mut`; and it is stopped and closed when the port and all its queues are gone, so no queue outlives it.
//!
//! A device's transmit queue frees the buffers that it has sent into their mempools, so only packets of a
//! [`DpdkPool`] may enter it. Others are never taken: they stay in the burst, and the caller drops them as it drops
//! what a full queue leaves.
#![allow(unsafe_code, reason = "foreign functions on buffers that packets own")]

use core::ptr::{self, NonNull};
use std::sync::Arc;

use crate::dpdk::DpdkPool;
use crate::dpdk::ethdev::Device;
pub use crate::dpdk::ethdev::PortError;
pub use crate::dpdk::shim::PortStatistics;
use crate::dpdk::shim::{self, PortDescription, PortSetup};
use crate::packet::{BUFFER_SIZE, HEADROOM, PacketHeader};
use crate::port::device::classify_device;
use crate::port::{BURST, Burst, PortQueue};

/// How a port is opened.
#[derive(Clone, Copy, Debug)]
pub struct PortOptions<'a> {
    /// The number that received packets carry.
    pub port_number: u16,
    /// Pairs of a receive and a transmit queue: one for each worker.
    pub queue_pairs: u16,
    /// Descriptors a queue; adjusted to what the device takes. Receive queues hold that many buffers while they run.
    pub descriptors: u16,
    /// Largest packet without its Ethernet header, in bytes.
    pub mtu: u16,
    /// Whether frames to other stations' addresses are received too, where the device can choose.
    pub promiscuous: bool,
    /// Where the device takes buffers for what it receives.
    pub pool: &'a DpdkPool,
    /// Whether flows are spread over queues by their hash, where the device can.
    pub rss: bool,
    /// Whether all packets that are transmitted come from `pool`. Devices that can then free them faster, and packets
    /// from other pools are not taken.
    pub only_pool: bool,
}

/// A device's link. Shown to people, never a reason not to transmit: net_tap's reads as down in another namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether it is up.
    pub up: bool,
    /// Its speed in Mbit/s, if known.
    pub speed_mbps: Option<u32>,
}

/// A port on a DPDK device, configured and started.
#[derive(Debug)]
pub struct DpdkPort {
    device: Arc<Device>,
    description: PortDescription,
    port_number: u16,
    taken: Vec<bool>,
    only_pool: Option<DpdkPool>,
    hashes: bool,
}

/// Ethernet header, two VLAN tags, frame check sequence: what a frame has besides its MTU.
const FRAME_OVERHEAD: u16 = 14 + 2 * 4 + 4;
/// Largest MTU whose frames fit into one buffer.
const BUFFER_MTU: u16 = BUFFER_SIZE - HEADROOM - FRAME_OVERHEAD;

impl DpdkPort {
    /// Opens the device that DPDK was started with under this name or address, and starts it. What fails is undone,
    /// and then the device is closed: DPDK does not open it again in this process.
    pub fn open(device: &str, options: &PortOptions<'_>) -> Result<Self, PortError> {
        let kind = classify_device(device)?;
        let mut device = Device::claim(kind.port_name())?;
        let description = device.describe()?;
        check_options(&device.name, &description, options)?;
        let hashes = options.rss && options.queue_pairs > 1 && description.hashes != 0;
        configure(&device, &description, options, hashes)?;
        // SAFETY: the port is configured and has its queues.
        device.check("start", unsafe { shim::pollgate_port_start(device.port) })?;
        device.started = true;
        // SAFETY: the port is started.
        let scatters = |queue| unsafe { shim::pollgate_port_scatters(device.port, queue) } != 0;
        if (0..options.queue_pairs).any(scatters) {
            return Err(PortError::Scatters(device.name.clone()));
        }
        Ok(Self {
            device: Arc::new(device),
            description,
            port_number: options.port_number,
            taken: vec![false; usize::from(options.queue_pairs)],
            only_pool: options.only_pool.then_some(*options.pool),
            hashes,
        })
    }

    /// The name by which DPDK knows the device.
    pub fn name(&self) -> &str {
        &self.device.name
    }

    /// The driver's name.
    pub fn driver(&self) -> String {
        let bytes = self.description.driver.iter().copied().take_while(|byte| *byte != 0).collect::<Vec<_>>();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The device's address. net_tap's is the Linux side's: a gateway there needs one of its own.
    pub fn mac(&self) -> [u8; 6] {
        self.description.mac
    }

    /// The NUMA node that the device is at, if it is at one.
    pub fn numa_node(&self) -> Option<u32> {
        u32::try_from(self.description.socket).ok()
    }

    /// Whether the device was asked to spread flows over queues. net_tap says that it does and does not.
    pub fn spreads_flows(&self) -> bool {
        self.hashes
    }

    /// The link's state.
    pub fn link(&self) -> Result<Link, PortError> {
        let mut speed_mbps = 0;
        // SAFETY: the port is open as long as self holds the device.
        let up = unsafe { shim::pollgate_port_link(self.device.port, &raw mut speed_mbps) };
        self.device.check("read the link's state", up)?;
        Ok(Link { up: up == 1, speed_mbps: Some(speed_mbps).filter(|speed| *speed != 0) })
    }

    /// The device's own counters.
    pub fn statistics(&self) -> Result<PortStatistics, PortError> {
        let mut statistics = PortStatistics::default();
        // SAFETY: as in link().
        let result = unsafe { shim::pollgate_port_statistics(self.device.port, &raw mut statistics) };
        self.device.check("read its counters", result)?;
        Ok(statistics)
    }

    /// One worker's pair of queues. Each can be taken once.
    pub fn take_queue(&mut self, queue: u16) -> Result<DpdkQueue, PortError> {
        let queue_pairs = self.taken.len() as u16;
        match self.taken.get_mut(usize::from(queue)) {
            Some(taken) if !*taken => *taken = true,
            _ => return Err(PortError::NoQueue { name: self.device.name.clone(), queue, queue_pairs }),
        }
        Ok(DpdkQueue {
            port: self.device.port,
            queue,
            port_number: self.port_number,
            only_pool: self.only_pool,
            _device: Arc::clone(&self.device),
        })
    }

    /// Stops and closes the device, so that the buffers it holds go back to their pools. All queues must be gone.
    pub fn stop(self) -> Result<(), PortError> {
        let name = self.device.name.clone();
        Arc::into_inner(self.device).ok_or(PortError::QueuesInUse(name))?.close()
    }
}

fn check_options(
    name: &str,
    description: &PortDescription,
    options: &PortOptions<'_>,
) -> Result<(), PortError> {
    let name = || name.to_owned();
    let max = description.max_receive_queues.min(description.max_transmit_queues);
    if options.queue_pairs == 0 || options.queue_pairs > max {
        return Err(PortError::Queues { name: name(), wanted: options.queue_pairs, max });
    }
    let (mtu, min, max) = (options.mtu, description.min_mtu, description.max_mtu.min(BUFFER_MTU));
    if mtu < min || mtu > max {
        return Err(PortError::Mtu { name: name(), mtu, min, max });
    }
    if description.min_receive_buffer > u32::from(BUFFER_SIZE - HEADROOM) {
        return Err(PortError::Scatters(name()));
    }
    Ok(())
}

fn configure(
    device: &Device,
    description: &PortDescription,
    options: &PortOptions<'_>,
    hashes: bool,
) -> Result<(), PortError> {
    let setup = PortSetup {
        port: device.port,
        queue_pairs: options.queue_pairs,
        mtu: options.mtu,
        hash: u8::from(hashes),
        fast_free: u8::from(options.only_pool && description.fast_free != 0),
    };
    let (mut receive, mut transmit) = (options.descriptors, options.descriptors);
    // SAFETY: the port is valid and not started; all arguments live through the calls; the pool lives until the
    // process ends.
    unsafe {
        device.check("configure", shim::pollgate_port_configure(&raw const setup))?;
        // Before the start: net_tap's cannot be set once its interface is in another namespace.
        device.check_if_supported("set the MTU", shim::pollgate_port_set_mtu(device.port, options.mtu))?;
        let adjusted =
            shim::pollgate_port_adjust_descriptors(device.port, &raw mut receive, &raw mut transmit);
        device.check("adjust the number of descriptors", adjusted)?;
        for queue in 0..options.queue_pairs {
            let pool = options.pool.as_raw();
            let made = shim::pollgate_port_queue_setup(device.port, queue, receive, transmit, pool);
            device.check("set up a pair of queues", made)?;
        }
        if options.promiscuous {
            let promiscuous = shim::pollgate_port_promiscuous(device.port);
            device.check_if_supported("receive all stations' frames", promiscuous)?;
        }
    }
    Ok(())
}

/// One pair of queues of a port.
#[derive(Debug)]
pub struct DpdkQueue {
    port: u16,
    queue: u16,
    port_number: u16,
    only_pool: Option<DpdkPool>,
    /// Keeps the device open.
    _device: Arc<Device>,
}

impl DpdkQueue {
    /// Packets at the front of `burst` that the device can free.
    #[inline(always)]
    fn count_of_ours(&self, burst: &mut Burst) -> usize {
        let start = burst.as_mut_ptr().cast::<NonNull<PacketHeader>>();
        let only: *mut core::ffi::c_void =
            self.only_pool.map_or(ptr::null_mut(), |pool| pool.as_raw().cast());
        let foreign = (0..burst.len()).position(|index| {
            // SAFETY: Packet is repr(transparent) over the pointer, the index lies within the burst, and the burst
            // owns its packets. Only buffers of mempools have a pool there; a MemoryPool leaves it null.
            let pool = unsafe { start.add(index).read().as_ref().pool };
            pool.is_null() || !(only.is_null() || pool == only)
        });
        foreign.unwrap_or(burst.len())
    }
}

impl PortQueue for DpdkQueue {
    #[inline]
    fn receive(&mut self, burst: &mut Burst, limit: usize) {
        let held = burst.len();
        let start = burst.as_mut_ptr().cast::<NonNull<PacketHeader>>();
        // SAFETY: the array has room for BURST packets, of which `held` are there, and Packet is repr(transparent)
        // over the pointer. The device is started, since self._device lives, and this is the queue's only user, since
        // it was taken once and is borrowed mutably. Each pointer that comes back is a buffer of the port's
        // DpdkPool, with its private line, and belongs to nobody else.
        unsafe {
            let room = limit.min(BURST - held) as u16;
            let received = usize::from(shim::pollgate_receive(self.port, self.queue, start.add(held), room));
            for index in held..held + received {
                start.add(index).read().as_mut().port = self.port_number;
            }
            burst.set_len(held + received);
        }
    }

    #[inline]
    fn transmit(&mut self, burst: &mut Burst) {
        let (ours, all) = (self.count_of_ours(burst), burst.len());
        let start = burst.as_mut_ptr().cast::<NonNull<PacketHeader>>();
        // SAFETY: device and queue as in receive(). The first `ours` packets come from mempools. Those that the
        // device takes, the first `sent`, are overwritten or cut off, so nothing here owns them any more.
        unsafe {
            let sent = usize::from(shim::pollgate_transmit(self.port, self.queue, start, ours as u16));
            ptr::copy(start.add(sent), start, all - sent);
            burst.set_len(all - sent);
        }
    }
}
