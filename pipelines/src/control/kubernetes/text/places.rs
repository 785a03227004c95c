//! Lines and columns, found while walking forward: no text is counted through twice.

/// A place in a text: lines and characters from zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::control::kubernetes) struct Spot {
    pub(in crate::control::kubernetes) line: u32,
    pub(in crate::control::kubernetes) column: u32,
}

impl Spot {
    /// The place of something that stands at `inner` of a text which begins here.
    pub(in crate::control::kubernetes) fn with(self, inner: Self) -> Self {
        let column = if inner.line == 0 { self.column.saturating_add(inner.column) } else { inner.column };
        Self { line: self.line.saturating_add(inner.line), column }
    }
}

/// Walks forward through a text, counting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    offset: usize,
    spot: Spot,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, offset: 0, spot: Spot::default() }
    }

    /// The place of a byte; of the last one reached if that is further back, and of the end if it lies behind the text.
    pub(super) fn advance(&mut self, offset: usize) -> Spot {
        let offset = offset.min(self.text.len());
        let passed = self.text.as_bytes().get(self.offset..offset).unwrap_or_default();
        let lines = passed.iter().filter(|byte| **byte == b'\n').count();
        let (last, column) = match passed.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => (passed.get(end + 1..).unwrap_or_default(), 0),
            None => (passed, self.spot.column),
        };
        // Each character has one byte that continues none.
        let characters = last.iter().filter(|byte| (**byte as i8) >= -0x40).count();
        self.spot = Spot {
            line: self.spot.line.saturating_add(number(lines)),
            column: column.saturating_add(number(characters)),
        };
        self.offset = self.offset.max(offset);
        self.spot
    }
}

/// The place behind a text.
pub(in crate::control::kubernetes) fn end_of(text: &str) -> Spot {
    Cursor::new(text).advance(text.len())
}

/// Files are shorter than 4 GiB.
pub(super) fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A node of converted YAML: where in the JSON it begins, and where it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) offset: u32,
    pub(super) spot: Spot,
}

/// Finds the places of bytes of a JSON text, object by object.
pub(super) enum Places<'a> {
    /// The text is what is written.
    Written(Cursor<'a>),
    /// The text was made of YAML.
    Made(&'a [Mark]),
}

impl Places<'_> {
    /// The place of an object that begins here. Objects are asked for in their order.
    pub(super) fn enter(&mut self, offset: usize) -> Spot {
        match self {
            Self::Written(cursor) => cursor.advance(offset),
            Self::Made(marks) => marked(marks, offset),
        }
    }

    /// The place of something in the object that was entered last.
    pub(super) fn spot(&self, offset: usize) -> Spot {
        match self {
            Self::Written(cursor) => cursor.clone().advance(offset),
            Self::Made(marks) => marked(marks, offset),
        }
    }
}

fn marked(marks: &[Mark], offset: usize) -> Spot {
    let after = marks.partition_point(|mark| mark.offset as usize <= offset);
    let nearest = marks.get(after.saturating_sub(1));
    nearest.map(|mark| mark.spot).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(line: u32, column: u32) -> Spot {
        Spot { line, column }
    }

    #[test]
    fn counts_lines_and_characters() {
        let mut cursor = Cursor::new("ab\nüü\n\nx");
        assert_eq!(cursor.advance(0), spot(0, 0));
        assert_eq!(cursor.advance(1), spot(0, 1));
        assert_eq!(cursor.advance(2), spot(0, 2));
        assert_eq!(cursor.advance(3), spot(1, 0));
        assert_eq!(cursor.advance(5), spot(1, 1));
        assert_eq!(cursor.advance(2), spot(1, 1), "never back");
        assert_eq!(cursor.advance(8), spot(2, 0));
        assert_eq!(cursor.advance(99), spot(3, 1));
    }

    #[test]
    fn places_in_pieces_add_up() {
        assert_eq!(spot(3, 5).with(spot(0, 2)), spot(3, 7));
        assert_eq!(spot(3, 5).with(spot(2, 1)), spot(5, 1));
    }

    #[test]
    fn marks_cover_what_follows_them() {
        let marks = [Mark { offset: 0, spot: spot(1, 1) }, Mark { offset: 5, spot: spot(2, 2) }];
        let places = Places::Made(&marks);
        assert_eq!([0, 4, 5, 99].map(|offset| places.spot(offset).line), [1, 1, 2, 2]);
        assert_eq!(Places::Made(&[]).spot(1), spot(0, 0));
    }
}
