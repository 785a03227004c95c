//! The ports as DPDK devices.

use std::time::{Duration, Instant};

use engine::dpdk::{DpdkPool, Eal, EalConfiguration, MemoryChoice, ThreadRegistration, classify_device};
use engine::port::PortQueue;
use engine::port::dpdk::{DpdkPort, PortOptions};

use super::queues::Queues;
use super::{DeviceError, Ports, on_core, warn};
use crate::config::{Configuration, Memory};

/// How often links are asked whether they are up.
const LINK_POLL: Duration = Duration::from_millis(20);

fn failed(error: impl core::fmt::Display) -> DeviceError {
    DeviceError::Dpdk(error.to_string())
}

/// Starts DPDK, opens the devices, runs the job, and closes them.
pub(super) fn with_devices<R: Send>(
    configuration: &Configuration,
    cores: Vec<usize>,
    job: impl FnOnce(Ports) -> R + Send,
) -> Result<R, DeviceError> {
    let machine = &configuration.machine;
    let eal = start(configuration)?;
    let pool = DpdkPool::create(&eal, "packets", machine.buffers, None).map_err(failed)?;
    let mut devices = Vec::new();
    let mut queues: Vec<Box<dyn PortQueue>> = Vec::new();
    for (number, port) in configuration.ports.iter().enumerate() {
        let options = PortOptions {
            port_number: number as u16,
            queue_pairs: machine.queues,
            descriptors: machine.descriptors,
            mtu: port.mtu,
            // Our MAC addresses are the configuration's.
            promiscuous: true,
            pool: &pool,
            rss: false,
            only_pool: true,
        };
        let mut device = DpdkPort::open(&port.device, &options).map_err(failed)?;
        let taken = (0..machine.queues).map(|queue| device.take_queue(queue)).collect::<Result<_, _>>();
        queues.push(Box::new(Queues::new(taken.map_err(failed)?)));
        devices.push(device);
    }
    wait_for_links(&devices, Duration::from_millis(machine.link_wait_ms));
    let enter = || ThreadRegistration::new().map_err(failed);
    let ports = Ports { queues, source: Box::new(pool), cores: cores.clone() };
    let result = on_core(machine.core, &cores, enter, || job(ports))?;
    for device in devices {
        report(&device);
        device.stop().map_err(failed)?;
    }
    if pool.in_use() == 0 { Ok(result) } else { Err(DeviceError::Leak(pool.in_use())) }
}

fn start(configuration: &Configuration) -> Result<Eal, DeviceError> {
    let devices = configuration.ports.iter().map(|port| classify_device(&port.device));
    let settings = EalConfiguration {
        memory: match configuration.machine.memory {
            Memory::Auto => MemoryChoice::Auto,
            Memory::Huge => MemoryChoice::Huge,
            Memory::None => MemoryChoice::None,
        },
        buffer_count: configuration.machine.buffers,
        control_cores: Vec::new(),
        devices: devices.collect::<Result<_, _>>().map_err(failed)?,
        file_prefix: None,
        extra_arguments: configuration.machine.extra_arguments.clone(),
    };
    Eal::start(&settings).map_err(failed)
}

/// Waits until all links are up. One that stays down is tried all the same: net_tap's reads so in another namespace.
fn wait_for_links(devices: &[DpdkPort], patience: Duration) {
    let start = Instant::now();
    let down = |device: &&DpdkPort| !device.link().is_ok_and(|link| link.up);
    while devices.iter().any(|device| down(&device)) && start.elapsed() < patience {
        std::thread::sleep(LINK_POLL);
    }
    for device in devices.iter().filter(down) {
        warn(&format!("the link of {} is down; sending all the same", device.name()));
    }
}

/// Packets that the device itself lost are no loss of the gateway's: they spoil the result, and are said.
fn report(device: &DpdkPort) {
    let Ok(statistics) = device.statistics() else { return };
    let lost = statistics.receive_missed + statistics.receive_errors + statistics.receive_no_buffer;
    if lost > 0 || statistics.transmit_errors > 0 {
        warn(&format!(
            "{} did not take {} packets and could not send {}: they count as lost",
            device.name(),
            lost,
            statistics.transmit_errors
        ));
    }
}
