//! What is to be said of a replay beside the gateway's own counters.

use core::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::control::config::Diagnostic;
use crate::report::{Report, aligned};

/// A capture that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InputFacts {
    /// The port it came in by.
    pub port: String,
    /// The file.
    pub file: PathBuf,
    /// Records in it.
    pub records: u64,
    /// Of those, the ones that the capture kept only the beginning of.
    pub truncated: u64,
}

/// A capture that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutputFacts {
    /// The port that it left by.
    pub port: String,
    /// The file.
    pub file: PathBuf,
    /// Packets in it.
    pub packets: u64,
}

/// What happened beside what the gateway counts: records = injected + truncated + oversized + own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReplayFacts {
    /// Decided all that was random.
    pub seed: u64,
    /// Records read.
    pub records: u64,
    /// Of those, frames that the gateway received.
    pub injected: u64,
    /// Left out: the capture kept only the frame's beginning.
    pub truncated: u64,
    /// Left out: longer than a packet buffer.
    pub oversized: u64,
    /// Left out: sent by the gateway itself, by their source MAC.
    pub own: u64,
    /// Records that stood behind a later one in their file; they came in at the later one's time.
    pub reordered: u64,
    /// ARP requests of the gateway's that were answered for the captures' stations or for made-up ones. The gateway
    /// received the answers too: received + handed_in = injected + neighbour_answers.
    pub neighbour_answers: u64,
    /// Time of the first record, in nanoseconds since 1970 (UTC); none without records.
    pub start_ns: Option<u64>,
    /// Time from the first record to the last, in nanoseconds.
    pub duration_ns: u64,
    /// Packet buffers that did not come back: not zero is a defect.
    pub buffers_lost: u64,
    /// Captures read.
    pub inputs: Vec<InputFacts>,
    /// Captures written.
    pub outputs: Vec<OutputFacts>,
}

/// The report of a replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplayReport {
    /// The gateway's counters.
    #[serde(flatten)]
    pub report: Report,
    /// The replay's own.
    pub replay: ReplayFacts,
    /// What is probably not meant in the configuration.
    pub warnings: Vec<Diagnostic>,
}

impl fmt::Display for ReplayFacts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.duration_ns / 1_000_000;
        writeln!(
            formatter,
            "Replay: {} records in {}.{:03} s of captured time, seed {}",
            self.records,
            milliseconds / 1_000,
            milliseconds % 1_000,
            self.seed
        )?;
        for (count, text) in [
            (self.injected, "came in"),
            (self.own, "left out: sent by the gateway itself"),
            (self.truncated, "left out: only the frame's beginning was captured"),
            (self.oversized, "left out: longer than a packet buffer"),
            (self.reordered, "came in later than captured: their file is not in the order of time"),
            (self.neighbour_answers, "ARP requests of the gateway were answered for stations"),
            (self.buffers_lost, "packet buffers were lost: a defect, please report it"),
        ] {
            if count > 0 {
                writeln!(formatter, "  {count} {text}")?;
            }
        }
        let read = self.inputs.iter().map(|input| ("read", &input.port, &input.file, input.records));
        let written =
            self.outputs.iter().map(|output| ("written", &output.port, &output.file, output.packets));
        let rows: Vec<Vec<String>> = read
            .chain(written)
            .map(|(verb, port, file, count)| {
                vec![verb.to_owned(), port.clone(), count.to_string(), file.display().to_string()]
            })
            .collect();
        aligned(&["", "port", "packets", "file"], &rows)
            .lines()
            .try_for_each(|line| writeln!(formatter, "  {line}"))
    }
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}\n{}", self.replay, self.report)
    }
}
