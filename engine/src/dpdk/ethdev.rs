//! Devices as DPDK's ethdev layer has them: found by name, owned by one port, stopped and closed at the end.
#![allow(unsafe_code, reason = "foreign functions")]

use core::ffi::c_int;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::dpdk::shim::{self, PortDescription};
use crate::port::device::DeviceError;

/// Why a port does not work.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The device string is wrong.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// DPDK has no such port.
    #[error(
        "device `{0}` did not come up with DPDK; its own message is above. A virtual device must be among the devices \
         that DPDK was started with and its driver installed (librte-net-*); a PCI device must be bound to vfio-pci"
    )]
    NoSuchPort(String),
    /// It is in use.
    #[error("device `{0}` is already open")]
    AlreadyOpen(String),
    /// More queues than the device has.
    #[error("device `{name}` has {max} pairs of queues and {wanted} are needed, one for each worker")]
    Queues {
        /// The device.
        name: String,
        /// Needed.
        wanted: u16,
        /// There are.
        max: u16,
    },
    /// An MTU that device or buffers cannot take.
    #[error("device `{name}` cannot have an MTU of {mtu}: {min} to {max} fit it and one buffer a packet")]
    Mtu {
        /// The device.
        name: String,
        /// Asked for.
        mtu: u16,
        /// Smallest.
        min: u16,
        /// Largest.
        max: u16,
    },
    /// The device would cut packets into segments.
    #[error("device `{0}` receives packets in several buffers with this MTU: configure a smaller MTU")]
    Scatters(String),
    /// DPDK refused a step.
    #[error("device `{name}`: cannot {step}: {reason}")]
    Refused {
        /// The device.
        name: String,
        /// What was tried.
        step: &'static str,
        /// DPDK's reason.
        reason: String,
    },
    /// No such queue, or taken.
    #[error("device `{name}` has no queue {queue} to take: each of its {queue_pairs} is taken once")]
    NoQueue {
        /// The device.
        name: String,
        /// Asked for.
        queue: u16,
        /// There are.
        queue_pairs: u16,
    },
    /// Stopped too early.
    #[error(
        "device `{0}` still has queues in use: end its workers first. It stops when the last of them is gone"
    )]
    QueuesInUse(String),
}

/// Devices that are open, since DPDK would let a second owner stop the first one's.
static OPEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

fn open_ports() -> MutexGuard<'static, BTreeSet<u16>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device that this process owns. Dropping it stops and closes it.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) port: u16,
    pub(crate) name: String,
    pub(crate) started: bool,
    closed: bool,
}

impl Device {
    pub(crate) fn claim(name: &str) -> Result<Self, PortError> {
        let missing = || PortError::NoSuchPort(name.into());
        let c_name = CString::new(name).map_err(|_| missing())?;
        let mut port = 0;
        // SAFETY: EAL runs (a pool exists); name and result live through the call.
        if unsafe { shim::pollgate_port_find(c_name.as_ptr(), &raw mut port) } != 0 {
            return Err(missing());
        }
        if !open_ports().insert(port) {
            return Err(PortError::AlreadyOpen(name.into()));
        }
        Ok(Self { port, name: name.into(), started: false, closed: false })
    }

    fn refused(&self, step: &'static str, error: c_int) -> PortError {
        PortError::Refused { name: self.name.clone(), step, reason: shim::error_text(error) }
    }

    /// What a call of DPDK returned, as a result.
    pub(crate) fn check(&self, step: &'static str, result: c_int) -> Result<(), PortError> {
        if result < 0 { Err(self.refused(step, result)) } else { Ok(()) }
    }

    /// As check, for what not every device can do.
    pub(crate) fn check_if_supported(&self, step: &'static str, result: c_int) -> Result<(), PortError> {
        self.check(step, if result == -libc::ENOTSUP { 0 } else { result })
    }

    pub(crate) fn describe(&self) -> Result<PortDescription, PortError> {
        let mut description = core::mem::MaybeUninit::uninit();
        // SAFETY: the port is valid; on success every field is written.
        let result = unsafe { shim::pollgate_port_describe(self.port, description.as_mut_ptr()) };
        self.check("read its properties", result)?;
        // SAFETY: the call succeeded.
        Ok(unsafe { description.assume_init() })
    }

    /// Stops and closes, once. Both are tried whatever becomes of the first.
    pub(crate) fn close(&mut self) -> Result<(), PortError> {
        if core::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        // SAFETY: the port is valid, and no queue of it is left: each holds this Device.
        let (stopped, closed) = unsafe {
            let stopped = if self.started { shim::pollgate_port_stop(self.port) } else { 0 };
            (stopped, shim::pollgate_port_close(self.port))
        };
        open_ports().remove(&self.port);
        self.check("stop", stopped)?;
        self.check("close", closed)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Nobody is left to tell; stop() reports.
        let _ = self.close();
    }
}
