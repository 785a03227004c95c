//! YAML made JSON, with the place of every node.
//!
//! As sigs.k8s.io/yaml does for kubectl: plain scalars are typed by YAML 1.1's rules as go-yaml v2 has them (`yes` and `on`
//! are true), keys are text, aliases are written out, merge keys (`<<`) are merged. The parser tells events one by one and
//! expands nothing itself; what is open is held on a stack here. So depth, nodes and copies have bounds that are ours, and
//! a document of a few lines cannot become gigabytes by aliases of aliases.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::value::RawValue;

use super::json::Members;
use super::places::{Mark, Spot, end_of, number};
use super::scalar;
use crate::control::kubernetes::limits;
use crate::control::kubernetes::meaning::notes::{harmless, shown};

/// A document as JSON.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// The text.
    pub(super) json: String,
    /// Where each of its nodes was written, in order.
    pub(super) marks: Vec<Mark>,
    /// What is wrong with single nodes, in order.
    pub(super) flaws: Vec<Flaw>,
}

/// Something wrong in a document that can be read all the same: the object around it is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    /// Where in the JSON.
    pub(super) offset: usize,
    /// What is wrong.
    pub(super) wrong: String,
    /// What would be right.
    pub(super) right: &'static str,
}

/// Why the rest of a text cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) spot: Spot,
    pub(super) wrong: String,
    pub(super) right: &'static str,
}

/// The documents of a text, and why there are no more.
pub(super) fn convert(text: &str) -> (Vec<Document>, Option<Broken>) {
    let mut documents = Vec::new();
    let mut writer = Writer::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                // The scanner counts on behind the end of the text.
                let spot = spot_of(error.marker().line(), error.marker().col()).min(end_of(text));
                let wrong = format!("this is no YAML: {}", harmless(error.info(), 200));
                return (
                    documents,
                    Some(Broken { spot, wrong, right: "correct the syntax, or the indentation" }),
                );
            }
        };
        let spot = spot_of(span.start.line(), span.start.col());
        match event {
            Event::DocumentStart(_) => writer = Writer::default(),
            Event::DocumentEnd => documents.push(core::mem::take(&mut writer).finish()),
            event => {
                if let Err((wrong, right)) = writer.event(event, spot) {
                    return (documents, Some(Broken { spot, wrong, right }));
                }
            }
        }
    }
    (documents, None)
}

fn spot_of(line: usize, column: usize) -> Spot {
    Spot { line: number(line.saturating_sub(1)), column: number(column) }
}

/// What is wrong, and what would be right.
type Wrong = (String, &'static str);

/// A mapping or sequence that is open.
enum Open {
    Sequence { start: usize, anchor: usize, is_empty: bool },
    Mapping(Mapping),
}

struct Mapping {
    start: usize,
    anchor: usize,
    keys: HashSet<Box<str>>,
    /// What the next node is.
    next: Next,
    /// Values of `<<`, as JSON, with the place to tell of their members.
    merged: Vec<(Rc<str>, Spot)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Key,
    Value,
    /// A value of `<<`, which begins here.
    Merged(usize, Spot),
}

#[derive(Default)]
struct Writer {
    document: Document,
    open: Vec<Open>,
    /// What anchors stand for, as JSON.
    anchors: HashMap<usize, Rc<str>>,
    copied: usize,
    nodes: usize,
}

impl Writer {
    fn finish(mut self) -> Document {
        // What merge keys bring is written behind the mapping's own members.
        self.document.flaws.sort_by_key(|flaw| flaw.offset);
        self.document
    }

    fn event(&mut self, event: Event<'_>, spot: Spot) -> Result<(), Wrong> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.scalar(&text, style, anchor, tag.as_deref(), spot)
            }
            Event::Alias(anchor) => self.alias(anchor, spot),
            Event::SequenceStart(anchor, tag) => {
                let start = self.begin(spot, tag.as_deref(), "seq")?;
                self.document.json.push('[');
                self.open.push(Open::Sequence { start, anchor, is_empty: true });
                Ok(())
            }
            Event::MappingStart(anchor, tag) => {
                let start = self.begin(spot, tag.as_deref(), "map")?;
                self.document.json.push('{');
                let (keys, merged) = (HashSet::new(), Vec::new());
                self.open.push(Open::Mapping(Mapping { start, anchor, keys, next: Next::Key, merged }));
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => Ok(()),
        }
    }

    /// Room for a mapping or sequence.
    fn begin(&mut self, spot: Spot, tag: Option<&Tag>, expected: &str) -> Result<usize, Wrong> {
        if self.open.len() >= limits::YAML_DEPTH {
            let wrong = format!("this stands inside {} others", limits::YAML_DEPTH);
            return Err((wrong, "nest less; objects of Kubernetes are nowhere near as deep"));
        }
        if let Some(Open::Mapping(Mapping { next: Next::Key, .. })) = self.open.last() {
            return Err(("a mapping or sequence is used as a key".to_owned(), "use text for keys"));
        }
        let start = self.before_value(spot)?;
        if let Some(tag) = tag.filter(|tag| !(tag.is_yaml_core_schema() && tag.suffix == expected)) {
            self.flaw(start, format!("the tag {} is not known", shown(&tag.to_string())), "leave it out");
        }
        Ok(start)
    }

    /// Separates a value from the one before; tells where it begins.
    fn before_value(&mut self, spot: Spot) -> Result<usize, Wrong> {
        self.nodes += 1;
        if self.nodes > limits::YAML_NODES {
            let wrong = format!("there are more than {} nodes in this document", limits::YAML_NODES);
            return Err((wrong, "split it, or write it as JSON"));
        }
        if let Some(Open::Sequence { is_empty, .. }) = self.open.last_mut()
            && !core::mem::take(is_empty)
        {
            self.document.json.push(',');
        }
        let start = self.document.json.len();
        self.document.marks.push(Mark { offset: number(start), spot });
        Ok(start)
    }

    fn flaw(&mut self, offset: usize, wrong: String, right: &'static str) {
        self.document.flaws.push(Flaw { offset, wrong, right });
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        spot: Spot,
    ) -> Result<(), Wrong> {
        if let Some(Open::Mapping(Mapping { next: Next::Key, .. })) = self.open.last() {
            let is_merge = text == "<<" && style == ScalarStyle::Plain;
            let json = scalar::quoted(text);
            self.key(text, &json, is_merge, spot);
            return self.remember(anchor, json.into());
        }
        let start = self.before_value(spot)?;
        let json = match scalar::to_json(text, style == ScalarStyle::Plain, tag) {
            Ok(json) => json,
            Err(wrong) => {
                self.flaw(start, wrong, "leave the tag out");
                scalar::quoted(text)
            }
        };
        self.document.json.push_str(&json);
        self.after_value();
        self.remember(anchor, json.into())
    }

    fn key(&mut self, text: &str, json: &str, is_merge: bool, spot: Spot) {
        let start = self.document.json.len();
        let Some(Open::Mapping(mapping)) = self.open.last_mut() else { return };
        if is_merge {
            mapping.next = Next::Merged(start, spot);
            return;
        }
        mapping.next = Next::Value;
        let is_first = mapping.keys.is_empty();
        let is_new = mapping.keys.insert(text.into());
        if !is_first {
            self.document.json.push(',');
        }
        self.document.json.extend([json, ":"]);
        if !is_new {
            // As strict decoding has it; which of the two was meant cannot be known.
            let value = self.document.json.len();
            self.flaw(value, format!("the key {} is there twice", shown(text)), "leave one of them out");
        }
    }

    /// What stands for an anchor is written once more.
    fn alias(&mut self, anchor: usize, spot: Spot) -> Result<(), Wrong> {
        let Some(json) = self.anchors.get(&anchor).map(Rc::clone) else {
            return Err(("this alias stands inside what it names".to_owned(), "write it out"));
        };
        self.copy(json.len())?;
        if let Some(Open::Mapping(Mapping { next: Next::Key, .. })) = self.open.last() {
            let Ok(text) = serde_json::from_str::<String>(&json) else {
                return Err(("an alias that names no text is used as a key".to_owned(), "use text for keys"));
            };
            self.key(&text, &json, false, spot);
            return Ok(());
        }
        self.before_value(spot)?;
        self.document.json.push_str(&json);
        self.after_value();
        Ok(())
    }

    /// Remembers what an anchor stands for. Zero is none.
    fn remember(&mut self, anchor: usize, json: Rc<str>) -> Result<(), Wrong> {
        if anchor != 0 {
            self.copy(json.len())?;
            self.anchors.insert(anchor, json);
        }
        Ok(())
    }

    fn copy(&mut self, bytes: usize) -> Result<(), Wrong> {
        // An alias of something short is not free either.
        self.copied += bytes + 16;
        if self.copied > limits::YAML_COPIED_BYTES {
            let wrong = format!("anchors and aliases copy more than {} MiB", limits::YAML_COPIED_BYTES >> 20);
            return Err((wrong, "write out what is meant"));
        }
        Ok(())
    }

    /// In a mapping a key follows; the value of a merge key is kept aside until the mapping's own keys are known.
    fn after_value(&mut self) {
        let Some(Open::Mapping(mapping)) = self.open.last_mut() else { return };
        if let Next::Merged(start, spot) = mapping.next {
            let json = self.document.json.split_off(start);
            self.document
                .marks
                .truncate(self.document.marks.partition_point(|mark| (mark.offset as usize) < start));
            mapping.merged.push((json.into(), spot));
        }
        mapping.next = Next::Key;
    }

    fn close(&mut self) -> Result<(), Wrong> {
        let (start, anchor) = match self.open.pop() {
            Some(Open::Sequence { start, anchor, .. }) => {
                self.document.json.push(']');
                (start, anchor)
            }
            Some(Open::Mapping(mapping)) => {
                let (start, anchor) = (mapping.start, mapping.anchor);
                self.merge(mapping)?;
                self.document.json.push('}');
                (start, anchor)
            }
            None => return Ok(()),
        };
        if anchor != 0 {
            let json: Rc<str> = self.document.json.get(start..).unwrap_or_default().into();
            self.remember(anchor, json)?;
        }
        self.after_value();
        Ok(())
    }

    /// Members that merge keys bring, but for those that the mapping has itself (<https://yaml.org/type/merge.html>).
    fn merge(&mut self, mut mapping: Mapping) -> Result<(), Wrong> {
        for (json, spot) in core::mem::take(&mut mapping.merged) {
            let sources = match serde_json::from_str::<Vec<&RawValue>>(&json) {
                Ok(elements) => elements.into_iter().map(RawValue::get).collect(),
                Err(_) => vec![&*json],
            };
            for source in sources {
                let Ok(Members(members)) = serde_json::from_str::<Members<'_>>(source) else {
                    let offset = self.document.json.len();
                    self.document.marks.push(Mark { offset: number(offset), spot });
                    self.flaw(offset, "`<<` names no mapping".to_owned(), "name a mapping, or write it out");
                    continue;
                };
                for (key, value) in members {
                    if mapping.keys.contains(&*key) {
                        continue;
                    }
                    let text = scalar::quoted(&key);
                    self.copy(text.len() + value.get().len())?;
                    if !mapping.keys.is_empty() {
                        self.document.json.push(',');
                    }
                    mapping.keys.insert((*key).into());
                    self.document.marks.push(Mark { offset: number(self.document.json.len()), spot });
                    self.document.json.extend([&*text, ":", value.get()]);
                }
            }
        }
        Ok(())
    }
}
