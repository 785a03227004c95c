//! The ports of a Service.
//!
//! Source: `validateServicePort` and the duplicates' checks of `ValidateService`, pkg/apis/core/validation/validation.go.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::check;
use super::notes::{Notes, shown};
use super::path::Path;
use super::service::Type;
use crate::control::services::desired::DesiredPort;

/// Reads and compares the ports of one service.
#[derive(Default)]
pub(super) struct Ports<'a> {
    names: HashSet<&'a str>,
    ports: HashSet<(u8, u16)>,
    node_ports: HashSet<(u8, u16)>,
    read: Vec<DesiredPort>,
}

impl<'a> Ports<'a> {
    /// All of them, without endpoints.
    pub(super) fn read(listed: &'a [ServicePort], service_type: Type, notes: &mut Notes) -> Vec<DesiredPort> {
        let mut ports = Self::default();
        for (place, port) in listed.iter().enumerate() {
            ports.read_name(port, place, listed.len(), notes);
            ports.read_port(port, place, service_type, notes);
        }
        ports.read
    }

    fn read_name(&mut self, port: &'a ServicePort, place: usize, count: usize, notes: &mut Notes) {
        let path = Path::of("spec.ports").item(place).field("name");
        let name = port.name.as_deref().unwrap_or_default();
        check::port_name(name, path, notes);
        if name.is_empty() {
            if count > 1 {
                notes.error(path, "this port has no name", "name each port, since there are several");
            }
        } else if !self.names.insert(name) {
            notes.error(
                path,
                format!("{} is the name of another port too", shown(name)),
                "give each port its own name",
            );
        }
    }

    fn read_port(&mut self, port: &ServicePort, place: usize, service_type: Type, notes: &mut Notes) {
        let protocol = check::protocol(
            port.protocol.as_deref(),
            Path::of("spec.ports").item(place).field("protocol"),
            notes,
        );
        let number = check::port(port.port, Path::of("spec.ports").item(place).field("port"), notes);
        if let Some(IntOrString::Int(target)) = port.target_port {
            check::port(target, Path::of("spec.ports").item(place).field("targetPort"), notes);
        }
        let path = Path::of("spec.ports").item(place).field("nodePort");
        let node_port = match port.node_port.unwrap_or_default() {
            0 => None,
            _ if service_type == Type::ClusterIp => {
                notes.error(
                    path,
                    "a service of type ClusterIP has no node ports",
                    "leave it out, or use `type: NodePort`",
                );
                None
            }
            number => check::port(number, path, notes),
        };
        let (Some(protocol), Some(number)) = (protocol, number) else { return };
        if !self.ports.insert((protocol as u8, number)) {
            let wrong = format!("port {number} of this protocol is listed before");
            notes.error(
                Path::of("spec.ports").item(place).field("port"),
                wrong,
                "list each port and protocol once",
            );
        }
        if let Some(node_port) = node_port
            && !self.node_ports.insert((protocol as u8, node_port))
        {
            let wrong = format!("node port {node_port} of this protocol is listed before");
            notes.error(path, wrong, "give each port its own node port");
        }
        if service_type == Type::NodePort && port.node_port.unwrap_or_default() == 0 {
            let right = "give `nodePort`; the API server would choose one";
            notes.warning(Path::of("spec.ports").item(place), "this port has no node port", right);
        }
        self.read.push(DesiredPort {
            name: Arc::from(port.name.as_deref().unwrap_or_default()),
            protocol,
            port: number,
            node_port,
            health_check: None,
            endpoints: Vec::new(),
        });
    }
}
