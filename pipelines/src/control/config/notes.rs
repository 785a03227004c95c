//! What has been found so far, while a file is read and checked.

use core::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeTable;

use super::diagnostic::{Diagnostic, Severity};
use super::source::{self, Source};

/// A value and where it begins in the file. A default stands where its table begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) offset: usize,
}

impl<T> At<T> {
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> At<U> {
        At { value: change(self.value), offset: self.offset }
    }
}

struct Note {
    severity: Severity,
    offset: usize,
    /// None: the key whose value begins at `offset`.
    key: Option<String>,
    wrong: String,
    right: String,
}

/// Collects findings from readers and checks; nothing stops at the first.
#[derive(Default)]
pub(crate) struct Notes {
    notes: RefCell<Vec<Note>>,
}

impl Notes {
    /// Something at the value that begins at `offset` makes the configuration unusable.
    pub(crate) fn error(&self, offset: usize, wrong: impl Into<String>, right: impl Into<String>) {
        self.add(Severity::Error, offset, None, wrong.into(), right.into());
    }

    /// As [`Self::error`], at a key that is known: one that is missing, or that could not be read.
    pub(crate) fn error_at_key(&self, offset: usize, key: String, wrong: String, right: String) {
        self.add(Severity::Error, offset, Some(key), wrong, right);
    }

    /// The value that begins at `offset` probably does not do what was meant.
    pub(crate) fn warning(&self, offset: usize, wrong: impl Into<String>, right: impl Into<String>) {
        self.add(Severity::Warning, offset, None, wrong.into(), right.into());
    }

    /// Whether everything under these top-level keys could be read. Checks that find something missing ask this
    /// first: what could not be read has been reported already, and its absence is no second finding.
    pub(crate) fn all_read(&self, sections: &[&str]) -> bool {
        !self.notes.borrow().iter().filter_map(|note| note.key.as_deref()).any(|key| {
            let section = key.split(['.', '[']).next().unwrap_or(key);
            sections.contains(&section)
        })
    }

    /// Whether nothing was found that may hide what a table of these sections is called or is for: another key's fault
    /// hides neither.
    pub(crate) fn names_read(&self, sections: &[&str]) -> bool {
        !self.notes.borrow().iter().filter_map(|note| note.key.as_deref()).any(|key| {
            let section = key.split(['.', '[']).next().unwrap_or(key);
            let hides = match key.rsplit_once('.') {
                Some((_, last)) => matches!(last, "name" | "role"),
                None => true,
            };
            sections.contains(&section) && hides
        })
    }

    fn add(&self, severity: Severity, offset: usize, key: Option<String>, wrong: String, right: String) {
        self.notes.borrow_mut().push(Note { severity, offset, key, wrong, right });
    }

    /// The findings in the file's order, each with its place and key.
    pub(crate) fn into_diagnostics(self, source: &Source<'_>, root: &DeTable<'_>) -> Vec<Diagnostic> {
        let mut notes = self.notes.into_inner();
        notes.sort_by_key(|note| (note.offset, note.severity));
        let unnamed: BTreeSet<usize> =
            notes.iter().filter(|note| note.key.is_none()).map(|note| note.offset).collect();
        let paths = if unnamed.is_empty() { BTreeMap::new() } else { source::paths_at(root, &unnamed) };
        notes
            .into_iter()
            .map(|note| Diagnostic {
                severity: note.severity,
                place: Some(source.place(note.offset)),
                key: note.key.or_else(|| paths.get(&note.offset).cloned()).unwrap_or_default(),
                wrong: note.wrong,
                right: note.right,
            })
            .collect()
    }
}
