//! Where the head of an HTTP message ends.

/// Longest head, from its first byte to the empty line: of requests that are answered and answers that are read.
pub(super) const HEAD_LENGTH_MAX: usize = 8 << 10;

/// Where the first head ends that ends behind `from`: behind its empty line. Lines may end with LF alone (RFC 9112
/// section 2.2).
pub(super) fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let newlines = bytes.iter().enumerate().skip(from).filter(|(_, byte)| **byte == b'\n');
    newlines
        .filter_map(|(place, _)| match bytes.get(place + 1..) {
            Some([b'\n', ..]) => Some(place + 2),
            Some([b'\r', b'\n', ..]) => Some(place + 3),
            _ => None,
        })
        .next()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn heads_end_with_an_empty_line() {
        assert_eq!(head_end(b"a\r\n\r\nb", 0), Some(5));
        assert_eq!(head_end(b"a\n\nb", 0), Some(3));
        assert_eq!(head_end(b"a\n\r\nb", 0), Some(4));
        assert_eq!(head_end(b"a\r\nb\r\n", 0), None);
        assert_eq!(head_end(b"a\n\r", 0), None);
        assert_eq!(head_end(b"", 7), None);
        assert_eq!(head_end(b"a\n\nb\n\n", 2), Some(6));
    }

    proptest! {
        /// However a head arrives in pieces, its end is seen with the piece that has it.
        #[test]
        fn the_end_is_seen_across_pieces(cut in any::<prop::sample::Index>(), ending in prop::sample::select(vec!["\n\n", "\r\n\r\n", "\n\r\n"])) {
            let text = format!("GET / HTTP/1.0{ending}");
            let cut = cut.index(text.len());
            prop_assert_eq!(head_end(&text.as_bytes()[..cut], 0), None);
            // As those ask who read: the last two bytes may be the end's beginning.
            prop_assert_eq!(head_end(text.as_bytes(), cut.saturating_sub(2)), Some(text.len()));
        }
    }
}
