//! Scenarios: objects, settings, the packets to send, and what both gateways make of them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

use crate::kernel::Kernel;
use crate::kube_proxy::{self, ProxiedPort, Settings};
use crate::namespaces::Namespaces;
use crate::objects::Cluster;
use crate::outcome::Outcome;
use crate::pollgate::Pollgate;
use crate::probe::{self, Probe};
use crate::ruleset;

/// The node whose gateway is asked.
const NODE: &str = "node-1";
const USUAL: Settings = Settings { pod_cidr: Some("172.30.0.0/16"), masquerade_all: false };

/// One packet in so many is asked of the program itself.
const PRINTED: usize = 16;

/// A name, a file in tests/differential/clusters, and settings.
const SCENARIOS: [(&str, &str, Settings); 8] = [
    ("kinds", "kinds", USUAL),
    ("protocols", "protocols", USUAL),
    ("readiness", "readiness", USUAL),
    ("sources", "sources", USUAL),
    ("topology", "topology", USUAL),
    ("odd", "odd", USUAL),
    ("kinds masquerade-all", "kinds", Settings { masquerade_all: true, ..USUAL }),
    ("kinds no-pod-network", "kinds", Settings { pod_cidr: None, ..USUAL }),
];

/// Objects seen from the node, under some settings.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    settings: Settings,
    manifests: PathBuf,
    cluster: Cluster,
    ports: Vec<ProxiedPort>,
    pub(crate) probes: Vec<Probe>,
}

impl Scenario {
    fn load(name: &'static str, file: &str, settings: Settings) -> Scenario {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/differential/clusters");
        let manifests = folder.join(file).with_extension("yaml");
        let cluster = Cluster::read(&manifests);
        let ports = kube_proxy::ports(&cluster, NODE);
        let mut probes = probe::probes(&cluster, &ports, cluster.internal_addresses(NODE)[0]);
        if name != file {
            // Settings change what becomes of a service's packets; that others are none of its was asked before.
            probes.retain(Probe::is_served);
        }
        Scenario { name, settings, manifests, cluster, ports, probes }
    }

    /// What becomes of the packets in a kernel with kube-proxy's rules. The thread moves to other namespaces, and stays.
    fn ask_kernel(&self) -> Vec<Outcome> {
        let namespaces = Namespaces::up(&self.name.replace(' ', "-"));
        let addresses = self.cluster.internal_addresses(NODE);
        namespaces.load(&ruleset::ruleset(&self.ports, &self.settings, probe::SERVICE_CIDR, &addresses));
        let mut kernel = Kernel::new(&namespaces);
        self.probes.iter().map(|probe| kernel.ask(probe)).collect()
    }

    /// What becomes of the packets in Pollgate. A process for each would take a minute, so some alone are asked of the
    /// program, which must print the same.
    pub(crate) fn ask_pollgate(&self) -> Vec<Outcome> {
        let pollgate = Pollgate::new(&self.manifests, NODE, &self.settings);
        let ask = |(place, probe): (usize, &Probe)| {
            let (outcome, trace) = pollgate.ask(probe);
            if place % PRINTED == 0 {
                assert_eq!(pollgate.print(probe), trace, "{probe}");
            }
            outcome
        };
        self.probes.iter().enumerate().map(ask).collect()
    }
}

/// All scenarios with the kernel's answers, which are got once.
pub(crate) fn scenarios() -> &'static [(Scenario, Vec<Outcome>)] {
    static ANSWERED: OnceLock<Vec<(Scenario, Vec<Outcome>)>> = OnceLock::new();
    ANSWERED.get_or_init(|| {
        let load = |(name, file, settings): &(&'static str, &str, _)| Scenario::load(name, file, *settings);
        let answer = |scenario: Scenario| {
            let outcomes = thread::scope(|scope| scope.spawn(|| scenario.ask_kernel()).join());
            (scenario, outcomes.expect("the kernel answers"))
        };
        SCENARIOS.iter().map(load).map(answer).collect()
    })
}
