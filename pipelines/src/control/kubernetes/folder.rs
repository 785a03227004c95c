//! A file or a folder of manifests.
//!
//! Of a folder the files `*.yaml`, `*.yml` and `*.json` are read, in order of name, as `kubectl apply -f FOLDER` does: not
//! those of folders inside it, and none whose name begins with a dot. So a mounted ConfigMap is read once, through the links
//! that Kubernetes shows (`web.yaml` to `..data/web.yaml`), and not again through `..data` and what it links to.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::changes::Changes;
use super::limits;
use super::store::ObjectStore;

/// Extensions of files that are read.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// A file that was changed less long ago than this may change again without its times telling: file systems count time in
/// steps, some of them seconds long (git calls such entries racily clean).
const UNSETTLED: Duration = Duration::from_secs(2);

/// Why a file or folder cannot be read at all. Everything that it said before stays in force.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}; name a file or folder of manifests that can be read", path.display())]
pub struct FolderError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system says.
    #[source]
    pub error: io::Error,
}

/// A file, or a folder of them, each read again only when it changed.
#[derive(Debug)]
pub struct ManifestFolder {
    path: PathBuf,
    /// What was read, by the name that findings have it by.
    known: BTreeMap<String, Known>,
    hasher: RandomState,
}

/// A file that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    stamp: Stamp,
    /// Whether the stamp is old enough to tell every later change.
    is_settled: bool,
    content: u64,
}

/// Tells one version of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_settled(&self, now: SystemTime) -> bool {
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let limit = since_epoch.saturating_sub(UNSETTLED).as_secs();
        u64::try_from(self.changed.0.max(self.modified.0)).is_ok_and(|changed| changed < limit)
    }
}

impl ManifestFolder {
    /// Of this file or folder; nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), known: BTreeMap::new(), hasher: RandomState::new() }
    }

    /// The file or folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what changed since the last time. A single file of a folder that cannot be read is a finding of the store.
    pub fn refresh(&mut self, store: &mut ObjectStore) -> Result<Changes, FolderError> {
        let found = self.list().map_err(|error| FolderError { path: self.path.clone(), error })?;
        let mut changes = Changes::default();
        let gone: Vec<String> =
            self.known.keys().filter(|file| !found.contains_key(*file)).cloned().collect();
        for file in gone {
            self.known.remove(&file);
            changes.merge(store.replace_file(&file, None));
        }
        for (file, path) in found {
            changes.merge(self.refresh_file(&file, &path, store));
        }
        Ok(changes)
    }

    /// The files there are, by the name that findings have them by.
    fn list(&self) -> io::Result<BTreeMap<String, PathBuf>> {
        let name = |path: &Path| path.to_string_lossy().into_owned();
        if !self.path.metadata()?.is_dir() {
            // One that cannot be opened is an error of the whole, not of one file among others.
            File::open(&self.path)?;
            return Ok(BTreeMap::from([(name(&self.path), self.path.clone())]));
        }
        let mut files = BTreeMap::new();
        for entry in self.path.read_dir()? {
            let path = entry?.path();
            let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            let has_extension =
                path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known));
            if is_hidden || !has_extension {
                continue;
            }
            if files.len() == limits::FILES {
                return Err(io::Error::other(format!(
                    "there are more than {} manifests in it",
                    limits::FILES
                )));
            }
            files.insert(name(&path), path);
        }
        Ok(files)
    }

    fn refresh_file(&mut self, file: &str, path: &Path, store: &mut ObjectStore) -> Changes {
        match self.read(file, path) {
            Ok(Some((known, bytes))) => {
                let is_same = self
                    .known
                    .insert(file.to_owned(), known)
                    .is_some_and(|before| before.content == known.content);
                if is_same { Changes::default() } else { store.replace_file(file, Some(&bytes)) }
            }
            Ok(None) => Changes::default(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.known.remove(file);
                store.replace_file(file, None)
            }
            Err(error) => {
                // Known without a stamp that any file has: it is tried again, and missed when it goes.
                let stamp = Stamp { device: 0, inode: 0, bytes: 0, modified: (0, 0), changed: (0, 0) };
                self.known.insert(file.to_owned(), Known { stamp, is_settled: false, content: 0 });
                store.refuse_file(file, &format!("this file cannot be read: {error}"))
            }
        }
    }

    /// What a file says; none if it says what it said.
    fn read(&self, file: &str, path: &Path) -> io::Result<Option<(Known, Vec<u8>)>> {
        let metadata = path.metadata()?;
        let known = self.known.get(file);
        let is_pipe = !metadata.is_file();
        if is_pipe && (metadata.is_dir() || path != self.path || known.is_some()) {
            // A folder, or something that would block; a pipe that was named by itself is read once.
            return Ok(None);
        }
        let stamp = Stamp::of(&metadata);
        if known.is_some_and(|known| known.is_settled && known.stamp == stamp) {
            return Ok(None);
        }
        let now = SystemTime::now();
        let mut bytes = Vec::new();
        // One byte more than is allowed shows that there are too many.
        File::open(path)?.take(limits::FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        let content = self.hasher.hash_one(&bytes);
        Ok(Some((Known { stamp, is_settled: stamp.is_settled(now), content }, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::control::services::desired::ServiceKey;

    fn service(name: &str, address: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  clusterIP: {address}\n  ports: [{{port: 80}}]\n"
        )
    }

    fn keys(names: &[&str]) -> std::collections::BTreeSet<ServiceKey> {
        names.iter().map(|name| ServiceKey::new("default", name)).collect()
    }

    fn address(store: &ObjectStore, name: &str) -> Option<String> {
        let service = store.desired(&ServiceKey::new("default", name))?;
        service.cluster_ip.map(|address| address.to_string())
    }

    #[test]
    fn files_come_change_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a.yaml"), service("a", "10.0.0.1")).unwrap();
        std::fs::write(path("b.json"), "{}").unwrap();
        std::fs::write(path("c.txt"), service("c", "10.0.0.3")).unwrap();
        std::fs::write(path(".d.yaml"), service("d", "10.0.0.4")).unwrap();
        std::fs::create_dir(path("e.yaml")).unwrap();
        std::fs::write(path("e.yaml/f.yaml"), service("f", "10.0.0.6")).unwrap();
        let (mut store, mut manifests) = (ObjectStore::new(), ManifestFolder::new(folder.path()));
        let changes = manifests.refresh(&mut store).unwrap();
        assert_eq!((changes.services, changes.findings), (keys(&["a"]), true));
        assert_eq!(store.findings().len(), 1, "an object without a kind");
        assert!(manifests.refresh(&mut store).unwrap().is_empty());

        // Same length, and within the same tick of the file system's clock.
        std::fs::write(path("a.yaml"), service("a", "10.0.0.9")).unwrap();
        std::fs::write(path("b.json"), "").unwrap();
        let changes = manifests.refresh(&mut store).unwrap();
        assert_eq!((changes.services, changes.findings), (keys(&["a"]), true));
        assert_eq!(address(&store, "a").as_deref(), Some("10.0.0.9"));

        std::fs::rename(path("a.yaml"), path("z.yml")).unwrap();
        std::fs::write(path("g.yaml"), service("g", "10.0.0.7")).unwrap();
        assert_eq!(manifests.refresh(&mut store).unwrap().services, keys(&["a", "g"]));
        std::fs::remove_file(path("z.yml")).unwrap();
        assert_eq!(manifests.refresh(&mut store).unwrap().services, keys(&["a"]));
        assert_eq!(store.service_keys().count(), 1);
    }

    #[test]
    fn a_settled_file_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, service("a", "10.0.0.1")).unwrap();
        let stamp = Stamp::of(&file.metadata().unwrap());
        assert!(
            !stamp.is_settled(SystemTime::now())
                && stamp.is_settled(SystemTime::now() + Duration::from_secs(9))
        );
        let (mut store, mut manifests) = (ObjectStore::new(), ManifestFolder::new(&file));
        manifests.refresh(&mut store).unwrap();
        assert!(
            manifests.read(&file.to_string_lossy(), &file).unwrap().is_some(),
            "it may have changed at once"
        );
        manifests.known.values_mut().for_each(|known| known.is_settled = true);
        assert!(manifests.read(&file.to_string_lossy(), &file).unwrap().is_none());
        std::fs::write(&file, service("a", "10.0.0.10")).unwrap();
        assert_eq!(manifests.refresh(&mut store).unwrap().services, keys(&["a"]));
    }

    #[test]
    fn what_cannot_be_read_leaves_everything_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("manifests");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("a.yaml"), service("a", "10.0.0.1")).unwrap();
        let (mut store, mut manifests) = (ObjectStore::new(), ManifestFolder::new(&inner));
        manifests.refresh(&mut store).unwrap();
        // A link to itself cannot be followed, by nobody.
        std::fs::remove_file(inner.join("a.yaml")).unwrap();
        symlink("a.yaml", inner.join("a.yaml")).unwrap();
        let changes = manifests.refresh(&mut store).unwrap();
        assert!(changes.services.is_empty() && changes.findings);
        assert!(
            store
                .findings()
                .first()
                .unwrap()
                .to_string()
                .contains("a.yaml:1:1: error: this file cannot be read")
        );
        assert_eq!(address(&store, "a").as_deref(), Some("10.0.0.1"));

        std::fs::remove_file(inner.join("a.yaml")).unwrap();
        std::fs::remove_dir(&inner).unwrap();
        let error = manifests.refresh(&mut store).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{}: No such file", inner.display())), "{error}");
        assert_eq!(address(&store, "a").as_deref(), Some("10.0.0.1"));
        std::fs::create_dir(&inner).unwrap();
        assert_eq!(manifests.refresh(&mut store).unwrap().services, keys(&["a"]));
        assert_eq!((store.service_keys().count(), store.findings().len()), (0, 0));
    }

    #[test]
    fn a_mounted_config_map_is_read_once_and_follows_its_links() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (version, address) in [("..v1", "10.0.0.1"), ("..v2", "10.0.0.2")] {
            std::fs::create_dir(path(version)).unwrap();
            std::fs::write(path(version).join("a.yaml"), service("a", address)).unwrap();
        }
        symlink("..v1", path("..data")).unwrap();
        symlink("..data/a.yaml", path("a.yaml")).unwrap();
        let (mut store, mut manifests) = (ObjectStore::new(), ManifestFolder::new(folder.path()));
        manifests.refresh(&mut store).unwrap();
        assert_eq!((address(&store, "a").as_deref(), store.findings().len()), (Some("10.0.0.1"), 0));
        symlink("..v2", path("..new")).unwrap();
        std::fs::rename(path("..new"), path("..data")).unwrap();
        assert_eq!(manifests.refresh(&mut store).unwrap().services, keys(&["a"]));
        assert_eq!(address(&store, "a").as_deref(), Some("10.0.0.2"));
    }
}
