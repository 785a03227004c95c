//! Logs: to standard error, in colour on a terminal.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Starts logging at a level, or as a list of `module=level` says.
pub(super) fn start(filter: &str) -> Result<(), ParseError> {
    let filter: EnvFilter = filter.parse()?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}
