//! `pollgate show`

use core::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use pipelines::control::config;
use pipelines::control::control_socket::ask;
use pipelines::control::show::{Filter, Request, What};

use super::output;

/// Where a gateway answers when nothing else is said: what configs/ have.
const DEFAULT_SOCKET: &str = "/run/pollgate/control.sock";

#[derive(Args)]
pub(super) struct ShowArguments {
    /// What to show.
    what: What,
    /// The gateway's control socket; /run/pollgate/control.sock when neither this nor --config is given.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Ask at the socket that this configuration names.
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// The reply as JSON.
    #[arg(long)]
    json: bool,
    /// conntrack: flows of this protocol (tcp, udp, icmp, sctp, or a number).
    #[arg(long)]
    protocol: Option<String>,
    /// conntrack: flows with this address at either end, before or after translation.
    #[arg(long)]
    address: Option<Ipv4Addr>,
    /// conntrack: flows with this port at either end, before or after translation.
    #[arg(long)]
    port: Option<u16>,
    /// conntrack, services, backends: of this service (name, namespace/name or namespace/name:port).
    #[arg(long)]
    service: Option<String>,
    /// Rows at the most [default for conntrack: 1000].
    #[arg(long)]
    limit: Option<usize>,
    /// drops: also the reasons that nothing was dropped for.
    #[arg(long)]
    all: bool,
}

/// Asks and prints.
pub(super) fn show(arguments: &ShowArguments) -> ExitCode {
    let filter = Filter {
        protocol: arguments.protocol.clone(),
        address: arguments.address,
        port: arguments.port,
        service: arguments.service.clone(),
        limit: arguments.limit,
        all: arguments.all,
    };
    if let Some(name) = filter.superfluous(arguments.what) {
        return output::usage(&format!("--{name} means nothing for this: see `pollgate show --help`"));
    }
    let socket = match socket(arguments) {
        Ok(socket) => socket,
        Err(reason) => return output::failure(&reason),
    };
    let request = Request { show: arguments.what, filter, text: !arguments.json };
    match ask(&socket, &request) {
        Ok(reply) => {
            match reply.get("text").and_then(serde_json::Value::as_str) {
                Some(text) => output::write(text),
                None => output::write(&format!("{reply}\n")),
            }
            ExitCode::SUCCESS
        }
        Err(reason) => output::failure(&reason),
    }
}

fn socket(arguments: &ShowArguments) -> Result<PathBuf, String> {
    if let Some(socket) = &arguments.socket {
        return Ok(socket.clone());
    }
    let Some(file) = &arguments.config else { return Ok(DEFAULT_SOCKET.into()) };
    let loaded = config::load(file).map_err(|report| report.to_string())?;
    let socket = loaded.configuration.control.socket;
    socket.ok_or_else(|| format!("{} has no `[control] socket`, so nobody can be asked", file.display()))
}
