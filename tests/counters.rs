//! docs/counters.md knows every counter and every drop reason, and no other.
#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]

use std::collections::BTreeSet;
use std::path::Path;

use engine::counters::Account;
use engine::worker::{ENGINE_REASONS, PORT_COUNTERS, describe_reason};
use pipelines::drop_reason::CATALOGUE;
use pipelines::gateway::Gauge;
use pipelines::report::Traffic;

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/counters.md");
    std::fs::read_to_string(path).expect("docs/counters.md is there")
}

/// The cells of the rows of all tables in a section, without their code marks. The heading's row and rule are left out.
fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let section =
        document.split("\n## ").find(|section| section.starts_with(heading)).expect("the section is there");
    let is_row = |line: &&str| line.starts_with("| `");
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches(['|', ' ']).split(" | ").map(|cell| cell.trim_matches('`').to_owned()).collect()
    };
    section.lines().filter(is_row).map(cells).collect()
}

#[test]
fn every_drop_reason_is_documented_as_the_code_has_it() {
    let own = CATALOGUE.iter().map(|(_, stage, name, meaning)| (*stage, *name, *meaning));
    let engine = (0..ENGINE_REASONS).map(describe_reason).filter(|(_, name, _)| *name != "reserved");
    let expected: Vec<Vec<String>> = own
        .chain(engine)
        .map(|(stage, name, meaning)| vec![stage.to_owned(), name.to_owned(), meaning.to_owned()])
        .collect();
    assert!(expected.len() > 50);
    assert_eq!(rows(&document(), "Drop reasons"), expected);
}

#[test]
fn every_term_of_the_equation_is_documented() {
    let document = document();
    let names: Vec<String> =
        rows(&document, "Every packet").into_iter().map(|mut row| row.swap_remove(0)).collect();
    assert_eq!(names, Account::ALL.map(|(_, name)| name));
    let (come, gone) = Account::ALL.split_at(4);
    let sum = |terms: &[(Account, &str)]| terms.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(" + ");
    let equation = format!("\n{} = {}\n", sum(come), sum(gone));
    assert!(document.contains(&equation), "{equation}");
}

#[test]
fn every_counter_of_the_report_is_documented() {
    let traffic = serde_json::to_value(Traffic::default()).expect("traffic can be written");
    let traffic = traffic.as_object().expect("traffic is an object").keys().cloned();
    let own = ["turns", "busy_turns", "packets", "sleeps", "refused"].into_iter();
    let others = Gauge::ALL.iter().map(|(_, name)| *name).chain(PORT_COUNTERS);
    let expected: BTreeSet<String> = own.chain(others).map(str::to_owned).chain(traffic).collect();
    let documented: BTreeSet<String> =
        rows(&document(), "The report").into_iter().map(|mut row| row.swap_remove(0)).collect();
    assert_eq!(documented, expected);
}
