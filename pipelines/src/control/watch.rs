//! Notices that the configuration file changes.
//!
//! Editors and configuration managers replace a file by renaming another over it, and Kubernetes swaps a symbolic link
//! of the folder, so the folder is watched and not the file. Whether the file's content differs is asked when the folder
//! has been quiet for a moment: that tells a change from noise, whichever way it was made.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tracing::warn;

use crate::control::events::ControlEvent;

/// Watches, until it is dropped.
pub struct FileWatch {
    _watcher: RecommendedWatcher,
}

/// Whether something was written, made, moved or removed. Reading is no change, or each reload would call for the next.
fn is_change(event: &notify::Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

impl FileWatch {
    /// Sends [`ControlEvent::FileTouched`] whenever something happens to the file, or around it.
    pub fn start(path: &Path, events: Sender<ControlEvent>) -> notify::Result<Self> {
        let names = names(path);
        let is_link = path.is_symlink();
        let concerns = move |event: &notify::Event| {
            is_change(event)
                && (is_link || event.paths.is_empty() || event.paths.iter().any(|path| names.contains(path)))
        };
        let mut watcher = watcher(concerns, ControlEvent::FileTouched, events)?;
        for folder in folders(path) {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { _watcher: watcher })
    }

    /// Sends [`ControlEvent::ManifestsTouched`] whenever something happens in a folder of manifests, or around a file of
    /// them. Which file it was does not matter: those that did not change are not read again.
    pub fn start_manifests(path: &Path, events: Sender<ControlEvent>) -> notify::Result<Self> {
        let mut watcher = watcher(is_change, ControlEvent::ManifestsTouched, events)?;
        if path.is_dir() {
            watcher.watch(path, RecursiveMode::Recursive)?;
        } else {
            for folder in folders(path) {
                watcher.watch(&folder, RecursiveMode::NonRecursive)?;
            }
        }
        Ok(Self { _watcher: watcher })
    }
}

/// Watches a file or folder of manifests by its path: also when that is a link that is swapped, or is removed and made anew.
pub struct ManifestWatch {
    path: PathBuf,
    events: Sender<ControlEvent>,
    watched: Option<(Identity, FileWatch)>,
}

/// Device and inode.
type Identity = (u64, u64);

impl ManifestWatch {
    /// Watches from now on, if the path is there.
    pub fn start(path: &Path, events: Sender<ControlEvent>) -> notify::Result<Self> {
        let mut watch = Self { path: path.to_owned(), events, watched: None };
        watch.renew()?;
        Ok(watch)
    }

    fn identity(&self) -> Option<Identity> {
        std::fs::metadata(&self.path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
    }

    fn renew(&mut self) -> notify::Result<()> {
        if let Some(identity) = self.identity() {
            let watch = FileWatch::start_manifests(&self.path, self.events.clone())?;
            self.watched = Some((identity, watch));
        }
        Ok(())
    }

    /// Looks whether the path leads elsewhere than before, and watches what is there now. True: it does, or it leads
    /// nowhere any more; so its manifests have to be looked at.
    pub fn has_moved(&mut self) -> bool {
        let now = self.identity();
        if now == self.watched.as_ref().map(|(identity, _)| *identity) {
            return false;
        }
        self.watched = None;
        // Tried again with the next look.
        if let Err(error) = self.renew() {
            warn!("cannot watch {}: {error}", self.path.display());
        }
        true
    }
}

fn watcher(
    concerns: impl Fn(&notify::Event) -> bool + Send + 'static,
    message: ControlEvent,
    events: Sender<ControlEvent>,
) -> notify::Result<RecommendedWatcher> {
    notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error means that events were lost: better look once too often.
        if event.as_ref().map_or(true, &concerns) {
            // Nobody listens any more when the gateway ends.
            let _ = events.send(message);
        }
    })
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The file as events name it, and what it links to.
fn names(path: &Path) -> BTreeSet<PathBuf> {
    let file = path.file_name().unwrap_or_default();
    [Some(folder(path).join(file)), path.canonicalize().ok()].into_iter().flatten().collect()
}

fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let target = path.canonicalize().ok().map(|target| folder(&target));
    let own = folder(path).canonicalize().ok();
    if own.is_some() && own == target {
        return BTreeSet::from([folder(path)]);
    }
    [Some(folder(path)), target].into_iter().flatten().collect()
}

/// Tells one content of the file from another; none if it cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(Option<(usize, u64)>);

impl Fingerprint {
    /// Of the file as it is now.
    pub fn of(path: &Path) -> Self {
        let hasher = BuildHasherDefault::<std::hash::DefaultHasher>::new();
        Self(std::fs::read(path).ok().map(|bytes| (bytes.len(), hasher.hash_one(&bytes))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn changes_are_noticed_whichever_way_they_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        std::fs::write(&file, "one").unwrap();
        let (sender, events) = mpsc::channel();
        let _watch = FileWatch::start(&file, sender).unwrap();

        std::fs::write(&file, "two").unwrap();
        assert_eq!(events.recv_timeout(PATIENCE), Ok(ControlEvent::FileTouched));
        while events.recv_timeout(Duration::from_millis(100)).is_ok() {}

        let before = Fingerprint::of(&file);
        std::fs::write(folder.path().join("a.toml.new"), "three").unwrap();
        std::fs::rename(folder.path().join("a.toml.new"), &file).unwrap();
        assert_eq!(events.recv_timeout(PATIENCE), Ok(ControlEvent::FileTouched));
        assert_ne!(Fingerprint::of(&file), before);
        while events.recv_timeout(Duration::from_millis(100)).is_ok() {}

        // Reading it, and its neighbours' changes, are none.
        assert_eq!(Fingerprint::of(&file), Fingerprint::of(&file));
        std::fs::write(folder.path().join("b.toml"), "x").unwrap();
        assert!(events.recv_timeout(Duration::from_millis(200)).is_err());
        std::fs::remove_file(&file).unwrap();
        assert_eq!(events.recv_timeout(PATIENCE), Ok(ControlEvent::FileTouched));
        assert_eq!(Fingerprint::of(&file), Fingerprint(None));
    }

    #[test]
    fn a_folder_of_manifests_is_followed_where_its_path_leads() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for version in ["v1", "v2"] {
            std::fs::create_dir(path(version)).unwrap();
        }
        std::os::unix::fs::symlink("v1", path("manifests")).unwrap();
        let (sender, events) = mpsc::channel();
        let mut watch = ManifestWatch::start(&path("manifests"), sender).unwrap();
        assert!(!watch.has_moved());
        // As git-sync publishes: the link is swapped in one step.
        std::os::unix::fs::symlink("v2", path("new")).unwrap();
        std::fs::rename(path("new"), path("manifests")).unwrap();
        assert!(watch.has_moved() && !watch.has_moved());
        while events.recv_timeout(Duration::from_millis(100)).is_ok() {}
        std::fs::write(path("v2").join("a.yaml"), "x").unwrap();
        assert_eq!(events.recv_timeout(PATIENCE), Ok(ControlEvent::ManifestsTouched));
        // Gone, and there again.
        std::fs::remove_file(path("manifests")).unwrap();
        assert!(watch.has_moved() && !watch.has_moved());
        std::fs::create_dir(path("manifests")).unwrap();
        assert!(watch.has_moved() && !watch.has_moved());
        while events.recv_timeout(Duration::from_millis(100)).is_ok() {}
        std::fs::write(path("manifests").join("a.yaml"), "x").unwrap();
        assert_eq!(events.recv_timeout(PATIENCE), Ok(ControlEvent::ManifestsTouched));
    }

    #[test]
    fn a_link_that_is_swapped_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (version, text) in [("v1", "one"), ("v2", "two")] {
            std::fs::create_dir(path(version)).unwrap();
            std::fs::write(path(version).join("a.toml"), text).unwrap();
        }
        // As Kubernetes projects a ConfigMap: file -> ..data/file, ..data -> version.
        std::os::unix::fs::symlink("v1", path("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.toml", path("a.toml")).unwrap();
        let before = Fingerprint::of(&path("a.toml"));
        let (sender, events) = mpsc::channel();
        let _watch = FileWatch::start(&path("a.toml"), sender).unwrap();
        std::os::unix::fs::symlink("v2", path("..data.new")).unwrap();
        std::fs::rename(path("..data.new"), path("..data")).unwrap();
        assert_eq!(events.recv_timeout(PATIENCE), Ok(ControlEvent::FileTouched));
        assert_ne!(Fingerprint::of(&path("a.toml")), before);
    }
}
