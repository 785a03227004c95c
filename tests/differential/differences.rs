//! What is meant to differ: docs/differences.md says why.

use crate::outcome::{Outcome, Verdict};
use crate::packet::Protocol;
use crate::probe::{Aim, Origin, Probe};

/// An intended difference.
pub(crate) struct Difference {
    /// Its heading in docs/differences.md.
    pub(crate) name: &'static str,
    /// Whether a packet of a scenario shows it.
    pub(crate) concerns: fn(&str, &Probe) -> bool,
    /// Whether the outcomes, kube-proxy's first, differ as they are meant to.
    is_as_listed: fn(&Outcome, &Outcome) -> bool,
}

pub(crate) const DIFFERENCES: [Difference; 6] = [
    Difference {
        name: "A ping to a cluster IP",
        concerns: |_, probe| probe.aim == Aim::UnknownPort && probe.packet.protocol == Protocol::Echo,
        is_as_listed: |kube_proxy, pollgate| is_refused(kube_proxy) && is_silent(pollgate),
    },
    Difference {
        name: "Other protocols to a cluster IP",
        concerns: |_, probe| probe.aim == Aim::UnknownPort && probe.packet.protocol == Protocol::Gre,
        is_as_listed: |kube_proxy, pollgate| is_refused(kube_proxy) && is_silent(pollgate),
    },
    Difference {
        name: "An endpoint that is the node itself",
        concerns: |scenario, probe| {
            is_served(scenario, probe, "kinds", "host-network") && is_marked(scenario, probe)
        },
        is_as_listed: |kube_proxy, pollgate| {
            let goes_to = |outcome: &Outcome, here: &str| {
                outcome.to_string()
                    == format!("forward 192.168.0.21:6443{here} 192.168.0.22:6443 masqueraded")
            };
            goes_to(kube_proxy, "") && goes_to(pollgate, " masqueraded")
        },
    },
    Difference {
        name: "An endpoint that two slices disagree about",
        concerns: |scenario, probe| is_served(scenario, probe, "readiness", "torn"),
        is_as_listed: |kube_proxy, pollgate| {
            is_refused(kube_proxy) && goes_only_to(pollgate, "172.30.76.101:8080")
        },
    },
    Difference {
        name: "An endpoint of which nobody says whether it serves",
        concerns: |scenario, probe| is_served(scenario, probe, "readiness", "serving-unknown"),
        is_as_listed: |kube_proxy, pollgate| {
            goes_only_to(kube_proxy, "172.30.76.111:8080") && is_refused(pollgate)
        },
    },
    Difference {
        name: "Endpoints without slices",
        concerns: |scenario, probe| is_served(scenario, probe, "odd", "old"),
        is_as_listed: |kube_proxy, pollgate| {
            is_refused(kube_proxy) && goes_only_to(pollgate, "172.30.76.111:8080")
        },
    },
];

/// `file` is the first word of a scenario's name.
fn is_served(scenario: &str, probe: &Probe, file: &str, service: &str) -> bool {
    scenario.split(' ').next() == Some(file) && probe.service == service && probe.is_served()
}

/// The service's rules want the packet masqueraded, and not only because its sender is the endpoint. What the node itself
/// sends leaves by its loopback interface, and is masqueraded there.
fn is_marked(scenario: &str, probe: &Probe) -> bool {
    let is_from_pod = matches!(probe.origin, Origin::Pod | Origin::RemotePod);
    let is_wanted = match (probe.aim, scenario) {
        (Aim::ClusterIp, "kinds masquerade-all") => true,
        (Aim::ClusterIp, "kinds no-pod-network") => false,
        (Aim::ClusterIp, _) => !is_from_pod,
        _ => true,
    };
    is_wanted && !matches!(probe.origin, Origin::Node | Origin::NodeAsPod)
}

fn is_refused(outcome: &Outcome) -> bool {
    *outcome == Outcome::plain(Verdict::Reject)
}

fn is_silent(outcome: &Outcome) -> bool {
    *outcome == Outcome::plain(Verdict::Drop)
}

fn goes_only_to(outcome: &Outcome, endpoint: &str) -> bool {
    outcome.verdict == Verdict::Forward
        && outcome.endpoints.len() == 1
        && outcome.endpoints.keys().all(|known| known.to_string() == endpoint)
}

impl Difference {
    /// What is not as it is listed.
    pub(crate) fn problem(&self, kube_proxy: &Outcome, pollgate: &Outcome) -> Option<String> {
        let is_as_listed = (self.is_as_listed)(kube_proxy, pollgate);
        (!is_as_listed).then(|| format!("not as listed under \"{}\"", self.name))
    }
}
