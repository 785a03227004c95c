//! What is meant to differ: docs/differences.md says why.

use crate::outcome::Outcome;
use crate::probe::Probe;

/// An intended difference.
pub(crate) struct Difference {
    /// Its heading in docs/differences.md.
    pub(crate) name: &'static str,
    /// Whether a packet of a scenario shows it.
    pub(crate) concerns: fn(&str, &Probe) -> bool,
    kube_proxy: fn(&Outcome) -> bool,
    pollgate: fn(&Outcome) -> bool,
}

pub(crate) const DIFFERENCES: [Difference; 0] = [];

impl Difference {
    /// What is not as it is listed.
    pub(crate) fn problem(&self, kube_proxy: &Outcome, pollgate: &Outcome) -> Option<String> {
        let is_listed = (self.kube_proxy)(kube_proxy) && (self.pollgate)(pollgate);
        (!is_listed || kube_proxy == pollgate).then(|| format!("not as listed under {}", self.name))
    }
}
