//! What a value of the file can be read as, and how one is shown that cannot.

use core::ops::RangeInclusive;

use toml::de::DeValue;

/// Why a value cannot be used.
pub(crate) enum Fault {
    /// Not of the TOML type that is wanted.
    Type,
    /// Of the right type, but wrong: in what way, and what would be right.
    Content(String, String),
}

/// A value that can stand in a configuration file.
pub(crate) trait Readable: Sized {
    /// What is wanted, to be read behind "write".
    const WANTED: &'static str;

    /// Reads it from the parsed value.
    fn read(value: &DeValue<'_>) -> Result<Self, Fault>;
}

/// The one of `known` that `name` was probably meant to be.
pub(crate) fn closest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let limit = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|known| (strsim::osa_distance(name, known), known))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, known)| known)
}

/// What to write for an integer of `range`, behind "write".
pub(crate) fn wanted_integer(range: &RangeInclusive<u64>) -> String {
    format!("an integer from {} to {}", range.start(), range.end())
}

/// Reads an integer of `range`.
pub(crate) fn read_integer<T: TryFrom<u64>>(
    value: &DeValue<'_>,
    range: &RangeInclusive<u64>,
) -> Result<T, Fault> {
    let DeValue::Integer(integer) = value else {
        return Err(Fault::Type);
    };
    let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
    number
        .and_then(|number| u64::try_from(number).ok())
        .filter(|number| range.contains(number))
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| Fault::Content("out of range".into(), format!("give {}", wanted_integer(range))))
}

/// A value as the file has it, or near enough, cut where it gets long.
pub(crate) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => {
            let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
            if text.chars().nth(60).is_some() {
                shown.push_str("...");
            }
            format!("\"{shown}\"")
        }
        DeValue::Integer(integer) => integer.to_string(),
        other => format!("a {}", other.type_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_what_is_near() {
        assert_eq!(closest("mut", ["mac", "mtu"]), Some("mtu"));
        assert_eq!(closest("x", ["mac", "mtu"]), None);
        assert_eq!(closest("idle_sleep_us", ["idle", "idle_sleep_max_us"]), Some("idle_sleep_max_us"));
    }
}
