//! DPDK's environment abstraction layer: started once, and never ended before the process is.
#![allow(unsafe_code, reason = "starts a C library and sets the signal mask around it")]

use core::ffi::{c_char, c_int};
use std::ffi::{CString, NulError};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::dpdk::memory::{MemoryChoice, MemoryError, MemoryPlan, MemoryQuestion, PageNeed, plan};
use crate::dpdk::shim;
use crate::host::{available_cores, available_memory_kib, free_hugepages, set_affinity};
use crate::port::device::DeviceKind;

/// What EAL is started with.
#[derive(Clone, Debug, Default)]
pub struct EalConfiguration {
    /// Huge or ordinary pages.
    pub memory: MemoryChoice,
    /// Buffers of all pools together.
    pub buffer_count: u32,
    /// Cores for the calling thread and DPDK's own threads; empty leaves all that the process may use.
    pub control_cores: Vec<usize>,
    /// Devices to open. No bus is scanned for others.
    pub devices: Vec<DeviceKind>,
    /// Sets this process apart from others that share memory with secondary processes; rarely needed.
    pub file_prefix: Option<String>,
    /// Passed to EAL as they are, after all others.
    pub extra_arguments: Vec<String>,
}

/// Why EAL did not start.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// It can start only once, even if the first start failed.
    #[error("DPDK was already started in this process and cannot start twice: start a new process")]
    AlreadyStarted,
    /// Two devices with one name.
    #[error(
        "device `{0}` is listed twice: give each device a name of its own, such as net_tap0 and net_tap1"
    )]
    DuplicateDevice(String),
    /// A control core that is not there.
    #[error("core {core} is not available for control; available are {available:?}")]
    NoSuchCore {
        /// The core that was asked for.
        core: usize,
        /// Those that the process may use.
        available: Vec<usize>,
    },
    /// A string that C cannot take.
    #[error("an argument for DPDK contains a zero byte: {0}")]
    Argument(#[from] NulError),
    /// The affinity to the control cores was refused.
    #[error("cannot run on the control cores {cores:?}: {source}")]
    Affinity {
        /// The control cores.
        cores: Vec<usize>,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not enough memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// DPDK refused.
    #[error(
        "DPDK did not start: {reason}. Its own message is above. A virtual device's name must begin with that of an \
         installed driver (packages librte-net-*). It was given: {arguments}"
    )]
    Refused {
        /// The text of its error number.
        reason: String,
        /// The arguments, separated by spaces.
        arguments: String,
    },
}

static STARTED: AtomicBool = AtomicBool::new(false);
static RUNNING: AtomicBool = AtomicBool::new(false);

/// Whether EAL has started. The functions of DPDK may be called from then on.
pub(crate) fn is_running() -> bool {
    RUNNING.load(Ordering::Acquire)
}

/// The started environment: pools and ports are made from it.
///
/// There is no way to end it. Packets, pools and queues point into its memory, DPDK cannot start again anyway, and a
/// process that ends leaves nothing behind: the memory is private, interfaces of net_tap go with their descriptors.
#[derive(Debug)]
pub struct Eal {
    memory: MemoryPlan,
}

impl Eal {
    /// Starts EAL. The calling thread becomes DPDK's main thread and stays on the control cores, as do the threads it
    /// starts until they pin themselves. Call it before other threads exist.
    ///
    /// Real-time signals stay masked in the calling thread: net_tap raises one for each arrival, which nobody needs
    /// since ports are polled, and a thread that took them would be interrupted with each packet. So does SIGIO, which
    /// the kernel sends instead once RLIMIT_SIGPENDING of them wait (fs/fcntl.c, send_sigio_to_task) and which ends a
    /// process that does not expect it.
    ///
    /// A device that cannot be made is no error here, unless its driver is unknown; opening its port is.
    pub fn start(configuration: &EalConfiguration) -> Result<Self, EalError> {
        let available = available_cores();
        check(configuration, &available)?;
        let memory = plan(&MemoryQuestion {
            choice: configuration.memory,
            buffer_count: configuration.buffer_count,
            pages: page_need(configuration),
            free: &free_hugepages(),
            available_kib: available_memory_kib(),
        })?;
        let cores = match configuration.control_cores.as_slice() {
            [] => &available,
            cores => cores,
        };
        let arguments = arguments(configuration, cores, &memory);
        let words: Vec<_> =
            arguments.iter().map(|word| CString::new(word.as_str())).collect::<Result<_, _>>()?;
        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(EalError::AlreadyStarted);
        }

        // EAL gives its own threads what remains of the caller's cores, so the caller is confined before.
        set_affinity(cores).map_err(|source| EalError::Affinity { cores: cores.to_vec(), source })?;
        let result = {
            let _masked = MaskedSignals::block_all();
            start_with(words)
        };
        if result < 0 {
            // The threads that the caller starts now should not be confined by a start that failed; that the old
            // affinity is refused is not worth hiding the reason for.
            let _ = set_affinity(&available);
            let reason = shim::error_text(result);
            return Err(EalError::Refused { reason, arguments: arguments.join(" ") });
        }
        RUNNING.store(true, Ordering::Release);
        Ok(Self { memory })
    }

    /// Which memory is used and what it costs.
    pub fn memory(&self) -> &MemoryPlan {
        &self.memory
    }
}

fn check(configuration: &EalConfiguration, available: &[usize]) -> Result<(), EalError> {
    if STARTED.load(Ordering::Acquire) {
        return Err(EalError::AlreadyStarted);
    }
    if let Some(core) = configuration.control_cores.iter().find(|core| !available.contains(core)) {
        return Err(EalError::NoSuchCore { core: *core, available: available.to_vec() });
    }
    let mut names: Vec<_> = configuration.devices.iter().map(DeviceKind::port_name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(EalError::DuplicateDevice(pair[0].into())),
        None => Ok(()),
    }
}

/// What the most demanding device needs. One of AF_XDP may also hide in the arguments that are passed on.
fn page_need(configuration: &EalConfiguration) -> PageNeed {
    let any = |matches: fn(&DeviceKind) -> bool| configuration.devices.iter().any(matches);
    let hidden = configuration.extra_arguments.iter().any(|argument| argument.contains("net_af_xdp"));
    if any(|device| matches!(device, DeviceKind::Pci { .. })) {
        PageNeed::Device
    } else if hidden || any(|device| device.port_name().starts_with("net_af_xdp")) {
        PageNeed::Whole
    } else {
        PageNeed::Any
    }
}

/// EAL's command line (DPDK's "EAL parameters").
fn arguments(configuration: &EalConfiguration, cores: &[usize], memory: &MemoryPlan) -> Vec<String> {
    let cores: Vec<_> = cores.iter().map(usize::to_string).collect();
    let mut arguments = vec![
        "pollgate".to_owned(),
        // One thread of EAL's own, the caller, on all control cores. Workers are threads of ours that register.
        format!("--lcores=0@({})", cores.join(",")),
        "--log-level=*:warning".to_owned(),
        "--no-telemetry".to_owned(),
    ];
    if memory.hugepages {
        // Needs no mounted hugetlbfs and leaves no files.
        arguments.push("--in-memory".to_owned());
    } else {
        // --in-memory refuses --no-huge. Without --no-shconf two processes side by side collide.
        arguments.extend(["--no-huge".to_owned(), "--no-shconf".to_owned()]);
        arguments.extend(["-m".to_owned(), memory.need_mib.to_string()]);
    }
    if let Some(prefix) = &configuration.file_prefix {
        arguments.push(format!("--file-prefix={prefix}"));
    }
    let mut pci = false;
    for device in &configuration.devices {
        match device {
            DeviceKind::Pci { address } => {
                pci = true;
                arguments.extend(["-a".to_owned(), address.clone()]);
            }
            DeviceKind::Vdev { name, arguments: given } if given.is_empty() => {
                arguments.push(format!("--vdev={name}"));
            }
            DeviceKind::Vdev { name, arguments: given } => arguments.push(format!("--vdev={name},{given}")),
        }
    }
    if !pci {
        arguments.push("--no-pci".to_owned());
    }
    arguments.extend(configuration.extra_arguments.iter().cloned());
    arguments
}

fn start_with(words: Vec<CString>) -> c_int {
    let Ok(count) = c_int::try_from(words.len()) else { return -libc::E2BIG };
    let mut pointers: Vec<*mut c_char> = words.into_iter().map(CString::into_raw).collect();
    pointers.push(core::ptr::null_mut());
    // EAL keeps pointers into its arguments and its option parser reorders them, so they are leaked, once.
    let pointers = pointers.leak();
    // SAFETY: `count` zero-terminated strings and a null pointer behind them, all of which live until the process
    // ends; STARTED lets only one thread come here, once.
    unsafe { shim::pollgate_eal_init(count, pointers.as_mut_ptr()) }
}

/// Blocks all signals, so that threads started meanwhile never take one. Dropping it restores the caller's mask,
/// except that real-time signals and SIGIO stay blocked.
struct MaskedSignals {
    before: libc::sigset_t,
}

impl MaskedSignals {
    fn block_all() -> Self {
        // SAFETY: sigfillset initialises `all`, pthread_sigmask writes `before`; both live through the calls.
        unsafe {
            let mut all: libc::sigset_t = core::mem::zeroed();
            let mut before: libc::sigset_t = core::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self { before }
        }
    }
}

impl Drop for MaskedSignals {
    fn drop(&mut self) {
        // SAFETY: `before` was initialised in block_all; the added numbers are valid signals.
        unsafe {
            for signal in (libc::SIGRTMIN()..=libc::SIGRTMAX()).chain([libc::SIGIO]) {
                libc::sigaddset(&raw mut self.before, signal);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, core::ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::device::classify_device;

    fn words(devices: &[&str], hugepages: bool) -> String {
        let configuration = EalConfiguration {
            devices: devices.iter().map(|device| classify_device(device).unwrap()).collect(),
            extra_arguments: vec!["--trace=all".into()],
            ..EalConfiguration::default()
        };
        let memory = MemoryPlan { hugepages, dense: false, need_mib: 77, line: String::new() };
        arguments(&configuration, &[0, 3], &memory).join(" ")
    }

    #[test]
    fn arguments_follow_the_memory_and_the_devices() {
        assert_eq!(
            words(&["net_tap0,iface=pg-eth0", "net_null1"], false),
            "pollgate --lcores=0@(0,3) --log-level=*:warning --no-telemetry --no-huge --no-shconf -m 77 \
             --vdev=net_tap0,iface=pg-eth0 --vdev=net_null1 --no-pci --trace=all"
        );
        assert_eq!(
            words(&["01:00.0"], true),
            "pollgate --lcores=0@(0,3) --log-level=*:warning --no-telemetry --in-memory -a 0000:01:00.0 --trace=all"
        );
    }

    #[test]
    fn devices_say_how_buffers_may_lie() {
        let need = |devices: &[&str], extra: &[&str]| {
            page_need(&EalConfiguration {
                devices: devices.iter().map(|device| classify_device(device).unwrap()).collect(),
                extra_arguments: extra.iter().map(|&argument| argument.into()).collect(),
                ..EalConfiguration::default()
            })
        };
        assert_eq!(need(&["net_tap0", "net_null0"], &["--log-level=debug"]), PageNeed::Any);
        assert_eq!(need(&["net_tap0", "net_af_xdp0,iface=eth0"], &[]), PageNeed::Whole);
        assert_eq!(need(&[], &["--vdev=net_af_xdp0,iface=eth0"]), PageNeed::Whole);
        assert_eq!(need(&["net_af_xdp0,iface=eth0", "01:00.0"], &[]), PageNeed::Device);
    }

    #[test]
    fn mistakes_are_found_before_eal_is_touched() {
        let device = classify_device("net_null0").unwrap();
        let twice = EalConfiguration { devices: vec![device.clone(), device], ..Default::default() };
        assert!(matches!(Eal::start(&twice), Err(EalError::DuplicateDevice(name)) if name == "net_null0"));
        let nowhere = EalConfiguration { control_cores: vec![100_000], ..Default::default() };
        assert!(matches!(Eal::start(&nowhere), Err(EalError::NoSuchCore { core: 100_000, .. })));
        assert!(!STARTED.load(Ordering::Acquire));
    }
}
