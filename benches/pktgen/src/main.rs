//! The `pollgate-pktgen` binary: arguments in, exit status out. What it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    pktgen::cli::main()
}
