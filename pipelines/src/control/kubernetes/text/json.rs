//! Finding one's way in a JSON text whose grammar is known to be right: where the value of a path stands, and which path
//! leads to a place. Only asked when something is wrong, so it reads the text anew, level by level, without recursion.

use core::fmt;
use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::control::kubernetes::meaning::notes::harmless;

/// How much of a name is told.
const NAME_CHARACTERS: usize = 80;
/// How much of an error is told, which may quote a value.
const ERROR_CHARACTERS: usize = 200;

/// The members of an object, in their order, each value as text.
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A name, borrowed from the text where nothing in it is escaped.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Where `part` begins, which is a part of `text`.
pub(super) fn offset_of(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

/// One level: names and texts of an object's or an array's values, in their order.
fn children(text: &str) -> Vec<(Cow<'_, str>, &str)> {
    if text.starts_with('[') {
        let elements: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
        return elements
            .into_iter()
            .enumerate()
            .map(|(place, value)| (Cow::Owned(place.to_string()), value.get()))
            .collect();
    }
    let members = serde_json::from_str::<Members<'_>>(text).map(|members| members.0).unwrap_or_default();
    members.into_iter().map(|(name, value)| (name, value.get())).collect()
}

/// Where the value of a path begins, as in `spec.ports[1].port`; what is not there is where its parent is.
pub(super) fn locate(text: &str, path: &str) -> usize {
    let mut value = text;
    for step in steps(path) {
        // The last one of a name counts, as for whoever reads the types.
        match children(value).into_iter().rev().find(|(name, _)| *name == step) {
            Some((_, child)) => value = child,
            None => break,
        }
    }
    offset_of(text, value)
}

/// `a.b[c.d]` as `a`, `b`, `c.d`: in brackets stands a list's place, or a name that may have dots in it.
fn steps(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = path;
    core::iter::from_fn(move || {
        rest = rest.trim_start_matches('.');
        if rest.is_empty() {
            return None;
        }
        if let Some((step, after)) = rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            rest = after;
            return Some(step);
        }
        let end = rest.get(1..).and_then(|inner| inner.find(['.', '['])).map_or(rest.len(), |end| end + 1);
        let (step, after) = rest.split_at_checked(end)?;
        rest = after;
        Some(step)
    })
}

/// The path of the innermost value at a place, and where that value begins. What stands in front of a value is taken for
/// it: there an error is told that was found by a look ahead.
pub(super) fn path_at(text: &str, offset: usize) -> (String, usize) {
    let (mut value, mut path) = (text, String::new());
    while value.starts_with(['{', '[']) && offset > offset_of(text, value) {
        let is_list = value.starts_with('[');
        let ends_behind = |child: &str| offset_of(text, child) + child.len() > offset;
        let Some((name, child)) = children(value).into_iter().find(|(_, child)| ends_behind(child)) else {
            break;
        };
        let shown = harmless(&name, NAME_CHARACTERS);
        match (is_list, name.contains(['.', '/'])) {
            (false, false) if path.is_empty() => path.push_str(&shown),
            (false, false) => path.extend([".", &shown]),
            _ => path.extend(["[", &shown, "]"]),
        }
        value = child;
    }
    (path, offset_of(text, value))
}

/// The byte that an error of `serde_json` tells of: lines and columns count from one.
pub(super) fn error_offset(text: &str, error: &serde_json::Error) -> usize {
    let line = error.line().saturating_sub(1);
    let start = match line {
        0 => 0,
        _ => text.match_indices('\n').nth(line - 1).map_or(text.len(), |(offset, _)| offset + 1),
    };
    (start + error.column().saturating_sub(1)).min(text.len())
}

/// What an error says, without its place.
pub(super) fn error_text(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    harmless(text.get(..end).unwrap_or_default(), ERROR_CHARACTERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{ "metadata": {"name": "a", "annotations": {"x.io/w": "5"}},
        "spec": {"ports": [{"port": 80}, {"port": "x"}], "n": null} }"#;

    #[test]
    fn paths_lead_to_values() {
        let at = |path: &str| TEXT.get(locate(TEXT, path)..).unwrap().chars().next().unwrap();
        assert_eq!(at("spec.ports[1].port"), '"');
        assert_eq!(at("spec.ports[0].port"), '8');
        assert_eq!(at("spec.ports"), '[');
        assert_eq!(at("metadata.annotations[x.io/w]"), '"');
        assert_eq!(at("spec.n"), 'n');
        assert_eq!(locate(TEXT, "spec.missing.too"), locate(TEXT, "spec"));
        assert_eq!(locate(TEXT, "spec.ports[9].port"), locate(TEXT, "spec.ports"));
        assert_eq!((locate(TEXT, ""), locate(TEXT, "[")), (0, 0));
    }

    #[test]
    fn places_lead_to_paths() {
        for path in [
            "spec.ports[1].port",
            "spec.ports[0].port",
            "metadata.annotations[x.io/w]",
            "metadata.name",
            "spec.n",
        ] {
            let offset = locate(TEXT, path);
            assert_eq!(path_at(TEXT, offset), (path.to_owned(), offset));
        }
        assert_eq!(path_at(TEXT, 0), (String::new(), 0));
        assert_eq!(path_at(TEXT, 9_999), (String::new(), 0));
    }

    #[test]
    fn errors_tell_their_place() {
        let text = "{\n \"a\": [1,\n  tru]}";
        let error = serde_json::from_str::<serde_json::Value>(text).unwrap_err();
        let offset = error_offset(text, &error);
        assert_eq!(text.get(offset..), Some("]}"), "{error}");
        assert_eq!(error_text(&error), "expected ident");
    }

    #[test]
    fn depth_is_no_danger() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(locate(&deep, "[0][0]"), 2);
    }
}
