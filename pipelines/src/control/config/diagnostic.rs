//! What a check has to say: where, what is wrong, and what would be right.

use core::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but probably does not do what was meant.
    Warning,
}

/// A place in a configuration file. Lines and columns count from one, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The file, as it was named by whoever asked.
    pub file: String,
    /// Which line.
    pub line: usize,
    /// Which character of the line.
    pub column: usize,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Where. None: the configuration as a whole, or no file was at hand ([`super::Loaded::locate`] adds it).
    #[serde(flatten)]
    pub place: Option<Place>,
    /// Path of the key, as in `ports[1].mtu`: elements count from zero. Empty: the file as a whole.
    pub key: String,
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub right: String,
}

impl Diagnostic {
    /// A finding that makes the configuration unusable, at a key whose place is not known yet.
    pub(crate) fn error(key: impl Into<String>, wrong: impl Into<String>, right: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            place: None,
            key: key.into(),
            wrong: wrong.into(),
            right: right.into(),
        }
    }

    /// As [`Self::error`], of a configuration that can be used all the same.
    pub(crate) fn warning(
        key: impl Into<String>,
        wrong: impl Into<String>,
        right: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(key, wrong, right) }
    }

    /// Whether the configuration cannot be used because of this.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { file, line, column }) = &self.place {
            write!(formatter, "{file}:{line}:{column}: ")?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(formatter, "{severity}: {}; {}", self.wrong, self.right)
    }
}

/// Why a configuration is refused: everything that was found, errors and warnings, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// At least one of them is an error.
    pub diagnostics: Vec<Diagnostic>,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, diagnostic) in self.diagnostics.iter().enumerate() {
            if place > 0 {
                formatter.write_str("\n")?;
            }
            diagnostic.fmt(formatter)?;
        }
        Ok(())
    }
}

impl core::error::Error for Report {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_as_compilers_do_and_as_json() {
        let mut diagnostic = Diagnostic::error("bridge.mtu", "`mtu` is 1", "give more");
        assert_eq!(diagnostic.to_string(), "error: `mtu` is 1; give more");
        diagnostic.place = Some(Place { file: "a.toml".into(), line: 3, column: 7 });
        assert_eq!(diagnostic.to_string(), "a.toml:3:7: error: `mtu` is 1; give more");
        assert_eq!(
            serde_json::to_string(&diagnostic).unwrap(),
            r#"{"severity":"error","file":"a.toml","line":3,"column":7,"key":"bridge.mtu","wrong":"`mtu` is 1","right":"give more"}"#
        );
        let report = Report { diagnostics: vec![diagnostic, Diagnostic::warning("", "odd", "even")] };
        assert_eq!(report.to_string(), "a.toml:3:7: error: `mtu` is 1; give more\nwarning: odd; even");
    }
}
