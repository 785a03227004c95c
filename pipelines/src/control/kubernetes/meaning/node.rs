//! A Node: its addresses, its pods' networks, its zone, and its end of flannel's tunnel.
//!
//! Source of flannel's annotations: pkg/subnet/kube/annotations.go and `nodeToLease` of pkg/subnet/kube/kube.go;
//! of `backend-data`: `vxlanLeaseAttrs` of pkg/backend/vxlan/vxlan.go.

use core::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use engine::wire::ethernet::MacAddress;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};
use serde::Deserialize;

use super::annotations::{self, Annotations};
use super::check;
use super::notes::{Notes, shown};
use super::path::Path;
use crate::control::kubernetes::limits;
use crate::control::kubernetes::object::ObjectId;
use crate::control::services::desired::{DesiredNode, Origin, Vtep};
use crate::prefix::Ipv4Prefix;

/// Names a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

const BACKEND_TYPE: &str = "flannel.alpha.coreos.com/backend-type";
const BACKEND_DATA: &str = "flannel.alpha.coreos.com/backend-data";
const PUBLIC_IP: &str = "flannel.alpha.coreos.com/public-ip";
const PUBLIC_IP_OVERWRITE: &str = "flannel.alpha.coreos.com/public-ip-overwrite";

/// The network that flannel uses unless its configuration names another one. Versions before 0.12 do not tell it.
const DEFAULT_VNI: u32 = 1;
const VNI_BITS: u32 = 24;

/// What a Node means.
pub(super) fn read(node: &Node, id: &ObjectId, notes: &mut Notes) -> DesiredNode {
    let zone = node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE));
    DesiredNode {
        name: Arc::clone(&id.name),
        origin: Arc::new(Origin::default()),
        addresses: node.status.as_ref().map(|status| addresses(status, notes)).unwrap_or_default(),
        pod_cidrs: node.spec.as_ref().map(|spec| pod_cidrs(spec, notes)).unwrap_or_default(),
        zone: zone.filter(|zone| !zone.is_empty()).map(|zone| zone.as_str().into()),
        vtep: node.metadata.annotations.as_ref().and_then(|annotations| vtep(annotations, notes)),
    }
}

/// Internal addresses, then external ones, each in their order. The API server takes any text for an address.
fn addresses(status: &NodeStatus, notes: &mut Notes) -> Vec<Ipv4Addr> {
    let mut addresses = Vec::new();
    let listed = status.addresses.as_deref().unwrap_or_default();
    if listed.len() > limits::ADDRESSES {
        let wrong = format!("{} addresses, so the last ones are left out", listed.len());
        notes.warning("status.addresses", wrong, format!("give {} at the most", limits::ADDRESSES));
    }
    for wanted in ["InternalIP", "ExternalIP"] {
        for (place, listed) in
            listed.iter().take(limits::ADDRESSES).enumerate().filter(|(_, listed)| listed.type_ == wanted)
        {
            match listed.address.parse() {
                Ok(IpAddr::V4(address)) if check::special(IpAddr::V4(address)).is_none() => {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
                Ok(IpAddr::V6(_)) => {}
                _ => {
                    let wrong =
                        format!("{} is no address of a node, so it is left out", shown(&listed.address));
                    let path = Path::of("status.addresses").item(place).field("address");
                    notes.warning(path, wrong, "give an address, as in 10.0.0.1");
                }
            }
        }
    }
    addresses
}

/// `podCIDRs`, or `podCIDR` where there is no more (`ValidateNode`, pkg/apis/core/validation/validation.go).
fn pod_cidrs(spec: &NodeSpec, notes: &mut Notes) -> Vec<Ipv4Prefix> {
    let single = spec.pod_cidr.as_deref().filter(|text| !text.is_empty());
    let listed: Vec<&str> = spec.pod_cidrs.iter().flatten().map(String::as_str).collect();
    if let (Some(single), Some(first)) = (single, listed.first())
        && single != *first
    {
        let wrong = format!("it begins with {}, and `podCIDR` is {}", shown(first), shown(single));
        notes.error("spec.podCIDRs", wrong, "let `podCIDR` be the first of `podCIDRs`");
    }
    let mut cidrs = Vec::new();
    if listed.is_empty() {
        let cidr = single.and_then(|text| check::cidr(text, Path::of("spec.podCIDR"), notes));
        if let Some(check::Cidr::V4(cidr)) = cidr {
            cidrs.push(cidr);
        }
    }
    for (place, text) in listed.into_iter().enumerate() {
        let path = Path::of("spec.podCIDRs").item(place);
        if let Some(check::Cidr::V4(cidr)) = check::cidr(text, path, notes) {
            if !cidrs.is_empty() {
                let wrong = format!("{cidr} is the second prefix of IPv4");
                notes.error(path, wrong, "give one of each family at the most");
            }
            cidrs.push(cidr);
        }
    }
    cidrs
}

/// `backend-data` of the backend vxlan.
#[derive(Deserialize)]
struct BackendData {
    #[serde(rename = "VNI")]
    vni: Option<u32>,
    #[serde(rename = "VtepMAC")]
    vtep_mac: String,
}

/// The node's end of the tunnel; none if flannel is not there, or uses no VXLAN.
fn vtep(annotations: &Annotations, notes: &mut Notes) -> Option<Vtep> {
    let value = |name: &str| annotations.get(name).map(|text| text.trim()).filter(|text| !text.is_empty());
    if value(BACKEND_TYPE) != Some("vxlan") {
        return None;
    }
    let data = value(BACKEND_DATA).unwrap_or_default();
    let parsed: Option<BackendData> = serde_json::from_str(data).ok();
    let parsed = parsed.and_then(|data| {
        let mac: MacAddress = data.vtep_mac.parse().ok().filter(|mac: &MacAddress| mac.is_unicast())?;
        let vni = Some(data.vni.unwrap_or(DEFAULT_VNI)).filter(|vni| vni >> VNI_BITS == 0)?;
        Some((vni, mac))
    });
    if parsed.is_none() {
        let wrong = format!("{} tells of no tunnel, so there is none to this node", shown(data));
        let right = r#"let flannel write it, as in {"VNI":1,"VtepMAC":"8a:22:81:5e:d8:b7"}"#;
        notes.warning(annotations::path(BACKEND_DATA), wrong, right);
    }
    // Who overwrites the address wants it used; flannel copies it to the other annotation when it starts.
    let name = if value(PUBLIC_IP_OVERWRITE).is_some() { PUBLIC_IP_OVERWRITE } else { PUBLIC_IP };
    let text = value(name).unwrap_or_default();
    let public_ip: Option<Ipv4Addr> =
        text.parse().ok().filter(|address| check::special(IpAddr::V4(*address)).is_none());
    if public_ip.is_none() {
        let wrong = format!("{} is no address of a node, so there is no tunnel to it", shown(text));
        notes.warning(annotations::path(name), wrong, "let flannel write it, as in 192.168.0.21");
    }
    let ((vni, mac), public_ip) = (parsed?, public_ip?);
    Some(Vtep { vni, mac, public_ip })
}
