//! What is wrong with an object or a file.

use core::fmt;

use super::object::ObjectId;
use crate::control::config::{Diagnostic, Place, Severity};

/// One thing that is wrong now; it stays until it is mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Error: the object is refused, or the document cannot be read. Warning: it is in force, probably not as it was meant.
    pub severity: Severity,
    /// Where; none for objects that are written in no file.
    pub place: Option<Place>,
    /// Which object, if it says.
    pub object: Option<ObjectId>,
    /// Path of the field, as in `spec.ports[1].port`; empty: the object, or the document.
    pub field: String,
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub right: String,
}

impl From<&Finding> for Diagnostic {
    fn from(finding: &Finding) -> Self {
        let object = finding.object.as_ref().map(|object| format!("{object}: ")).unwrap_or_default();
        let field = if finding.field.is_empty() { String::new() } else { format!("{}: ", finding.field) };
        Self {
            severity: finding.severity,
            place: finding.place.clone(),
            key: finding.field.clone(),
            wrong: format!("{object}{field}{}", finding.wrong),
            right: finding.right.clone(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Diagnostic::from(self).fmt(formatter)
    }
}
