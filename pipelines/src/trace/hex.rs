//! Bytes written in hexadecimal, as people copy them: digits alone, with blanks or colons, or the lines of tcpdump (-x,
//! -xx, -X), Wireshark, xxd or hexdump -C with their offsets and characters.

/// Bytes that these tools put in one line.
const LINE_BYTES: usize = 16;
/// Characters of a word that are repeated in a message.
const QUOTED_MAX: usize = 40;

/// Where a text is no bytes, and what is wanted there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes, line {line}, column {column}: {wrong}; expected {expected}")]
pub struct ParseHexError {
    /// Which line, counted from one.
    pub line: usize,
    /// Which character of it, counted from one.
    pub column: usize,
    /// What is there.
    pub wrong: String,
    /// What is wanted.
    pub expected: &'static str,
}

/// A word of a line: where it begins, in characters, and how much blank is in front of it.
struct Word<'a> {
    text: &'a str,
    column: usize,
    gap: usize,
}

/// Reads bytes.
pub fn parse(text: &str) -> Result<Vec<u8>, ParseHexError> {
    let mut bytes = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // hexdump -C has its characters between bars.
        let line = line.split('|').next().unwrap_or_default();
        read_line(line, &mut bytes).map_err(|(column, wrong, expected)| ParseHexError {
            line: number + 1,
            column,
            wrong,
            expected,
        })?;
    }
    if bytes.is_empty() {
        let wrong = "there are none".to_owned();
        return Err(ParseHexError { line: 1, column: 1, wrong, expected: "pairs of hexadecimal digits" });
    }
    Ok(bytes)
}

type Wrong = (usize, String, &'static str);

fn read_line(line: &str, bytes: &mut Vec<u8>) -> Result<(), Wrong> {
    let words = words(line);
    let offset = words.first().and_then(|first| Some((first, offset(first, words.get(1), bytes.len())?)));
    let Some((first, offset)) = offset else {
        return words.iter().try_for_each(|word| read_word(word, bytes));
    };
    if offset != bytes.len() {
        let wrong = format!("offset {} behind {} bytes", quoted(first.text), bytes.len());
        return Err((first.column, wrong, "lines one after the other, the first at offset 0"));
    }
    let from = bytes.len();
    for (place, word) in words.iter().skip(1).enumerate() {
        let read = bytes.len() - from;
        // A wider gap sets off the characters; hexdump -C alone has one in the middle of its bytes.
        let is_middle = read == LINE_BYTES / 2 && word.gap == 2 && word.text.len() == 2;
        if read >= LINE_BYTES || (place > 0 && word.gap > 1 && !is_middle) {
            break;
        }
        read_word(word, bytes)?;
    }
    Ok(())
}

fn words(line: &str) -> Vec<Word<'_>> {
    let mut found = Vec::new();
    let (mut rest, mut column) = (line, 1);
    loop {
        let trimmed = rest.trim_start();
        let gap = rest.chars().count() - trimmed.chars().count();
        column += gap;
        let end = trimmed.find(char::is_whitespace).unwrap_or(trimmed.len());
        let (text, behind) = trimmed.split_at(end);
        if text.is_empty() {
            return found;
        }
        found.push(Word { text, column, gap });
        column += text.chars().count();
        rest = behind;
    }
}

/// The offset that a line's first word is: by its colon, or as the count of bytes so far in four or more digits, set off
/// from single bytes.
fn offset(first: &Word<'_>, next: Option<&Word<'_>>, so_far: usize) -> Option<usize> {
    let number = |digits: &str| usize::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).ok();
    if let Some(digits) = first.text.strip_suffix(':') {
        return number(digits).filter(|_| !digits.contains(':'));
    }
    let is_long = first.text.len() >= 4 && first.text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_set_off = match next {
        Some(next) => next.gap > 1 && next.text.len() == 2,
        // The last line of hexdump, which has no bytes.
        None => so_far > 0 && first.text.len() >= 7,
    };
    number(first.text).filter(|offset| is_long && is_set_off && *offset == so_far)
}

/// Bytes of a word: pairs of digits, between which colons, hyphens and commas do not matter.
fn read_word(word: &Word<'_>, bytes: &mut Vec<u8>) -> Result<(), Wrong> {
    let expected = "pairs of hexadecimal digits";
    for part in word.text.split([':', '-', ',']).filter(|part| !part.is_empty()) {
        let digits = part.strip_prefix("0x").unwrap_or(part);
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err((word.column, quoted(word.text), expected));
        }
        if digits.is_empty() || digits.len() % 2 != 0 {
            let wrong = format!("{} has an odd number of digits", quoted(word.text));
            return Err((word.column, wrong, expected));
        }
        let pairs = digits.as_bytes().chunks(2);
        let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or_default() as u8;
        bytes.extend(pairs.map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | value(*digit))));
    }
    Ok(())
}

/// Bytes as digits alone.
pub fn print(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn quoted(word: &str) -> String {
    match word.char_indices().nth(QUOTED_MAX) {
        Some((end, _)) => format!("`{}...`", word.get(..end).unwrap_or_default()),
        None => format!("`{word}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Twenty-two bytes.
    const BYTES: &str = "4500001600010000401166c3ac1e4c070afe000a0035";

    #[test]
    fn the_tools_forms_are_read() {
        let wanted = parse(BYTES).unwrap();
        assert_eq!((wanted.len(), print(&wanted).as_str()), (22, BYTES));
        for text in [
            "4500 0016 0001 0000 4011 66c3 ac1e 4c07 0afe 000a 0035",
            "45:00:00:16:00:01:00:00:40:11:66:c3:ac:1e:4c:07:0a:fe:00:0a:00:35",
            "0x45, 0x00, 0x0016 0x0001000040 11-66-C3-AC-1E-4C-07\n0AFE000A0035\n",
            // tcpdump -x, and -X with characters that could be digits.
            "\t0x0000:  4500 0016 0001 0000 4011 66c3 ac1e 4c07\n\t0x0010:  0afe 000a 0035",
            "0x0000:  4500 0016 0001 0000 4011 66c3 ac1e 4c07  E.......@.f...L.\n\
             0x0010:  0afe 000a 0035                           abcd",
            // xxd.
            "00000000: 4500 0016 0001 0000 4011 66c3 ac1e 4c07  E.......@.f...L.\n00000010: 0afe 000a 0035  .....5",
            // Wireshark.
            "0000   45 00 00 16 00 01 00 00 40 11 66 c3 ac 1e 4c 07   E.......@.f...L.\n\
             0010   0a fe 00 0a 00 35                                 .....5",
            // hexdump -C.
            "00000000  45 00 00 16 00 01 00 00  40 11 66 c3 ac 1e 4c 07  |E.......@.f...L.|\n\
             00000010  0a fe 00 0a 00 35                                 |.....5|\n00000016\n",
        ] {
            assert_eq!(parse(text).as_deref(), Ok(&wanted[..]), "{text}");
        }
        // No offset: the MAC of an Ethernet frame.
        assert_eq!(parse("0000 5e00 0101").unwrap(), [0, 0, 0x5e, 0, 1, 1]);
    }

    #[test]
    fn what_is_wrong_is_said_where_it_is() {
        for (text, message) in [
            ("", "line 1, column 1: there are none"),
            (" \n\t", "there are none"),
            ("4500 zz", "line 1, column 6: `zz`; expected pairs"),
            ("4500\n00 1", "line 2, column 4: `1` has an odd number of digits"),
            ("0x", "`0x` has an odd number"),
            ("0x0000: 4500\n0x0010: 4500", "line 2, column 1: offset `0x0010:` behind 2 bytes"),
            ("0x0020: 4500", "offset `0x0020:` behind 0 bytes"),
            ("ü4 00", "column 1: `ü4`"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(bytes in proptest::collection::vec(any::<u8>(), 1..100)) {
            prop_assert_eq!(parse(&print(&bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_read_or_refused_inside_it(text in "[0-9a-fx:|\\n ]{0,60}") {
            if let Err(error) = parse(&text) {
                let line = text.lines().nth(error.line - 1).unwrap_or_default();
                prop_assert!((1..=line.chars().count() + 1).contains(&error.column));
            }
        }
    }
}
