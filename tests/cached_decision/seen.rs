//! Which packets of known flows were compared, so that a generator that has ceased to reach a kind is noticed.

use std::collections::BTreeMap;

use engine::table::flow::FlowKey;

use crate::expected::is_tunnel;
use crate::traffic::{GRE, ICMP, SCTP, Sent, TCP, UDP};

/// A packet of a flow that was there before it.
pub struct Compared<'a> {
    /// The flow's original direction as it arrives, and as it leaves.
    pub key: FlowKey,
    pub to: FlowKey,
    pub is_original: bool,
    pub sent: &'a Sent,
    pub port: &'a str,
    pub frame: &'a [u8],
    /// Since the flow began.
    pub has_moved: bool,
    pub has_other_policies: bool,
    /// The flow's backend is still one that new flows may go to.
    pub may_choose_it: bool,
}

/// Packets of known flows that were compared, by what they were.
#[derive(Default, Debug)]
pub struct Seen {
    counts: BTreeMap<&'static str, u64>,
}

impl Seen {
    pub fn note(&mut self, compared: &Compared<'_>) {
        let Compared { key, to, sent, port, frame, is_original, .. } = compared;
        let protocol = key.protocol;
        let is_redirected = (to.destination, to.destination_port) != (key.destination, key.destination_port);
        for (what, is_it) in [
            ("compared", true),
            ("tcp", protocol == TCP),
            ("udp", protocol == UDP),
            ("sctp", protocol == SCTP),
            ("echo", protocol == ICMP),
            ("gre", protocol == GRE),
            ("original", *is_original),
            ("answer", !is_original),
            ("redirected", is_redirected),
            ("masqueraded", to.source != key.source),
            ("other port", to.source == key.source && to.source_port != key.source_port),
            ("hairpin", key.source == to.destination),
            ("untranslated", to == key),
            ("bridged", sent.is_bridged()),
            ("out of the tunnel", sent.is_tunnelled()),
            ("into the tunnel", is_tunnel(frame)),
            ("to the host", *port == "host"),
            ("from the host", sent.port == "host"),
            ("options", sent.shape.has_options),
            ("hop limit or size", sent.shape.time_to_live < 2 || sent.shape.payload_length > 1_400),
            ("damaged", sent.shape.is_damaged),
            ("ways have changed", compared.has_moved),
            ("policies have changed", compared.has_other_policies),
            ("backend is gone", is_redirected && !compared.may_choose_it),
        ] {
            *self.counts.entry(what).or_default() += u64::from(is_it);
        }
    }

    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }

    pub fn assert_all_kinds(&self) {
        assert!(self.counts["compared"] > 500, "{:?}", self.counts);
        assert!(self.counts.len() > 20 && self.counts.values().all(|count| *count >= 3), "{:?}", self.counts);
    }
}
