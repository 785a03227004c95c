//! `KEY=VALUE` on the command line: any key of the file, its path written with points, list entries by their place.

use core::str::FromStr;

use toml::Value;

/// Places in a list that a path may name.
const PLACES_MAX: usize = 64;

/// One key and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    path: Vec<String>,
    value: Value,
}

/// Why a setting cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No `=` in it, or no key before that.
    #[error("`{0}` sets nothing: write KEY=VALUE, as in traffic.flows=64000")]
    Form(String),
    /// The path goes through something that has no parts.
    #[error("`{0}` has no part `{1}`")]
    Path(String, String),
}

impl Setting {
    /// The key at this path gets this value.
    pub fn new(path: &str, value: Value) -> Self {
        Self { path: path.split('.').map(str::to_owned).collect(), value }
    }
}

impl FromStr for Setting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let (path, value) = text.split_once('=').ok_or_else(|| SettingError::Form(text.to_owned()))?;
        if path.split('.').any(str::is_empty) {
            return Err(SettingError::Form(text.to_owned()));
        }
        Ok(Self::new(path, value_of(value)))
    }
}

/// A value as TOML has it; what is none is a string without its quotes.
fn value_of(text: &str) -> Value {
    let line = format!("value = {text}");
    let parsed = toml::from_str::<toml::Table>(&line).ok().filter(|table| table.len() == 1);
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Sets a key. Tables and list entries on the way are made where they are missing.
pub fn apply(table: &mut toml::Table, setting: &Setting) -> Result<(), SettingError> {
    let Some((first, rest)) = setting.path.split_first() else { return Ok(()) };
    let mut place = table.entry(first.as_str()).or_insert_with(|| empty(rest));
    for (depth, part) in rest.iter().enumerate() {
        let after = &rest[depth + 1..];
        let missing = || SettingError::Path(setting.path[..=depth].join("."), part.clone());
        place = match place {
            Value::Table(table) => table.entry(part.as_str()).or_insert_with(|| empty(after)),
            Value::Array(entries) => {
                let index = part.parse().ok().filter(|index| *index < PLACES_MAX).ok_or_else(missing)?;
                while entries.len() <= index {
                    entries.push(empty(after));
                }
                entries.get_mut(index).ok_or_else(missing)?
            }
            _ => return Err(missing()),
        };
    }
    *place = setting.value.clone();
    Ok(())
}

/// What a path's rest needs to stand in: a list where it goes on with a number.
fn empty(rest: &[String]) -> Value {
    match rest.first() {
        Some(part) if part.parse::<usize>().is_ok() => Value::Array(Vec::new()),
        _ => Value::Table(toml::Table::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, settings: &[&str]) -> Result<String, SettingError> {
        let mut table: toml::Table = toml::from_str(text).unwrap();
        for setting in settings {
            apply(&mut table, &setting.parse()?)?;
        }
        Ok(toml::to_string(&table).unwrap())
    }

    #[test]
    fn values_are_tomls_or_strings() {
        let value = |text: &str| text.parse::<Setting>().unwrap().value;
        assert_eq!(value("a=5"), Value::Integer(5));
        assert_eq!(value("a=true"), Value::Boolean(true));
        assert_eq!(value("a=0.5"), Value::Float(0.5));
        assert_eq!(value("a=\"5\""), Value::String("5".into()));
        assert_eq!(value("a=[1, 2]"), Value::Array(vec![Value::Integer(1), Value::Integer(2)]));
        assert_eq!(value("a=net_tap0,iface=b"), Value::String("net_tap0,iface=b".into()));
        assert_eq!(value("a=1\nb = 2"), Value::String("1\nb = 2".into()));
        assert_eq!(value("a="), Value::String(String::new()));
    }

    #[test]
    fn paths_go_through_tables_and_lists() {
        assert_eq!(set("", &["a.b=1"]).unwrap(), "[a]\nb = 1\n");
        assert_eq!(set("[a]\nb = 1\n", &["a.b=2", "a.c=x"]).unwrap(), "[a]\nb = 2\nc = \"x\"\n");
        assert_eq!(set("", &["p.1.d=x", "p.0.d=y"]).unwrap(), "[[p]]\nd = \"y\"\n\n[[p]]\nd = \"x\"\n");
        assert!(matches!(set("a = 1", &["a.b=1"]), Err(SettingError::Path(..))));
        assert!(matches!(set("", &["p.0.d=x", "p.999.d=y"]), Err(SettingError::Path(..))));
        for wrong in ["a", "=1", "a..b=1", ""] {
            assert_eq!(wrong.parse::<Setting>(), Err(SettingError::Form(wrong.into())));
        }
    }
}
