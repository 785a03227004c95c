//! `pollgate check`

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use pipelines::control::config::{self, Diagnostic};
use pipelines::control::sources::Sources;
use serde_json::json;

use super::output;
use super::sources::SourceArguments;

#[derive(Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    sources: SourceArguments,
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
    let file = arguments.sources.title();
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
    let sources = match Sources::load(&arguments.sources.paths()) {
        Ok(sources) => sources,
        Err(report) => return report.diagnostics,
    };
    let mut found = sources.findings();
    if arguments.host {
        let Sources { loaded, .. } = &sources;
        found.extend(loaded.locate(config::run_requirements(&loaded.configuration)));
        found.extend(loaded.locate(config::host_check(&loaded.configuration)));
    }
    found
}
