//! A file to the pieces that can be read by themselves.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json;
use super::places::{Cursor, Spot};

/// A part of a file that can be read without the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control::kubernetes) struct Piece<'a> {
    /// What stands there.
    pub(in crate::control::kubernetes) text: &'a str,
    /// Where in the file it begins.
    pub(in crate::control::kubernetes) start: Spot,
    /// How it is to be read.
    pub(in crate::control::kubernetes) form: Form,
}

/// How a piece is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::control::kubernetes) enum Form {
    /// YAML, one document or several with `...` between them.
    Yaml,
    /// A JSON document.
    Json,
    /// An item of a typed list, which need not say its own kind.
    Item {
        /// The list's version.
        api_version: Arc<str>,
        /// The list's kind without `List`.
        kind: Arc<str>,
    },
}

/// Why the rest of a file cannot be told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control::kubernetes) struct Unreadable {
    /// Where it begins to be wrong.
    pub(in crate::control::kubernetes) spot: Spot,
    /// What is wrong.
    pub(in crate::control::kubernetes) wrong: String,
}

/// The pieces of a file, and why there are no more.
///
/// A name that ends in `.json` says that it is JSON. Anything else is YAML, of which JSON is nearly a part: what begins
/// like JSON and is JSON throughout is read as such, which is faster by far (as Kubernetes' `YAMLOrJSONDecoder`).
pub(in crate::control::kubernetes) fn split<'a>(
    file: &str,
    text: &'a str,
) -> (Vec<Piece<'a>>, Option<Unreadable>) {
    let (bare, skipped) = match text.strip_prefix('\u{feff}') {
        Some(bare) => (bare, text.len() - bare.len()),
        None => (text, 0),
    };
    if file.ends_with(".json") {
        return split_json(text, skipped);
    }
    if bare.trim_ascii_start().starts_with(['{', '[']) {
        let (pieces, unreadable) = split_json(text, skipped);
        if unreadable.is_none() {
            return (pieces, None);
        }
    }
    (split_yaml(bare), None)
}

/// JSON documents one after the other, lists as their items. Behind an error nothing can be told apart.
fn split_json(text: &str, skipped: usize) -> (Vec<Piece<'_>>, Option<Unreadable>) {
    let body = text.get(skipped..).unwrap_or_default();
    let mut cursor = Cursor::new(text);
    let mut pieces = Vec::new();
    for document in serde_json::Deserializer::from_str(body).into_iter::<&RawValue>() {
        match document {
            Ok(document) => split_document(text, document.get(), &mut cursor, &mut pieces),
            Err(error) => {
                let spot = cursor.advance(skipped + json::error_offset(body, &error));
                return (pieces, Some(Unreadable { spot, wrong: json::error_text(&error) }));
            }
        }
    }
    (pieces, None)
}

/// A list, as far as it concerns whoever takes it apart.
#[derive(Deserialize)]
struct ListHead<'a> {
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    kind: String,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

fn split_document<'a>(text: &str, document: &'a str, cursor: &mut Cursor<'_>, pieces: &mut Vec<Piece<'a>>) {
    let head = serde_json::from_str::<ListHead<'a>>(document);
    let Some(head) = head.ok().filter(|head| head.kind.ends_with("List")) else {
        let start = cursor.advance(json::offset_of(text, document));
        pieces.push(Piece { text: document, start, form: Form::Json });
        return;
    };
    let form = item_form(&head.kind, &head.api_version);
    for item in head.items {
        let start = cursor.advance(json::offset_of(text, item.get()));
        pieces.push(Piece { text: item.get(), start, form: form.clone() });
    }
}

/// What items of a list are, unless they say it themselves: `ServiceList` has services, `List` anything.
pub(super) fn item_form(list_kind: &str, api_version: &str) -> Form {
    match list_kind.strip_suffix("List") {
        Some(kind) if !kind.is_empty() => Form::Item { api_version: api_version.into(), kind: kind.into() },
        _ => Form::Json,
    }
}

/// Documents of YAML. Each `---` begins one, so that a document which is wrong hides no other.
fn split_yaml(text: &str) -> Vec<Piece<'_>> {
    let is_marker = |offset: &usize| {
        let after = text.get(offset + 3..).unwrap_or_default();
        after.is_empty() || after.starts_with([' ', '\t', '\r', '\n'])
    };
    let markers = text.match_indices("\n---").map(|(offset, _)| offset + 1).filter(is_marker);
    let mut cursor = Cursor::new(text);
    let mut pieces = Vec::new();
    let mut start = 0;
    for end in markers.chain([text.len()]) {
        let document = text.get(start..end).unwrap_or_default();
        if !is_empty(document) {
            pieces.push(Piece { text: document, start: cursor.advance(start), form: Form::Yaml });
        }
        start = end;
    }
    pieces
}

/// Whether a document has nothing but comments, directives and markers.
fn is_empty(document: &str) -> bool {
    let mut lines = document.lines().map(str::trim_end);
    lines.all(|line| {
        line.trim_start().is_empty()
            || line.trim_start().starts_with('#')
            || line.starts_with('%')
            || matches!(line, "---" | "...")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(file: &str, text: &str) -> Vec<(String, u32, u32)> {
        let (pieces, unreadable) = split(file, text);
        assert_eq!(unreadable, None);
        pieces
            .into_iter()
            .map(|piece| (piece.text.to_owned(), piece.start.line, piece.start.column))
            .collect()
    }

    fn piece(text: &str, line: u32, column: u32) -> (String, u32, u32) {
        (text.to_owned(), line, column)
    }

    #[test]
    fn yaml_is_split_at_markers() {
        assert_eq!(
            texts("f", "a: 1\n---\nb: |\n  --- x\n --- y\n---x: 1\n--- # c\nc: 3\n"),
            [
                piece("a: 1\n", 0, 0),
                piece("---\nb: |\n  --- x\n --- y\n---x: 1\n", 1, 0),
                piece("--- # c\nc: 3\n", 6, 0)
            ]
        );
        assert_eq!(
            texts("f", "---\r\na: 1\r\n---\r\nb: 2"),
            [piece("---\r\na: 1\r\n", 0, 0), piece("---\r\nb: 2", 2, 0)]
        );
        assert_eq!(texts("f", "\u{feff}# nothing\n%YAML 1.2\n---\n  # here\n---\n...\n---"), []);
        assert_eq!(texts("f", ""), []);
    }

    #[test]
    fn json_is_split_to_documents_and_items() {
        assert_eq!(
            texts("f.json", "{\"a\":1}\n {\"b\":\n2}"),
            [piece("{\"a\":1}", 0, 0), piece("{\"b\":\n2}", 1, 1)]
        );
        let list = "{\"kind\": \"List\", \"items\": [{\"a\":1},\n  {\"b\":2}], \"metadata\": {}}";
        assert_eq!(texts("f", list), [piece("{\"a\":1}", 0, 27), piece("{\"b\":2}", 1, 2)]);
        let (pieces, _) = split("f", "{\"apiVersion\":\"v1\",\"kind\":\"ServiceList\",\"items\":[{}]}");
        let form = Form::Item { api_version: "v1".into(), kind: "Service".into() };
        assert_eq!(pieces, [Piece { text: "{}", start: Spot { line: 0, column: 49 }, form }]);
    }

    #[test]
    fn what_only_looks_like_json_is_yaml() {
        let (pieces, unreadable) = split("f", "{a: 1}\n---\n{b: 2}");
        assert_eq!(pieces.iter().map(|piece| &piece.form).collect::<Vec<_>>(), [&Form::Yaml, &Form::Yaml]);
        assert_eq!(unreadable, None);
    }

    #[test]
    fn json_that_ends_early_keeps_what_came_before() {
        let (pieces, unreadable) = split("f.json", "{\"a\":1}\n{\"b\":\n");
        assert_eq!(pieces.len(), 1);
        let unreadable = unreadable.unwrap();
        assert_eq!((unreadable.spot.line, unreadable.wrong.as_str()), (2, "EOF while parsing a value"));
    }
}
