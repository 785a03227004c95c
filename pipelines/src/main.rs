//! The `pollgate` binary: arguments in, exit status out. What it does is in the library.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
