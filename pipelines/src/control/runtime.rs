//! `pollgate run`: from a configuration file to a running gateway, and to its end.

use std::hash::BuildHasher;
use std::path::Path;
use std::sync::mpsc;

use tracing::{info, warn};

use crate::control::build::Builder;
use crate::control::config::{self, Configuration, Diagnostic};
use crate::control::control_loop::control_loop;
use crate::control::control_socket::{BoundSocket, ControlSocket, SocketError};
use crate::control::cores::{self, CorePlan};
use crate::control::devices::{self, CloseError, OpenError, Opened};
use crate::control::events::ControlEvent;
use crate::control::health_watch::HealthWatch;
use crate::control::metrics::{MetricsError, MetricsListener, MetricsServer};
use crate::control::reload::Reloader;
use crate::control::running::{Running, StartError, accounting_is_balanced};
use crate::control::show;
use crate::control::signals;
use crate::control::sources::{SourcePaths, Sources};
use crate::control::watch::{FileWatch, Fingerprint, ManifestWatch};

/// Why the gateway did not run, or not to its proper end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file is wrong, or this machine does not suit it.
    #[error("{0}")]
    Refused(config::Report),
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The metrics server.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Signals.
    #[error("cannot handle signals: {0}")]
    Signals(std::io::Error),
    /// The devices.
    #[error(transparent)]
    Devices(#[from] OpenError),
    /// The workers.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The routes.
    #[error("the routes do not fit into a table: {0}")]
    Routes(#[from] engine::table::lpm::LpmError),
    /// The end.
    #[error(transparent)]
    Close(#[from] CloseError),
    /// The file cannot be watched.
    #[error("cannot watch the configuration's folder: {0}; use `[control] watch = false` and SIGHUP")]
    Watch(#[from] notify::Error),
}

/// How a gateway ended.
pub struct Outcome {
    /// All counters, for people.
    pub summary: String,
    /// Whether every packet was accounted for.
    pub is_balanced: bool,
    /// Buffers that did not come back.
    pub buffers_in_flight: usize,
    /// Threads that had met a defect.
    pub lost_threads: usize,
}

/// Runs until a signal ends it.
pub fn run(paths: &SourcePaths) -> Result<Outcome, RunError> {
    let path = paths.config.as_deref().unwrap_or(Path::new(""));
    let seen = Fingerprint::of(path);
    let sources = load(paths)?;
    let configuration = sources.configuration();
    // Before DPDK starts and confines the main thread.
    let cores = cores::plan(&configuration, &engine::dpdk::available_cores());
    // What others may hold is taken first, so that a second gateway ends before it touches a device.
    let socket = configuration.control.socket.as_deref().map(BoundSocket::bind).transpose()?;
    let metrics =
        configuration.metrics.as_ref().map(|metrics| MetricsListener::bind(metrics.listen)).transpose()?;
    // From here on signals wait for their thread, which starts after DPDK has.
    let installed = signals::install().map_err(RunError::Signals)?;
    let Opened { devices, ports, facts } = devices::open(&configuration, &cores)?;

    let mut builder = Builder::new(cores.workers.len(), facts);
    let tables = builder.build_with(&configuration, &sources.objects)?;
    let seed = seed();
    let mut running = Running::start(&configuration, tables, ports, &cores.workers, seed)?;
    if let Some(file) = &paths.config {
        // Nobody has set it before.
        let _ = running.view().config_file.set(file.clone());
    }
    let (sender, events) = mpsc::channel();
    let health = HealthWatch::new(sender.clone());
    let (file_watch, manifests) = watch(path, &configuration, &sender)?;
    let signal_thread = installed.start(sender).map_err(RunError::Signals)?;
    let socket = socket.map(|socket| ControlSocket::start(socket, running.view())).transpose()?;
    let metrics = metrics.map(|metrics| MetricsServer::start(metrics, running.view())).transpose()?;
    announce(&configuration, &cores);

    let reloader = Reloader::new(paths.clone(), sources, builder);
    control_loop(path, seen, reloader, health, manifests, &mut running, &events);

    drop(file_watch);
    signal_thread.stop();
    drop((socket, metrics));
    let stopped = running.stop();
    let buffers_in_flight = devices.close()?;
    Ok(Outcome {
        summary: show::counters_text(&stopped.view),
        is_balanced: accounting_is_balanced(&stopped.view),
        buffers_in_flight,
        lost_threads: stopped.lost_threads,
    })
}

/// Watches the configuration and the manifests, unless that is not wanted.
fn watch(
    path: &Path,
    configuration: &Configuration,
    events: &mpsc::Sender<ControlEvent>,
) -> notify::Result<(Option<FileWatch>, Option<ManifestWatch>)> {
    if !configuration.control.watch {
        return Ok((None, None));
    }
    let has_file = path != Path::new("");
    let file = has_file.then(|| FileWatch::start(path, events.clone())).transpose()?;
    let manifests = configuration.control.manifests.as_deref();
    let manifests = manifests.map(|path| ManifestWatch::start(path, events.clone())).transpose()?;
    // Changes since the files were read, which nobody watched for. The receiver lives as long as the gateway.
    let _ = events.send(ControlEvent::FileTouched);
    Ok((file, manifests))
}

/// All sources, after all checks that `check --host` makes.
fn load(paths: &SourcePaths) -> Result<Sources, RunError> {
    let sources = Sources::load(paths).map_err(RunError::Refused)?;
    let loaded = &sources.loaded;
    let mut found = loaded.warnings.clone();
    found.extend(loaded.locate(config::run_requirements(&loaded.configuration)));
    found.extend(loaded.locate(config::host_check(&loaded.configuration)));
    if found.iter().any(Diagnostic::is_error) {
        return Err(RunError::Refused(config::Report { diagnostics: found }));
    }
    found.iter().for_each(|warning| warn!("{warning}"));
    Ok(sources)
}

/// Random bits from the system: the standard library's hash maps take their keys from there.
fn seed() -> u64 {
    std::hash::RandomState::new().hash_one(std::process::id())
}

fn announce(configuration: &Configuration, cores: &CorePlan) {
    info!(
        node = configuration.node.name,
        workers = ?cores.workers,
        control = ?cores.control,
        ports = configuration.ports.len(),
        services = configuration.services.len(),
        "the gateway runs"
    );
}
