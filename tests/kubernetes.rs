//! What Kubernetes services mean, from manifests to packets: each point that services are defined by, on the reference
//! cluster's node 1, through the whole pipeline.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

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
#[path = "kubernetes/stations.rs"]
mod stations;
