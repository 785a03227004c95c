//! The text of a configuration file: where an offset is in it, and what key a place belongs to.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::{DeTable, DeValue};

use super::diagnostic::Place;

/// A file's name and text, with the offsets of its lines.
pub(crate) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        let line_starts =
            core::iter::once(0).chain(text.match_indices('\n').map(|(offset, _)| offset + 1)).collect();
        Self { file, text, line_starts }
    }

    /// Line and column of a byte offset; one past the last character for any offset behind the text.
    pub(crate) fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        // A line's start is a boundary of characters; the offset need not be one.
        let characters = self.text.get(start..).unwrap_or_default().char_indices();
        let column = characters.take_while(|(at, _)| start + at < offset).count() + 1;
        Place { file: self.file.to_owned(), line, column }
    }
}

/// The paths of the keys whose values begin at `wanted` offsets, in one walk over the tree.
pub(crate) fn paths_at(root: &DeTable<'_>, wanted: &BTreeSet<usize>) -> BTreeMap<usize, String> {
    let mut found = BTreeMap::new();
    walk_table(root, "", &mut |path, offset| {
        if wanted.contains(&offset) {
            found.insert(offset, path.to_owned());
        }
    });
    found
}

/// The offset of the value of the key with this path.
pub(crate) fn offset_of(root: &DeTable<'_>, wanted: &str) -> Option<usize> {
    let mut found = None;
    walk_table(root, "", &mut |path, offset| {
        if path == wanted {
            found = Some(offset);
        }
    });
    found
}

/// Every key's path and the offset of its value, those of services left out: they can be very many, and nothing
/// outside the file tells anything about them.
pub(crate) fn offsets(root: &DeTable<'_>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for (key, value) in root.iter().filter(|(key, _)| key.get_ref() != "service") {
        walk_value(value.get_ref(), value.span().start, key.get_ref(), &mut |path, offset| {
            found.insert(path.to_owned(), offset);
        });
    }
    found
}

fn walk_table(table: &DeTable<'_>, path: &str, visit: &mut dyn FnMut(&str, usize)) {
    for (key, value) in table {
        let path = join(path, key.get_ref());
        walk_value(value.get_ref(), value.span().start, &path, visit);
    }
}

fn walk_value(value: &DeValue<'_>, offset: usize, path: &str, visit: &mut dyn FnMut(&str, usize)) {
    visit(path, offset);
    match value {
        DeValue::Table(table) => walk_table(table, path, visit),
        DeValue::Array(elements) => {
            for (place, element) in elements.iter().enumerate() {
                walk_value(element.get_ref(), element.span().start, &format!("{path}[{place}]"), visit);
            }
        }
        _ => {}
    }
}

/// The path of `key` in the table at `path`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let source = Source::new("f", "a = 1\nüb = 2\n");
        let place = |offset| {
            let Place { line, column, .. } = source.place(offset);
            (line, column)
        };
        assert_eq!(place(0), (1, 1));
        assert_eq!(place(4), (1, 5));
        assert_eq!(place(6), (2, 1));
        assert_eq!(place(7), (2, 2), "inside a character of two bytes");
        assert_eq!(place(8), (2, 2));
        assert_eq!(place(999), (3, 1));
        assert_eq!((Source::new("f", "").place(5).line, Source::new("f", "").place(5).column), (1, 1));
    }

    #[test]
    fn walks_to_every_key() {
        let text = "[a]\nb = [1, { c = 2 }]\n[[d]]\ne.f = 3\n";
        let tree = DeTable::parse(text).unwrap();
        let all = offsets(tree.get_ref());
        let at = |path: &str| all.get(path).map(|offset| &text[*offset..*offset + 1]);
        assert_eq!(at("a.b[0]"), Some("1"));
        assert_eq!(at("a.b[1].c"), Some("2"));
        assert_eq!(at("d[0].e.f"), Some("3"));
        assert_eq!(offset_of(tree.get_ref(), "a.b[1].c"), text.find('2'));
        assert_eq!(offset_of(tree.get_ref(), "a.b[2]"), None);
        let offset = text.find('2').unwrap();
        assert_eq!(paths_at(tree.get_ref(), &BTreeSet::from([offset]))[&offset], "a.b[1].c");
    }
}
