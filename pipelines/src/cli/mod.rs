//! The command line.

mod check;
mod logging;
mod output;
mod replay;
mod run;
mod show;
mod sources;
mod trace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sources::SourceArguments;

/// A kernel-bypass gateway for Kubernetes overlay networks.
#[derive(Parser)]
#[command(name = "pollgate", version, max_term_width = 110)]
struct Arguments {
    /// What is logged to standard error: error, warn, info, debug, trace, or by module (`info,pipelines::control=debug`).
    #[arg(long, global = true, env = "POLLGATE_LOG", default_value = "info", value_name = "LEVEL")]
    log_level: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the gateway until SIGTERM or SIGINT; SIGHUP reads the configuration again.
    Run(SourceArguments),
    /// Finds everything that is wrong with a configuration, and changes nothing.
    ///
    /// Exit status: 0 without errors (warnings may be there), 1 with errors, 2 for a wrong command line.
    Check(check::CheckArguments),
    /// Runs capture files through the gateway that a configuration describes; needs no root and no devices.
    Replay(replay::ReplayArguments),
    /// Says what becomes of a packet that might come, and which table entry decides at every step.
    ///
    /// Needs no running gateway, no root and no devices. Exit status: 0 with a trace, 1 for a configuration with errors, 2
    /// for a packet or arguments that do not parse.
    Trace(trace::TraceArguments),
    /// Asks a running gateway what it knows.
    Show(show::ShowArguments),
}

/// Reads the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = logging::start(&arguments.log_level) {
        return output::usage(&format!("--log-level {}: {error}", arguments.log_level));
    }
    match arguments.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Replay(arguments) => replay::replay(arguments),
        Command::Trace(arguments) => trace::trace(&arguments),
        Command::Show(arguments) => show::show(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Arguments::command().debug_assert();
    }
}
