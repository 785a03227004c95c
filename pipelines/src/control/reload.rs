//! Reading the configuration again while the gateway runs.
//!
//! What cannot change without a restart (threads, devices, sizes) stays as it runs, by the names of its ports; all else
//! becomes new tables. A file with an error, or one that needs ports which are not open, changes nothing at all.

use std::path::{Path, PathBuf};

use crate::control::build::Builder;
use crate::control::config::model::{Configuration, InterfaceName, PortRole};
use crate::control::config::{self, Diagnostic};
use crate::table::Tables;

/// Reads, merges and builds.
pub struct Reloader {
    path: PathBuf,
    running: Configuration,
    builder: Builder,
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
}

impl Reloader {
    /// For the file that the running configuration came from, and the builder that built its tables.
    pub fn new(path: &Path, running: Configuration, builder: Builder) -> Self {
        Self { path: path.to_owned(), running, builder }
    }

    /// Reads the file and builds tables from it. With an error nothing has changed.
    pub fn reload(&mut self) -> Result<Reload, ReloadError> {
        let loaded = config::load(&self.path)?;
        let restart_keys = config::restart_needed(&self.running, &loaded.configuration);
        let merged = keep_running_parts(&self.running, loaded.configuration)?;
        let tables = self.builder.build(&merged)?;
        self.running = merged;
        Ok(Reload { tables, warnings: loaded.warnings, restart_keys })
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

    #[test]
    fn a_file_that_is_wrong_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        let running = parsed(CONFIGURATION);
        let mut builder = Builder::new(1, crate::control::build::HostFacts::default());
        builder.build(&running).unwrap();
        let mut reloader = Reloader::new(&path, running, builder);
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
