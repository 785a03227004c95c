//! Every file under configs/ is right, and docs/configuration.md knows every key.

use std::path::{Path, PathBuf};

use pipelines::control::config;
use pipelines::control::sources::{SourcePaths, Sources};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_configuration_has_neither_errors_nor_warnings() {
    let mut checked = Vec::new();
    for entry in std::fs::read_dir(root().join("configs")).expect("there is a folder configs") {
        let path = entry.expect("the folder can be read").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        match config::load(&path) {
            Ok(loaded) => {
                assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
                let needs = config::run_requirements(&loaded.configuration);
                assert!(needs.is_empty(), "{}: {needs:?}", path.display());
                // With all that it names: manifests, and what they and the configuration say together.
                let sources = Sources::load(&SourcePaths::of_config(&path)).unwrap_or_else(|r| panic!("{r}"));
                assert!(sources.findings().is_empty(), "{:?}", sources.findings());
            }
            Err(report) => panic!("{report}"),
        }
        checked.push(path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default());
    }
    checked.sort();
    for expected in [
        "dedicated-gateway.toml",
        "reference-cluster.toml",
        "reference-cluster-kubernetes.toml",
        "service-balancer.toml",
    ] {
        assert!(checked.iter().any(|name| name == expected), "{expected} is not among {checked:?}");
    }
}

fn documentation() -> std::io::Result<String> {
    std::fs::read_to_string(root().join("docs/configuration.md"))
}

/// The documentation as sections: the table's name in each heading such as "## `[[service.ports]]`", and the text.
fn documented(documentation: &str) -> Vec<(String, String)> {
    documentation
        .split("\n## ")
        .map(|section| {
            let heading = section.lines().next().unwrap_or_default();
            let table = heading.split('`').nth(1).unwrap_or_default();
            (table.trim_matches(['[', ']']).to_owned(), section.to_owned())
        })
        .collect()
}

#[test]
fn every_key_is_documented_in_its_section() {
    let sections = documented(&documentation().expect("docs/configuration.md is there"));
    let keys = config::keys();
    assert!(keys.len() > 80, "{keys:?}");
    let tables: Vec<&String> =
        keys.iter().filter(|key| keys.iter().any(|other| other.starts_with(&format!("{key}.")))).collect();
    for key in &keys {
        if tables.contains(&key) {
            assert!(sections.iter().any(|(table, _)| table == key), "no heading for the table `{key}`");
            continue;
        }
        let (table, name) = key.rsplit_once('.').expect("every plain key is in a table");
        let row = format!("| `{name}` |");
        assert!(
            sections.iter().any(|(documented, text)| documented == table && text.contains(&row)),
            "`{name}` is not in the section of `{table}`"
        );
    }
}

#[test]
fn no_key_is_documented_that_does_not_exist() {
    let documentation = documentation().expect("docs/configuration.md is there");
    let keys = config::keys();
    for (table, text) in documented(&documentation).iter().filter(|(table, _)| !table.is_empty()) {
        assert!(keys.contains(table), "there is no table `{table}`");
        for line in text.lines().filter(|line| line.starts_with("| `")) {
            let name = line.split('`').nth(1).unwrap_or_default();
            assert!(keys.contains(&format!("{table}.{name}")), "there is no key `{name}` in `{table}`");
        }
    }
}

/// The examples in the documentation make one configuration together.
#[test]
fn every_example_in_the_documentation_is_right() {
    let text = documentation().expect("docs/configuration.md is there");
    let examples: Vec<&str> =
        text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());
    let whole = examples.concat();
    match config::parse(&whole, "docs/configuration.md, all examples") {
        Ok(loaded) => assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings),
        Err(report) => panic!("{report}\n{whole}"),
    }
}
