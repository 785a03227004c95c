//! Threads that take and free buffers tell DPDK so: then mempools keep a cache for each, without which every buffer
//! goes through a ring that all threads share (34 to 42 cycles a buffer freed, against 15 to 18).
#![allow(unsafe_code, reason = "foreign functions")]

use core::marker::PhantomData;

use crate::dpdk::{eal, shim};

/// Why a thread was not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// Too early.
    #[error("DPDK is not started: start it before the threads that use it")]
    NotStarted,
    /// DPDK refused.
    #[error("DPDK has no place for another thread: {0}. It takes as many as it was built for, mostly 128")]
    Refused(String),
}

/// The calling thread, known to DPDK for as long as this lives. Pin the thread before.
#[derive(Debug)]
pub struct ThreadRegistration {
    /// Registration belongs to the thread, so this cannot be sent to another.
    _not_send: PhantomData<*const ()>,
}

impl ThreadRegistration {
    /// Registers the calling thread. The one that started EAL needs none.
    pub fn new() -> Result<Self, RegistrationError> {
        if !eal::is_running() {
            return Err(RegistrationError::NotStarted);
        }
        // SAFETY: EAL runs; registering is allowed from any thread.
        match unsafe { shim::pollgate_thread_register() } {
            0 => Ok(Self { _not_send: PhantomData }),
            error => Err(RegistrationError::Refused(shim::error_text(error))),
        }
    }
}

impl Drop for ThreadRegistration {
    fn drop(&mut self) {
        // SAFETY: this thread was registered in new(); it is the same, since the guard is not Send.
        unsafe { shim::pollgate_thread_unregister() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_cannot_register_before_eal_runs() {
        assert!(matches!(ThreadRegistration::new(), Err(RegistrationError::NotStarted)));
    }
}
