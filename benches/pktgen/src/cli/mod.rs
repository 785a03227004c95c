//! The command line.

mod run;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use toml::Value;

use crate::config::{Configuration, Setting};
use crate::gateway_config::{GatewayOptions, gateway_config};

/// Offers a gateway flows and connections, and checks every packet that comes back.
///
/// Exit status: 0 when the result is good, 1 when packets were lost or wrong or nothing was found, 2 when there is no
/// result.
#[derive(Parser)]
#[command(name = "pollgate-pktgen", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One trial: at a rate, or as fast as packets can be sent.
    Run(Common),
    /// Searches for the highest rate without loss (RFC 2544, section 26.1), or with the loss that is allowed.
    Search(Common),
    /// RFC 9693: the highest rate at which new connections are established.
    Establishment(Common),
    /// RFC 9693: how fast connections are torn down: by `nat.delete_command` all at once, without one TCP's one by one.
    TearDown(Common),
    /// RFC 9693: how many connections the gateway holds.
    Capacity(Common),
    /// Reads the configuration and says whether it can be used.
    Check(Common),
    /// Writes the Pollgate configuration for the other end of a tunnel.
    GatewayConfig(GatewayArguments),
}

#[derive(Args, Clone, Default)]
struct Common {
    /// The configuration file (docs/pktgen.md).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets a key of the file: `traffic.flows=1000`, `ports.0.device=net_tap0`. May be given often; the last one counts.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<Setting>,
    /// The device of the first port; given again, of the second.
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<String>,
    /// What is sent: udp, udp-new, tcp.
    #[arg(long)]
    kind: Option<String>,
    /// UDP flows.
    #[arg(long)]
    flows: Option<u32>,
    /// Lets backends answer each datagram.
    #[arg(long)]
    replies: bool,
    /// Frame size in bytes, check sequence included, or `imix`.
    #[arg(long)]
    sizes: Option<String>,
    /// Packets (TCP: connections) a second; 0: as fast as can be.
    #[arg(long, value_name = "RATE")]
    per_s: Option<u32>,
    /// How long is sent, in seconds.
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct GatewayArguments {
    #[command(flatten)]
    common: Common,
    /// The gateway's device: the other end of ours.
    #[arg(long, value_name = "DEVICE")]
    gateway_device: String,
    /// Flows that the gateway has room for; by default a quarter more than are offered.
    #[arg(long)]
    capacity: Option<u64>,
    /// The core of the gateway's worker.
    #[arg(long, default_value_t = 1)]
    gateway_core: usize,
    /// The core of its control thread.
    #[arg(long, default_value_t = 0)]
    gateway_control_core: usize,
    /// Where the gateway answers `pollgate show`.
    #[arg(long, value_name = "PATH")]
    gateway_socket: Option<String>,
    /// The gateway's memory: auto, huge or none.
    #[arg(long, default_value = "auto")]
    gateway_memory: String,
}

impl Common {
    /// All flags as settings of keys, those of `--set` last.
    fn configuration(&self) -> Result<Configuration, String> {
        let text = |text: &String| Value::String(text.clone());
        let mut settings = Vec::new();
        for (number, device) in self.devices.iter().enumerate() {
            settings.push(Setting::new(&format!("ports.{number}.device"), text(device)));
        }
        let size = |sizes: &String| sizes.parse().map_or_else(|_| text(sizes), Value::Integer);
        let given = [
            ("traffic.kind", self.kind.as_ref().map(text)),
            ("traffic.flows", self.flows.map(|flows| Value::Integer(flows.into()))),
            ("traffic.replies", self.replies.then_some(Value::Boolean(true))),
            ("traffic.sizes", self.sizes.as_ref().map(size)),
            ("rate.per_s", self.per_s.map(|rate| Value::Integer(rate.into()))),
            ("trial.duration_s", self.duration.map(Value::Float)),
        ];
        settings.extend(given.into_iter().filter_map(|(key, value)| Some(Setting::new(key, value?))));
        settings.extend(self.settings.iter().cloned());
        Configuration::load(self.config.as_deref(), &settings).map_err(|error| {
            let file = self.config.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default();
            format!("{file}{error}")
        })
    }
}

/// A trial for people to read.
pub fn trial_text(trial: &crate::trial::Trial) -> String {
    text::trial(trial)
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Command::Run(common) => run::run(common),
        Command::Search(common) => run::search(common),
        Command::Establishment(common) => run::establishment(common),
        Command::TearDown(common) => run::tear_down(common),
        Command::Capacity(common) => run::capacity(common),
        Command::Check(common) => check(common),
        Command::GatewayConfig(arguments) => write_gateway_config(arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pollgate-pktgen: {error}");
            ExitCode::from(2)
        }
    }
}

fn check(common: &Common) -> Result<bool, String> {
    let configuration = common.configuration()?;
    let wrong = |error: crate::config::ConfigError| error.to_string();
    let scenario = configuration.scenario().map_err(wrong)?;
    configuration.load_settings().map_err(wrong)?;
    configuration.trial_seconds().map_err(wrong)?;
    configuration.search_goal().map_err(wrong)?;
    configuration.nat_settings().map_err(wrong)?;
    configuration.capacity_goal().map_err(wrong)?;
    println!(
        "ok: {} ports, {} services, {} client endpoints",
        scenario.links.len(),
        scenario.plan.services().len(),
        scenario.plan.space()
    );
    Ok(true)
}

fn write_gateway_config(arguments: &GatewayArguments) -> Result<bool, String> {
    let configuration = arguments.common.configuration()?;
    let scenario = configuration.scenario().map_err(|error| error.to_string())?;
    let capacity = arguments.capacity.unwrap_or(u64::from(configuration.traffic.flows) * 5 / 4);
    let options = GatewayOptions {
        device: arguments.gateway_device.clone(),
        capacity: capacity.max(1_024),
        core: arguments.gateway_core,
        control_core: arguments.gateway_control_core,
        socket: arguments.gateway_socket.clone(),
        memory: arguments.gateway_memory.clone(),
    };
    let link = scenario.client_link();
    print!("{}", gateway_config(&configuration, link, &options).map_err(|error| error.to_string())?);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_are_keys_and_set_goes_last() {
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/overlay.toml");
        let line = [
            "pollgate-pktgen",
            "run",
            "--config",
            config,
            "--device",
            "loop",
            "--kind",
            "tcp",
            "--flows",
            "7",
            "--sizes",
            "imix",
            "--per-s",
            "5",
            "--duration",
            "0.5",
            "--set",
            "traffic.flows=9",
            "--replies",
        ];
        let Command::Run(common) = Arguments::try_parse_from(line).unwrap().command else { panic!() };
        let configuration = common.configuration().unwrap();
        assert_eq!((configuration.ports[0].device.as_str(), configuration.traffic.flows), ("loop", 9));
        assert_eq!((configuration.rate.per_s, configuration.trial.duration_s), (5, 0.5));
        assert!(configuration.traffic.replies);
        assert!(Arguments::try_parse_from(["pollgate-pktgen", "run", "--set", "x"]).is_err());
    }

    #[test]
    fn the_files_that_come_along_can_be_used() {
        for name in ["overlay.toml", "two-cables.toml"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name);
            let common = Common { config: Some(path), ..Common::default() };
            assert_eq!(check(&common), Ok(true));
        }
    }
}
