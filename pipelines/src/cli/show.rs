//! `pollgate show`

use core::net::Ipv4Addr;
use std::path::{Path, PathBuf};
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
    let socket = match socket(arguments.socket.as_deref(), arguments.config.as_deref()) {
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
        Err(error) => output::failure(&error.to_string()),
    }
}

/// Where to ask: at this socket, at the one that a configuration names, or at the usual one.
pub(super) fn socket(socket: Option<&Path>, config: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(socket) = socket {
        return Ok(socket.to_owned());
    }
    let Some(file) = config else { return Ok(DEFAULT_SOCKET.into()) };
    let loaded = config::load(file).map_err(|report| report.to_string())?;
    let socket = loaded.configuration.control.socket;
    socket.ok_or_else(|| format!("{} has no `[control] socket`, so nobody can be asked", file.display()))
}
