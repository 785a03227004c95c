//! What becomes of first packets: the common measure of both gateways.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddrV4;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To an endpoint of a service.
    Forward,
    /// Its sender is told that nobody is there.
    Reject,
    /// It ends in silence.
    Drop,
    /// To the gateway's own stack, as it is.
    Deliver,
    /// No service is concerned: on by the routes, as it is.
    Pass,
}

/// What becomes of all packets of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    /// Endpoints that may be chosen, and whether the source is masqueraded on the way to each.
    pub(crate) endpoints: BTreeMap<SocketAddrV4, bool>,
    /// What a sender is told.
    pub(crate) reject_with: Option<String>,
}

impl Outcome {
    /// One that needs no more words.
    pub(crate) fn plain(verdict: Verdict) -> Outcome {
        let reject_with = (verdict == Verdict::Reject).then(|| "icmp-port-unreachable".to_owned());
        Outcome { verdict, endpoints: BTreeMap::new(), reject_with }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", format!("{:?}", self.verdict).to_lowercase())?;
        if let Some(reject_with) = &self.reject_with {
            write!(formatter, " with {reject_with}")?;
        }
        for (endpoint, masquerade) in &self.endpoints {
            write!(formatter, " {endpoint}{}", if *masquerade { " masqueraded" } else { "" })?;
        }
        Ok(())
    }
}
