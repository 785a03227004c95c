//! Opens the ports that a configuration names, lets a job use them on the generator's core, and closes them.

#[cfg(feature = "dpdk")]
mod dpdk;
#[cfg(any(feature = "dpdk", test))]
mod queues;

use engine::host::{available_cores, set_affinity};
use engine::pool::{MemoryPool, PacketSource};
use engine::port::PortQueue;

use crate::config::Configuration;
use crate::ideal::IdealGateway;
use crate::scenario::Scenario;

/// The name of the device that is a gateway in memory instead.
pub const LOOP: &str = "loop";

/// Why there are no ports, or why they did not close as they should.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Some ports are devices and some are not.
    #[error("`loop` stands for the gateway itself: either all ports are `loop`, or none")]
    Mixed,
    /// Built without DPDK.
    #[error(
        "`{0}` is a DPDK device, and this program was built without the dpdk feature: only `loop` is there"
    )]
    WithoutDpdk(String),
    /// The core is not there, or not ours.
    #[error("cannot run on core {core}: {reason}. This process may use the cores {available:?}")]
    Core {
        /// The core.
        core: usize,
        /// What the kernel said.
        reason: String,
        /// Those that are there.
        available: Vec<usize>,
    },
    /// DPDK said so.
    #[error("{0}")]
    Dpdk(String),
    /// The job's thread ended by a panic.
    #[error("the generator's thread panicked: a defect, please report it")]
    Panicked,
    /// Buffers did not come back.
    #[error("{0} packet buffers were lost: a defect, please report it")]
    Leak(usize),
}

/// What a job gets.
pub struct Ports {
    /// One queue of each port, in the configuration's order.
    pub queues: Vec<Box<dyn PortQueue>>,
    /// Buffers.
    pub source: Box<dyn PacketSource + Send>,
    /// The cores that this process could use before it pinned its threads.
    pub cores: Vec<usize>,
}

/// Runs a job with the configuration's ports, on its core. The job's ports must be gone when it returns.
pub fn with_ports<R: Send>(
    configuration: &Configuration,
    scenario: &Scenario,
    job: impl FnOnce(Ports) -> R + Send,
) -> Result<R, DeviceError> {
    let cores = available_cores();
    let loops = configuration.ports.iter().filter(|port| port.device == LOOP).count();
    if loops == configuration.ports.len() {
        let pool = MemoryPool::new(configuration.machine.buffers as usize);
        let (queues, _) = IdealGateway::new(scenario.clone()).into_ports();
        let ports = Ports { queues, source: Box::new(pool.clone()), cores: cores.clone() };
        let core = configuration.machine.core;
        let result = on_core(core, &cores, || Ok(()), || job(ports))?;
        return if pool.in_use() == 0 { Ok(result) } else { Err(DeviceError::Leak(pool.in_use())) };
    }
    if loops > 0 {
        return Err(DeviceError::Mixed);
    }
    with_devices(configuration, cores, job)
}

#[cfg(feature = "dpdk")]
use dpdk::with_devices;

#[cfg(not(feature = "dpdk"))]
fn with_devices<R: Send>(
    configuration: &Configuration,
    _: Vec<usize>,
    _: impl FnOnce(Ports) -> R + Send,
) -> Result<R, DeviceError> {
    let device = configuration.ports.first().map_or(String::new(), |port| port.device.clone());
    Err(DeviceError::WithoutDpdk(device))
}

/// Runs the job in a thread of its own on this core, or on the first that the process may use. What `enter` gives lives as
/// long as the job.
fn on_core<G, R: Send>(
    core: Option<usize>,
    available: &[usize],
    enter: impl FnOnce() -> Result<G, DeviceError> + Send,
    job: impl FnOnce() -> R + Send,
) -> Result<R, DeviceError> {
    let core = core.or(available.first().copied()).unwrap_or(0);
    let failed = |error: std::io::Error| DeviceError::Core {
        core,
        reason: error.to_string(),
        available: available.to_vec(),
    };
    let failed = &failed;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            set_affinity(&[core]).map_err(failed)?;
            let _entered = enter()?;
            Ok(job())
        });
        thread.join().unwrap_or(Err(DeviceError::Panicked))
    })
}

/// Runs a command in a shell, on all cores that the process could use: it would inherit the generator's own otherwise.
pub fn run_command(command: &str, cores: &[usize], core: Option<usize>) -> Result<(), String> {
    let unpinned = set_affinity(cores);
    let status = std::process::Command::new("sh").arg("-c").arg(command).status();
    let core = core.or(cores.first().copied());
    if unpinned.is_ok() {
        core.map_or(Ok(()), |core| set_affinity(&[core])).map_err(|error| error.to_string())?;
    }
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Says something on standard error that a person should know about a result.
#[cfg(feature = "dpdk")]
pub(crate) fn warn(text: &str) {
    eprintln!("pollgate-pktgen: {text}");
}
