//! Bounds on what manifests may be: no file, however it was made, takes memory or time without end.

/// Bytes of one file.
pub(super) const FILE_BYTES: usize = 256 << 20;
/// Files of one folder.
pub(super) const FILES: usize = 65_536;
/// Objects of the whole store: some 50,000 services with their slices and pods several times over.
pub(super) const OBJECTS: usize = 1 << 20;
/// Mappings and sequences inside each other in YAML. Objects that are read need nine.
pub(super) const YAML_DEPTH: usize = 64;
/// Keys and values of one YAML document.
pub(super) const YAML_NODES: usize = 16 << 20;
/// Bytes that aliases and merge keys may copy in one YAML document.
pub(super) const YAML_COPIED_BYTES: usize = 4 << 20;
/// Lists inside lists.
pub(super) const LIST_DEPTH: usize = 4;
/// Notes on one object; the rest is only counted.
pub(super) const NOTES: usize = 16;
/// Findings of one file; the rest is only counted.
pub(super) const FINDINGS: usize = 1_000;
/// External IPs, load balancers' IPs, or source ranges of one Service; and addresses of one Node.
pub(super) const ADDRESSES: usize = 1_024;
/// Addresses times ports of one Service: what has to be looked for in packets.
pub(super) const SERVICE_FRONTENDS: usize = 65_536;

// As the API server has them (pkg/apis/discovery/validation/validation.go).

/// Endpoints of one EndpointSlice.
pub(super) const SLICE_ENDPOINTS: usize = 1_000;
/// Ports of one EndpointSlice.
pub(super) const SLICE_PORTS: usize = 100;
/// Addresses of one endpoint.
pub(super) const ENDPOINT_ADDRESSES: usize = 100;
/// Zones or nodes that one endpoint is hinted for.
pub(super) const ENDPOINT_HINTS: usize = 8;
