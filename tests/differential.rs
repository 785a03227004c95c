//! Pollgate against kube-proxy's nftables mode: both get the same objects and the same first packets.
//!
//! One gateway is a network namespace with rules as kube-proxy writes them, the other `pollgate trace`. Verdict, set of
//! endpoints and masquerading must be the same for every packet, but for the differences of docs/differences.md, each of
//! which must show. Needs root and nft, and says why when it cannot run.
#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expected, and stops")]

#[path = "differential/differences.rs"]
mod differences;
#[path = "differential/kernel.rs"]
mod kernel;
#[path = "differential/kube_proxy.rs"]
mod kube_proxy;
#[path = "differential/namespaces.rs"]
mod namespaces;
#[path = "differential/objects.rs"]
mod objects;
#[path = "differential/outcome.rs"]
mod outcome;
#[path = "differential/packet.rs"]
mod packet;
#[path = "differential/pollgate.rs"]
mod pollgate;
#[path = "differential/probe.rs"]
mod probe;
#[path = "differential/ruleset.rs"]
mod ruleset;
#[path = "differential/yaml.rs"]
mod yaml;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;

use differences::DIFFERENCES;
use kernel::Kernel;
use kube_proxy::{ProxiedPort, Settings};
use namespaces::Namespaces;
use objects::Cluster;
use outcome::{Outcome, Verdict};
use pollgate::Pollgate;
use probe::Probe;

const NODE: &str = "node-1";
const USUAL: Settings = Settings { pod_cidr: Some("172.30.0.0/16"), masquerade_all: false };

/// Objects and settings; names are of files in tests/differential/clusters, and after a blank of what differs.
const SCENARIOS: [(&str, Settings); 8] = [
    ("kinds", USUAL),
    ("protocols", USUAL),
    ("readiness", USUAL),
    ("sources", USUAL),
    ("topology", USUAL),
    ("odd", USUAL),
    ("kinds masquerade-all", Settings { masquerade_all: true, ..USUAL }),
    ("kinds no-pod-network", Settings { pod_cidr: None, ..USUAL }),
];

/// A scenario, ready to be asked about.
struct Scenario {
    name: &'static str,
    settings: Settings,
    manifests: PathBuf,
    cluster: Cluster,
    ports: Vec<ProxiedPort>,
    probes: Vec<Probe>,
}

impl Scenario {
    fn load(name: &'static str, settings: Settings) -> Scenario {
        let file = name.split(' ').next().unwrap_or(name);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/differential/clusters");
        let manifests = folder.join(file).with_extension("yaml");
        let cluster = Cluster::read(&manifests);
        let ports = kube_proxy::ports(&cluster, NODE);
        let probes = probe::probes(&cluster, &ports, cluster.internal_addresses(NODE)[0]);
        Scenario { name, settings, manifests, cluster, ports, probes }
    }

    fn all() -> Vec<Scenario> {
        SCENARIOS.iter().map(|(name, settings)| Scenario::load(name, *settings)).collect()
    }

    /// What becomes of the packets in a kernel with kube-proxy's rules.
    fn ask_kernel(&self) -> Vec<Outcome> {
        let namespaces = Namespaces::up(&self.name.replace(' ', "-"));
        let addresses = self.cluster.internal_addresses(NODE);
        namespaces.load(&ruleset::ruleset(&self.ports, &self.settings, probe::SERVICE_CIDR, &addresses));
        let mut kernel = Kernel::new(&namespaces);
        self.probes.iter().map(|probe| kernel.ask(probe)).collect()
    }

    fn ask_pollgate(&self) -> Vec<Outcome> {
        let pollgate = Pollgate::new(&self.manifests, NODE, &self.settings);
        self.probes.iter().map(|probe| pollgate.ask(probe)).collect()
    }
}

/// Whether the kernel can be asked here; where it cannot be, the reason is said.
fn is_possible() -> bool {
    let Some(reason) = namespaces::obstacle() else { return true };
    assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "CI must run this: {reason}");
    // Past the test harness, which shows no output of a test that passes.
    let _ = writeln!(io::stderr(), "skipped: {reason}");
    false
}

/// Runs on a thread of its own, which moves to other namespaces and keeps to one core.
fn on_its_own<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().expect("it ends well"))
}

#[test]
fn pollgate_decides_as_kube_proxy_does() {
    if !is_possible() {
        return;
    }
    let mut wrong = Vec::new();
    let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
    for scenario in Scenario::all() {
        let (kernel, pollgate) = thread::scope(|scope| {
            let kernel = scope.spawn(|| scenario.ask_kernel());
            let pollgate = scenario.ask_pollgate();
            (kernel.join().expect("the kernel answers"), pollgate)
        });
        let answers = scenario.probes.iter().zip(kernel.into_iter().zip(pollgate));
        for (probe, (kernel, pollgate)) in answers {
            let known = DIFFERENCES.iter().find(|known| (known.concerns)(scenario.name, probe));
            let problem = match known {
                Some(known) => {
                    *shown.entry(known.name).or_default() += 1;
                    known.problem(&kernel, &pollgate)
                }
                None => (!is_alike(probe, &kernel, &pollgate)).then(|| "not listed".to_owned()),
            };
            wrong.extend(problem.map(|problem| {
                format!(
                    "{}: {} ({:?} to {:?} {}): kube-proxy {kernel}; pollgate {pollgate}: {problem}",
                    scenario.name, probe.packet, probe.origin, probe.aim, probe.service
                )
            }));
        }
    }
    for known in &DIFFERENCES {
        if !shown.contains_key(known.name) {
            wrong.push(format!("{}: no packet shows this difference", known.name));
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// The same verdict, endpoints and masquerading. A client that stays with its endpoint has shown one of them.
fn is_alike(probe: &Probe, kernel: &Outcome, pollgate: &Outcome) -> bool {
    if probe.is_sticky && probe.sources.len() == 1 && kernel.verdict == Verdict::Forward {
        let is_candidate = |(endpoint, masquerade)| pollgate.endpoints.get(endpoint) == Some(masquerade);
        return kernel.endpoints.len() == 1
            && kernel.endpoints.iter().all(is_candidate)
            && pollgate.verdict == kernel.verdict;
    }
    kernel == pollgate
}

#[test]
fn dump() {
    for scenario in Scenario::all() {
        let begin = std::time::Instant::now();
        let kernel = on_its_own(|| scenario.ask_kernel());
        println!("== {} {} {:?}", scenario.name, scenario.probes.len(), begin.elapsed());
        for (probe, k) in scenario.probes.iter().zip(kernel) {
            println!("{} ({:?} to {:?} {}): {k}", probe.packet, probe.origin, probe.aim, probe.service);
        }
    }
}
