//! What is wrong with a packet of a known flow, and what becomes of packets that are no traffic: the same for datagrams and
//! for segments.

use engine::packet::Packet;

use crate::binding::Binding;
use crate::fault::Fault;
use crate::link::Link;
use crate::outbox::Outbox;
use crate::received::{Aside, Received, answer_arp};
use crate::scenario::Scenario;
use crate::tag::Direction;
use crate::tally::Tally;

/// Compares a packet that came by `port` with the flow's place in the plan, and with what the gateway made of the flow
/// before.
#[inline(always)]
pub(crate) fn judge(
    scenario: &Scenario,
    number: u32,
    binding: &mut Binding,
    direction: Direction,
    port: u16,
    received: &Received<'_>,
) -> Option<Fault> {
    let tuple = scenario.plan.tuple(number);
    let (fault, wanted_port) = match direction {
        Direction::Request => (binding.check(&scenario.plan, &tuple, &received.ends), scenario.backend_port),
        Direction::Reply => {
            let right = received.ends == Scenario::request_ends(&tuple).reversed();
            ((!right).then_some(Fault::Address), scenario.client_port)
        }
    };
    if fault.is_some() {
        return fault;
    }
    if !scenario.may_come_by(port, wanted_port) {
        return Some(Fault::Port);
    }
    let hops = u16::from(received.time_to_live) + u16::from(scenario.hops);
    (hops != u16::from(scenario.time_to_live)).then_some(Fault::TimeToLive)
}

/// Counts a packet that carries no traffic, answers it if it asks by ARP, and is done with it.
#[cold]
pub(crate) fn set_aside(
    aside: Aside,
    link: &Link,
    port: u16,
    mut packet: Packet,
    tally: &mut Tally,
    outbox: &mut Outbox,
) {
    match aside {
        Aside::Faulty(fault) => tally.fault(fault, &packet),
        Aside::Icmp => tally.icmp += 1,
        Aside::Other => tally.other += 1,
        Aside::ArpRequest => {
            if answer_arp(link, packet.data_mut()) {
                tally.arp += 1;
                return outbox.push(port, packet);
            }
        }
    }
    outbox.recycle(packet);
}
