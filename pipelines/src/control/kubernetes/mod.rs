//! Kubernetes objects as a source: manifests (YAML, JSON, lists) or typed objects from anywhere, read as kube-proxy reads
//! them and told in the words of [`crate::control::services::desired`].
//!
//! [`ManifestFolder`] watches over files, [`ObjectStore`] holds what all objects say together. docs/kubernetes.md says
//! what is read of each kind, what our annotations mean and what becomes of objects that are wrong.

mod changes;
mod finding;
mod folder;
mod limits;
mod meaning;
mod object;
mod store;
#[cfg(test)]
mod tests;
mod text;

pub use changes::{Changes, Counts};
pub use finding::Finding;
pub use folder::{FolderError, ManifestFolder};
pub use object::{Kind, Object, ObjectId};
pub use store::ObjectStore;
