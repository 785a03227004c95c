//! DPDK as the configuration wants it: started once, one pool of buffers, each port opened with one pair of queues for
//! each worker, the exception port with one.

use std::any::Any;
use std::sync::{Arc, Mutex};

use engine::dpdk::{
    DeviceError, DpdkPool, Eal, EalConfiguration, EalError, MemoryChoice, PoolError, ThreadRegistration,
    classify_device,
};
use engine::port::PortQueue;
use engine::port::dpdk::{DpdkPort, PortError, PortOptions};
use engine::wire::ethernet::MacAddress;
use tracing::{info, warn};

use crate::assembly::WorkerInput;
use crate::control::build::HostFacts;
use crate::control::config::buffers_needed;
use crate::control::config::model::{Configuration, DpdkMemory, PortRole};
use crate::control::cores::CorePlan;
use crate::control::running::Ports;
use crate::control::view::{DeviceStatistics, PortDevice, PortView, lock};

/// Why the devices do not work.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A device string is wrong.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// DPDK did not start.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// There are no buffers.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A port did not open.
    #[error("port `{name}`: {source}")]
    Port {
        /// The port's name in the configuration.
        name: String,
        /// What is the matter.
        source: PortError,
    },
    /// More buffers than DPDK counts.
    #[error("{0} buffers are more than a pool can have: configure fewer workers, ports or descriptors")]
    Buffers(u64),
}

/// Why the devices did not stop as they should.
#[derive(Debug, thiserror::Error)]
#[error("port `{name}` did not stop: {source}")]
pub struct CloseError {
    name: String,
    source: PortError,
}

/// A device that is shared with whoever shows it, until it is stopped.
struct SharedPort {
    name: String,
    driver: String,
    mac: MacAddress,
    port: Mutex<Option<DpdkPort>>,
}

impl PortDevice for SharedPort {
    fn driver(&self) -> String {
        self.driver.clone()
    }

    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn link(&self) -> Option<(bool, Option<u32>)> {
        let link = lock(&self.port).as_ref()?.link().ok()?;
        Some((link.up, link.speed_mbps))
    }

    fn statistics(&self) -> Option<DeviceStatistics> {
        let statistics = lock(&self.port).as_ref()?.statistics().ok()?;
        Some(DeviceStatistics {
            receive_missed: statistics.receive_missed,
            receive_errors: statistics.receive_errors,
            receive_no_buffer: statistics.receive_no_buffer,
            transmit_errors: statistics.transmit_errors,
        })
    }
}

/// The devices, running.
pub(crate) struct Devices {
    pool: DpdkPool,
    ports: Vec<Arc<SharedPort>>,
}

/// Devices, what the gateway needs of them, and what it must know about them.
pub(crate) struct Opened {
    /// To be closed at the end.
    pub(crate) devices: Devices,
    /// What the gateway runs on.
    pub(crate) ports: Ports,
    /// What its tables need to know.
    pub(crate) facts: HostFacts,
}

/// Starts DPDK and opens all ports.
pub(crate) fn open(configuration: &Configuration, cores: &CorePlan) -> Result<Opened, OpenError> {
    let buffers = buffers_needed(configuration);
    let buffer_count = u32::try_from(buffers).map_err(|_| OpenError::Buffers(buffers))?;
    let eal = start(configuration, cores, buffer_count)?;
    let mut opening = Opening {
        configuration,
        pool: DpdkPool::create(&eal, "packets", buffer_count, None)?,
        shared: Vec::new(),
    };
    let workers = cores.workers.len();
    let mut queues: Vec<Vec<Option<Box<dyn PortQueue>>>> = (0..workers).map(|_| Vec::new()).collect();
    let mut views = Vec::new();
    for (number, port) in configuration.ports.iter().enumerate() {
        let mac = match port.role {
            PortRole::Underlay => port.mac,
            PortRole::Pod => configuration.bridge.as_ref().map(|bridge| bridge.mac),
        };
        let request = Request {
            name: &port.name,
            role: if port.role == PortRole::Pod { "pod" } else { "underlay" },
            device: port.device.as_deref().unwrap_or_default(),
            number: number as u16,
            queue_pairs: workers as u16,
            mtu: port.mtu,
            mac: mac.unwrap_or_default(),
        };
        let (view, taken) = opening.open(&request)?;
        views.push(view);
        queues.iter_mut().zip(taken).for_each(|(worker, queue)| worker.push(Some(queue)));
    }
    let mut facts = HostFacts::default();
    let (mut exception_queue, mut exception_view) = (None, None);
    if let Some(exception) = &configuration.exception {
        let request = Request {
            name: "host",
            role: "exception",
            device: &exception.device,
            number: crate::table::interface::HOST_PORT,
            queue_pairs: 1,
            mtu: host_mtu(configuration),
            mac: exception.mac,
        };
        let (view, mut taken) = opening.open(&request)?;
        // The device's own address is that of the Linux side.
        facts = HostFacts { host_mac: view.device.mac(), host_mtu: request.mtu };
        (exception_queue, exception_view) = (taken.pop(), Some(view));
    }
    let pool = opening.pool;
    let inputs = queues.into_iter().map(|ports| WorkerInput { ports, source: Box::new(pool) }).collect();
    let entry = Arc::new(|| {
        ThreadRegistration::new()
            .map(|registration| Box::new(registration) as Box<dyn Any>)
            .map_err(|error| error.to_string())
    });
    Ok(Opened {
        devices: Devices { pool, ports: opening.shared },
        ports: Ports { inputs, exception_queue, views, exception_view, entry },
        facts,
    })
}

fn start(configuration: &Configuration, cores: &CorePlan, buffer_count: u32) -> Result<Eal, OpenError> {
    let names = configuration.ports.iter().filter_map(|port| port.device.as_deref());
    let names = names.chain(configuration.exception.as_ref().map(|exception| exception.device.as_str()));
    let eal = Eal::start(&EalConfiguration {
        memory: match configuration.dpdk.memory {
            DpdkMemory::Auto => MemoryChoice::Auto,
            DpdkMemory::Huge => MemoryChoice::Huge,
            DpdkMemory::None => MemoryChoice::None,
        },
        buffer_count,
        control_cores: cores.control.clone(),
        devices: names.map(classify_device).collect::<Result<_, _>>()?,
        file_prefix: None,
        extra_arguments: configuration.dpdk.extra_arguments.clone(),
    })?;
    info!("{}", engine::dpdk::version());
    info!("{}", eal.memory().line);
    Ok(eal)
}

/// The exception link carries what the largest underlay does: the host's own connections leave by that.
fn host_mtu(configuration: &Configuration) -> u16 {
    let underlays = configuration.ports.iter().filter(|port| port.role == PortRole::Underlay);
    underlays.map(|port| port.mtu).max().unwrap_or(1_500)
}

struct Request<'r> {
    name: &'r str,
    role: &'static str,
    device: &'r str,
    number: u16,
    queue_pairs: u16,
    mtu: u16,
    mac: MacAddress,
}

struct Opening<'c> {
    configuration: &'c Configuration,
    pool: DpdkPool,
    shared: Vec<Arc<SharedPort>>,
}

impl Opening<'_> {
    fn open(&mut self, request: &Request<'_>) -> Result<(PortView, Vec<Box<dyn PortQueue>>), OpenError> {
        let failed = |source| OpenError::Port { name: request.name.to_owned(), source };
        let options = PortOptions {
            port_number: request.number,
            queue_pairs: request.queue_pairs,
            descriptors: self.configuration.workers.queue_descriptors,
            mtu: request.mtu,
            // The gateway's MACs are its configuration's, not the devices'.
            promiscuous: true,
            pool: &self.pool,
            rss: true,
            only_pool: true,
        };
        let mut port = DpdkPort::open(request.device, &options).map_err(failed)?;
        let mut queues: Vec<Box<dyn PortQueue>> = Vec::new();
        for pair in 0..request.queue_pairs {
            queues.push(Box::new(port.take_queue(pair).map_err(failed)?));
        }
        if request.queue_pairs > 1 && !port.spreads_flows() {
            warn!(port = request.name, "all packets arrive on one worker and are handed over: no RSS");
        }
        info!(
            port = request.name,
            device = request.device,
            driver = port.driver(),
            mtu = request.mtu,
            queue_pairs = request.queue_pairs,
            "opened"
        );
        let shared = Arc::new(SharedPort {
            name: request.name.to_owned(),
            driver: port.driver(),
            mac: MacAddress(port.mac()),
            port: Mutex::new(Some(port)),
        });
        self.shared.push(Arc::clone(&shared));
        let view = PortView {
            name: request.name.to_owned(),
            role: request.role,
            device_name: request.device.to_owned(),
            mac: request.mac,
            mtu: request.mtu,
            device: shared,
        };
        Ok((view, queues))
    }
}

impl Devices {
    /// Stops all ports, whose queues must be gone. Gives the buffers that are still out: 0 when none was lost.
    pub(crate) fn close(self) -> Result<usize, CloseError> {
        for shared in &self.ports {
            if let Some(port) = lock(&shared.port).take() {
                port.stop().map_err(|source| CloseError { name: shared.name.clone(), source })?;
            }
        }
        Ok(self.pool.in_use())
    }
}
