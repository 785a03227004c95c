//! Everything that objects say, together.

mod combine;
mod files;
mod in_force;
mod reports;

use core::net::Ipv6Addr;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::RandomState;
use std::sync::Arc;

use self::files::FileState;
use self::in_force::InForce;
use super::changes::{Changes, Counts};
use super::finding::Finding;
use super::meaning::notes::Notes;
use super::meaning::{self, Content};
use super::object::{Object, ObjectId};
use super::text::Spot;
use crate::control::services::desired::{DesiredNode, DesiredService, ServiceKey};

/// All objects, whatever source they come from. A change costs what it touches, never the whole store.
///
/// An object may be written in several places: the first file in order of name counts, and whatever comes without a file
/// comes behind all files. The others are reported, and stand in when the first one goes.
#[derive(Debug, Default)]
pub struct ObjectStore {
    files: BTreeMap<Arc<str>, FileState>,
    /// Good versions of each object, the one that counts first.
    claims: HashMap<ObjectId, Vec<Claim>>,
    /// Objects with more than one.
    contested: BTreeSet<ObjectId>,
    in_force: InForce,
    /// What is wrong with objects that came without a file.
    put_findings: BTreeMap<ObjectId, Vec<Finding>>,
    /// Those of them that are refused.
    put_rejected: BTreeSet<ObjectId>,
    rejected_total: u64,
    /// Keys of the hash that tells pieces of text apart, so that nobody can make two that look alike.
    hasher: RandomState,
}

/// A good version of an object.
#[derive(Clone, Debug, PartialEq)]
struct Claim {
    source: Source,
    standing: Standing,
}

/// Who says it, in order of precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    File(Arc<str>),
    Put,
}

/// What is said, and where.
#[derive(Clone, Debug)]
struct Standing {
    content: Arc<Content>,
    written: Written,
}

impl Standing {
    /// Whether both mean the same, wherever they are written.
    fn means(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.content, &other.content) || self.content == other.content
    }
}

impl PartialEq for Standing {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written && self.means(other)
    }
}

/// Where something is written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Written {
    /// The file, or what a source without files calls itself.
    source: Arc<str>,
    /// Where in the file.
    spot: Option<Spot>,
}

impl ObjectStore {
    /// Without any object.
    pub fn new() -> Self {
        Self::default()
    }

    /// What one file says now; none: the file is gone. Objects that it has no more go with it. An object that is wrong
    /// leaves its last good version in force, and so does a document that cannot be read with all that the file said.
    pub fn replace_file(&mut self, file: &str, text: Option<&[u8]>) -> Changes {
        let mut changes = Changes::default();
        self.change_file(&Arc::from(file), text, &mut changes);
        changes
    }

    /// Says that a file cannot be read, as `wrong` tells. All that it said stays in force.
    pub fn refuse_file(&mut self, file: &str, wrong: &str) -> Changes {
        let mut changes = Changes::default();
        self.refuse(&Arc::from(file), Spot::default(), wrong, "make it readable", &mut changes);
        changes
    }

    /// Takes a typed object from a source without files. `place` names the source, for people.
    pub fn put(&mut self, object: Object, place: &str) -> Changes {
        let mut changes = Changes::default();
        let mut notes = Notes::default();
        let metadata = meaning::metadata(&object);
        let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
        let id = meaning::identity(object.kind(), namespace, name, &mut notes);
        let content = match &id {
            Some(id) if self.claims.len() < super::limits::OBJECTS || self.claims.contains_key(id) => {
                meaning::read(&object, id, &mut notes)
            }
            Some(_) => {
                notes.error("", "there are too many objects", "remove some");
                None
            }
            None => None,
        };
        // What has no name that can be shown is known by none.
        let id = id.unwrap_or_else(|| ObjectId::new(object.kind(), "", ""));
        if content.is_none() {
            self.put_rejected.insert(id.clone());
            self.rejected_total += 1;
        } else {
            self.put_rejected.remove(&id);
        }
        let findings = notes.into_vec().into_iter().map(|note| Finding::of_put(&id, place, note)).collect();
        changes.findings |= self.set_put_findings(&id, findings);
        if let Some(content) = content {
            let written = Written { source: place.into(), spot: None };
            let standing = Standing { content: Arc::new(content), written };
            self.claim(&id, Source::Put, Some(standing), &mut changes);
        }
        changes
    }

    /// Removes what [`Self::put`] has put.
    pub fn delete(&mut self, id: &ObjectId) -> Changes {
        let mut changes = Changes::default();
        changes.findings |= self.put_rejected.remove(id);
        changes.findings |= self.set_put_findings(id, Vec::new());
        self.claim(id, Source::Put, None, &mut changes);
        changes
    }

    fn set_put_findings(&mut self, id: &ObjectId, findings: Vec<Finding>) -> bool {
        if findings.is_empty() {
            return self.put_findings.remove(id).is_some();
        }
        self.put_findings.get(id) != Some(&findings) && {
            self.put_findings.insert(id.clone(), findings);
            true
        }
    }

    /// What a source says of an object now; none: nothing any more.
    fn claim(&mut self, id: &ObjectId, source: Source, standing: Option<Standing>, changes: &mut Changes) {
        let claims = self.claims.entry(id.clone()).or_default();
        let before = claims.first().map(|claim| claim.standing.clone());
        let was_contested = claims.len() > 1;
        match (claims.binary_search_by(|claim| claim.source.cmp(&source)), standing) {
            (Ok(place), Some(standing)) => {
                if let Some(claim) = claims.get_mut(place) {
                    claim.standing = standing;
                }
            }
            (Ok(place), None) => drop(claims.remove(place)),
            (Err(place), Some(standing)) => claims.insert(place, Claim { source, standing }),
            (Err(_), None) => {}
        }
        let after = claims.first().map(|claim| claim.standing.clone());
        let is_contested = claims.len() > 1;
        if claims.is_empty() {
            self.claims.remove(id);
        }
        if is_contested {
            self.contested.insert(id.clone());
        } else if was_contested {
            self.contested.remove(id);
        }
        changes.findings |= is_contested || was_contested;
        self.in_force.replace(id, before, after, changes);
    }

    /// What is wrong now, in order of file and line.
    pub fn findings(&self) -> Vec<Finding> {
        self.report()
    }

    /// Every Service object, programmed or not, in order.
    pub fn service_keys(&self) -> impl Iterator<Item = &ServiceKey> {
        self.in_force.services.keys()
    }

    /// What is wanted of a service; none if there is no such object, or if it is not programmed.
    pub fn desired(&self, key: &ServiceKey) -> Option<DesiredService> {
        self.in_force.desired(key)
    }

    /// The addresses of IPv6 that a service has, which are not programmed.
    pub fn ipv6(&self, key: &ServiceKey) -> &[Ipv6Addr] {
        match self.in_force.services.get(key).map(|standing| &*standing.content) {
            Some(Content::Service(service)) => &service.ipv6,
            _ => &[],
        }
    }

    /// Every node, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &DesiredNode> {
        self.in_force.nodes.values()
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&DesiredNode> {
        self.in_force.nodes.get(name)
    }

    /// How many objects there are.
    pub fn counts(&self) -> Counts {
        self.count()
    }
}
