//! As little of a service balancer as can be called one: a map from flows to backends, filled by first packets; no timeouts,
//! no answers, no states.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, bail};
use capsule::Mbuf;
use capsule::packets::ip::Flow;
use capsule::packets::ip::v4::Ipv4;
use capsule::packets::{Ethernet, Packet, Udp4};

use crate::load::{BACKEND_PORT, FIRST_SERVICE, backend};

/// Flows, each with the backend it was given.
pub struct Nat {
    flows: HashMap<Flow, Ipv4Addr>,
    services: u32,
    next: u32,
}

impl Nat {
    pub fn new(flows: usize, services: usize) -> Self {
        Self { flows: HashMap::with_capacity(flows), services: services as u32, next: 0 }
    }

    /// Rewrites a packet's destination to its flow's backend.
    pub fn translate(&mut self, packet: Mbuf) -> Result<Udp4> {
        let mut ethernet = packet.parse::<Ethernet>()?;
        ethernet.swap_addresses();
        let mut ip = ethernet.parse::<Ipv4>()?;
        let ttl = ip.ttl();
        ip.set_ttl(ttl.saturating_sub(1));
        let mut udp = ip.parse::<Udp4>()?;
        let flow = udp.flow();
        let backend = match self.flows.get(&flow) {
            Some(backend) => *backend,
            None => self.open(flow)?,
        };
        udp.set_dst_port(BACKEND_PORT);
        udp.envelope_mut().set_dst(backend);
        udp.reconcile_all();
        Ok(udp)
    }

    fn open(&mut self, flow: Flow) -> Result<Ipv4Addr> {
        let IpAddr::V4(service) = flow.dst_ip() else { bail!("IPv4 alone") };
        let number = u32::from(service).wrapping_sub(FIRST_SERVICE);
        if number >= self.services || flow.dst_port() != 80 {
            bail!("no such service");
        }
        self.next = self.next.wrapping_add(1);
        let backend = backend(self.next);
        self.flows.insert(flow, backend);
        Ok(backend)
    }
}
