//! docs/pktgen.md names every fault, every key of a trial's JSON, and the files that come along.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use pktgen::fault::Fault;
use pktgen::trial::Trial;

const DOCUMENT: &str = include_str!("../../../docs/pktgen.md");

fn assert_named(name: &str) {
    assert!(DOCUMENT.contains(&format!("`{name}`")), "`{name}` is not in docs/pktgen.md");
}

#[test]
fn every_fault_and_every_key_is_there() {
    Fault::ALL.into_iter().for_each(|fault| assert_named(fault.name()));
    let trial = serde_json::to_value(Trial::none()).unwrap();
    for (key, value) in trial.as_object().unwrap() {
        assert_named(key);
        for inner in value.as_object().into_iter().flatten() {
            assert_named(inner.0);
        }
    }
    for file in ["overlay.toml", "two-cables.toml"] {
        assert_named(file);
    }
}

#[test]
fn every_key_of_the_configuration_is_there() {
    // The message about an unknown key lists those that are known.
    for section in
        ["traffic", "clients", "services", "expect", "rate", "trial", "search", "nat", "ports", "machine"]
    {
        let lists = matches!(section, "services" | "ports");
        let text =
            if lists { format!("[[{section}]]\nnone = 1\n") } else { format!("[{section}]\nnone = 1\n") };
        let error = pktgen::config::Configuration::parse(&text, &[]).unwrap_err().to_string();
        let keys: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert!(!keys.is_empty() && error.contains("unknown field `none`"), "{section}: {error}");
        for key in keys.into_iter().filter(|key| *key != "vxlan") {
            let named =
                [format!("`{key}`"), format!("`{section}.{key}`"), format!("`{key},"), format!(", {key}")];
            let found = named.iter().any(|name| DOCUMENT.contains(name.as_str()));
            assert!(
                found || DOCUMENT.contains(&format!("{key}`")),
                "{section}.{key} is not in docs/pktgen.md"
            );
        }
    }
}
