//! Forwarding on the reference cluster, stage by stage: frames in, frames out, every counter asserted.

mod support;

#[path = "forwarding/arp.rs"]
mod arp;
#[path = "forwarding/bridge.rs"]
mod bridge;
#[path = "forwarding/host.rs"]
mod host;
#[path = "forwarding/hygiene.rs"]
mod hygiene;
#[path = "forwarding/overlay.rs"]
mod overlay;
#[path = "forwarding/reload.rs"]
mod reload;
#[path = "forwarding/routes.rs"]
mod routes;
