//! What Kubernetes services mean, from manifests to packets: each point that services are defined by, on the reference
//! cluster's node 1, through the whole pipeline.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(unreachable_pub, reason = "modules of one test binary")]

mod support;

#[path = "kubernetes/affinity.rs"]
mod affinity;
#[path = "kubernetes/changes.rs"]
mod changes;
#[path = "kubernetes/choice.rs"]
mod choice;
#[path = "kubernetes/drain.rs"]
mod drain;
#[path = "kubernetes/endpoints.rs"]
mod endpoints;
#[path = "kubernetes/frontends.rs"]
mod frontends;
#[path = "kubernetes/manifests.rs"]
mod manifests;
#[path = "kubernetes/masquerade.rs"]
mod masquerade;
#[path = "kubernetes/policies.rs"]
mod policies;
#[path = "kubernetes/ports.rs"]
mod ports;
#[path = "kubernetes/stations.rs"]
mod stations;
#[path = "kubernetes/twins.rs"]
mod twins;
