//! Reading the configuration again while the gateway runs.
//!
//! What cannot change without a restart (threads, devices, sizes) stays as it runs, by the names of its ports; all else
//! becomes new tables. A file with an error, or one that needs ports which are not open, changes nothing at all.

use std::collections::BTreeSet;

use crate::control::build::Builder;
use crate::control::config::model::{Configuration, InterfaceName, PortRole};
use crate::control::config::{self, Diagnostic};
use crate::control::kubernetes::{FolderError, ManifestFolder, ObjectStore};
use crate::control::nodes::with_nodes;
use crate::control::sources::{SourcePaths, Sources, conflicts, double_services};
use crate::table::Tables;

/// Reads, merges and builds.
pub struct Reloader {
    paths: SourcePaths,
    /// As it is written, on the parts that run.
    running: Configuration,
    objects: ObjectStore,
    folder: Option<ManifestFolder>,
    builder: Builder,
    /// What was said of the objects already.
    told: BTreeSet<String>,
    /// Something has changed that is not in the tables given last.
    is_due: bool,
}

/// What a reload brings.
pub struct Reload {
    /// The new tables, to be published.
    pub tables: Tables,
    /// What in the file is probably not what was meant.
    pub warnings: Vec<Diagnostic>,
    /// Keys whose change waits for a restart.
    pub restart_keys: Vec<String>,
}

/// Why the running tables stay.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is wrong.
    #[error("{0}")]
    Refused(#[from] config::Report),
    /// It needs ports that only a restart opens.
    #[error("{what} needs the port `{port}`, which is not open in that role: restart to use it")]
    PortNotOpen {
        /// The part that needs it.
        what: String,
        /// The port.
        port: String,
    },
    /// Pod ports are open and the file has no bridge for them.
    #[error("the file has no `[bridge]` any more, and pod ports are open: restart to close them")]
    BridgeGone,
    /// More routes than a table holds.
    #[error("the routes do not fit into a table: {0}")]
    Routes(#[from] engine::table::lpm::LpmError),
    /// The manifests.
    #[error(transparent)]
    Manifests(#[from] FolderError),
}

impl Reloader {
    /// For the sources that the running tables were built from, and the builder that built them.
    pub fn new(paths: SourcePaths, sources: Sources, builder: Builder) -> Self {
        let Sources { loaded, objects, folder } = sources;
        Self {
            paths,
            running: loaded.configuration,
            objects,
            folder,
            builder,
            told: BTreeSet::new(),
            is_due: false,
        }
    }

    /// Reads the configuration and builds tables from it and the objects. With an error nothing has changed.
    pub fn reload(&mut self) -> Result<Reload, ReloadError> {
        let loaded = self.paths.read()?;
        let restart_keys = config::restart_needed(&self.running, &loaded.configuration);
        let merged = keep_running_parts(&self.running, loaded.configuration)?;
        let (effective, notes) = with_nodes(&merged, &self.objects);
        let tables = self.builder.build_with(&effective, &self.objects)?;
        self.running = merged;
        Ok(Reload { tables, warnings: [loaded.warnings, notes].concat(), restart_keys })
    }

    /// Reads the manifests that changed and takes over what that concerns. True: nodes are others than before.
    pub fn refresh(&mut self) -> Result<bool, ReloadError> {
        let Some(folder) = &mut self.folder else { return Ok(false) };
        let changes = folder.refresh(&mut self.objects)?;
        // First what cannot fail: what has changed is told once, and nodes with too many networks block no services.
        let concerned: BTreeSet<_> = changes.services.union(&changes.moved).cloned().collect();
        self.builder.apply_objects(&self.objects, &concerned);
        self.is_due |= changes.nodes || !concerned.is_empty();
        if changes.nodes {
            let (effective, _) = with_nodes(&self.running, &self.objects);
            self.builder.build_with(&effective, &self.objects)?;
        }
        Ok(changes.nodes)
    }

    /// Frees what no flow refers to any more, and ends what has drained: every worker has been through its flows with
    /// tables of generation `swept` or later, and it is second `now_s`.
    pub fn tend(&mut self, swept: u64, now_s: u64) {
        self.builder.services().set_time(now_s);
        self.is_due |= self.builder.reclaim(swept);
    }

    /// New tables are due if `changed`: something has changed in the builder that is not in those given last.
    pub fn mark_due_if(&mut self, changed: bool) {
        self.is_due |= changed;
    }

    /// Whether new tables are due.
    pub fn is_due(&self) -> bool {
        self.is_due
    }

    /// The tables with everything that has changed, if anything has.
    pub fn tables(&mut self) -> Option<Tables> {
        if !core::mem::take(&mut self.is_due) {
            return None;
        }
        self.builder.update(&self.objects, &BTreeSet::new())
    }

    /// The configuration that runs, with what nodes add.
    pub fn configuration(&self) -> Configuration {
        with_nodes(&self.running, &self.objects).0
    }

    /// What builds the tables.
    pub fn builder(&mut self) -> &mut Builder {
        &mut self.builder
    }

    /// Whether [`Self::tend`] has anything to wait for.
    pub fn is_waiting(&mut self) -> bool {
        self.builder.services().is_waiting()
    }

    /// What is wrong with the objects now and was not said before.
    pub fn news(&mut self) -> Vec<Diagnostic> {
        let mut found: Vec<Diagnostic> = self.objects.findings().iter().map(Diagnostic::from).collect();
        found.extend(conflicts(self.builder.services()));
        found.extend(double_services(&self.running, &self.objects));
        let texts: BTreeSet<String> = found.iter().map(Diagnostic::to_string).collect();
        let told = core::mem::replace(&mut self.told, texts);
        found.retain(|finding| !told.contains(&finding.to_string()));
        found
    }

    /// The objects.
    pub fn objects(&self) -> &ObjectStore {
        &self.objects
    }
}

/// The new configuration on the ports, threads and sizes of the running one.
fn keep_running_parts(running: &Configuration, mut new: Configuration) -> Result<Configuration, ReloadError> {
    let ports = OpenPorts::new(running, &new);
    if let Some(overlay) = &mut new.overlay {
        overlay.underlay = ports.place(overlay.underlay, || "the overlay".to_owned())?;
    }
    for route in &mut new.routes {
        let what = || format!("the route to {}", route.destination);
        route.interface = ports.interface(route.interface, what)?;
    }
    for neighbour in &mut new.neighbours {
        let what = || format!("the neighbour {}", neighbour.address);
        neighbour.interface = ports.interface(neighbour.interface, what)?;
    }
    for entry in &mut new.bridge_fdb {
        entry.port = ports.place(entry.port, || format!("the station {}", entry.mac))?;
    }
    if new.bridge.is_none() && running.ports.iter().any(|port| port.role == PortRole::Pod) {
        return Err(ReloadError::BridgeGone);
    }
    new.ports.clone_from(&running.ports);
    new.dpdk.clone_from(&running.dpdk);
    new.workers.clone_from(&running.workers);
    new.control.clone_from(&running.control);
    new.metrics.clone_from(&running.metrics);
    new.exception.clone_from(&running.exception);
    new.conntrack.capacity = running.conntrack.capacity;
    new.service_settings.affinity_capacity = running.service_settings.affinity_capacity;
    if running.workers.cores.len() > 1 {
        // By these several workers find a flow's owner.
        new.node.addresses.clone_from(&running.node.addresses);
        new.node.primary_addresses.clone_from(&running.node.primary_addresses);
        let settings = &mut new.service_settings;
        settings.service_cidrs.clone_from(&running.service_settings.service_cidrs);
        settings.node_port_addresses.clone_from(&running.service_settings.node_port_addresses);
        settings.node_port_range = running.service_settings.node_port_range;
        let (nodes, snat) = (settings.node_port_range, settings.snat_port_range);
        if nodes.0 <= snat.1 && snat.0 <= nodes.1 {
            // Answers to a port of the kept range would not be looked for where their flow is.
            settings.snat_port_range = running.service_settings.snat_port_range;
        }
    }
    Ok(new)
}

/// Where the new file's ports are among those that are open: by name, and in the same role.
struct OpenPorts {
    /// By place in the new file: its name, and its place among the open ones.
    places: Vec<(String, Option<usize>)>,
}

impl OpenPorts {
    fn new(running: &Configuration, new: &Configuration) -> Self {
        let open =
            |name: &str, role| running.ports.iter().position(|port| port.name == name && port.role == role);
        Self {
            places: new.ports.iter().map(|port| (port.name.clone(), open(&port.name, port.role))).collect(),
        }
    }

    fn place(&self, port: usize, what: impl FnOnce() -> String) -> Result<usize, ReloadError> {
        match self.places.get(port) {
            Some((_, Some(place))) => Ok(*place),
            other => {
                let port = other.map(|(name, _)| name.clone()).unwrap_or_default();
                Err(ReloadError::PortNotOpen { what: what(), port })
            }
        }
    }

    fn interface(
        &self,
        name: InterfaceName,
        what: impl FnOnce() -> String,
    ) -> Result<InterfaceName, ReloadError> {
        match name {
            InterfaceName::Underlay(port) => Ok(InterfaceName::Underlay(self.place(port, what)?)),
            other => Ok(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::{CONFIGURATION, parsed};

    const PODS: &str = r#"
[node]
addresses = ["192.168.0.21"]
[[ports]]
name = "eth0"
role = "underlay"
mac = "02:00:c0:a8:00:15"
address = "192.168.0.21/24"
[[ports]]
name = "pod-1"
role = "pod"
[[ports]]
name = "pod-2"
role = "pod"
[bridge]
address = "172.30.76.1/24"
mac = "02:42:67:05:b5:30"
[overlay]
underlay = "eth0"
address = "172.30.76.0"
mac = "8a:22:81:5e:d8:b7"
[[routes]]
destination = "0.0.0.0/0"
via = "192.168.0.1"
interface = "eth0"
[[fdb]]
interface = "docker0"
mac = "02:42:ac:1e:4c:02"
port = "pod-2"
"#;

    fn merged(from: &str, to: &str) -> Result<Configuration, String> {
        keep_running_parts(&parsed(from), parsed(to)).map_err(|error| error.to_string())
    }

    fn changed(text: &str, from: &str, to: &str) -> String {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    }

    #[test]
    fn what_waits_for_a_restart_stays_and_the_rest_is_taken() {
        let new = changed(CONFIGURATION, "capacity = 1024", "capacity = 4096\nudp_s = 7");
        let new = changed(&new, "mac = \"02:00:c0:a8:00:15\"", "mac = \"02:00:c0:a8:00:16\"");
        let merged = merged(CONFIGURATION, &new).unwrap();
        assert_eq!((merged.conntrack.capacity, merged.conntrack.udp_s), (1_024, 7));
        assert_eq!(merged.ports, parsed(CONFIGURATION).ports);
    }

    #[test]
    fn ports_in_another_order_keep_their_numbers() {
        let pod_2 = "[[ports]]\nname = \"pod-2\"\nrole = \"pod\"\n";
        let new = changed(PODS, pod_2, "");
        let new = changed(&new, "[[ports]]\nname = \"eth0\"", &format!("{pod_2}[[ports]]\nname = \"eth0\""));
        assert_eq!(parsed(&new).overlay.unwrap().underlay, 1);
        let merged = merged(PODS, &new).unwrap();
        assert_eq!(merged, parsed(PODS));
    }

    #[test]
    fn what_needs_ports_that_are_not_open_is_refused() {
        let renamed = PODS.replace("pod-2", "pod-3");
        assert!(
            merged(PODS, &renamed)
                .unwrap_err()
                .contains("the station 02:42:ac:1e:4c:02 needs the port `pod-3`")
        );
        let renamed = PODS.replace("eth0", "eth1");
        assert!(merged(PODS, &renamed).unwrap_err().contains("the overlay needs the port `eth1`"));
        assert!(merged(PODS, CONFIGURATION).unwrap_err().contains("no `[bridge]` any more"));
    }

    /// What has changed is told once: a node that cannot be used must not swallow it.
    #[test]
    fn services_change_though_nodes_beside_them_do_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        let (path, manifests) = (folder.path().join("a.toml"), folder.path().join("m.yaml"));
        let service = |address: &str| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: new}}\nspec: {{clusterIP: {address}, ports: [{{port: 80}}]}}\n"
            )
        };
        std::fs::write(&path, CONFIGURATION).unwrap();
        std::fs::write(&manifests, service("10.254.0.77")).unwrap();
        let paths = SourcePaths { manifests: Some(manifests.clone()), ..SourcePaths::of_config(&path) };
        let mut builder = Builder::new(1, crate::control::build::HostFacts::default());
        let sources = Sources::load(&paths).unwrap();
        builder.build_with(&sources.configuration(), &sources.objects).unwrap();
        let mut reloader = Reloader::new(paths, sources, builder);
        // Two routes more than a table holds make the build fail, as nodes beyond number would.
        let route = config::model::Route {
            destination: "10.0.0.0/8".parse().unwrap(),
            via: None,
            interface: InterfaceName::Underlay(0),
        };
        let host =
            |number: u32| crate::prefix::Ipv4Prefix::host(core::net::Ipv4Addr::from(0x2000_0000 + number));
        let too_many = (1 << 18) + 1;
        reloader.running.routes =
            (0..too_many).map(|n| config::model::Route { destination: host(n), ..route.clone() }).collect();
        std::fs::write(
            &manifests,
            service("10.254.0.78") + "---\napiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n",
        )
        .unwrap();
        assert!(reloader.refresh().is_err());
        let tables = reloader.tables().unwrap();
        assert!(tables.services.is_virtual(0x0afe_004e) && !tables.services.is_virtual(0x0afe_004d));
    }

    #[test]
    fn a_file_that_is_wrong_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        let running = parsed(CONFIGURATION);
        let mut builder = Builder::new(1, crate::control::build::HostFacts::default());
        builder.build(&running).unwrap();
        std::fs::write(&path, CONFIGURATION).unwrap();
        let paths = SourcePaths::of_config(&path);
        let mut reloader = Reloader::new(paths.clone(), Sources::load(&paths).unwrap(), builder);
        std::fs::remove_file(&path).unwrap();
        assert!(reloader.reload().is_err_and(|error| error.to_string().contains("cannot be read")));
        std::fs::write(&path, changed(CONFIGURATION, "[node]", "[nude]")).unwrap();
        assert!(reloader.reload().is_err_and(|error| error.to_string().contains("did you mean")));
        std::fs::write(&path, CONFIGURATION).unwrap();
        let reload = reloader.reload().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((reload.tables.generation, reload.restart_keys.len()), (2, 0));
        std::fs::write(&path, changed(CONFIGURATION, "capacity = 1024", "capacity = 2048")).unwrap();
        let reload = reloader.reload().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            (reload.tables.generation, reload.restart_keys),
            (3, vec!["conntrack.capacity".to_owned()])
        );
    }
}
