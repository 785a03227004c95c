//! What came out of one trial (RFC 2544, section 23: one trial at one rate), and whether it is good.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::fault::Example;
use crate::latency::LatencySummary;
use crate::session::Passed;
use crate::tally::{ConnectionCounts, Tally, Way};

/// A part of the rate that may be missed before a trial says that the generator could not keep it.
const MISSED_MAX: f64 = 0.03;
/// Preamble, start of frame, check sequence and gap: what each frame takes on an Ethernet besides its bytes (IEEE 802.3,
/// clause 3.1.1 and table 4-2).
const WIRE_OVERHEAD: u64 = 8 + 4 + 12;

/// Packets one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WayReport {
    /// Sent.
    pub sent: u64,
    /// Come.
    pub received: u64,
    /// Not come.
    pub lost: u64,
}

impl From<Way> for WayReport {
    fn from(way: Way) -> Self {
        Self { sent: way.sent, received: way.received, lost: way.lost() }
    }
}

/// Connections of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ConnectionReport {
    /// Opened.
    pub opened: u64,
    /// Of which the handshake came to its end.
    pub established: u64,
    /// Of which all segments came.
    pub completed: u64,
    /// Given up.
    pub failed: u64,
    /// Completed a second.
    pub completed_per_s: f64,
}

/// A trial's outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// Whether nothing was lost and nothing was wrong.
    pub clean: bool,
    /// Packets (TCP: connections) a second that were asked for; none: as many as could be sent.
    pub rate_asked: Option<u64>,
    /// As many were made.
    pub rate_offered: f64,
    /// Whether the generator could not keep the rate asked for.
    pub generator_limited: bool,
    /// How long was sent.
    pub seconds: f64,
    /// Packets sent, both ways.
    pub sent: u64,
    /// Packets that came, both ways, each counted once.
    pub received: u64,
    /// Packets that did not come.
    pub lost: u64,
    /// The part of those sent.
    pub loss_ratio: f64,
    /// Packets a second sent, both ways.
    pub sent_pps: f64,
    /// Packets a second that came, both ways, over the time until the last did.
    pub received_pps: f64,
    /// Bits a second that those take on an Ethernet, preamble and gap included.
    pub received_wire_bps: f64,
    /// From clients to backends.
    pub requests: WayReport,
    /// From backends to clients.
    pub replies: WayReport,
    /// TCP's connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<ConnectionReport>,
    /// Latencies, both ways.
    pub latency: LatencySummary,
    /// What was wrong, and how often.
    pub faults: BTreeMap<&'static str, u64>,
    /// The first packets with a fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Example>,
    /// Resets that the gateway sent.
    pub resets: u64,
    /// ICMP messages that came.
    pub icmp: u64,
    /// ARP requests that were answered.
    pub arp: u64,
    /// Other packets that came and are none of ours.
    pub other: u64,
    /// Flows lost before the trial, while each sent a first packet.
    pub warm_up_lost: u64,
    /// Whether new flows ran out of addresses and ports, and old ones came again.
    pub flows_repeat: bool,
}

impl Trial {
    /// Puts a tally and the times into words.
    pub fn new(rate_asked: Option<u64>, passed: &Passed, tally: &Tally) -> Self {
        let seconds = passed.sending_ns as f64 / 1e9;
        let arriving = passed.arriving_ns as f64 / 1e9;
        let (sent, received, lost) = (tally.sent_packets(), tally.received_packets(), tally.lost_packets());
        let bytes = tally.requests.received_bytes + tally.replies.received_bytes;
        let asked = passed.generated + passed.missed;
        Self {
            clean: lost == 0
                && tally.faults.total() == 0
                && tally.resets == 0
                && tally.connections.failed == 0,
            rate_asked,
            rate_offered: per_second(passed.generated, seconds),
            generator_limited: passed.missed as f64 > MISSED_MAX * asked as f64,
            seconds,
            sent,
            received,
            lost,
            loss_ratio: if sent == 0 { 0.0 } else { lost as f64 / sent as f64 },
            sent_pps: per_second(sent, seconds),
            received_pps: per_second(received, arriving.max(seconds)),
            received_wire_bps: per_second((bytes + received * WIRE_OVERHEAD) * 8, arriving.max(seconds)),
            requests: tally.requests.into(),
            replies: tally.replies.into(),
            connections: None,
            latency: tally.latency.summary(),
            faults: tally.faults.seen().collect(),
            examples: tally.faults.examples().to_vec(),
            resets: tally.resets,
            icmp: tally.icmp,
            arp: tally.arp,
            other: tally.other,
            warm_up_lost: 0,
            flows_repeat: false,
        }
    }

    /// A trial that could not be made.
    pub fn none() -> Self {
        Self::new(None, &Passed::default(), &Tally::default())
    }

    /// The same with what became of its connections.
    #[must_use]
    pub fn with_connections(mut self, counts: ConnectionCounts, passed: &Passed) -> Self {
        let seconds = passed.arriving_ns.max(passed.sending_ns) as f64 / 1e9;
        self.connections = Some(ConnectionReport {
            opened: counts.opened,
            established: counts.established,
            completed: counts.completed,
            failed: counts.failed,
            completed_per_s: per_second(counts.completed, seconds),
        });
        self
    }

    /// Packets with a fault.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Whether no more was lost than this part, and nothing was wrong with what came.
    pub fn is_within(&self, loss_ratio: f64) -> bool {
        self.loss_ratio <= loss_ratio && self.fault_count() == 0 && self.sent > 0
    }
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tag::Direction;

    fn trial(change: impl Fn(&mut Tally), missed: u64) -> Trial {
        let mut tally = Tally::default();
        for _ in 0..100 {
            tally.sent(Direction::Request, 60);
            tally.received(Direction::Request, 60);
        }
        change(&mut tally);
        let passed = Passed { generated: 100, missed, sending_ns: 1_000_000, arriving_ns: 2_000_000 };
        Trial::new(Some(5), &passed, &tally)
    }

    #[test]
    fn rates_and_loss_follow_from_counts_and_times() {
        let clean = trial(|_| (), 3);
        assert!(clean.clean && clean.is_within(0.0) && !clean.generator_limited);
        assert_eq!(
            (clean.rate_offered, clean.sent_pps, clean.received_pps),
            (100_000.0, 100_000.0, 50_000.0)
        );
        // 84 bytes of an Ethernet for a frame of 64.
        assert_eq!(clean.received_wire_bps, 50_000.0 * 84.0 * 8.0);
        let lossy = trial(|tally| tally.requests.received = 90, 4);
        assert!(!lossy.clean && lossy.is_within(0.1) && !lossy.is_within(0.09) && lossy.generator_limited);
        assert_eq!((lossy.lost, lossy.requests.lost), (10, 10));
        let reset = trial(|tally| tally.resets = 1, 0);
        assert!(!reset.clean);
    }

    #[test]
    fn nothing_sent_is_not_a_success() {
        let nothing = Trial::new(None, &Passed::default(), &Tally::default());
        assert!(!nothing.is_within(1.0));
        assert_eq!((nothing.loss_ratio, nothing.received_pps), (0.0, 0.0));
    }
}
