//! What is found wrong while one object is read.

use core::fmt::Display;

use crate::control::config::Severity;
use crate::control::kubernetes::limits;

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control::kubernetes) struct Note {
    /// Error: the object is refused.
    pub(in crate::control::kubernetes) severity: Severity,
    /// Path of the field, as in `spec.ports[1].port` or `metadata.annotations[pollgate.io/weight]`.
    pub(in crate::control::kubernetes) path: String,
    /// What is wrong.
    pub(in crate::control::kubernetes) wrong: String,
    /// What would be right.
    pub(in crate::control::kubernetes) right: String,
}

/// All that is wrong with an object, up to a bound.
#[derive(Debug, Default)]
pub(in crate::control::kubernetes) struct Notes {
    noted: Vec<Note>,
    refused: bool,
}

impl Notes {
    /// The object cannot be used because of this.
    pub(in crate::control::kubernetes) fn error(
        &mut self,
        path: impl Display,
        wrong: impl Into<String>,
        right: impl Into<String>,
    ) {
        self.refused = true;
        self.add(Severity::Error, &path, wrong.into(), right.into());
    }

    /// The object is used, without this part of it.
    pub(in crate::control::kubernetes) fn warning(
        &mut self,
        path: impl Display,
        wrong: impl Into<String>,
        right: impl Into<String>,
    ) {
        self.add(Severity::Warning, &path, wrong.into(), right.into());
    }

    fn add(&mut self, severity: Severity, path: &dyn Display, wrong: String, right: String) {
        if self.noted.len() < limits::NOTES {
            self.noted.push(Note { severity, path: path.to_string(), wrong, right });
        }
    }

    /// Whether an error was noted.
    pub(in crate::control::kubernetes) fn is_refused(&self) -> bool {
        self.refused
    }

    /// What was noted, in the order in which it was found.
    pub(in crate::control::kubernetes) fn into_vec(self) -> Vec<Note> {
        self.noted
    }
}

/// A value as messages show it: in backquotes, and harmless.
pub(in crate::control::kubernetes) fn shown(text: &str) -> String {
    format!("`{}`", harmless(text, 60))
}

/// Text out of a manifest as messages may have it: on one line, cut where it gets long, and with nothing in it that a
/// terminal would obey.
pub(in crate::control::kubernetes) fn harmless(text: &str, characters: usize) -> String {
    let mut shown = String::new();
    for character in text.chars().take(characters) {
        // Quotes and backslashes are as good as they are.
        if character.is_ascii_graphic() || character == ' ' {
            shown.push(character);
        } else {
            shown.extend(character.escape_debug());
        }
    }
    if text.chars().nth(characters).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_short_and_harmless() {
        assert_eq!(shown("10.0.0.1"), "`10.0.0.1`");
        assert_eq!(shown("a\x1b[31m\nb"), "`a\\u{1b}[31m\\nb`");
        assert_eq!(shown(&"ü".repeat(61)), format!("`{}...`", "ü".repeat(60)));
    }

    #[test]
    fn notes_have_a_bound() {
        let mut notes = Notes::default();
        for number in 0..2 * limits::NOTES {
            notes.warning(number, "w", "r");
        }
        assert!(!notes.is_refused());
        notes.error("last", "w", "r");
        assert!(notes.is_refused(), "also when the note itself has no place any more");
        assert_eq!(notes.into_vec().len(), limits::NOTES);
    }
}
