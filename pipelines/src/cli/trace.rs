//! `pollgate trace`

use std::process::ExitCode;

use clap::Args;
use pipelines::control::config;
use pipelines::control::sources::Sources;
use pipelines::trace::grammar::{PacketSpec, ParsePacketError};
use pipelines::trace::{Ingress, Question, TraceError, trace as run};
use tracing::warn;

use super::output;
use super::sources::SourceArguments;

#[derive(Args)]
pub(super) struct TraceArguments {
    #[command(flatten)]
    sources: SourceArguments,
    /// The packet: `tcp|udp|sctp A:p > B:p [flags S] [ttl N] [len N] [df]`, `icmp echo A > B [id N]`, `gre A > B`.
    #[arg(long, value_name = "PACKET")]
    packet: String,
    /// The port that it comes in by, or `host` [default: by the way that answers to it would take].
    #[arg(long = "in", value_name = "PORT", conflicts_with = "via")]
    port: Option<String>,
    /// It comes through the tunnel, with this VNI and from this node: 1@192.168.0.22.
    #[arg(long, value_name = "VNI@REMOTE")]
    via: Option<String>,
    /// The trace as JSON (docs/trace.md).
    #[arg(long)]
    json: bool,
    /// Decides which backend and port are drawn.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Traces and prints. Success: there is a trace, whatever it says.
pub(super) fn trace(arguments: &TraceArguments) -> ExitCode {
    let question = match question(arguments) {
        Ok(question) => question,
        Err(reason) => return output::usage(&reason),
    };
    let sources = match Sources::load(&arguments.sources.paths()) {
        Ok(sources) => sources,
        Err(report) => return output::failure(&report.to_string()),
    };
    sources.findings().iter().for_each(|finding| warn!("{finding}"));
    let places = |key: &str| {
        let place = config::place_of(arguments.sources.config.as_deref()?, key)?;
        Some(format!("{}:{}", place.file, place.line))
    };
    let trace = match run(&sources.configuration(), &sources.objects, &places, &question) {
        Ok(trace) => trace,
        Err(TraceError::Ingress(reason)) => return output::usage(&reason),
        Err(error) => return output::failure(&error.to_string()),
    };
    let text = if arguments.json { serde_json::to_string_pretty(&trace) } else { Ok(trace.to_string()) };
    match text {
        Ok(text) => output::write(&(text.trim_end().to_owned() + "\n")),
        Err(error) => return output::failure(&format!("the trace cannot be written: {error}")),
    }
    ExitCode::SUCCESS
}

fn question(arguments: &TraceArguments) -> Result<Question, String> {
    let packet: PacketSpec = arguments.packet.parse().map_err(|error| point(&arguments.packet, &error))?;
    let port = arguments.port.clone().map(Ingress::Port);
    let via = arguments.via.as_deref().map(str::parse::<Ingress>).transpose();
    let ingress = via.map_err(|reason| format!("--via: {reason}"))?.or(port);
    Ok(Question { packet, ingress, seed: arguments.seed })
}

/// The packet's text under the message, with a mark where it is wrong.
fn point(text: &str, error: &ParsePacketError) -> String {
    let is_one_line = !text.chars().any(char::is_control);
    let mark = format!("\n  {text}\n  {:>column$}", "^", column = error.column);
    format!("{error}{}", if is_one_line { mark } else { String::new() })
}
