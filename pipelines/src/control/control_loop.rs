//! What the control thread does while the gateway runs: reloads, and frees tables that nobody uses any more.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use crate::control::events::ControlEvent;
use crate::control::health_watch::HealthWatch;
use crate::control::reload::Reloader;
use crate::control::running::{Running, WorkersBehind};
use crate::control::watch::{Fingerprint, ManifestWatch};

/// How long the configuration's folder must be quiet before the file is read.
const QUIET: Duration = Duration::from_millis(50);
/// How long a folder that never gets quiet is waited for.
const QUIET_PATIENCE: Duration = Duration::from_millis(500);
/// How often threads are looked after.
const TICK: Duration = Duration::from_millis(500);
/// How often retired tables are asked for, while there are some.
const RECLAIM_TICK: Duration = Duration::from_millis(20);

/// Does what comes until something says stop, and looks after the threads meanwhile. `path` is the configuration that
/// `reloader` reads; `seen` is what it was when the running configuration was read.
pub fn control_loop(
    path: &Path,
    mut seen: Fingerprint,
    mut reloader: Reloader,
    mut health: HealthWatch,
    mut manifests: Option<ManifestWatch>,
    running: &mut Running,
    events: &Receiver<ControlEvent>,
) {
    tell(&mut reloader, running);
    let configuration = reloader.configuration();
    let is_news = health.follow_configuration(&configuration, reloader.builder());
    reloader.mark_due_if(is_news);
    let mut touched = Touched::default();
    loop {
        if manifests.as_mut().is_some_and(ManifestWatch::has_moved) {
            touched.note(ControlEvent::ManifestsTouched);
        }
        health.follow_services(reloader.builder().services().health_ports());
        running.view().set_health(health.view());
        let waits = running.reclaim() > 0 || reloader.is_due() || reloader.is_waiting();
        let tick = if waits { RECLAIM_TICK } else { TICK };
        let event = match events.recv_timeout(touched.wait(tick)) {
            Ok(event) => Some(event).filter(|event| !touched.note(*event)),
            Err(RecvTimeoutError::Timeout) if running.is_alive() => None,
            Err(RecvTimeoutError::Timeout) => Some(ControlEvent::Stop("a thread that met a defect")),
            Err(RecvTimeoutError::Disconnected) => Some(ControlEvent::Stop("nobody can signal any more")),
        };
        // Files have their turn also while other events never end.
        for event in [event, touched.settled()].into_iter().flatten() {
            match event {
                ControlEvent::Stop(reason) => {
                    info!(reason, "stopping");
                    return;
                }
                ControlEvent::Reload | ControlEvent::FileTouched => {
                    // A signal reads everything again; a touched folder, what differs.
                    let is_asked = event == ControlEvent::Reload;
                    let now = Fingerprint::of(path);
                    refresh(&mut reloader, &mut health, running);
                    if is_asked || now != seen {
                        seen = now;
                        reload(&mut reloader, running);
                        let configuration = reloader.configuration();
                        let is_news = health.follow_configuration(&configuration, reloader.builder());
                        reloader.mark_due_if(is_news);
                    }
                }
                ControlEvent::ManifestsTouched => refresh(&mut reloader, &mut health, running),
                ControlEvent::Health { id, healthy } => {
                    let is_news = health.note(id, healthy, reloader.builder());
                    reloader.mark_due_if(is_news);
                }
            }
        }
        publish_what_is_due(&mut reloader, running);
    }
}

/// Files that were touched and are not looked at yet: not before their folders are quiet.
#[derive(Default)]
struct Touched {
    /// When the first and the last of it was heard.
    times: Option<(Instant, Instant)>,
    /// Whether the configuration's folder is among them.
    configuration: bool,
}

impl Touched {
    /// How long to wait for the next event.
    fn wait(&self, tick: Duration) -> Duration {
        if self.times.is_some() { QUIET.min(tick) } else { tick }
    }

    /// Notes an event that touches files. False: it is of another kind.
    fn note(&mut self, event: ControlEvent) -> bool {
        let is_touched = matches!(event, ControlEvent::FileTouched | ControlEvent::ManifestsTouched);
        if is_touched {
            let now = Instant::now();
            self.times = Some((self.times.map_or(now, |(first, _)| first), now));
            self.configuration |= event == ControlEvent::FileTouched;
        }
        is_touched
    }

    /// What is to be looked at now: the configuration's folder brings the manifests with it.
    fn settled(&mut self) -> Option<ControlEvent> {
        let (first, last) = self.times?;
        if last.elapsed() < QUIET && first.elapsed() < QUIET_PATIENCE {
            return None;
        }
        let is_configuration = core::mem::take(self).configuration;
        Some(if is_configuration { ControlEvent::FileTouched } else { ControlEvent::ManifestsTouched })
    }
}

/// Takes over what changed in the manifests.
fn refresh(reloader: &mut Reloader, health: &mut HealthWatch, running: &Running) {
    match reloader.refresh() {
        // The node's own addresses may be among it.
        Ok(true) => health.follow_addresses(&reloader.configuration()),
        Ok(false) => {}
        Err(reason) => {
            running.view().reloads.note_failed(&reason.to_string());
            error!("{reason}: the objects stay as they were");
        }
    }
    tell(reloader, running);
}

/// Says what is wrong with objects and was not before.
fn tell(reloader: &mut Reloader, running: &Running) {
    for finding in reloader.news() {
        warn!("{finding}");
    }
    running.view().set_objects(reloader.objects().counts());
}

/// Frees what the workers' sweeps let go, and publishes what has changed, unless workers still use too many earlier tables:
/// then changes gather until they do not.
fn publish_what_is_due(reloader: &mut Reloader, running: &mut Running) {
    if reloader.is_waiting() {
        let view = running.view();
        let (swept, now_s) = (view.swept_generation(), view.started.elapsed().as_secs());
        reloader.tend(swept, now_s);
    }
    if running.can_publish().is_err() {
        return;
    }
    if let Some(tables) = reloader.tables() {
        debug!(generation = tables.generation, "publishing");
        // There was room for them just before.
        let _ = running.publish(tables);
    }
}

fn reload(reloader: &mut Reloader, running: &mut Running) {
    let outcome = reloader.reload().map_err(|error| error.to_string()).map(|reload| {
        let generation = reload.tables.generation;
        if let Err(behind) = running.publish(reload.tables) {
            // The builder has taken everything over, and nobody would say it again.
            let behind: WorkersBehind = behind;
            warn!("{behind}: the new tables wait for it");
            reloader.mark_due_if(true);
        }
        (generation, reload.warnings, reload.restart_keys)
    });
    let reloads = &running.view().reloads;
    match outcome {
        Ok((generation, warnings, restart_keys)) => {
            reloads.note_applied();
            warnings.iter().for_each(|warning| warn!("{warning}"));
            if !restart_keys.is_empty() {
                warn!(keys = restart_keys.join(", "), "these changes wait for a restart");
            }
            info!(generation, "reloaded");
        }
        Err(reason) => {
            reloads.note_failed(&reason);
            reason.lines().for_each(|line| error!("{line}"));
            error!("not reloaded: the running tables stay");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::control::testing::{CONFIGURATION, start, wait_for};

    /// Ends the loop also when the test fails.
    struct StopOnDrop(mpsc::Sender<ControlEvent>);

    impl Drop for StopOnDrop {
        fn drop(&mut self) {
            let _ = self.0.send(ControlEvent::Stop("the test"));
        }
    }

    #[test]
    fn reloads_take_effect_and_broken_files_leave_the_tables_in_place() {
        use core::sync::atomic::Ordering::Relaxed;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        let (mut gateway, reloader) = start(&path);
        let view = std::sync::Arc::clone(gateway.running.view());
        let (sender, events) = mpsc::channel();
        std::thread::scope(|scope| {
            let seen = Fingerprint::of(&path);
            let (file, running) = (&path, &mut gateway.running);
            let health = HealthWatch::new(sender.clone());
            let control =
                scope.spawn(move || control_loop(file, seen, reloader, health, None, running, &events));
            let stop = StopOnDrop(sender.clone());
            let generation = || view.tables().generation;
            let used = || view.workers[0].gauges.get(crate::gateway::Gauge::Generation as usize);

            // Touched, and the same: nothing happens. A signal reloads all the same.
            sender.send(ControlEvent::FileTouched).unwrap();
            sender.send(ControlEvent::Reload).unwrap();
            wait_for("the signal's reload", || (generation() == 2).then_some(()));
            wait_for("the worker takes it up", || (used() == 2).then_some(()));

            std::fs::write(&path, CONFIGURATION.replace("name = \"web\"", "name = \"shop\"")).unwrap();
            sender.send(ControlEvent::FileTouched).unwrap();
            wait_for("the changed file", || (generation() == 3).then_some(()));
            assert!(view.tables().services.iter().any(|service| &*service.name == "shop"));

            std::fs::write(&path, "[node]\nnane = 1\n").unwrap();
            sender.send(ControlEvent::FileTouched).unwrap();
            wait_for("the broken file", || (view.reloads.failed.load(Relaxed) == 1).then_some(()));
            assert!(
                view.reloads.last_error().contains("did you mean `name`?"),
                "{}",
                view.reloads.last_error()
            );
            assert_eq!(view.reloads.applied.load(Relaxed), 2);
            assert!(view.tables().services.iter().any(|service| &*service.name == "shop"));
            // The renamed service's slots are free once the worker has been through its flows.
            wait_for("the sweep", || (!view.tables().services.needs_sweep()).then_some(()));

            drop(stop);
            control.join().unwrap();
        });
        assert_eq!(gateway.running.reclaim(), 0);
        assert_eq!(gateway.running.stop().lost_threads, 0);
    }
}
