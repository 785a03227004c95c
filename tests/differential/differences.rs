//! What is meant to differ: docs/differences.md says why.

use crate::outcome::{Outcome, Verdict};
use crate::packet::Protocol;
use crate::probe::{Aim, Probe};

/// An intended difference.
pub(crate) struct Difference {
    /// Its heading in docs/differences.md.
    pub(crate) name: &'static str,
    /// Whether a packet of a scenario shows it.
    pub(crate) concerns: fn(&str, &Probe) -> bool,
    /// What kube-proxy makes of such a packet.
    kube_proxy: Verdict,
    /// What Pollgate makes of it.
    pollgate: Verdict,
}

pub(crate) const DIFFERENCES: [Difference; 5] = [
    Difference {
        name: "A ping to a cluster IP",
        concerns: |_, probe| probe.aim == Aim::UnknownPort && probe.packet.protocol == Protocol::Echo,
        kube_proxy: Verdict::Reject,
        pollgate: Verdict::Drop,
    },
    Difference {
        name: "Other protocols to a cluster IP",
        concerns: |_, probe| probe.aim == Aim::UnknownPort && probe.packet.protocol == Protocol::Gre,
        kube_proxy: Verdict::Reject,
        pollgate: Verdict::Drop,
    },
    Difference {
        name: "An endpoint that two slices disagree about",
        concerns: |scenario, probe| is_served(scenario, probe, "readiness", "torn"),
        kube_proxy: Verdict::Reject,
        pollgate: Verdict::Forward,
    },
    Difference {
        name: "An endpoint of which nobody says whether it serves",
        concerns: |scenario, probe| is_served(scenario, probe, "readiness", "serving-unknown"),
        kube_proxy: Verdict::Forward,
        pollgate: Verdict::Reject,
    },
    Difference {
        name: "Endpoints without slices",
        concerns: |scenario, probe| is_served(scenario, probe, "odd", "old"),
        kube_proxy: Verdict::Reject,
        pollgate: Verdict::Forward,
    },
];

fn is_served(scenario: &str, probe: &Probe, in_scenario: &str, service: &str) -> bool {
    scenario == in_scenario && probe.service == service && probe.is_served()
}

impl Difference {
    /// What is not as it is listed.
    pub(crate) fn problem(&self, kube_proxy: &Outcome, pollgate: &Outcome) -> Option<String> {
        let is_listed = kube_proxy.verdict == self.kube_proxy && pollgate.verdict == self.pollgate;
        (!is_listed).then(|| format!("not as listed under \"{}\"", self.name))
    }
}
