//! A cached decision equals a fresh one, bytes compared: what leaves by a flow's entry, in a gateway that has seen flows come
//! and tables change, is what leaves of the same packet in a gateway that has just begun with the tables of now and has to
//! decide it anew. For every kind of packet, in both directions, across changes of routes, next hops, tunnels, services,
//! backends and policies.
//!
//! Three things differ by right, and the second gateway is told of them:
//!
//! - **What chance chose.** It is given one backend to choose from, and one masquerade port.
//! - **What a flow keeps.** Its translation is that of the policies under which it began (docs/decisions.md: open connections
//!   never move), so the second gateway decides by those; routes, next hops and tunnels are those of now.
//! - **Running numbers.** The outer identification (RFC 6864, section 4.2) is compared by the checksum over it alone. Outer
//!   source ports are compared: both gateways hash with the same secret.
//!
//! A packet that connection tracking finds invalid (TCP's state table) leaves nowhere, whatever was decided of its flow. And
//! because a mistake in what both gateways share would go unseen, what leaves is also read by an implementation that is not
//! ours, against what the flow is translated to.
//!
//! `POLLGATE_CACHED_DECISION_CASES` sets the number of cases; the default takes seconds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(unreachable_pub, reason = "modules of one test binary")]

mod support;

#[path = "cached_decision/expected.rs"]
mod expected;
#[path = "cached_decision/scene.rs"]
mod scene;
#[path = "cached_decision/seen.rs"]
mod seen;
#[path = "cached_decision/text.rs"]
mod text;
#[path = "cached_decision/traffic.rs"]
mod traffic;
#[path = "cached_decision/trial.rs"]
mod trial;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use trial::{Act, Trial, act};

fn settings() -> ProptestConfig {
    let cases = std::env::var("POLLGATE_CACHED_DECISION_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: cases.unwrap_or(40), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(settings())]

    /// Random packets and answers, and random changes between them.
    #[test]
    fn a_cached_decision_equals_a_fresh_one(
        kubernetes in any::<bool>(),
        seed in any::<u64>(),
        acts in proptest::collection::vec(act(), 10..50),
    ) {
        let mut trial = Trial::new(kubernetes, seed);
        for act in &acts {
            trial.act(act);
        }
        trial.finish();
    }
}

/// The generators reach what they are for: packets of known flows make up most of what is compared, and all kinds of them
/// are among those.
#[test]
fn what_is_compared_is_of_all_kinds() {
    let mut runner = TestRunner::deterministic();
    let acts = proptest::collection::vec(act(), 1_200).new_tree(&mut runner).expect("a tree").current();
    let mut seen = seen::Seen::default();
    for (place, some) in acts.chunks(100).enumerate() {
        let mut trial = Trial::new(place % 2 == 0, place as u64);
        some.iter().for_each(|act: &Act| trial.act(act));
        seen.add(&trial.seen);
        trial.finish();
    }
    seen.assert_all_kinds();
}
