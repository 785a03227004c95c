//! The configuration file: read as a whole, checked as a whole, and only then handed on.
//!
//! The text is parsed into a tree that knows where each value stands (`source`), read key by key into a draft
//! (`reader`, `values`, `sections`, `draft`), and the draft's parts are checked against each other (`relations`).
//! Everything found on the way is reported at once (`notes`, `diagnostic`). What only a running gateway needs is asked
//! apart: devices for every port (`run`), and what the machine has (`host`).
//!
//! **Invariant:** a [`Configuration`] that [`load`] or [`parse`] returns has no error in it. Errors in the TOML itself
//! are reported alone, since nothing behind them can be trusted.

pub mod diagnostic;
mod draft;
mod host;
mod memory;
pub mod model;
mod notes;
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
            return Err(refuse(format!("the file has {} bytes", metadata.len()), "256 MiB are read at the most"));
        }
        Ok(metadata) if metadata.is_dir() => {
            return Err(refuse("this is a folder".into(), "name the file"));
        }
        _ => {}
    }
    let bytes = std::fs::read(path)
        .map_err(|error| refuse(format!("the file cannot be read: {error}"), "check its name and permissions"))?;
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
            configuration,
            warnings: diagnostics,
            places: source::offsets(root).into_iter().map(|(key, at)| (key, source.place(at))).collect(),
            file: file_name.to_owned(),
        }),
        None => Err(Report { diagnostics }),
    }
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
            None if error.message().contains("duplicate key") => {
                (error.message().to_owned(), "keep one; what can be there several times has double brackets".into())
            }
            None => (error.message().to_owned(), "write it as TOML has it (https://toml.io)".to_owned()),
        };
        diagnostics.push(Diagnostic { place: Some(place), ..Diagnostic::error("", wrong, right) });
    }
    diagnostics.sort_by(|one, other| one.place.cmp(&other.place));
    diagnostics
}
