//! Everything that objects say, together.

use super::changes::{Changes, Counts};
use super::finding::Finding;
use super::object::{Object, ObjectId};
use crate::control::services::desired::{DesiredNode, DesiredService, ServiceKey};

/// All objects, whatever source they come from. A change costs what it touches, never the whole store.
#[derive(Debug, Default)]
pub struct ObjectStore {
    services: std::collections::BTreeMap<ServiceKey, ()>,
    nodes: std::collections::BTreeMap<String, DesiredNode>,
}

impl ObjectStore {
    /// Without any object.
    pub fn new() -> Self {
        Self::default()
    }

    /// What one file says now; none: the file is gone. Objects that it has no more go.
    pub fn replace_file(&mut self, file: &str, text: Option<&[u8]>) -> Changes {
        let _ = (file, text);
        Changes::default()
    }

    /// Takes a typed object from a source without files. `place` names the source, for people.
    pub fn put(&mut self, object: Object, place: &str) -> Changes {
        let _ = (object, place);
        Changes::default()
    }

    /// Removes what [`Self::put`] has put.
    pub fn delete(&mut self, id: &ObjectId) -> Changes {
        let _ = id;
        Changes::default()
    }

    /// What is wrong now, in order of file and line.
    pub fn findings(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// Every Service object, programmed or not, in order.
    pub fn service_keys(&self) -> impl Iterator<Item = &ServiceKey> {
        self.services.keys()
    }

    /// What is wanted of a service; none if there is no such object, or if it is not programmed.
    pub fn desired(&self, key: &ServiceKey) -> Option<DesiredService> {
        let _ = key;
        None
    }

    /// Every node, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &DesiredNode> {
        self.nodes.values()
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&DesiredNode> {
        self.nodes.get(name)
    }

    /// How many objects there are.
    pub fn counts(&self) -> Counts {
        Counts::default()
    }
}
