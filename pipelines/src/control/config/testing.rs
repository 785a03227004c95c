//! For tests: the reference cluster's file with something in it broken.

use super::{Configuration, Diagnostic, Loaded, parse};

/// `configs/reference-cluster.toml`.
pub(crate) const REFERENCE: &str = include_str!("../../../../configs/reference-cluster.toml");

pub(crate) fn parsed(text: &str) -> Configuration {
    match parse(text, "test.toml") {
        Ok(Loaded { configuration, .. }) => configuration,
        Err(report) => panic!("{report}"),
    }
}

/// All findings, errors or warnings.
pub(crate) fn findings(text: &str) -> Vec<Diagnostic> {
    match parse(text, "test.toml") {
        Ok(loaded) => loaded.warnings,
        Err(report) => report.diagnostics,
    }
}

/// The reference with replacements, each at the first place that has its text.
pub(crate) fn changed(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(REFERENCE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the reference has no {from:?}");
        text.replacen(from, to, 1)
    })
}

/// Asserts what is found in `text`: for each finding its severity, the text that it points at, its key, and a part of
/// what it says.
#[track_caller]
pub(crate) fn expect(text: &str, expected: &[(&str, &str, &str, &str)]) {
    let found = findings(text);
    let lines: Vec<&str> = text.split('\n').collect();
    let shown =
        found.iter().map(|finding| format!("{} [{}]", finding, finding.key)).collect::<Vec<_>>().join("\n");
    assert_eq!(found.len(), expected.len(), "findings:\n{shown}");
    for (finding, (severity, at, key, said)) in found.iter().zip(expected) {
        let place = finding.place.as_ref().expect("findings in a file have places");
        let rest: String = lines[place.line - 1].chars().skip(place.column - 1).collect();
        assert!(rest.starts_with(at), "points at {rest:?}, not {at:?}:\n{shown}");
        assert_eq!(finding.key, *key, "{shown}");
        let line = finding.to_string();
        assert!(line.contains(&format!(": {severity}: ")), "is no {severity}:\n{shown}");
        assert!(line.contains(said), "does not say {said:?}:\n{shown}");
    }
}

/// One change of the reference, one finding.
#[track_caller]
pub(crate) fn expect_one(from: &str, to: &str, expected: (&str, &str, &str, &str)) {
    expect(&changed(&[(from, to)]), &[expected]);
}

/// One change of a key's value, one error at that value.
#[track_caller]
pub(crate) fn expect_at_value(from: &str, key: &str, value: &str, path: &str, said: &str) {
    expect_one(from, &format!("{key} = {value}"), ("error", value, path, said));
}
