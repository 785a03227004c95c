//! `pollgate trace`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use pipelines::control::config;
use pipelines::control::control_socket::{AskError, ask};
use pipelines::control::live_trace::TraceRequest;
use pipelines::control::sources::{SourcePaths, Sources};
use pipelines::trace::captured::{Asked, Captured};
use pipelines::trace::grammar::{PacketSpec, ParsePacketError};
use pipelines::trace::{Ingress, Question, TraceError, trace as run};
use tracing::warn;

use super::output;
use super::show::socket;

#[derive(Args)]
pub(super) struct TraceArguments {
    /// The configuration file (docs/configuration.md). With --live: its socket is asked.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A file or folder of Kubernetes objects, YAML or JSON (docs/kubernetes.md) [default: `[control] manifests`].
    #[arg(long, value_name = "PATH")]
    manifests: Option<PathBuf>,
    /// The name of the Node that the gateway stands for [default: `[node] name`].
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// In the gateway that runs, as it is now: with its tables, and what it has learned and tracks. It is only read.
    #[arg(long, conflicts_with_all = ["manifests", "node"])]
    live: bool,
    /// The gateway's control socket; /run/pollgate/control.sock when neither this nor --config is given.
    #[arg(long, value_name = "PATH", requires = "live", conflicts_with = "config")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    packet: PacketArguments,
    /// Which record of the capture, counted from one [default: the first IP packet].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    number: Option<u64>,
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

/// The packet, in one of three ways.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct PacketArguments {
    /// The packet: `tcp|udp|sctp A:p > B:p [flags S] [ttl N] [len N] [df]`, `icmp echo A > B [id N]`, `gre A > B`; IPv6 in
    /// brackets.
    #[arg(long, value_name = "PACKET")]
    packet: Option<String>,
    /// A packet from a capture, pcap or pcapng.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// An Ethernet frame or an IPv4 packet in hexadecimal; blanks, and the offsets of tcpdump or xxd, do not matter.
    #[arg(long, value_name = "BYTES")]
    hex: Option<String>,
}

/// Traces and prints. Success: there is a trace, whatever it says.
pub(super) fn trace(arguments: &TraceArguments) -> ExitCode {
    let question = match question(arguments) {
        Ok(question) => question,
        Err(reason) => return output::usage(&reason),
    };
    if arguments.live { live(arguments, &question) } else { afresh(arguments, &question) }
}

/// In a gateway that has just started.
fn afresh(arguments: &TraceArguments, question: &Question) -> ExitCode {
    let TraceArguments { config, manifests, node, .. } = arguments;
    let paths = SourcePaths { config: config.clone(), manifests: manifests.clone(), node: node.clone() };
    let sources = match Sources::load(&paths) {
        Ok(sources) => sources,
        Err(report) => return output::failure(&report.to_string()),
    };
    sources.findings().iter().for_each(|finding| warn!("{finding}"));
    let places = |key: &str| {
        let place = config::place_of(config.as_deref()?, key)?;
        Some(format!("{}:{}", place.file, place.line))
    };
    let trace = match run(&sources.configuration(), &sources.objects, &places, question) {
        Ok(trace) => trace,
        Err(TraceError::Ingress(reason)) => return output::usage(&reason),
        Err(error) => return output::failure(&error.to_string()),
    };
    print(if arguments.json { serde_json::to_string_pretty(&trace) } else { Ok(trace.to_string()) })
}

/// In one that runs.
fn live(arguments: &TraceArguments, question: &Question) -> ExitCode {
    let socket = match socket(arguments.socket.as_deref(), arguments.config.as_deref()) {
        Ok(socket) => socket,
        Err(reason) => return output::failure(&reason),
    };
    let reply = match ask(&socket, &TraceRequest::new(question, !arguments.json)) {
        Ok(reply) => reply,
        Err(AskError::Question(reason)) => return output::usage(&reason),
        Err(error) => return output::failure(&error.to_string()),
    };
    print(match reply.get("text").and_then(serde_json::Value::as_str) {
        Some(text) => Ok(text.to_owned()),
        None => serde_json::to_string_pretty(&reply),
    })
}

fn print(text: serde_json::Result<String>) -> ExitCode {
    match text {
        Ok(text) => output::write(&(text.trim_end().to_owned() + "\n")),
        Err(error) => return output::failure(&format!("the trace cannot be written: {error}")),
    }
    ExitCode::SUCCESS
}

fn question(arguments: &TraceArguments) -> Result<Question, String> {
    let packet = packet(&arguments.packet, arguments.number)?;
    let port = arguments.port.clone().map(Ingress::Port);
    let via = arguments.via.as_deref().map(str::parse::<Ingress>).transpose();
    let ingress = via.map_err(|reason| format!("--via: {reason}"))?.or(port);
    Ok(Question { packet, ingress, seed: arguments.seed })
}

fn packet(arguments: &PacketArguments, number: Option<u64>) -> Result<Asked, String> {
    if let Some(file) = &arguments.pcap {
        let (captured, missing) =
            Captured::from_file(file, number).map_err(|error| format!("--pcap: {error}"))?;
        if missing > 0 {
            warn!("the capture did not keep the packet's last {missing} bytes: they are taken as zeros");
        }
        return Ok(captured.into());
    }
    if number.is_some() {
        return Err("--number N is a record's of a capture: give it with --pcap FILE".to_owned());
    }
    if let Some(bytes) = &arguments.hex {
        return Ok(Captured::from_hex(bytes).map_err(|error| format!("--hex: {error}"))?.into());
    }
    let text = arguments.packet.as_deref().unwrap_or_default();
    let packet: PacketSpec = text.parse().map_err(|error| point(text, &error))?;
    Ok(packet.into())
}

/// The packet's text under the message, with a mark where it is wrong.
fn point(text: &str, error: &ParsePacketError) -> String {
    let is_one_line = !text.chars().any(char::is_control);
    let mark = format!("\n  {text}\n  {:>column$}", "^", column = error.column);
    format!("{error}{}", if is_one_line { mark } else { String::new() })
}
