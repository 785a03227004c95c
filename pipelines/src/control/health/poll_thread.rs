//! A thread that waits for many sockets at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::{Events, Poll, Registry, Token, Waker};
use tracing::warn;

/// What wakes the thread from outside.
const WAKE: Token = Token(usize::MAX);
/// Readiness taken from the kernel in one call.
const EVENTS_MAX: usize = 256;
/// The longest wait: what a wake-up that was lost costs at the most.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(10);
/// How long the thread rests when it cannot wait, so that it never spins.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// The thread as its owner sees it. Dropping it ends the thread, which holds no lock that its owner waits for.
pub(super) struct PollThread {
    waker: Waker,
    registry: Registry,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PollThread {
    /// Starts a thread that runs `body` once.
    pub(super) fn start(name: &str, body: impl FnOnce(Sockets) + Send + 'static) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let registry = poll.registry().try_clone()?;
        let stop = Arc::new(AtomicBool::new(false));
        let sockets = Sockets { poll, events: Events::with_capacity(EVENTS_MAX), stop: Arc::clone(&stop) };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || body(sockets))?;
        Ok(Self { waker, registry, stop, thread: Some(thread) })
    }

    /// Where sockets are registered that the thread shall hear of.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Makes the thread look around.
    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            // It looks at the latest when it has something to do anyway.
            warn!(%error, "a health thread could not be woken");
        }
    }
}

impl Drop for PollThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake();
        // It ends with its turn, which is bounded.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The sockets as the thread sees them.
pub(super) struct Sockets {
    poll: Poll,
    events: Events,
    stop: Arc<AtomicBool>,
}

impl Sockets {
    /// Where the thread registers its own.
    pub(super) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Waits until something is ready, or for `timeout`, and says what is; none when the thread shall end.
    ///
    /// Readiness is told once (epoll(7), edge-triggered): whoever is told reads, writes or accepts until the system has
    /// no more for it, or comes back by itself.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> Option<Vec<Token>> {
        let timeout = timeout.map_or(WAIT_MAX, |timeout| timeout.min(WAIT_MAX));
        if let Err(error) = self.poll.poll(&mut self.events, Some(timeout))
            && error.kind() != io::ErrorKind::Interrupted
        {
            warn!(%error, "a health thread cannot wait for its sockets");
            std::thread::sleep(ERROR_PAUSE);
        }
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        Some(self.events.iter().map(mio::event::Event::token).filter(|token| *token != WAKE).collect())
    }
}
