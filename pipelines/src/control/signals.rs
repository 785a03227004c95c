//! Signals: SIGHUP reloads, SIGTERM and SIGINT stop. One thread takes them; all others have them blocked, so that no
//! worker's turn is interrupted.
#![allow(unsafe_code, reason = "the calling thread's signal mask")]

use std::io;
use std::sync::mpsc::Sender;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::control::events::ControlEvent;

/// Handlers are in place, and nobody has looked yet. Signals that come meanwhile are not lost.
pub struct Installed {
    signals: Signals,
}

/// The thread that takes signals.
pub struct SignalThread {
    handle: Handle,
    thread: std::thread::JoinHandle<()>,
}

/// Puts the handlers in place. From here on SIGTERM and SIGINT do not end the process by themselves.
pub fn install() -> io::Result<Installed> {
    Ok(Installed { signals: Signals::new([SIGHUP, SIGTERM, SIGINT])? })
}

impl Installed {
    /// Starts the thread. Its signals are sent to `events` in their order.
    pub fn start(mut self, events: Sender<ControlEvent>) -> io::Result<SignalThread> {
        let handle = self.signals.handle();
        let take = move || {
            for signal in self.signals.forever() {
                let event = match signal {
                    SIGHUP => ControlEvent::Reload,
                    SIGTERM => ControlEvent::Stop("SIGTERM"),
                    _ => ControlEvent::Stop("SIGINT"),
                };
                if events.send(event).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(take)?;
        Ok(SignalThread { handle, thread })
    }
}

impl SignalThread {
    /// Ends the thread. The handlers stay, so that a second SIGTERM does not cut the end short.
    pub fn stop(self) {
        self.handle.close();
        // It ends with its iterator and does nothing that could fail.
        let _ = self.thread.join();
    }
}

/// Blocks all signals in the calling thread, for as long as it runs.
pub fn block_in_this_thread() {
    // SAFETY: sigfillset initialises the set before pthread_sigmask reads it; both live through the calls, and a null
    // pointer says that the old mask is not wanted.
    unsafe {
        let mut all: libc::sigset_t = core::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, core::ptr::null_mut());
    }
}
