//! The workers' threads: each pinned to its core, known to DPDK, and with nothing to interrupt it.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use engine::clock::MonotonicClock;
use engine::worker::{IdlePolicy, StopFlag, Worker};

use crate::control::config::Configuration;
use crate::control::config::model::Idle;
use crate::control::signals;
use crate::gateway::Gateway;

/// Called by a thread that is going to use buffers, before it does; what it returns lives as long as the thread.
pub type ThreadEntry = Arc<dyn Fn() -> Result<Box<dyn Any>, String> + Send + Sync>;

/// Why a thread does not run.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// The system has no room for it.
    #[error("cannot start a thread: {0}")]
    Spawn(#[from] std::io::Error),
    /// It started and could not get ready.
    #[error("{0}")]
    Enter(String),
}

/// The running workers. Dropping them stops them.
pub struct WorkerThreads {
    stop: StopFlag,
    threads: Vec<JoinHandle<Worker<Gateway>>>,
}

/// What workers do when nothing arrives, by the configuration.
pub fn idle_policy(configuration: &Configuration) -> IdlePolicy {
    match configuration.workers.idle {
        Idle::Poll => IdlePolicy::Poll,
        Idle::Sleep => IdlePolicy::Sleep { max_us: configuration.workers.idle_sleep_max_us },
    }
}

impl WorkerThreads {
    /// Starts one thread for each worker on the core at its place. When one cannot, none runs.
    pub fn start(
        workers: Vec<Worker<Gateway>>,
        cores: &[usize],
        idle: IdlePolicy,
        clock: MonotonicClock,
        entry: &ThreadEntry,
    ) -> Result<Self, ThreadError> {
        let mut running = Self { stop: Arc::new(AtomicBool::new(false)), threads: Vec::new() };
        let (ready, started) = mpsc::channel();
        for (number, (worker, core)) in workers.into_iter().zip(cores).enumerate() {
            let (stop, entry, ready, core) =
                (Arc::clone(&running.stop), Arc::clone(entry), ready.clone(), *core);
            let body = move || run(worker, number, core, &stop, idle, clock, &entry, &ready);
            match std::thread::Builder::new().name(format!("worker-{number}")).spawn(body) {
                Ok(thread) => running.threads.push(thread),
                Err(error) => return Err(error.into()),
            }
        }
        drop(ready);
        for _ in 0..running.threads.len() {
            let outcome = started.recv().unwrap_or_else(|_| Err("a worker ended before it started".into()));
            outcome.map_err(ThreadError::Enter)?;
        }
        Ok(running)
    }

    /// Whether all workers still run. One that does not has met a defect.
    pub fn are_alive(&self) -> bool {
        !self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Stops the workers after their turn and gives them back, with all that they hold. One that met a defect is
    /// missing.
    pub fn stop(mut self) -> Vec<Worker<Gateway>> {
        self.join()
    }

    fn join(&mut self) -> Vec<Worker<Gateway>> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).filter_map(|thread| thread.join().ok()).collect()
    }
}

impl Drop for WorkerThreads {
    fn drop(&mut self) {
        self.join();
    }
}

#[allow(clippy::too_many_arguments, reason = "all that one thread takes along")]
fn run(
    mut worker: Worker<Gateway>,
    number: usize,
    core: usize,
    stop: &AtomicBool,
    idle: IdlePolicy,
    clock: MonotonicClock,
    entry: &ThreadEntry,
    ready: &mpsc::Sender<Result<(), String>>,
) -> Worker<Gateway> {
    signals::block_in_this_thread();
    let entered = if core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        entry().map_err(|reason| format!("worker {number}: {reason}"))
    } else {
        Err(format!("worker {number} cannot run on core {core}"))
    };
    let result = entered.as_ref().map(|_| ()).map_err(Clone::clone);
    let is_ready = result.is_ok();
    // Whoever starts waits for this.
    let _ = ready.send(result);
    if is_ready {
        worker.run(stop, idle, || clock.now());
    }
    worker
}
