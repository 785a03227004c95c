//! Values of `health_check`.

use toml::de::DeValue;

use super::{choice, content, text};
use crate::control::config::readable::{Fault, Readable};

/// Longest path.
const PATH_LENGTH_MAX: usize = 1024;

/// How a backend is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    Tcp,
    Http,
}

impl Readable for ProbeKind {
    const WANTED: &'static str = "\"tcp\" or \"http\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        choice(value, &[("tcp", Self::Tcp), ("http", Self::Http)])
    }
}

/// A request's target in origin form (RFC 9112 section 3.2.1), as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct HttpPath(pub(crate) String);

impl Readable for HttpPath {
    const WANTED: &'static str = "a string, as in \"/healthz\"";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = text(value)?;
        if !text.starts_with('/') {
            return content("which is no path", "begin it with a slash, as in \"/healthz\"");
        }
        if text.len() > PATH_LENGTH_MAX {
            return content(format!("which is longer than {PATH_LENGTH_MAX} bytes"), "write a shorter one");
        }
        // A space would end the target, and a line break the request's first line; a fragment is never sent.
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return content(
                "which holds what cannot stand in a request",
                "write it with percent signs, as in \"/a%20b\"",
            );
        }
        Ok(Self(text.to_owned()))
    }
}

/// First and last status of an answer that is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatusRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

/// Final statuses; those below 200 precede an answer (RFC 9110 section 15.2).
fn is_status(status: u16) -> bool {
    (200..=599).contains(&status)
}

impl Readable for StatusRange {
    const WANTED: &'static str =
        "an integer, or the first and the last in a string, as in `200` or `\"200-399\"`";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        if let DeValue::Integer(integer) = value {
            let status = u16::from_str_radix(integer.as_str(), integer.radix()).ok();
            return match status.filter(|status| is_status(*status)) {
                Some(status) => Ok(Self { first: status, last: status }),
                None => content("which is no status of an answer", "write one from 200 to 599"),
            };
        }
        let ends = text(value)?.split_once('-').and_then(|(first, last)| {
            Some((first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?))
        });
        match ends {
            Some((first, last)) if first > last => content(
                "whose first status is above its last",
                format!("write the smaller one first: \"{last}-{first}\""),
            ),
            Some((first, last)) if is_status(first) && is_status(last) => Ok(Self { first, last }),
            _ => content(
                "which is no range of statuses",
                "write the first and the last, from 200 to 599, with a dash, as in \"200-399\"",
            ),
        }
    }
}
