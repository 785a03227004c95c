//! What a plain scalar of YAML is: nothing, true or false, a number, or text.
//!
//! Source: `resolve` of go-yaml v2, which sigs.k8s.io/yaml keeps a copy of: what kubectl reads is read here, and what it
//! refuses (`name: yes` is no text) is refused.

use saphyr_parser::Tag;

/// A scalar as JSON; what is wrong if it has a tag that is not known or does not fit.
pub(super) fn to_json(text: &str, is_plain: bool, tag: Option<&Tag>) -> Result<String, String> {
    let Some(tag) = tag else {
        return Ok(if is_plain { resolve(text) } else { quoted(text) });
    };
    let name = tag.is_yaml_core_schema().then_some(tag.suffix.as_str());
    match name {
        Some("str") => Ok(quoted(text)),
        // The non-specific tag: text, whatever it looks like.
        None if tag.handle.is_empty() && tag.suffix == "!" => Ok(quoted(text)),
        Some("null" | "bool" | "int" | "float") => {
            let json = resolve(text);
            if json.starts_with('"') { Err(format!("this is no {}", tag.suffix)) } else { Ok(json) }
        }
        _ => Err(format!(
            "the tag {} is not known",
            crate::control::kubernetes::meaning::notes::shown(&tag.to_string())
        )),
    }
}

/// Text as JSON.
pub(super) fn quoted(text: &str) -> String {
    // Escaping cannot fail; what follows only says so.
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}

fn resolve(text: &str) -> String {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return "null".to_owned(),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return "true".to_owned();
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return "false".to_owned();
        }
        _ => {}
    }
    // Most scalars are text, and show it by their first character.
    if text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.')) {
        integer(text).or_else(|| float(text)).unwrap_or_else(|| quoted(text))
    } else {
        quoted(text)
    }
}

/// Decimal, `0x`, `0o`, `0b`, and octal by a leading zero, with underscores anywhere: as Go's `ParseInt` with base 0.
fn integer(text: &str) -> Option<String> {
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix(['+', '-']) {
        Some(digits) => (if plain.starts_with('-') { "-" } else { "" }, digits),
        None => ("", plain.as_str()),
    };
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, digits.get(2..)?),
        [b'0', b'o' | b'O', ..] => (8, digits.get(2..)?),
        [b'0', b'b' | b'B', ..] => (2, digits.get(2..)?),
        [b'0', _, ..] => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    // A second sign is no number.
    if !digits.starts_with(|first: char| first.is_ascii_hexdigit()) {
        return None;
    }
    let number = u64::from_str_radix(digits, base).ok()?;
    Some(if number == 0 { "0".to_owned() } else { format!("{sign}{number}") })
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`; infinities stay text, since JSON has none.
fn float(text: &str) -> Option<String> {
    let plain = text.replace('_', "");
    let is_number =
        plain.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'));
    let number: f64 = Some(plain).filter(|_| is_number)?.parse().ok()?;
    // Whole numbers are written as such, as Go's encoder does, so that 1e3 is a port.
    if number.fract() == 0.0 && number.abs() < 1e15 {
        return Some(format!("{number:.0}"));
    }
    serde_json::Number::from_f64(number).map(|number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_what_go_yaml_takes_them_for() {
        for (text, json) in [
            ("", "null"),
            ("~", "null"),
            ("null", "null"),
            ("nULL", "\"nULL\""),
            ("yes", "true"),
            ("On", "true"),
            ("y", "true"),
            ("TRUE", "true"),
            ("tRue", "\"tRue\""),
            ("no", "false"),
            ("off", "false"),
            ("N", "false"),
            ("80", "80"),
            ("+80", "80"),
            ("-80", "-80"),
            ("-0", "0"),
            ("1_000", "1000"),
            ("18446744073709551615", "18446744073709551615"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("017", "15"),
            ("0b11", "3"),
            ("018", "18"),
            ("--1", "\"--1\""),
            ("-", "\"-\""),
            ("+", "\"+\""),
            ("0x", "\"0x\""),
            ("1.5", "1.5"),
            (".5", "0.5"),
            ("1.", "1"),
            ("1e3", "1000"),
            ("-1.5E-3", "-0.0015"),
            (".", "\".\""),
            (".inf", "\".inf\""),
            ("1e999", "\"1e999\""),
            ("10.0.0.1", "\"10.0.0.1\""),
            ("1.2.3", "\"1.2.3\""),
            ("2024-01-01", "\"2024-01-01\""),
            ("8a:22:81:5e:d8:b7", "\"8a:22:81:5e:d8:b7\""),
            ("a\"b\n", "\"a\\\"b\\n\""),
            ("nan", "\"nan\""),
            ("1 2", "\"1 2\""),
        ] {
            assert_eq!(to_json(text, true, None).as_deref(), Ok(json), "{text}");
            assert_eq!(to_json(text, false, None), Ok(quoted(text)));
        }
    }

    #[test]
    fn tags() {
        let tag = |handle: &str, suffix: &str| Tag { handle: handle.to_owned(), suffix: suffix.to_owned() };
        let core = "tag:yaml.org,2002:";
        assert_eq!(to_json("80", true, Some(&tag(core, "str"))).as_deref(), Ok("\"80\""));
        assert_eq!(to_json("80", false, Some(&tag(core, "int"))).as_deref(), Ok("80"));
        assert_eq!(to_json("yes", true, Some(&tag("", "!"))).as_deref(), Ok("\"yes\""));
        assert_eq!(to_json("x", true, Some(&tag(core, "int"))), Err("this is no int".to_owned()));
        assert_eq!(
            to_json("eA==", true, Some(&tag(core, "binary"))),
            Err("the tag `tag:yaml.org,2002:!binary` is not known".to_owned())
        );
        assert_eq!(to_json("x", true, Some(&tag("!", "own"))), Err("the tag `!own` is not known".to_owned()));
    }
}
