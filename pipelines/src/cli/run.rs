//! `pollgate run`

use std::process::ExitCode;

use super::output;
use super::sources::SourceArguments;

/// Runs the gateway to its end. Success: every packet is accounted for and every buffer came back.
#[cfg(feature = "dpdk")]
pub(super) fn run(arguments: &SourceArguments) -> ExitCode {
    let outcome = match pipelines::control::runtime::run(&arguments.paths()) {
        Ok(outcome) => outcome,
        Err(pipelines::control::runtime::RunError::Refused(report)) => {
            return output::failure(&format!("{} cannot be run:\n{report}", arguments.title()));
        }
        Err(error) => return output::failure(&error.to_string()),
    };
    let accounting = if outcome.is_balanced {
        "balanced"
    } else {
        "NOT BALANCED: packets were lost without a name, which is a defect; please report it with the counters above"
    };
    output::write(&format!(
        "{}\naccounting: {accounting}\nbuffers in flight: {}\n",
        outcome.summary, outcome.buffers_in_flight
    ));
    if outcome.lost_threads > 0 {
        return output::failure(&format!("{} threads had met a defect", outcome.lost_threads));
    }
    let is_clean = outcome.is_balanced && outcome.buffers_in_flight == 0;
    if is_clean { ExitCode::SUCCESS } else { ExitCode::from(output::FAILURE) }
}

/// Says that there is nothing to run on.
#[cfg(not(feature = "dpdk"))]
pub(super) fn run(_arguments: &SourceArguments) -> ExitCode {
    output::failure(
        "this build has no devices: it was made without the feature `dpdk`. Build it with `cargo build --release` on \
         a machine with DPDK 22.11 or later (Debian: libdpdk-dev). `check` and `replay` need no devices",
    )
}
