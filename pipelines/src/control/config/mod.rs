//! The configuration file: read as a whole, checked as a whole, and only then handed on.
//!
//! The text is parsed into a tree that knows where each value stands (`source`), read key by key into a draft
//! (`reader`, `readable`, `values`, `sections`, `draft`), and the draft's parts are checked against each other (`relations`).
//! Everything found on the way is reported at once (`notes`, `diagnostic`). What only a running gateway needs is asked
//! apart: devices for every port (`run`), and what the machine has (`host`).
//!
//! **Invariant:** a [`Configuration`] that [`load`] or [`parse`] returns has no error in it. Errors in the TOML itself
//! are reported alone, since nothing behind them can be trusted.

mod diagnostic;
mod draft;
mod host;
mod memory;
pub mod model;
mod notes;
mod readable;
mod reader;
mod relations;
mod restart;
mod run;
mod sections;
mod source;
mod values;

#[cfg(test)]
mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::de::DeTable;

pub use diagnostic::{Diagnostic, Place, Report, Severity};
pub use host::host_check;
pub use memory::{buffers_needed, hugepage_bytes_needed};
pub use model::Configuration;
pub(crate) use readable::closest;
pub use restart::restart_needed;
pub use run::run_requirements;

use notes::Notes;
use reader::Reader;
use source::Source;

/// The largest file that is read: room for some hundred thousand backends.
const FILE_SIZE_LIMIT: u64 = 256 << 20;

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the file says.
    pub configuration: Configuration,
    /// What in it is probably not what was meant.
    pub warnings: Vec<Diagnostic>,
    /// Where each key stands, services left out.
    places: BTreeMap<String, Place>,
    file: String,
}

impl Loaded {
    /// Adds places in the file to findings that know their keys alone, as [`run_requirements`] and [`host_check`]
    /// return them: that of the key, or of the nearest thing around it.
    pub fn locate(&self, mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
        // Of no file: the command line alone says what there is.
        if self.file.is_empty() {
            return diagnostics;
        }
        for diagnostic in diagnostics.iter_mut().filter(|diagnostic| diagnostic.place.is_none()) {
            let mut key = diagnostic.key.as_str();
            let place = loop {
                match (self.places.get(key), key.rfind(['.', '['])) {
                    (Some(place), _) => break place.clone(),
                    (None, Some(end)) => key = key.get(..end).unwrap_or_default(),
                    (None, None) => break Place { file: self.file.clone(), line: 1, column: 1 },
                }
            };
            diagnostic.place = Some(place);
        }
        diagnostics
    }
}

/// Reads and checks a file.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    let file = path.display().to_string();
    let refuse = |wrong: String, right: &str| {
        let place = Some(Place { file: file.clone(), line: 1, column: 1 });
        Report { diagnostics: vec![Diagnostic { place, ..Diagnostic::error("", wrong, right) }] }
    };
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > FILE_SIZE_LIMIT => {
            return Err(refuse(
                format!("the file has {} bytes", metadata.len()),
                "256 MiB are read at the most",
            ));
        }
        Ok(metadata) if metadata.is_dir() => {
            return Err(refuse("this is a folder".into(), "name the file"));
        }
        _ => {}
    }
    let bytes = std::fs::read(path).map_err(|error| {
        refuse(format!("the file cannot be read: {error}"), "check its name and permissions")
    })?;
    match core::str::from_utf8(&bytes) {
        Ok(text) => parse(text, &file),
        Err(error) => {
            let (valid, _) = bytes.split_at(error.valid_up_to());
            let before = String::from_utf8_lossy(valid);
            let place = Some(Source::new(&file, &before).place(before.len()));
            let error = Diagnostic::error("", "the text is not UTF-8 here", "save the file as UTF-8");
            Err(Report { diagnostics: vec![Diagnostic { place, ..error }] })
        }
    }
}

/// Where a key stands in a file, those of services too; reads it again. None: the file or the key is not there any more.
pub fn place_of(path: &Path, key: &str) -> Option<Place> {
    let text = std::fs::read_to_string(path).ok()?;
    let (tree, _) = DeTable::parse_recoverable(&text);
    let offset = source::offset_of(tree.get_ref(), key)?;
    Some(Source::new(&path.display().to_string(), &text).place(offset))
}

/// Checks a configuration's text; `file_name` is what findings call it.
pub fn parse(text: &str, file_name: &str) -> Result<Loaded, Report> {
    let source = Source::new(file_name, text);
    let (tree, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(Report { diagnostics: syntax_errors(&source, &errors) });
    }
    let root = tree.get_ref();
    let notes = Notes::default();
    let mut draft = Reader::file(&notes, root, sections::read);
    relations::check(&mut draft, &notes);
    let diagnostics = notes.into_diagnostics(&source, root);
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(Report { diagnostics });
    }
    match draft.finish() {
        Some(configuration) => Ok(Loaded {
            configuration: with_path(configuration, file_name),
            warnings: diagnostics,
            places: source::offsets(root).into_iter().map(|(key, at)| (key, source.place(at))).collect(),
            file: file_name.to_owned(),
        }),
        None => Err(Report { diagnostics }),
    }
}

/// Paths are relative to the configuration's own folder.
fn with_path(mut configuration: Configuration, file_name: &str) -> Configuration {
    if let (Some(manifests), Some(folder)) =
        (&mut configuration.control.manifests, Path::new(file_name).parent())
    {
        *manifests = folder.join(&manifests);
    }
    configuration
}

/// Every key that a file can have, as in `service.ports.backends.weight`.
pub fn keys() -> BTreeSet<String> {
    Reader::keys(sections::read)
}

/// The parser goes on behind an error as well as it can. One finding for each line is what a person can use.
fn syntax_errors(source: &Source<'_>, errors: &[toml::de::Error]) -> Vec<Diagnostic> {
    let mut lines = BTreeSet::new();
    let mut diagnostics: Vec<Diagnostic> = Vec::new();
    for error in errors {
        let place = source.place(error.span().map_or(0, |span| span.start));
        if !lines.insert(place.line) {
            continue;
        }
        let (wrong, right) = match error.message().split_once(", expected ") {
            Some((wrong, expected)) => (wrong.to_owned(), format!("TOML wants {expected} here")),
            None if error.message().contains("duplicate key") => (
                error.message().to_owned(),
                "keep one; what can be there several times has double brackets".into(),
            ),
            None => (error.message().to_owned(), "write it as TOML has it (https://toml.io)".to_owned()),
        };
        diagnostics.push(Diagnostic { place: Some(place), ..Diagnostic::error("", wrong, right) });
    }
    diagnostics.sort_by(|one, other| one.place.cmp(&other.place));
    diagnostics
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::testing::{REFERENCE, changed, expect, findings, parsed};
    use super::*;

    #[test]
    fn the_reference_reads_as_it_is_written() {
        let configuration = parsed(REFERENCE);
        assert_eq!(findings(REFERENCE), []);
        assert_eq!(configuration.ports.len(), 6);
        assert_eq!(configuration.ports[0].prefix, "192.168.0.0/24".parse().ok());
        assert_eq!(configuration.routes[1].interface, model::InterfaceName::Overlay);
        assert_eq!(configuration.routes[2].interface, model::InterfaceName::Underlay(0));
        assert_eq!(
            configuration.overlay_fdb[0].remote,
            "192.168.0.22".parse::<core::net::Ipv4Addr>().unwrap()
        );
        assert_eq!(configuration.services.len(), 6);
        let weights = |service: usize| -> Vec<u16> {
            configuration.services[service].ports[0].backends.iter().map(|backend| backend.weight).collect()
        };
        assert_eq!(weights(0), [1, 1, 1], "the default");
        assert!(weights(3).is_empty());
        assert_eq!(configuration.services[4].ports[1].node_port, Some(31_522));
    }

    #[test]
    fn everything_wrong_is_found_at_once_in_the_files_order() {
        let text = changed(&[
            ("memory = \"none\"", "memory = 3"),
            ("mtu = 1500", "mut = 1500"),
            ("via = \"192.168.0.1\"", "via = \"192.168.5.1\""),
            ("pod_cidrs = [\"172.30.76.0/24\"]", "pod_cidrs = [\"172.30.0.0/16\"]"),
            ("node_port = 30799", "node_port = 40000"),
            ("address = \"192.168.0.103:3306\"", "address = \"192.168.0.103\""),
        ]);
        expect(
            &text,
            &[
                ("error", "3", "dpdk.memory", "write \"auto\", \"huge\" or \"none\""),
                ("error", "mut", "ports[0].mut", "did you mean `mtu`?"),
                ("error", "\"192.168.5.1\"", "routes[2].via", "is not on the network of `eth0`"),
                ("warning", "\"172.30.0.0/16\"", "services.pod_cidrs[0]", "routed to other VTEPs"),
                ("error", "40000", "service[4].ports[0].node_port", "is inside `snat_port_range`"),
                ("error", "\"192.168.0.103\"", "service[5].ports[0].backends[0].address", "with no port"),
            ],
        );
    }

    #[test]
    fn findings_read_as_compilers_write_them() {
        let text = changed(&[("mtu = 1500", "mut = 1500")]);
        assert_eq!(
            findings(&text)[0].to_string(),
            "test.toml:29:1: error: unknown key `mut` in this `[[ports]]`; did you mean `mtu`?"
        );
    }

    #[test]
    fn errors_of_syntax_have_places_too() {
        let found = findings("[node]\nname = \n\n[bridge\naddress = 1\n");
        let lines: Vec<usize> =
            found.iter().filter_map(|finding| Some(finding.place.as_ref()?.line)).collect();
        assert_eq!(lines, [2, 4], "{found:?}");
        let found = findings("[node]\nname = \"a\"\nname = \"b\"\n");
        assert_eq!(
            found[0].to_string(),
            "test.toml:3:1: error: duplicate key; keep one; what can be there several times has double brackets"
        );
    }

    #[test]
    fn nesting_is_bounded() {
        for text in ["a = ".to_owned() + &"[".repeat(50_000), "a = ".to_owned() + &"{a=".repeat(50_000)] {
            check_any(&text);
        }
        check_any(&format!("[{}a]\n", "a.".repeat(50_000)));
    }

    #[test]
    fn node_and_services_alone_are_a_configuration() {
        let services = REFERENCE.find("[services]").unwrap();
        let text = format!("[node]\naddresses = [\"192.168.0.21\"]\n{}", &REFERENCE[services..]);
        expect(&text, &[]);
        assert_eq!(parsed(&text).services, parsed(REFERENCE).services);
    }

    #[test]
    fn files_that_cannot_be_read_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        let error = |path: &Path| load(path).unwrap_err().to_string();
        assert!(error(&file).contains("a.toml:1:1: error: the file cannot be read: No such file"));
        assert!(error(folder.path()).contains("this is a folder; name the file"));
        std::fs::File::create(&file).unwrap().write_all(b"# \xc3\xbc\n# \xff\n").unwrap();
        assert!(error(&file).contains("a.toml:2:3: error: the text is not UTF-8 here"), "{}", error(&file));
        std::fs::write(&file, REFERENCE).unwrap();
        assert_eq!(load(&file).unwrap().configuration, parsed(REFERENCE));
    }

    #[test]
    fn places_are_added_to_what_is_found_later() {
        let loaded = parse(REFERENCE, "f").unwrap();
        let keys = ["ports[1].device", "control.cores[0]", "bridge.nothing", "nothing", ""];
        let found = keys.iter().map(|key| Diagnostic::error(*key, "w", "r")).collect();
        let places: Vec<String> = loaded.locate(found).iter().map(Diagnostic::to_string).collect();
        let line = |text: &str| REFERENCE[..REFERENCE.find(text).unwrap()].matches('\n').count() + 1;
        assert_eq!(places[0], format!("f:{}:10: error: w; r", line("device = \"net_tap1")));
        assert_eq!(places[1], format!("f:{}:10: error: w; r", line("cores = [0]")));
        assert_eq!(places[2], format!("f:{}:1: error: w; r", line("[bridge]")));
        assert_eq!(places[3..], ["f:1:1: error: w; r", "f:1:1: error: w; r"]);
    }

    /// A refused text has an error with a place inside it; an accepted one has none.
    fn check_any(text: &str) {
        match parse(text, "f") {
            Ok(loaded) => assert!(!loaded.warnings.iter().any(Diagnostic::is_error)),
            Err(report) => {
                assert!(report.diagnostics.iter().any(Diagnostic::is_error));
                for diagnostic in &report.diagnostics {
                    let place = diagnostic.place.as_ref().unwrap();
                    assert!(place.line >= 1 && place.line <= text.matches('\n').count() + 1);
                    assert!(place.column >= 1);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            check_any(&text);
        }

        #[test]
        fn any_lines_of_known_keys_are_read_or_refused(
            lines in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..40)
        ) {
            let keys: Vec<String> = keys().into_iter().collect();
            let values = ["1", "-7", "\"10.0.0.1\"", "\"10.0.0.1/24\"", "\"eth0\"", "[]", "{}", "[{}]", "[1]", "\"1-2\"", "true", "1.5", "\"02:00:00:00:00:01\"", "\"pod\"", "\"underlay\"", "1979-05-27"];
            let mut text = String::new();
            for (key, value) in lines {
                let key = key.get(&keys);
                let line = match value.index(values.len() + 2) {
                    0 => format!("[{key}]\n"),
                    1 => format!("[[{key}]]\n"),
                    place => format!("{} = {}\n", key.rsplit('.').next().unwrap_or(key), values[place - 2]),
                };
                text.push_str(&line);
            }
            check_any(&text);
        }

        #[test]
        fn a_damaged_reference_is_read_or_refused(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..6),
            length in any::<prop::sample::Index>(),
        ) {
            let mut text: Vec<char> = REFERENCE.chars().collect();
            for (place, character) in damage {
                let place = place.index(text.len());
                text[place] = character;
            }
            text.truncate(length.index(2 * text.len()).max(1));
            check_any(&text.into_iter().collect::<String>());
        }
    }
}
