//! Counts the instructions that each kind of packet, stage and table operation costs, and compares them with the
//! baseline that is kept beside the code: figures that are the same on a busy machine and on an idle one.
//!
//! The program runs itself under valgrind's callgrind, which counts only inside [`meter::counted_region`]; there one turn
//! of a worker handles 32 packets on ports in memory, with virtual time and fixed seeds.
//!
//! **Invariant:** every counted packet must have ended as its kind says (left, was answered, handed over or dropped); a
//! count of something else fails.

mod baseline;
mod callgrind;
mod kinds;
mod meter;
mod report;

// What tests and timed benchmarks use: the reference cluster on ports in memory, and loads through the tunnel.
#[path = "../../support/mod.rs"]
#[allow(
    clippy::duplicate_mod,
    reason = "each of the two has the packets module as its own, as it has elsewhere"
)]
mod loads;
#[path = "../../../tests/support/mod.rs"]
#[allow(clippy::duplicate_mod, reason = "as above")]
mod support;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use baseline::{Baseline, Note};
use report::Verdict;

/// Counts instructions by kind of packet under valgrind, and compares them with a baseline.
///
/// Exit status: 0 when no kind costs over 5 % more than its baseline says; 1 when one does, or allocates, or is missing on
/// one side; 2 when nothing could be counted.
#[derive(Parser)]
#[command(name = "pollgate-instructions", max_term_width = 110)]
struct Arguments {
    /// The baseline file.
    #[arg(long, value_name = "FILE", default_value = "benches/instructions.toml")]
    baseline: PathBuf,
    /// An earlier version of it: rises between the two need a note as well. Repeatable.
    #[arg(long, value_name = "FILE")]
    previous: Vec<PathBuf>,
    /// Writes what was counted to the baseline file; rises of over 5 % need a --note each.
    #[arg(long)]
    update: bool,
    /// Why a kind costs more now; `all` speaks for each that does and has no note of its own. Repeatable.
    #[arg(long = "note", value_name = "KIND: WHY", requires = "update")]
    notes: Vec<Note>,
    /// What compiled this, for the baseline file.
    #[arg(long, value_name = "VERSION", default_value = "unknown")]
    compiler: String,
    /// Runs all kinds and counts nothing by itself: what runs under valgrind.
    #[arg(long, hide = true)]
    measure: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.measure {
        kinds::run_all();
        return ExitCode::SUCCESS;
    }
    match compare(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pollgate-instructions: {error}");
            ExitCode::from(2)
        }
    }
}

/// Counts, prints, and writes the baseline if that is asked for. Whether all is as it should be.
fn compare(arguments: &Arguments) -> Result<bool, Box<dyn std::error::Error>> {
    let counts = callgrind::count()?;
    let before = match Baseline::read(&arguments.baseline) {
        Err(error) if arguments.update && error.is_missing() => Baseline::default(),
        read => read?,
    };
    if before.compiler != arguments.compiler && !before.kinds.is_empty() {
        println!("baseline: compiled by {:?}, this: by {:?}", before.compiler, arguments.compiler);
    }
    let verdict = Verdict::of(&counts, &before);
    print!("{}", report::table(&counts, &before));
    if arguments.update {
        let after = before.updated(&counts, &arguments.compiler, &arguments.notes)?;
        after.write(&arguments.baseline)?;
        println!("written: {}", arguments.baseline.display());
        return Ok(true);
    }
    let mut complaints = verdict.complaints;
    for previous in &arguments.previous {
        let unexplained = before.unexplained_since(&Baseline::read(previous)?);
        if !unexplained.is_empty() {
            complaints.extend(unexplained);
            // Older versions would say the same again.
            break;
        }
    }
    complaints.iter().for_each(|complaint| println!("FAILED: {complaint}"));
    verdict.remarks.iter().for_each(|remark| println!("{remark}"));
    Ok(complaints.is_empty())
}
