//! A gateway that has seen flows come and tables change, and beside it, for each packet, one that has just begun.

use std::collections::{BTreeMap, HashMap};

use engine::table::flow::{EntryId, FlowKey};
use pipelines::control::config;
use pipelines::control::nodes::with_nodes;
use pipelines::flow::{FLAG_ORIGINAL, FlowValue};
use pipelines::gateway::Gauge;
use proptest::prelude::*;

use crate::expected::{assert_outer_checksum, assert_rewritten, is_tunnel, without_running_number};
use crate::scene::{Forwarding, Policy, forwarding, policy};
use crate::seen::{Compared, Seen};
use crate::support::World;
use crate::support::packets::{ACK, FIN, RST, SYN};
use crate::text::configuration;
use crate::traffic::{GRE, Sent, Shape, TCP, later_flags, opening, shape};

/// What happens.
#[derive(Clone, Debug)]
pub enum Act {
    /// Clients send, to somebody new or not, within one turn.
    Open(Vec<(FlowKey, Shape)>),
    /// The client of a known flow sends again.
    Again { which: usize, flags: u8, shape: Shape },
    /// Its server answers.
    Answer { which: usize, flags: u8, shape: Shape },
    /// The client of a known flow calls its server directly from the same port.
    Twin { which: usize, shape: Shape },
    /// Other services, backends, weights or policies.
    Policy(Policy),
    /// Other routes, next hops or tunnels.
    Forwarding(Forwarding),
    /// Time passes; then what waits for the sweeps is done.
    Wait { milliseconds: u64 },
}

pub fn act() -> impl Strategy<Value = Act> {
    let later = || (any::<usize>(), later_flags(), shape());
    prop_oneof![
        5 => proptest::collection::vec((opening(), shape()), 1..4).prop_map(Act::Open),
        7 => later().prop_map(|(which, flags, shape)| Act::Again { which, flags, shape }),
        7 => later().prop_map(|(which, flags, shape)| Act::Answer { which, flags, shape }),
        1 => (any::<usize>(), shape()).prop_map(|(which, shape)| Act::Twin { which, shape }),
        1 => policy().prop_map(Act::Policy),
        2 => forwarding().prop_map(Act::Forwarding),
        1 => prop_oneof![0u64..50, Just(31_000)].prop_map(|milliseconds| Act::Wait { milliseconds }),
    ]
}

/// What became of packets.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    /// Frames that left and by which port, sorted.
    left: Vec<(String, Vec<u8>)>,
    drops: BTreeMap<&'static str, u64>,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.left.extend(other.left);
        self.left.sort();
        for (reason, count) in other.drops {
            *self.drops.entry(reason).or_default() += count;
        }
    }
}

/// A flow of the gateway, from its original direction.
#[derive(Clone, Copy)]
struct Flow {
    key: FlowKey,
    /// What its packets leave as.
    to: FlowKey,
}

/// What a flow began with.
#[derive(Clone)]
struct Birth {
    policy: Policy,
    forwarding: Forwarding,
}

pub struct Trial {
    world: World,
    kubernetes: bool,
    seed: u64,
    policy: Policy,
    forwarding: Forwarding,
    births: HashMap<(FlowKey, FlowKey), Birth>,
    pub seen: Seen,
}

const MANIFEST: &str = "services";

fn world(kubernetes: bool, seed: u64, policy: &Policy, forwarding: &Forwarding) -> World {
    let text = configuration(policy, forwarding, kubernetes);
    let manifests = policy.manifests();
    let files = [(MANIFEST, manifests.as_str())];
    World::with_manifests(&text, if kubernetes { &files } else { &[] }, 1, seed)
}

/// Lets packets arrive in one turn.
fn send(world: &mut World, packets: &[Sent]) -> Outcome {
    let drops: BTreeMap<_, _> = world.drops().into_iter().collect();
    for sent in packets {
        match sent.port {
            "host" => world.send_from_host(&sent.frame),
            port => world.send(port, &sent.frame),
        }
    }
    world.turn();
    let mut outcome = Outcome::default();
    let ports: Vec<String> = world.configuration.ports.iter().map(|port| port.name.clone()).collect();
    for port in ports {
        let frames = world.sent(&port).into_iter().map(without_running_number);
        outcome.left.extend(frames.map(|frame| (port.clone(), frame)));
    }
    outcome.left.extend(world.sent_to_host().into_iter().map(|frame| ("host".to_owned(), frame)));
    outcome.left.sort();
    for (reason, count) in world.drops() {
        let before = drops.get(reason).copied().unwrap_or_default();
        if count > before {
            outcome.drops.insert(reason, count - before);
        }
    }
    outcome
}

/// Lets a flow begin with a packet that leaves.
fn open(world: &mut World, key: FlowKey) {
    let outcome = send(world, &[Sent::new(key, ACK, &Shape::plain())]);
    assert_eq!(outcome.left.len(), 1, "{key:02x?} {outcome:?}");
}

/// Publishes other tables, as the control loop does on reload.
fn change(world: &mut World, kubernetes: bool, policy: &Policy, forwarding: &Forwarding) {
    let text = configuration(policy, forwarding, kubernetes);
    let written = config::parse(&text, "test.toml").unwrap_or_else(|report| panic!("{report}"));
    if kubernetes {
        world.objects.replace_file(MANIFEST, Some(policy.manifests().as_bytes()));
        assert_eq!(world.objects.counts().rejected, 0, "{:?}", world.objects.findings());
    }
    world.configuration = with_nodes(&written.configuration, &world.objects).0;
    let tables = world.builder.build_with(&world.configuration, &world.objects).unwrap();
    world.publish(tables);
    world.advance_ms(1);
    world.publisher.reclaim();
}

impl Trial {
    pub fn new(kubernetes: bool, seed: u64) -> Self {
        let (policy, forwarding) = (Policy::usual(), Forwarding::usual());
        let world = world(kubernetes, seed, &policy, &forwarding);
        let (births, seen) = (HashMap::new(), Seen::default());
        Self { world, kubernetes, seed, policy, forwarding, births, seen }
    }

    pub fn act(&mut self, act: &Act) {
        match act {
            Act::Open(openings) => {
                let packets: Vec<Sent> =
                    openings.iter().map(|(key, shape)| Sent::new(*key, SYN, shape)).collect();
                // Those by themselves that may be refused because of other packets and flows.
                let (alone, together): (Vec<_>, Vec<_>) =
                    packets.into_iter().partition(|sent| [TCP, GRE].contains(&sent.key.protocol));
                alone.into_iter().for_each(|sent| self.exchange(&[sent]));
                self.exchange(&together);
            }
            Act::Again { which, flags, shape } => {
                let Some(flow) = self.nth_flow(*which) else { return };
                self.exchange(&[Sent::new(flow.key, *flags, shape)]);
            }
            Act::Answer { which, flags, shape } => {
                let Some(flow) = self.nth_flow(*which) else { return };
                let flags = if *flags == SYN { SYN | ACK } else { *flags };
                self.exchange(&[Sent::new(flow.to.reversed(), flags, shape)]);
            }
            Act::Twin { which, shape } => {
                let Some(flow) = self.nth_flow(*which) else { return };
                let Flow { key, to } = flow;
                let direct =
                    FlowKey { destination: to.destination, destination_port: to.destination_port, ..key };
                self.exchange(&[Sent::new(direct, SYN, shape)]);
            }
            Act::Policy(policy) => {
                self.policy = policy.clone();
                self.change();
            }
            Act::Forwarding(forwarding) => {
                self.forwarding = forwarding.clone();
                self.change();
            }
            Act::Wait { milliseconds } => {
                self.world.advance_ms((*milliseconds).min(50));
                self.world.now.0 += milliseconds.saturating_sub(50) * 1_000_000;
                self.world.turn();
                self.world.tend();
                self.prune();
            }
        }
    }

    fn change(&mut self) {
        change(&mut self.world, self.kubernetes, &self.policy, &self.forwarding);
        self.prune();
    }

    fn flows(&self) -> Vec<Flow> {
        let flows = self.world.workers[0].pipeline.flows();
        (0..flows.capacity() as u32 * 2)
            .map(|number| flows.entry(EntryId(number)))
            .filter(|entry| entry.key.valid != 0 && entry.value.has(FLAG_ORIGINAL))
            .map(|entry| Flow { key: entry.key, to: leaving(&entry.key, &entry.value) })
            .collect()
    }

    fn nth_flow(&self, which: usize) -> Option<Flow> {
        let flows = self.flows();
        (!flows.is_empty()).then(|| flows[which % flows.len()])
    }

    /// Forgets what flows began with that are gone.
    fn prune(&mut self) {
        let flows = self.flows();
        self.births.retain(|birth, _| flows.iter().any(|flow| (flow.key, flow.to) == *birth));
    }

    /// Lets packets arrive, and compares what becomes of them with what becomes of each in a gateway that has just begun.
    fn exchange(&mut self, packets: &[Sent]) {
        let created = self.world.gauge(Gauge::FlowsCreated);
        let outcome = send(&mut self.world, packets);
        let is_known = self.world.gauge(Gauge::FlowsCreated) == created;
        self.prune();
        for flow in self.flows() {
            let birth = Birth { policy: self.policy.clone(), forwarding: self.forwarding.clone() };
            self.births.entry((flow.key, flow.to)).or_insert(birth);
        }
        // Connection tracking finds it invalid, or two hosts would have one masqueraded address's answers to a protocol
        // that has no ports: both hang on what came before, and either way nothing leaves.
        if let Some(reason) =
            ["tcp_invalid", "snat_ports_exhausted"].iter().find(|reason| outcome.drops.contains_key(**reason))
        {
            assert_eq!((packets.len(), outcome.left.len()), (1, 0), "{packets:02x?} {outcome:02x?}");
            let protocol = packets[0].key.protocol;
            assert_eq!(protocol, if *reason == "tcp_invalid" { TCP } else { GRE });
            return;
        }
        let mut fresh = Outcome::default();
        for sent in packets {
            fresh.add(self.fresh(sent));
        }
        assert_eq!(outcome, fresh, "left and right: of {packets:02x?}");
        if let [sent] = packets {
            self.check(sent, &outcome, is_known);
        }
    }

    /// The flow that a packet belongs to now, and whether it goes its original way.
    fn flow_of(&self, sent: &Sent) -> Option<(Flow, bool)> {
        self.flows().into_iter().find_map(|flow| match sent.key {
            key if key == flow.key => Some((flow, true)),
            key if key == flow.to.reversed() => Some((flow, false)),
            _ => None,
        })
    }

    /// What becomes of a packet in a gateway that has just begun.
    fn fresh(&self, sent: &Sent) -> Outcome {
        let Some((flow, is_original)) = self.flow_of(sent) else {
            let mut world = world(self.kubernetes, self.seed, &self.policy, &self.forwarding);
            return send(&mut world, std::slice::from_ref(sent));
        };
        let policy = self.births[&(flow.key, flow.to)].policy.forced(&flow.key, &flow.to);
        let has_twin = flow.key.source == flow.to.source && flow.key.source_port != flow.to.source_port;
        let mut world = if has_twin {
            self.world_with_twin(&flow, &policy)
        } else {
            world(self.kubernetes, self.seed, &policy, &self.forwarding)
        };
        let opens_nothing = sent.key.protocol == TCP && sent.flags & (FIN | RST) != 0;
        if !is_original || opens_nothing {
            open(&mut world, flow.key);
        }
        send(&mut world, std::slice::from_ref(sent))
    }

    /// A gateway where another flow has the answers of `flow` if its source port stays: the client reaches one backend
    /// directly and through a service, and the second of these gets another port.
    fn world_with_twin(&self, flow: &Flow, policy: &Policy) -> World {
        let direct = FlowKey { source_port: flow.key.source_port, ..flow.to };
        let (first, policy_of_first) = match direct == flow.key {
            false => (direct, policy.clone()),
            true => Policy::with_service_before(&direct),
        };
        let mut world = world(self.kubernetes, self.seed, &policy_of_first, &self.forwarding);
        open(&mut world, first);
        change(&mut world, self.kubernetes, policy, &self.forwarding);
        world
    }

    /// Reads what left, and notes what it was.
    fn check(&mut self, sent: &Sent, outcome: &Outcome, is_known: bool) {
        let Some((flow, is_original)) = self.flow_of(sent) else { return };
        let Flow { key, to } = flow;
        let must_leave = self.policy.must_leave(&key, &to, self.kubernetes);
        assert!(!must_leave, "datagrams must not go to a backend that is gone: {sent:02x?}");
        let leaving = if is_original { to } else { key.reversed() };
        let [(port, frame)] = &outcome.left[..] else { return };
        assert_rewritten(sent, &leaving, port, frame);
        if is_tunnel(frame) {
            assert_outer_checksum(frame, self.forwarding.outer_checksum);
        }
        if !is_known {
            return;
        }
        let birth = &self.births[&(key, to)];
        let compared = Compared {
            key,
            to,
            is_original,
            sent,
            port,
            frame,
            has_moved: birth.forwarding != self.forwarding,
            has_other_policies: birth.policy != self.policy,
            may_choose_it: self.policy.may_choose(&key, &to),
        };
        self.seen.note(&compared);
    }

    pub fn finish(mut self) {
        self.world.assert_balanced();
    }
}

fn leaving(key: &FlowKey, value: &FlowValue) -> FlowKey {
    FlowKey {
        source: value.new_source,
        destination: value.new_destination,
        source_port: value.new_source_port,
        destination_port: value.new_destination_port,
        ..*key
    }
}
