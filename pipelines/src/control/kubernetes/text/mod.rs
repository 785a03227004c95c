//! Manifests as text: files to pieces, pieces to typed objects, each with its place.
//!
//! As Kubernetes does it (sigs.k8s.io/yaml), YAML is made JSON first, and JSON is read into types: so there is one reader
//! of types. A piece is what can be read without the rest of its file: a YAML document, a JSON document, or an item of a
//! JSON list. A file that changed is split anew, but only pieces whose text is new are read.

mod json;
mod pieces;
mod places;
mod reading;
mod scalar;
mod yaml;

pub(super) use pieces::{Piece, split};
pub(super) use places::{Spot, end_of};
pub(super) use reading::{PieceReading, read};
