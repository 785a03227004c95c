//! The baseline: what each kind cost when somebody last said so, and why it rose.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::callgrind::Count;

/// Rises beyond this part need a word.
pub(crate) const TOLERANCE: f64 = 0.05;

const HEAD: &str = "\
# Instructions that each kind of packet costs, as `scripts/bench-instructions.sh` counts them under callgrind.
# Written by `scripts/bench-instructions.sh --update`; docs/benchmarks.md tells what the kinds are and how to read this.
# A kind that costs over 5 % more than here fails the checks; to accept it: --update --note \"KIND: why\".
# Notes are kept, oldest first; each names the kind, what it cost before and after, and why.

";

/// Why the baseline is not as it should be.
#[derive(Debug, Error)]
pub(crate) enum BaselineError {
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}", path = path.display())]
    Syntax { path: PathBuf, source: toml::de::Error },
    #[error("cannot be written as TOML: {0}")]
    Write(#[from] toml::ser::Error),
    #[error("{kind} rose from {before} to {after:.0}: say why with --note \"{kind}: WHY\"")]
    NoteMissing { kind: String, before: u64, after: f64 },
    #[error("--note names {0:?}, which is no kind that was counted")]
    NoteUnknown(String),
}

impl BaselineError {
    /// Whether there is no such file.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// In place of a kind's name in a note: each kind that has risen and has no note of its own.
const ALL: &str = "all";

/// `KIND: why`, from the command line.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    kind: String,
    why: String,
}

impl FromStr for Note {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(": ") {
            Some((kind, why)) if !why.trim().is_empty() => {
                Ok(Self { kind: kind.trim().to_owned(), why: why.trim().to_owned() })
            }
            _ => Err("wanted: the kind's name, a colon, and why it costs more".to_owned()),
        }
    }
}

/// The file.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Baseline {
    /// What compiled the program that was counted.
    pub(crate) compiler: String,
    /// Whole instructions for each operation, by kind.
    pub(crate) kinds: BTreeMap<String, u64>,
    /// Reasons for rises, by kind, oldest first.
    #[serde(default)]
    pub(crate) notes: BTreeMap<String, Vec<String>>,
}

impl Baseline {
    pub(crate) fn read(path: &Path) -> Result<Self, BaselineError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| BaselineError::File { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| BaselineError::Syntax { path: path.to_owned(), source })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), BaselineError> {
        let text = format!("{HEAD}{}", toml::to_string(self)?);
        std::fs::write(path, text).map_err(|source| BaselineError::File { path: path.to_owned(), source })
    }

    /// What the file says after these counts. Every rise needs a note; those of kinds that are gone go too.
    pub(crate) fn updated(
        &self,
        counts: &[Count],
        compiler: &str,
        notes: &[Note],
    ) -> Result<Self, BaselineError> {
        let mut after = Self { compiler: compiler.to_owned(), ..Self::default() };
        for count in counts {
            after.kinds.insert(count.kind.clone(), count.instructions.round() as u64);
            if let Some(lines) = self.notes.get(&count.kind) {
                after.notes.insert(count.kind.clone(), lines.clone());
            }
        }
        for note in notes.iter().filter(|note| note.kind != ALL) {
            let Some(now) = after.kinds.get(&note.kind) else {
                return Err(BaselineError::NoteUnknown(note.kind.clone()));
            };
            let line = match self.kinds.get(&note.kind) {
                Some(before) => format!("{before} to {now}: {}", note.why),
                None => format!("{now}: {}", note.why),
            };
            after.notes.entry(note.kind.clone()).or_default().push(line);
        }
        let for_all = notes.iter().find(|note| note.kind == ALL);
        for count in counts {
            let Some(&before) = self.kinds.get(&count.kind) else { continue };
            let has_note = notes.iter().any(|note| note.kind == count.kind);
            if !has_risen(before, count.instructions) || has_note {
                continue;
            }
            let kind = count.kind.clone();
            let Some(note) = for_all else {
                return Err(BaselineError::NoteMissing { kind, before, after: count.instructions });
            };
            let line = format!("{before} to {:.0}: {}", count.instructions, note.why);
            after.notes.entry(kind).or_default().push(line);
        }
        Ok(after)
    }

    /// Rises since an earlier version of the file that nobody has given a reason for: somebody wrote it by hand.
    pub(crate) fn unexplained_since(&self, previous: &Self) -> Vec<String> {
        let notes = |baseline: &Self, kind: &str| baseline.notes.get(kind).map_or(0, Vec::len);
        self.kinds
            .iter()
            .filter_map(|(kind, &now)| {
                let &before = previous.kinds.get(kind)?;
                (has_risen(before, now as f64) && notes(self, kind) <= notes(previous, kind)).then(|| {
                    format!("{kind}: the baseline itself rose from {before} to {now}, and no note was added")
                })
            })
            .collect()
    }
}

/// Whether this is more than the tolerance above the baseline.
pub(crate) fn has_risen(before: u64, after: f64) -> bool {
    after > before as f64 * (1.0 + TOLERANCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(kind: &str, instructions: f64) -> Count {
        Count { kind: kind.to_owned(), instructions, allocations: 0 }
    }

    fn baseline(kinds: &[(&str, u64)]) -> Baseline {
        let kinds = kinds.iter().map(|&(kind, value)| (kind.to_owned(), value)).collect();
        Baseline { compiler: "rustc".to_owned(), kinds, notes: BTreeMap::new() }
    }

    fn note(text: &str) -> Note {
        text.parse().unwrap()
    }

    #[test]
    fn a_rise_is_written_with_a_note_only() {
        let before = baseline(&[("dnat", 100), ("arp", 50)]);
        let counts = [count("dnat", 106.0), count("arp", 52.0)];
        let refused = before.updated(&counts, "rustc", &[]);
        assert!(matches!(refused, Err(BaselineError::NoteMissing { kind, .. }) if kind == "dnat"));
        let refused = before.updated(&counts, "rustc", &[note("nat: x")]);
        assert!(matches!(refused, Err(BaselineError::NoteUnknown(kind)) if kind == "nat"));
        let after = before.updated(&counts, "rustc 2", &[note("dnat: counts more")]).unwrap();
        assert_eq!(after.notes["dnat"], ["100 to 106: counts more"]);
        assert_eq!((after.kinds["dnat"], after.kinds["arp"], after.compiler.as_str()), (106, 52, "rustc 2"));
        assert_eq!(after.unexplained_since(&before), Vec::<String>::new());
        let after = before.updated(&counts, "rustc 2", &[note("all: another compiler")]).unwrap();
        assert_eq!(after.notes["dnat"], ["100 to 106: another compiler"]);
        assert!(!after.notes.contains_key("arp"), "it is within the tolerance");
    }

    #[test]
    fn what_is_written_can_be_read_and_notes_of_lost_kinds_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("baseline.toml");
        assert!(Baseline::read(&path).unwrap_err().is_missing());
        let mut before = baseline(&[("established, DNAT", 100), ("gone", 7)]);
        before.notes.insert("gone".to_owned(), vec!["6 to 7: it was".to_owned()]);
        let counts = [count("established, DNAT", 99.6)];
        let after = before.updated(&counts, "rustc", &[note("established, DNAT: for fun")]).unwrap();
        after.write(&path).unwrap();
        let read = Baseline::read(&path).unwrap();
        assert_eq!(read, after);
        assert_eq!(read.notes.len(), 1);
        std::fs::write(&path, "compiler = 1").unwrap();
        assert!(Baseline::read(&path).is_err());
    }

    #[test]
    fn a_rise_by_hand_is_seen() {
        let (before, mut after) = (baseline(&[("dnat", 100), ("arp", 50)]), baseline(&[("dnat", 120)]));
        assert_eq!(after.unexplained_since(&before).len(), 1);
        after.notes.insert("dnat".to_owned(), vec!["100 to 120: counts more".to_owned()]);
        assert!(after.unexplained_since(&before).is_empty());
    }

    #[test]
    fn notes_need_a_reason() {
        assert!("dnat".parse::<Note>().is_err() && "dnat: ".parse::<Note>().is_err());
        assert_eq!(note("a, b: why: because").why, "why: because");
    }
}
