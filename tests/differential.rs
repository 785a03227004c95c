//! Pollgate against kube-proxy's nftables mode: both get the same objects and the same first packets.
//!
//! One gateway is a network namespace with rules as kube-proxy writes them, the other `pollgate trace`. Verdict, set of
//! endpoints and masquerading must be the same for every packet, but for the differences of docs/differences.md, each of
//! which must show. Needs root and nft, and says why when it cannot run.
#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expected, and stops")]

#[path = "differential/differences.rs"]
mod differences;
#[path = "differential/expected.rs"]
mod expected;
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
#[path = "differential/scenario.rs"]
mod scenario;
#[path = "differential/yaml.rs"]
mod yaml;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use differences::DIFFERENCES;
use expected::EXPECTED;
use outcome::{Outcome, Verdict};
use probe::Probe;
use scenario::scenarios;

/// Whether the kernel can be asked here; where it cannot be, the reason is said.
fn is_possible() -> bool {
    let Some(reason) = namespaces::obstacle() else { return true };
    assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "CI must run this: {reason}");
    // Past the test harness, which shows no output of a test that passes.
    let _ = writeln!(io::stderr(), "skipped: {reason}");
    false
}

#[test]
fn pollgate_decides_as_kube_proxy_does() {
    if !is_possible() {
        return;
    }
    let mut wrong = Vec::new();
    let mut shown = BTreeSet::new();
    for (scenario, kernel) in scenarios() {
        let pollgate = scenario.ask_pollgate();
        for (probe, (kernel, pollgate)) in scenario.probes.iter().zip(kernel.iter().zip(&pollgate)) {
            let known = DIFFERENCES.iter().find(|known| (known.concerns)(scenario.name, probe));
            let problem = match known {
                Some(known) => {
                    shown.insert(known.name);
                    known.problem(kernel, pollgate)
                }
                None => (!is_alike(probe, kernel, pollgate)).then(|| "not listed".to_owned()),
            };
            wrong.extend(problem.map(|problem| {
                let name = scenario.name;
                format!("{name}: {probe}: kube-proxy {kernel}; pollgate {pollgate}: {problem}")
            }));
        }
    }
    let unseen = DIFFERENCES.iter().filter(|known| !shown.contains(known.name));
    wrong.extend(unseen.map(|known| format!("{}: no packet shows this difference", known.name)));
    assert!(wrong.is_empty(), "{} packets are wrong:\n{}", wrong.len(), wrong.join("\n"));
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

/// The kernel's side by itself, against what Kubernetes documents: rules that are wrong in the way that Pollgate is would
/// otherwise go unseen.
#[test]
fn the_rules_do_as_kubernetes_documents() {
    if !is_possible() {
        return;
    }
    for (name, packet, outcome) in EXPECTED {
        let (scenario, kernel) =
            scenarios().iter().find(|(scenario, _)| scenario.name == name).expect("a scenario of this name");
        let place = scenario.probes.iter().position(|probe| probe.packet.to_string() == packet);
        let place = place.unwrap_or_else(|| panic!("{name}: nobody sends {packet}"));
        assert_eq!(kernel[place].to_string(), outcome, "{name}: {packet}");
    }
}

/// docs/differences.md has a section for every difference, and no other.
#[test]
fn differences_are_documented() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/differences.md");
    let text = std::fs::read_to_string(file).expect("the document is there");
    let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let names: Vec<&str> = DIFFERENCES.iter().map(|known| known.name).collect();
    assert_eq!(headings, names);
}
