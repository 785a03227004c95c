//! `pollgate check`

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use pipelines::control::config::{self, Diagnostic};
use serde_json::json;

use super::output;

#[derive(Args)]
pub(super) struct CheckArguments {
    /// The configuration file (docs/configuration.md).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Also look at what only this machine can tell: cores, devices, hugepages, sockets.
    #[arg(long)]
    host: bool,
    /// Findings as JSON.
    #[arg(long)]
    json: bool,
}

/// Reports all findings. Success: no errors among them.
pub(super) fn check(arguments: &CheckArguments) -> ExitCode {
    let found = findings(arguments);
    let errors = found.iter().filter(|finding| finding.is_error()).count();
    let warnings = found.len() - errors;
    let file = arguments.config.display().to_string();
    let mut text = String::new();
    if arguments.json {
        let report = json!({ "file": file, "errors": errors, "warnings": warnings, "diagnostics": found });
        text = format!("{report}\n");
    } else {
        for finding in &found {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{finding}");
        }
        let verdict = if errors > 0 { "not usable" } else { "ok" };
        let count =
            |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
        let _ =
            writeln!(text, "{file}: {verdict} ({}, {})", count(errors, "error"), count(warnings, "warning"));
    }
    output::write(&text);
    if errors > 0 { ExitCode::from(output::FAILURE) } else { ExitCode::SUCCESS }
}

fn findings(arguments: &CheckArguments) -> Vec<Diagnostic> {
    let loaded = match config::load(&arguments.config) {
        Ok(loaded) => loaded,
        Err(report) => return report.diagnostics,
    };
    let mut found = loaded.warnings.clone();
    if arguments.host {
        found.extend(loaded.locate(config::run_requirements(&loaded.configuration)));
        found.extend(loaded.locate(config::host_check(&loaded.configuration)));
    }
    found
}
