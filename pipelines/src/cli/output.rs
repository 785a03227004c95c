//! What is written to standard output and error, and the exit status that goes with it.

use std::io::{self, Write};
use std::process::ExitCode;

/// Something is wrong, and said.
pub(super) const FAILURE: u8 = 1;
/// The command line was wrong; what clap uses too.
const USAGE: u8 = 2;

/// Writes to standard output. Whoever reads may stop early (`pollgate show conntrack | head`).
pub(super) fn write(text: &str) {
    let mut output = io::stdout().lock();
    // There is nobody left to tell when the reader has gone.
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// Says what failed.
pub(super) fn failure(reason: &str) -> ExitCode {
    // Standard error may be closed too.
    let _ = writeln!(io::stderr().lock(), "pollgate: {reason}");
    ExitCode::from(FAILURE)
}

/// Says what is wrong with the command line.
pub(super) fn usage(reason: &str) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "pollgate: {reason}\nFor more information, try '--help'.");
    ExitCode::from(USAGE)
}
