//! A piece of a file to objects, each with what it means, or with what is wrong and where.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::pieces::{self, Form, Piece};
use super::places::{Cursor, Places, Spot};
use super::yaml::Flaw;
use super::{json, yaml};
use crate::control::config::Severity;
use crate::control::kubernetes::limits;
use crate::control::kubernetes::meaning::notes::{Note, Notes, shown};
use crate::control::kubernetes::meaning::{self, Content};
use crate::control::kubernetes::object::{Kind, Object, ObjectId};

/// What a piece says. Places are counted from its beginning.
#[derive(Debug, Default, PartialEq)]
pub(in crate::control::kubernetes) struct PieceReading {
    /// Objects whose name is known, good or bad.
    pub(in crate::control::kubernetes) objects: Vec<Reading>,
    /// What is wrong with the piece, or with objects that have no name.
    pub(in crate::control::kubernetes) notes: Vec<(Spot, Note)>,
    /// Whether there may be objects that could not be told apart.
    pub(in crate::control::kubernetes) is_broken: bool,
    /// Objects that were refused because they have no name.
    pub(in crate::control::kubernetes) nameless: usize,
    /// Objects of kinds that are not read.
    pub(in crate::control::kubernetes) skipped: usize,
}

/// An object.
#[derive(Debug, PartialEq)]
pub(in crate::control::kubernetes) struct Reading {
    pub(in crate::control::kubernetes) id: ObjectId,
    /// Where it begins.
    pub(in crate::control::kubernetes) spot: Spot,
    /// What it means; none if it is refused.
    pub(in crate::control::kubernetes) content: Option<Arc<Content>>,
    /// What is wrong with it.
    pub(in crate::control::kubernetes) notes: Vec<(Spot, Note)>,
}

/// Reads a piece.
pub(in crate::control::kubernetes) fn read(piece: &Piece<'_>) -> PieceReading {
    let mut read = PieceReading::default();
    let json = match &piece.form {
        Form::Yaml => json_of(piece.text),
        Form::Json | Form::Item { .. } => Some(piece.text),
    };
    match json {
        Some(part) => {
            let places = Places::Written(Cursor::new(piece.text));
            Reader { text: piece.text, places, flaws: &[], read: &mut read }.read(part, &piece.form, 0);
        }
        None => read_yaml(piece.text, &mut read),
    }
    read
}

/// A YAML document that is JSON throughout: many tools write such, and JSON is read faster by far.
fn json_of(text: &str) -> Option<&str> {
    let body =
        text.strip_prefix("---").filter(|body| body.starts_with([' ', '\n', '\r', '\t'])).unwrap_or(text);
    let body = Some(body.trim_ascii()).filter(|body| body.starts_with('{'))?;
    serde_json::from_str::<&RawValue>(body).ok().map(RawValue::get)
}

fn read_yaml(text: &str, read: &mut PieceReading) {
    let (documents, broken) = yaml::convert(text);
    for yaml::Document { json, marks, flaws } in &documents {
        Reader { text: json, places: Places::Made(marks), flaws, read }.read(json, &Form::Json, 0);
    }
    if let Some(yaml::Broken { spot, wrong, right }) = broken {
        read.is_broken = true;
        read.notes.push((spot, error(wrong, right)));
    }
}

fn error(wrong: impl Into<String>, right: impl Into<String>) -> Note {
    Note { severity: Severity::Error, path: String::new(), wrong: wrong.into(), right: right.into() }
}

/// What an object or a list says of itself.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "apiVersion", default)]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    /// None: there is no such key; one that is `null` is another matter.
    #[serde(borrow, default, deserialize_with = "present")]
    items: Option<&'a RawValue>,
}

/// A key that is there, whatever its value.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct Metadata {
    namespace: Option<String>,
    name: Option<String>,
}

/// Reads one JSON text.
struct Reader<'a> {
    text: &'a str,
    places: Places<'a>,
    flaws: &'a [Flaw],
    read: &'a mut PieceReading,
}

impl Reader<'_> {
    /// An object, or a list of them, that is a part of the text.
    fn read(&mut self, part: &str, form: &Form, depth: usize) {
        let spot = self.places.enter(json::offset_of(self.text, part));
        if part == "null" {
            return;
        }
        if !part.starts_with('{') {
            let right = "give a mapping with `apiVersion`, `kind` and `metadata`";
            return self.nameless(spot, error("this is no object of Kubernetes", right));
        }
        let head = match serde_json::from_str::<Head<'_>>(part) {
            Ok(head) => head,
            Err(error) => return self.unreadable(part, &error),
        };
        let (mut api_version, mut kind) =
            (head.api_version.unwrap_or_default(), head.kind.unwrap_or_default());
        if let (Form::Item { api_version: listed_version, kind: listed_kind }, true) = (form, kind.is_empty())
        {
            (api_version, kind) = (listed_version.to_string(), listed_kind.to_string());
        }
        if kind.is_empty() {
            let right = "give `apiVersion` and `kind`, as in `apiVersion: v1` and `kind: Service`";
            return self.nameless(spot, error("this is no object of Kubernetes: it has no kind", right));
        }
        if let Some(listed) = kind.strip_suffix("List")
            && (head.items.is_some() || listed.is_empty() || is_known(listed))
        {
            return self.read_list(part, head.items, &pieces::item_form(&kind, &api_version), depth, spot);
        }
        match self.known_kind(&api_version, &kind, spot) {
            Some(kind) => self.read_object(part, kind, head.metadata, spot),
            None => self.read.skipped += 1,
        }
    }

    /// What is no object at all, or has a head that cannot be read.
    fn unreadable(&mut self, part: &str, problem: &serde_json::Error) {
        let (path, inner) = json::path_at(part, json::error_offset(part, problem));
        let spot = self.places.spot(json::offset_of(self.text, part) + inner);
        let note = Note {
            path,
            ..error(json::error_text(problem), "give an object as the API of Kubernetes has it")
        };
        self.nameless(spot, note);
    }

    /// An object whose name is not known: any of those that were here before could be meant.
    fn nameless(&mut self, spot: Spot, note: Note) {
        self.read.is_broken = true;
        self.read.nameless += 1;
        self.read.notes.push((spot, note));
    }

    fn read_list(&mut self, part: &str, items: Option<&RawValue>, form: &Form, depth: usize, spot: Spot) {
        if depth >= limits::LIST_DEPTH {
            let wrong = format!("this list stands inside {} others", limits::LIST_DEPTH);
            return self.nameless(spot, error(wrong, "make it one list"));
        }
        let Some(items) = items else {
            // Much would go at once if the key were only misspelt.
            return self.nameless(
                spot,
                error("this list has no `items`", "give them; a list of nothing has `items: []`"),
            );
        };
        match serde_json::from_str::<Option<Vec<&RawValue>>>(items.get()) {
            Ok(items) => {
                for item in items.into_iter().flatten() {
                    self.read(item.get(), form, depth + 1);
                }
            }
            Err(_) => {
                let spot = self.places.spot(json::offset_of(self.text, part) + json::locate(part, "items"));
                let note =
                    error("the items of this list are no list", "give objects, each with a `-` in front");
                self.nameless(spot, Note { path: "items".to_owned(), ..note });
            }
        }
    }

    /// One of the kinds that are read; what is another version of one is worth a word, and others are nobody's concern.
    fn known_kind(&mut self, api_version: &str, name: &str, spot: Spot) -> Option<Kind> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name)?;
        if api_version == kind.api_version() {
            return Some(kind);
        }
        let group = |version: &str| version.rsplit_once('/').map(|(group, _)| group.to_owned());
        if api_version.is_empty() || group(api_version) == group(kind.api_version()) {
            let wrong = format!("{kind} of version {} is not read", shown(api_version));
            let right = format!("give `apiVersion: {}`", kind.api_version());
            let note = Note { path: "apiVersion".to_owned(), ..error(wrong, right) };
            self.read.notes.push((spot, Note { severity: Severity::Warning, ..note }));
        }
        None
    }

    fn read_object(&mut self, part: &str, kind: Kind, metadata: Option<&RawValue>, spot: Spot) {
        let mut notes = Notes::default();
        self.note_flaws(part, &mut notes);
        let object = typed(kind, part);
        let id = match &object {
            Ok(object) => {
                let metadata = meaning::metadata(object);
                meaning::identity(kind, metadata.namespace.as_deref(), metadata.name.as_deref(), &mut notes)
            }
            // Even what does not fit its type mostly tells its name, which keeps its last good version in force.
            Err(problem) => {
                let (path, _) = json::path_at(part, json::error_offset(part, problem));
                let right = format!("give a {kind} as the API of Kubernetes has it");
                notes.error(path, json::error_text(problem), right);
                let metadata: Option<Metadata> =
                    metadata.and_then(|metadata| serde_json::from_str(metadata.get()).ok());
                metadata.and_then(|metadata| {
                    let unseen = &mut Notes::default();
                    meaning::identity(kind, metadata.namespace.as_deref(), metadata.name.as_deref(), unseen)
                })
            }
        };
        let content = match (&object, &id) {
            // What YAML has spoilt is not worth a second look.
            (Ok(object), Some(id)) if !notes.is_refused() => {
                meaning::read(object, id, &mut notes).map(Arc::new)
            }
            _ => None,
        };
        let notes = self.placed(part, notes);
        match id {
            Some(id) => self.read.objects.push(Reading { id, spot, content, notes }),
            None => {
                self.read.is_broken = true;
                self.read.nameless += 1;
                self.read.notes.extend(notes);
            }
        }
    }

    /// What was wrong already when YAML was made JSON.
    fn note_flaws(&self, part: &str, notes: &mut Notes) {
        let start = json::offset_of(self.text, part);
        let first = self.flaws.partition_point(|flaw| flaw.offset < start);
        let inside = self.flaws.iter().skip(first).take_while(|flaw| flaw.offset < start + part.len());
        for Flaw { offset, wrong, right } in inside.take(limits::NOTES) {
            notes.error(json::path_at(part, offset - start).0, wrong.as_str(), *right);
        }
    }

    fn placed(&self, part: &str, notes: Notes) -> Vec<(Spot, Note)> {
        let start = json::offset_of(self.text, part);
        let place = |note: Note| (self.places.spot(start + json::locate(part, &note.path)), note);
        notes.into_vec().into_iter().map(place).collect()
    }
}

fn is_known(kind: &str) -> bool {
    Kind::ALL.into_iter().any(|known| known.name() == kind)
}

/// A text as an object of this kind.
fn typed(kind: Kind, text: &str) -> Result<Object, serde_json::Error> {
    fn boxed<T: DeserializeOwned>(text: &str) -> Result<Box<T>, serde_json::Error> {
        serde_json::from_str(text).map(Box::new)
    }
    Ok(match kind {
        Kind::Node => Object::Node(boxed(text)?),
        Kind::Service => Object::Service(boxed(text)?),
        Kind::EndpointSlice => Object::EndpointSlice(boxed(text)?),
        Kind::Endpoints => Object::Endpoints(boxed(text)?),
        Kind::Namespace => Object::Namespace(boxed(text)?),
        Kind::Pod => Object::Pod(boxed(text)?),
    })
}
