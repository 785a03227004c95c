//! The objects that are read, and how they are named.

use core::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// The kinds of objects that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// core/v1
    Node,
    /// core/v1
    Service,
    /// discovery.k8s.io/v1
    EndpointSlice,
    /// core/v1
    Endpoints,
    /// core/v1
    Namespace,
    /// core/v1
    Pod,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Node, Self::Service, Self::EndpointSlice, Self::Endpoints, Self::Namespace, Self::Pod];

    /// As objects name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Endpoints => "Endpoints",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
        }
    }

    /// The version of the API that it is read in.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::EndpointSlice => "discovery.k8s.io/v1",
            _ => "v1",
        }
    }

    /// Whether its objects lie in a namespace.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Node | Self::Namespace)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// What an object is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds that lie in none.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl ObjectId {
    /// From text. The namespace is dropped for kinds that lie in none; elsewhere an empty one is `default`.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let namespace = match (kind.is_namespaced(), namespace) {
            (false, _) => "",
            (true, "") => "default",
            (true, namespace) => namespace,
        };
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(formatter, "{} {}", self.kind, self.name)
        } else {
            write!(formatter, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// A typed object.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// core/v1
    Node(Box<Node>),
    /// core/v1
    Service(Box<Service>),
    /// discovery.k8s.io/v1
    EndpointSlice(Box<EndpointSlice>),
    /// core/v1
    Endpoints(Box<Endpoints>),
    /// core/v1
    Namespace(Box<Namespace>),
    /// core/v1
    Pod(Box<Pod>),
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Node(_) => Kind::Node,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Endpoints(_) => Kind::Endpoints,
            Self::Namespace(_) => Kind::Namespace,
            Self::Pod(_) => Kind::Pod,
        }
    }
}
