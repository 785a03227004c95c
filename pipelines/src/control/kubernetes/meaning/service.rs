//! A Service.
//!
//! Source: pkg/proxy/serviceport.go (`newBaseServiceInfo`), pkg/proxy/servicechangetracker.go (`serviceToServiceMap`) and
//! pkg/api/v1/service/util.go for what it means; `ValidateService` of pkg/apis/core/validation/validation.go for what is
//! refused. Fields that stand where they mean nothing (`healthCheckNodePort` without a load balancer) are warned of and
//! left out, though the API server refuses them in new objects: older objects in a cluster have them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::cluster_ips::ClusterIps;
use super::notes::{Notes, shown};
use super::path::Path;
use super::ports::Ports;
use super::{Programmed, ServiceContent, annotations, check};
use crate::control::kubernetes::limits;
use crate::control::kubernetes::object::ObjectId;
use crate::control::services::desired::{DesiredService, Origin, ServiceKey};
use crate::prefix::Ipv4Prefix;

/// `DefaultClientIPServiceAffinitySeconds`: three hours.
const AFFINITY_S: i32 = 10_800;
/// `MaxClientIPServiceAffinitySeconds`: a day.
const AFFINITY_MAX_S: i32 = 86_400;

/// `spec.type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

/// What a Service means.
pub(super) fn read(service: &Service, id: &ObjectId, notes: &mut Notes) -> ServiceContent {
    let nothing = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&nothing);
    let annotations = service.metadata.annotations.as_ref();
    let service_type = read_type(spec, notes);
    let cluster_ips = ClusterIps::read(spec, notes);
    let mut ipv6: Vec<Ipv6Addr> = cluster_ips.v6.into_iter().collect();
    let external_ips = external_ips(spec, &mut ipv6, notes);
    let external_local = external_local(spec, service_type, notes);
    let programmed = programmed(service, service_type, &cluster_ips, notes);
    let desired = DesiredService {
        key: ServiceKey { namespace: Arc::clone(&id.namespace), name: Arc::clone(&id.name) },
        origin: Arc::new(Origin::default()),
        cluster_ip: cluster_ips.v4,
        external_ips,
        load_balancer_ips: load_balancer_ips(service, &mut ipv6, notes),
        load_balancer_source_ranges: source_ranges(spec, service_type, notes),
        external_local,
        internal_local: policy(spec.internal_traffic_policy.as_deref(), "spec.internalTrafficPolicy", notes),
        affinity_s: affinity(spec, notes),
        algorithm: annotations::algorithm(annotations, notes),
        health_check_node_port: health_check(spec, service_type, external_local, notes),
        ports: Ports::read(spec.ports.as_deref().unwrap_or_default(), service_type, notes),
    };
    check_frontends(&desired, notes);
    let needs_ports = service_type != Type::ExternalName && !cluster_ips.is_headless;
    if needs_ports && spec.ports.as_ref().is_none_or(Vec::is_empty) {
        notes.error("spec.ports", "this service has no ports", "list at least one");
    }
    ServiceContent {
        desired,
        programmed,
        ipv6: ipv6.into(),
        weights: annotations::weights(annotations, notes),
    }
}

fn read_type(spec: &ServiceSpec, notes: &mut Notes) -> Type {
    match spec.type_.as_deref() {
        None | Some("ClusterIP") => Type::ClusterIp,
        Some("NodePort") => Type::NodePort,
        Some("LoadBalancer") => Type::LoadBalancer,
        Some("ExternalName") => Type::ExternalName,
        Some(other) => {
            let right = "give ClusterIP, NodePort, LoadBalancer or ExternalName";
            notes.error("spec.type", format!("{} is no type of a service", shown(other)), right);
            Type::ClusterIp
        }
    }
}

/// `ShouldSkipService`, and the labels that the informers of kube-proxy select by.
fn programmed(
    service: &Service,
    service_type: Type,
    cluster_ips: &ClusterIps,
    notes: &mut Notes,
) -> Programmed {
    if cluster_ips.is_headless && matches!(service_type, Type::NodePort | Type::LoadBalancer) {
        let right = "give a cluster IP, or use `type: ClusterIP`";
        notes.error("spec.clusterIP", "a service of this type cannot be headless", right);
    }
    if super::is_left_to_others(&service.metadata)
        || cluster_ips.is_headless
        || service_type == Type::ExternalName
    {
        return Programmed::No;
    }
    match (cluster_ips.v4, cluster_ips.v6) {
        (Some(_), _) => Programmed::Yes,
        (None, Some(_)) => Programmed::Ipv6,
        (None, None) => {
            // One that is written and wrong is told of already.
            if !notes.is_refused() {
                let right = "give `clusterIP`; the API server would choose one, a manifest has to say it";
                notes.warning("spec", "this service has no cluster IP, so it is not programmed", right);
            }
            Programmed::No
        }
    }
}

/// A list that the API server does not bound; more than that of it is not looked at.
fn bounded<'a, T>(listed: &'a [T], field: &str, notes: &mut Notes) -> &'a [T] {
    let Some(first) = listed.get(..limits::ADDRESSES).filter(|first| first.len() < listed.len()) else {
        return listed;
    };
    let right = format!("give {} at the most", limits::ADDRESSES);
    notes.error(field, format!("{} of them", listed.len()), right);
    first
}

/// Each address is looked for at each port.
fn check_frontends(desired: &DesiredService, notes: &mut Notes) {
    let addresses = 1 + desired.external_ips.len() + desired.load_balancer_ips.len();
    let frontends = addresses.saturating_mul(desired.ports.len());
    if frontends > limits::SERVICE_FRONTENDS {
        let right = format!("split the service; give {} at the most", limits::SERVICE_FRONTENDS);
        notes.error("spec.ports", format!("{frontends} addresses times ports"), right);
    }
}

/// One address more of the family it is of.
fn sort(address: Option<IpAddr>, v4: &mut Vec<Ipv4Addr>, v6: &mut Vec<Ipv6Addr>) {
    match address {
        // Written twice is meant once.
        Some(IpAddr::V4(address)) if !v4.contains(&address) => v4.push(address),
        Some(IpAddr::V6(address)) if !v6.contains(&address) => v6.push(address),
        _ => {}
    }
}

fn external_ips(spec: &ServiceSpec, v6: &mut Vec<Ipv6Addr>, notes: &mut Notes) -> Vec<Ipv4Addr> {
    let mut v4 = Vec::new();
    let listed = spec.external_ips.as_deref().unwrap_or_default();
    for (place, text) in bounded(listed, "spec.externalIPs", notes).iter().enumerate() {
        sort(check::address(text, Path::of("spec.externalIPs").item(place), notes), &mut v4, v6);
    }
    v4
}

/// Those that are captured: `ipMode: VIP`, or none (KEP-1860). With `Proxy` the balancer sends to a node port.
fn load_balancer_ips(service: &Service, v6: &mut Vec<Ipv6Addr>, notes: &mut Notes) -> Vec<Ipv4Addr> {
    let mut v4 = Vec::new();
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let listed = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    let listed = bounded(listed, "status.loadBalancer.ingress", notes);
    for (place, ingress) in listed.iter().enumerate() {
        let path = Path::of("status.loadBalancer.ingress").item(place).field("ip");
        let Some(text) = ingress.ip.as_deref().filter(|text| !text.is_empty()) else { continue };
        let address = check::address(text, path, notes);
        match ingress.ip_mode.as_deref() {
            None | Some("VIP") => sort(address, &mut v4, v6),
            Some("Proxy") => {}
            Some(other) => {
                let path = Path::of("status.loadBalancer.ingress").item(place).field("ipMode");
                notes.error(path, format!("{} is no mode", shown(other)), "give VIP or Proxy");
            }
        }
    }
    v4
}

/// Blanks around them are allowed for historical reasons. Ranges of IPv6 guard addresses of IPv6 alone: if there are no
/// others, addresses of IPv4 are open, as kube-proxy has it.
fn source_ranges(spec: &ServiceSpec, service_type: Type, notes: &mut Notes) -> Vec<Ipv4Prefix> {
    let listed = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let listed = bounded(listed, "spec.loadBalancerSourceRanges", notes);
    let mut ranges = Vec::new();
    for (place, text) in listed.iter().enumerate() {
        let path = Path::of("spec.loadBalancerSourceRanges").item(place);
        if let Some(check::Cidr::V4(range)) = check::cidr(text.trim(), path, notes)
            && !ranges.contains(&range)
        {
            ranges.push(range);
        }
    }
    if !listed.is_empty() && service_type != Type::LoadBalancer {
        let wrong = "it guards addresses of load balancers, and this is none";
        notes.warning("spec.loadBalancerSourceRanges", wrong, "leave it out, or use `type: LoadBalancer`");
    } else if !listed.is_empty() && ranges.is_empty() && !notes.is_refused() {
        let wrong = "all ranges are of IPv6, so load-balancer IPs of IPv4 are open to everybody";
        notes.warning("spec.loadBalancerSourceRanges", wrong, "add ranges of IPv4");
    }
    ranges
}

/// Whether a traffic policy is `Local`.
fn policy(text: Option<&str>, field: &str, notes: &mut Notes) -> bool {
    match text {
        None | Some("Cluster") => false,
        Some("Local") => true,
        Some(other) => {
            let wrong = format!("{} is no traffic policy", shown(other));
            notes.error(field, wrong, "give Cluster or Local");
            false
        }
    }
}

/// `ExternalPolicyLocal`: counts only for services that are reached from outside.
fn external_local(spec: &ServiceSpec, service_type: Type, notes: &mut Notes) -> bool {
    let is_accessible = match service_type {
        Type::NodePort | Type::LoadBalancer => true,
        Type::ClusterIp => spec.external_ips.as_ref().is_some_and(|addresses| !addresses.is_empty()),
        Type::ExternalName => false,
    };
    let is_local = policy(spec.external_traffic_policy.as_deref(), "spec.externalTrafficPolicy", notes);
    if is_local && !is_accessible {
        let wrong = "this service is not reached from outside, so the policy means nothing";
        notes.warning("spec.externalTrafficPolicy", wrong, "leave it out");
    }
    is_local && is_accessible
}

fn affinity(spec: &ServiceSpec, notes: &mut Notes) -> Option<u32> {
    match spec.session_affinity.as_deref() {
        None | Some("None") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            let wrong = format!("{} is no session affinity", shown(other));
            notes.error("spec.sessionAffinity", wrong, "give None or ClientIP");
            return None;
        }
    }
    let client_ip = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let timeout_s = client_ip.and_then(|config| config.timeout_seconds).unwrap_or(AFFINITY_S);
    if !(1..=AFFINITY_MAX_S).contains(&timeout_s) {
        let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        notes.error(path, format!("{timeout_s} seconds"), format!("give 1 to {AFFINITY_MAX_S}"));
    }
    u32::try_from(timeout_s).ok()
}

/// `NeedsHealthCheck`: a load balancer under the policy Local.
fn health_check(
    spec: &ServiceSpec,
    service_type: Type,
    external_local: bool,
    notes: &mut Notes,
) -> Option<u16> {
    const PATH: &str = "spec.healthCheckNodePort";
    let is_needed = service_type == Type::LoadBalancer && external_local;
    match (spec.health_check_node_port.unwrap_or_default(), is_needed) {
        (0, false) => None,
        (0, true) => {
            let right =
                "give one, or no load balancer learns where endpoints are; the API server would choose one";
            notes.warning("spec", "there is no `healthCheckNodePort`", right);
            None
        }
        (_, false) => {
            let wrong = "it means nothing without `type: LoadBalancer` and `externalTrafficPolicy: Local`";
            notes.warning(PATH, wrong, "leave it out");
            None
        }
        (number, true) => check::port(number, Path::of(PATH), notes),
    }
}
