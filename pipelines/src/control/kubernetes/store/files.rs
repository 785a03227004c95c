//! What one file says, from one version of it to the next.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use super::{ObjectStore, Source, Standing, Written};
use crate::control::config::{Place, Severity};
use crate::control::kubernetes::changes::Changes;
use crate::control::kubernetes::finding::Finding;
use crate::control::kubernetes::limits;
use crate::control::kubernetes::meaning::Content;
use crate::control::kubernetes::meaning::notes::Note;
use crate::control::kubernetes::object::ObjectId;
use crate::control::kubernetes::text::{self, Piece, PieceReading, Spot};

/// What is known of a file.
#[derive(Debug, Default)]
pub(super) struct FileState {
    /// Its pieces by length and hash, so that only new ones are read.
    pieces: HashMap<(usize, u64), Arc<PieceReading>>,
    /// Objects of which it has said a good version, the last one of each.
    held: HashMap<ObjectId, Standing>,
    pub(super) findings: Vec<Finding>,
    pub(super) rejected: usize,
    pub(super) skipped: usize,
}

/// What a new version of a file says.
#[derive(Default)]
struct News {
    pieces: HashMap<(usize, u64), Arc<PieceReading>>,
    objects: HashMap<ObjectId, (Spot, Option<Arc<Content>>)>,
    findings: Vec<Finding>,
    /// Findings that have no place any more.
    further: usize,
    is_broken: bool,
    rejected: usize,
    skipped: usize,
}

impl ObjectStore {
    pub(super) fn change_file(&mut self, file: &Arc<str>, bytes: Option<&[u8]>, changes: &mut Changes) {
        let Some(bytes) = bytes else {
            let Some(state) = self.files.remove(file) else { return };
            changes.findings |= !state.findings.is_empty() || state.rejected > 0;
            for id in state.held.keys() {
                self.claim(id, Source::File(Arc::clone(file)), None, changes);
            }
            return;
        };
        if bytes.len() > limits::FILE_BYTES {
            let wrong = format!("this file has {} MiB", bytes.len() >> 20);
            let right = format!("split it into files of {} MiB at the most", limits::FILE_BYTES >> 20);
            return self.refuse(file, Spot::default(), &wrong, &right, changes);
        }
        match str::from_utf8(bytes) {
            Ok(text) => self.change_text(file, text, changes),
            Err(error) => {
                let before = bytes.get(..error.valid_up_to()).and_then(|bytes| str::from_utf8(bytes).ok());
                let spot = text::end_of(before.unwrap_or_default());
                self.refuse(file, spot, "this is no UTF-8", "write the file in UTF-8", changes);
            }
        }
    }

    /// Keeps all that a file said.
    pub(super) fn refuse(
        &mut self,
        file: &Arc<str>,
        spot: Spot,
        wrong: &str,
        right: &str,
        changes: &mut Changes,
    ) {
        let note = Note {
            severity: Severity::Error,
            path: String::new(),
            wrong: wrong.to_owned(),
            right: right.to_owned(),
        };
        let findings = vec![Finding::of_file(file, spot, None, note)];
        let state = self.files.entry(Arc::clone(file)).or_default();
        changes.findings |= state.findings != findings;
        state.findings = findings;
        // What its pieces said that were wrong is not known any more.
        state.pieces.clear();
    }

    fn change_text(&mut self, file: &Arc<str>, text: &str, changes: &mut Changes) {
        let mut before = self.files.remove(file).unwrap_or_default();
        let news = self.news(file, text, &before);
        let source = Source::File(Arc::clone(file));
        let mut held = HashMap::with_capacity(news.objects.len());
        for (id, (spot, content)) in news.objects {
            let known = before.held.remove(&id);
            let Some(content) = content else {
                held.extend(known.map(|standing| (id, standing)));
                continue;
            };
            let standing =
                Standing { content, written: Written { source: Arc::clone(file), spot: Some(spot) } };
            if known.as_ref() != Some(&standing) {
                self.claim(&id, source.clone(), Some(standing.clone()), changes);
            }
            held.insert(id, standing);
        }
        if news.is_broken {
            held.extend(before.held.drain());
        }
        for id in before.held.keys() {
            self.claim(id, source.clone(), None, changes);
        }
        changes.findings |= before.findings != news.findings || before.rejected != news.rejected;
        let News { pieces, findings, rejected, skipped, .. } = news;
        self.files.insert(Arc::clone(file), FileState { pieces, held, findings, rejected, skipped });
    }

    fn news(&mut self, file: &Arc<str>, text: &str, before: &FileState) -> News {
        let mut news = News::default();
        let (pieces, unreadable) = text::split(file, text);
        for piece in &pieces {
            let key = (piece.text.len(), self.hasher.hash_one((piece.text, &piece.form)));
            let known = news.pieces.get(&key).or_else(|| before.pieces.get(&key)).map(Arc::clone);
            let reading = known.unwrap_or_else(|| {
                let reading = text::read(piece);
                let refused = reading.objects.iter().filter(|object| object.content.is_none()).count();
                self.rejected_total += (refused + reading.nameless) as u64;
                Arc::new(reading)
            });
            self.take(file, piece, &reading, before, &mut news);
            news.pieces.insert(key, reading);
        }
        if let Some(unreadable) = unreadable {
            news.is_broken = true;
            let wrong = format!("this is no JSON: {}", unreadable.wrong);
            let right = "correct the syntax".to_owned();
            let note = Note { severity: Severity::Error, path: String::new(), wrong, right };
            news.find(file, unreadable.spot, None, note);
        }
        if news.further > 0 {
            let wrong = format!("{} more findings in this file are not told", news.further);
            let right = "mend those that are".to_owned();
            let note = Note { severity: Severity::Warning, path: String::new(), wrong, right };
            news.findings.push(Finding::of_file(file, text::end_of(text), None, note));
        }
        news
    }

    /// What a piece says, at the place where it stands.
    fn take(
        &self,
        file: &Arc<str>,
        piece: &Piece<'_>,
        reading: &PieceReading,
        before: &FileState,
        news: &mut News,
    ) {
        news.is_broken |= reading.is_broken;
        news.skipped += reading.skipped;
        news.rejected += reading.nameless;
        for (spot, note) in &reading.notes {
            news.find(file, piece.start.with(*spot), None, note.clone());
        }
        for object in &reading.objects {
            let spot = piece.start.with(object.spot);
            for (inner, note) in &object.notes {
                news.find(file, piece.start.with(*inner), Some(&object.id), note.clone());
            }
            news.rejected += usize::from(object.content.is_none());
            let error = |wrong, right: &str| Note {
                severity: Severity::Error,
                path: String::new(),
                wrong,
                right: right.to_owned(),
            };
            // A version that is refused leaves its place to a good one behind it.
            if let Some((first, _)) = news
                .objects
                .get(&object.id)
                .filter(|(_, content)| content.is_some() || object.content.is_none())
            {
                let wrong = format!(
                    "it is written in line {} already, and that counts",
                    first.line.saturating_add(1)
                );
                news.find(file, spot, Some(&object.id), error(wrong, "leave one of them out"));
                news.rejected += usize::from(object.content.is_some());
                continue;
            }
            let is_new = !before.held.contains_key(&object.id) && !self.claims.contains_key(&object.id);
            if is_new && self.claims.len() + news.objects.len() >= limits::OBJECTS {
                let wrong = format!("there are more than {} objects", limits::OBJECTS);
                news.find(file, spot, Some(&object.id), error(wrong, "remove some"));
                news.rejected += usize::from(object.content.is_some());
                continue;
            }
            news.objects.insert(object.id.clone(), (spot, object.content.clone()));
        }
    }
}

impl News {
    fn find(&mut self, file: &Arc<str>, spot: Spot, object: Option<&ObjectId>, note: Note) {
        if self.findings.len() < limits::FINDINGS {
            self.findings.push(Finding::of_file(file, spot, object, note));
        } else {
            self.further += 1;
        }
    }
}

impl Finding {
    /// A note on something in a file.
    pub(super) fn of_file(file: &str, spot: Spot, object: Option<&ObjectId>, note: Note) -> Self {
        let place =
            Place { file: file.to_owned(), line: spot.line as usize + 1, column: spot.column as usize + 1 };
        let Note { severity, path, wrong, right } = note;
        Self { severity, place: Some(place), object: object.cloned(), field: path, wrong, right }
    }

    /// A note on an object that came without a file.
    pub(super) fn of_put(id: &ObjectId, source: &str, note: Note) -> Self {
        let Note { severity, path, wrong, right } = note;
        let wrong = if source.is_empty() { wrong } else { format!("{wrong} (by {source})") };
        Self { severity, place: None, object: Some(id.clone()), field: path, wrong, right }
    }
}
