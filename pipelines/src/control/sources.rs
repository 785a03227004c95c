//! The files that say what is wanted: the configuration, and manifests of Kubernetes objects.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::control::build::{Builder, HostFacts};
use crate::control::config::{self, Configuration, Diagnostic, Loaded, Report, Severity};
use crate::control::kubernetes::{ManifestFolder, ObjectStore};
use crate::control::nodes::with_nodes;
use crate::control::services::builder::ServiceBuilder;
use crate::control::services::desired::ServiceKey;

/// Which files, as the command line names them.
#[derive(Clone, Debug, Default)]
pub struct SourcePaths {
    /// The configuration; none: an empty one.
    pub config: Option<PathBuf>,
    /// Manifests, instead of those that the configuration names.
    pub manifests: Option<PathBuf>,
    /// The node's name, instead of the configuration's.
    pub node: Option<String>,
}

impl SourcePaths {
    /// A configuration file alone.
    pub fn of_config(config: impl Into<PathBuf>) -> Self {
        Self { config: Some(config.into()), ..Self::default() }
    }

    /// Reads the configuration, with what the command line says instead.
    pub fn read(&self) -> Result<Loaded, Report> {
        let mut loaded = match &self.config {
            Some(path) => config::load(path)?,
            None => config::parse("", "")?,
        };
        let configuration = &mut loaded.configuration;
        if let Some(manifests) = &self.manifests {
            configuration.control.manifests = Some(manifests.clone());
        }
        if let Some(node) = &self.node {
            configuration.node.name.clone_from(node);
        }
        Ok(loaded)
    }
}

/// Everything that the files say.
pub struct Sources {
    /// The configuration as it is written.
    pub loaded: Loaded,
    /// The objects.
    pub objects: ObjectStore,
    /// Where the objects are read.
    pub folder: Option<ManifestFolder>,
}

impl Sources {
    /// Reads all files. Fails for a configuration with errors and for manifests that cannot be read at all, not for
    /// objects that are wrong: those are [`Self::findings`].
    pub fn load(paths: &SourcePaths) -> Result<Self, Report> {
        let loaded = paths.read()?;
        let mut objects = ObjectStore::new();
        let mut folder = loaded.configuration.control.manifests.clone().map(ManifestFolder::new);
        if let Some(folder) = &mut folder {
            folder.refresh(&mut objects).map_err(|error| {
                let wrong = error.to_string();
                let error = Diagnostic {
                    severity: Severity::Error,
                    place: None,
                    key: "control.manifests".to_owned(),
                    wrong,
                    right: "check its name and permissions".to_owned(),
                };
                Report { diagnostics: loaded.locate(vec![error]) }
            })?;
        }
        Ok(Self { loaded, objects, folder })
    }

    /// The configuration with what nodes add.
    pub fn configuration(&self) -> Configuration {
        with_nodes(&self.loaded.configuration, &self.objects).0
    }

    /// What in the files is wrong, or probably not what was meant: of the configuration, of objects, and of both together.
    pub fn findings(&self) -> Vec<Diagnostic> {
        let mut found = self.loaded.warnings.clone();
        let (configuration, nodes) = with_nodes(&self.loaded.configuration, &self.objects);
        found.extend(self.loaded.locate(nodes));
        found.extend(self.objects.findings().iter().map(Diagnostic::from));
        let mut builder = Builder::new(1, HostFacts::default());
        if builder.build_with(&configuration, &self.objects).is_ok() {
            found.extend(conflicts(builder.services()));
        }
        found.extend(double_services(&configuration, &self.objects));
        found
    }
}

/// Claims of services to an address that another one has.
pub fn conflicts(services: &ServiceBuilder) -> impl Iterator<Item = Diagnostic> {
    services.conflicts().into_iter().map(|(key, claimant, holder)| {
        let address = core::net::Ipv4Addr::from(key.address);
        Diagnostic {
            severity: Severity::Warning,
            place: None,
            key: String::new(),
            wrong: format!("service {claimant} claims {address}:{}, which service {holder} has", key.port),
            right: "give one of them another address or port".to_owned(),
        }
    })
}

/// Services that the configuration and an object both name.
pub fn double_services<'a>(
    configuration: &'a Configuration,
    objects: &'a ObjectStore,
) -> impl Iterator<Item = Diagnostic> + 'a {
    let of_objects: HashSet<&ServiceKey> = match configuration.services.is_empty() {
        true => HashSet::new(),
        false => objects.service_keys().collect(),
    };
    configuration.services.iter().filter_map(move |service| {
        let key = ServiceKey::new(&service.namespace, &service.name);
        of_objects.contains(&key).then(|| Diagnostic {
            severity: Severity::Warning,
            place: None,
            key: String::new(),
            wrong: format!("service {key} is in the configuration and in a manifest"),
            right: "remove one: the configuration's is in force".to_owned(),
        })
    })
}
