//! The kernel as a gateway: sends first packets to it and watches what becomes of them, on every wire and in its own stack.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use pnet::datalink::{self, Channel, Config, DataLinkReceiver, DataLinkSender};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketType};

use crate::namespaces::{LINKS, Link, NODE_ADDRESSES, Namespaces, OVERLAY, PODS, UNDERLAY};
use crate::outcome::{Outcome, Verdict};
use crate::packet::{FirstPacket, Protocol, Sight, recognize};
use crate::probe::Probe;

/// Packets that show what a kind of packet meets with; if it is a service's endpoints, the others follow.
const FIRST: usize = 8;
/// With three endpoints the chance to miss one in so many draws is below 10^-14, with four below 10^-10.
const OTHERS: usize = 88;
/// Packets between two looks at the sockets, whose buffers are bounded.
const BATCH: usize = 32;
/// Fences before a batch counts as over: each empties queues that what came before it may have filled again, once for
/// a packet's own hop through the loopback interface and once for the error that answers it.
const FENCES: usize = 3;
const FENCE_WAIT: Duration = Duration::from_secs(5);
/// Tags of fences; of other packets all below.
const FIRST_FENCE: u16 = 0xff00;
/// So that every packet has a source port of its own, which no NAT has a reason to change but masquerading.
const FIRST_PORT: u16 = 1_024;
const LAST_TAG: u16 = u16::MAX - FIRST_PORT;

/// From outside to a pod that no service knows.
const FENCE: FirstPacket = FirstPacket {
    protocol: Protocol::Udp,
    source: Ipv4Addr::new(192, 168, 0, 250),
    destination: Ipv4Addr::new(172, 30, 76, 250),
    port: 9,
};

/// The gateway's wires, and sockets in its own stack.
pub(crate) struct Kernel {
    wires: Vec<Wire>,
    /// Sends as the node itself does.
    own: OwnedFd,
    /// What is delivered to the node, by protocol.
    delivered: Vec<OwnedFd>,
    next_tag: u16,
    next_fence: u16,
}

/// The far end of a link.
struct Wire {
    link: Link,
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
}

/// Where a packet is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Wire,
    Stack,
}

impl Kernel {
    /// Opens the sockets; the thread stays in the gateway's namespace. It keeps to one core: then everything that it
    /// sets off passes that core's one queue in order, and a fence that comes out is behind all that was sent before.
    pub(crate) fn new(namespaces: &Namespaces) -> Kernel {
        if let Some(core) = core_affinity::get_core_ids().and_then(|cores| cores.last().copied()) {
            core_affinity::set_for_current(core);
        }
        namespaces.enter_far();
        let wires = LINKS.map(Wire::open).into();
        namespaces.enter_gateway();
        let raw = |protocol: u8| {
            let protocol = NonZeroU32::new(protocol.into()).map(net::Protocol::from_raw);
            net::socket(AddressFamily::INET, SocketType::RAW, protocol).expect("root may open raw sockets")
        };
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Echo, Protocol::Gre];
        Kernel {
            wires,
            // raw(7): IPPROTO_RAW means that the sender brings the IP header.
            own: raw(255),
            delivered: protocols.iter().map(|protocol| raw(protocol.number().0)).collect(),
            next_tag: 0,
            next_fence: FIRST_FENCE,
        }
    }

    /// What becomes of a kind of packet.
    pub(crate) fn ask(&mut self, probe: &Probe) -> Outcome {
        let mut sent = BTreeMap::new();
        let mut seen = Vec::new();
        self.send(probe, FIRST, &mut sent, &mut seen);
        if outcome(probe, &sent, &seen).verdict == Verdict::Forward {
            self.send(probe, OTHERS, &mut sent, &mut seen);
        }
        outcome(probe, &sent, &seen)
    }

    fn send(
        &mut self,
        probe: &Probe,
        count: usize,
        sent: &mut BTreeMap<u16, (FirstPacket, u16)>,
        seen: &mut Vec<(u16, Place, Sight)>,
    ) {
        for number in 0..count {
            let tag = self.next_tag;
            self.next_tag += 1;
            assert!(tag < LAST_TAG, "too many packets for one pair of namespaces");
            let source = probe.sources[number % probe.sources.len()];
            let packet = FirstPacket { source, ..probe.packet };
            let source_port = FIRST_PORT + tag;
            self.emit(&packet, &packet.bytes(source_port, tag));
            sent.insert(tag, (packet, source_port));
            if (number + 1) % BATCH == 0 {
                self.fence(seen);
            }
        }
        self.fence(seen);
    }

    fn emit(&mut self, packet: &FirstPacket, bytes: &[u8]) {
        let source = packet.source;
        let is_own = NODE_ADDRESSES.iter().any(|address| address.parse() == Ok(source));
        let link = match source.octets() {
            _ if is_own => {
                let to = SocketAddrV4::new(packet.destination, 0);
                return match net::sendto(&self.own, bytes, SendFlags::empty(), &to) {
                    // So the kernel says that a rule has dropped it, with or without an answer.
                    Ok(_) | Err(Errno::PERM) => {}
                    Err(error) => panic!("{packet}: {error}"),
                };
            }
            [172, 30, 76, _] => PODS,
            [172, 30, ..] => OVERLAY,
            _ => UNDERLAY,
        };
        self.wire(link).send(bytes);
    }

    fn wire(&mut self, link: Link) -> &mut Wire {
        self.wires.iter_mut().find(|wire| wire.link == link).expect("every link has a wire")
    }

    /// Waits until all that was sent has had its effect, and collects what is seen.
    fn fence(&mut self, seen: &mut Vec<(u16, Place, Sight)>) {
        for _ in 0..FENCES {
            let tag = self.next_fence;
            self.next_fence = tag.checked_add(1).unwrap_or(FIRST_FENCE);
            self.wire(UNDERLAY).send(&FENCE.bytes(tag, tag));
            let deadline = Instant::now() + FENCE_WAIT;
            loop {
                for wire in &mut self.wires {
                    wire.drain(seen);
                }
                if let Some(place) = seen.iter().position(|(seen_tag, ..)| *seen_tag == tag) {
                    seen.remove(place);
                    break;
                }
                assert!(Instant::now() < deadline, "the gateway forwards nothing any more");
                std::thread::yield_now();
            }
        }
        let mut bytes = [0; 2_048];
        for socket in &self.delivered {
            while let Ok((length, _)) = net::recv(socket, &mut bytes, RecvFlags::DONTWAIT) {
                seen.extend(recognize(&bytes[..length]).map(|(tag, sight)| (tag, Place::Stack, sight)));
            }
        }
    }
}

impl Wire {
    fn open(link: Link) -> Wire {
        let interfaces = datalink::interfaces();
        let interface = interfaces.iter().find(|known| known.name == link.name).expect("the link is there");
        let config = Config { read_timeout: Some(Duration::ZERO), ..Config::default() };
        match datalink::channel(interface, config) {
            Ok(Channel::Ethernet(sender, receiver)) => Wire { link, sender, receiver },
            Ok(_) => panic!("{} is no Ethernet link", link.name),
            Err(error) => panic!("{}: {error}", link.name),
        }
    }

    fn send(&mut self, packet: &[u8]) {
        let mut frame = mac(self.link.gateway_mac).to_vec();
        frame.extend(mac(self.link.far_mac));
        frame.extend([0x08, 0x00]);
        frame.extend(packet);
        self.sender.send_to(&frame, None).expect("one frame fits").expect("the link is up");
    }

    /// What the gateway has sent out of this link. The socket hears what is sent into it, too.
    fn drain(&mut self, seen: &mut Vec<(u16, Place, Sight)>) {
        let gateway = mac(self.link.gateway_mac);
        while let Ok(frame) = self.receiver.next() {
            if frame.get(6..12) == Some(&gateway) && frame.get(12..14) == Some(&[0x08, 0x00]) {
                seen.extend(recognize(&frame[14..]).map(|(tag, sight)| (tag, Place::Wire, sight)));
            }
        }
    }
}

fn mac(text: &str) -> [u8; 6] {
    text.parse::<datalink::MacAddr>().expect("six numbers").octets()
}

/// What all packets of a probe met with; the same, or the rules are not what they are meant to be.
fn outcome(probe: &Probe, sent: &BTreeMap<u16, (FirstPacket, u16)>, seen: &[(u16, Place, Sight)]) -> Outcome {
    let mut found = Outcome::plain(Verdict::Drop);
    let mut sources = Sources::new();
    let mut verdicts = BTreeSet::new();
    for (tag, (packet, source_port)) in sent {
        let sights = seen.iter().filter(|(seen_tag, ..)| seen_tag == tag);
        let sights: Vec<(Place, Sight)> = sights.map(|(_, place, sight)| (*place, *sight)).collect();
        let (verdict, name) = one_outcome(packet, *source_port, &sights, &mut found, &mut sources);
        found.verdict = verdict;
        verdicts.insert(name);
    }
    assert!(verdicts.len() == 1, "{}: {verdicts:?} from one kind of packet", probe.packet);
    let is_masqueraded =
        |changes: &Vec<bool>| 2 * changes.iter().filter(|is_new| **is_new).count() > changes.len();
    found.endpoints =
        sources.iter().map(|(endpoint, changes)| (*endpoint, is_masqueraded(changes))).collect();
    found
}

/// By endpoint, whether the source of each packet became another. Most packets tell: where a masqueraded flow has a packet's
/// own source already, the kernel gives the packet another port, though no rule says so.
type Sources = BTreeMap<SocketAddrV4, Vec<bool>>;

fn one_outcome(
    packet: &FirstPacket,
    source_port: u16,
    sights: &[(Place, Sight)],
    found: &mut Outcome,
    sources: &mut Sources,
) -> (Verdict, String) {
    let mut verdict = Verdict::Drop;
    // What is delivered may be answered by the node's stack; that is no verdict of the rules.
    for (place, sight) in sights.iter().rev() {
        match sight {
            Sight::Refused { kind: 3, code: 3 } if verdict == Verdict::Drop => {
                verdict = Verdict::Reject;
                found.reject_with = Some("icmp-port-unreachable".to_owned());
            }
            Sight::Refused { .. } => {}
            Sight::Sent { source, destination } => {
                let (address, port) = *destination;
                if (address, port) == (packet.destination, packet.port) {
                    verdict = if *place == Place::Stack { Verdict::Deliver } else { Verdict::Pass };
                } else {
                    verdict = Verdict::Forward;
                    let is_new = *source != (packet.source, source_port);
                    sources.entry(SocketAddrV4::new(address, port)).or_default().push(is_new);
                }
                found.reject_with = None;
            }
        }
    }
    (verdict, format!("{verdict:?}"))
}
