//! `pollgate replay`

use std::process::ExitCode;

use clap::Args;
use pipelines::replay::{PortFile, ReplayError, ReplayOptions, ReplayReport, replay as run};
use tracing::warn;

use super::output;
use super::sources::SourceArguments;

#[derive(Args)]
pub(super) struct ReplayArguments {
    #[command(flatten)]
    sources: SourceArguments,
    /// What came in by a port: its name, or `host`, and a pcap or pcapng file. Several are merged by time.
    #[arg(long = "in", value_name = "PORT=FILE", required = true)]
    inputs: Vec<PortFile>,
    /// Where to write what leaves by a port, as pcap. A port without is counted alone.
    #[arg(long = "out", value_name = "PORT=FILE")]
    outputs: Vec<PortFile>,
    /// Decides all that is random. The same seed gives the same bytes.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Answer none of the gateway's ARP requests: next hops are what the captures announce.
    #[arg(long)]
    no_resolve_neighbours: bool,
    /// The counters as JSON.
    #[arg(long)]
    json: bool,
}

/// Replays and prints all counters. Success: every packet is accounted for and every buffer came back.
pub(super) fn replay(arguments: ReplayArguments) -> ExitCode {
    let options = ReplayOptions {
        sources: arguments.sources.paths(),
        inputs: arguments.inputs,
        outputs: arguments.outputs,
        seed: arguments.seed,
        resolve_neighbours: !arguments.no_resolve_neighbours,
    };
    let report = match run(&options) {
        Ok(report) => report,
        Err(ReplayError::Options(reason)) => return output::usage(&reason),
        Err(error) => return output::failure(&error.to_string()),
    };
    report.warnings.iter().for_each(|warning| warn!("{warning}"));
    let text = if arguments.json { json(&report) } else { Ok(report.to_string()) };
    match text {
        Ok(text) => output::write(&text),
        Err(error) => return output::failure(&format!("the counters cannot be written: {error}")),
    }
    let is_clean = report.report.accounting.balanced && report.replay.buffers_lost == 0;
    if is_clean { ExitCode::SUCCESS } else { ExitCode::from(output::FAILURE) }
}

fn json(report: &ReplayReport) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(report)? + "\n")
}
