//! Stages by themselves: those that work on a batch, and those that decide a first packet.

use engine::batch::Batch;
use engine::clock::Timestamp;
use engine::pool::MemoryPool;
use engine::port::BURST;
use engine::random::Random;
use engine::table::flow::HashSecret;
use pipelines::control::build::{Builder, HostFacts};
use pipelines::control::config;
use pipelines::decision::Decision;
use pipelines::flow::{FlowValue, Flows, flow_key};
use pipelines::gateway::{DECIDE, Situation, decide};
use pipelines::meta::Meta;
use pipelines::stage::{conntrack, parse, vxlan_decap};
use pipelines::table::Tables;
use pipelines::table::affinity::AffinityTable;

use super::scene::PACKETS;
use crate::loads::{self, Load};
use crate::meter::Meter;

/// Tables of the masqueraded load.
pub(crate) fn tables() -> Tables {
    let text = loads::configuration(Load::Masquerade, PACKETS, 10);
    let loaded = config::parse(&text, "instructions.toml").unwrap_or_else(|report| panic!("{report}"));
    Builder::new(1, HostFacts::default()).build(&loaded.configuration).expect("tables")
}

/// Room for the flows of a load, at four fifths.
pub(crate) fn flows() -> Flows {
    Flows::new(loads::capacity(PACKETS), HashSecret::new(3, 5)).expect("memory")
}

/// The stages that see each packet.
pub(crate) fn batches(meter: &mut Meter) {
    let (tables, mut flows) = (tables(), flows());
    let mut pool = MemoryPool::new(BURST);
    let frames = loads::frames(Load::Dnat, PACKETS, 10);
    let names =
        ["stage parse", "stage vxlan_decap", "stage conntrack::find, none", "stage conntrack::find, found"];
    for (step, name) in names.into_iter().enumerate() {
        for burst in frames.chunks(BURST) {
            let mut batch = Batch::<Meta>::new();
            for frame in burst {
                assert!(batch.push(pool.packet(0, frame).expect("a buffer"), 0).is_ok());
            }
            if step == 0 {
                meter.count(BURST, || parse::run(&mut batch, &tables, &flows));
                continue;
            }
            parse::run(&mut batch, &tables, &flows);
            if step == 1 {
                meter.count(BURST, || vxlan_decap::run(&mut batch, &tables));
                continue;
            }
            vxlan_decap::run(&mut batch, &tables);
            meter.count(BURST, || {
                conntrack::prefetch(&mut batch, &flows);
                batch.meta[..BURST].iter_mut().for_each(|meta| conntrack::find(meta, &flows));
            });
        }
        meter.ends(name);
        if step == 2 {
            learn(&mut flows, &mut pool, &tables, &frames);
        }
    }
}

/// Puts the flow of each frame into the table.
fn learn(flows: &mut Flows, pool: &mut MemoryPool, tables: &Tables, frames: &[Vec<u8>]) {
    for burst in frames.chunks(BURST) {
        let mut batch = Batch::<Meta>::new();
        for frame in burst {
            assert!(batch.push(pool.packet(0, frame).expect("a buffer"), 0).is_ok());
        }
        parse::run(&mut batch, tables, flows);
        for meta in &batch.meta[..burst.len()] {
            let value = FlowValue::default();
            flows.insert((meta.key, value), (meta.key.reversed(), value)).expect("room");
        }
    }
}

/// Stages that decide a first packet, each by itself and all together.
pub(crate) fn decisions(meter: &mut Meter) {
    let tables = tables();
    let affinity = AffinityTable::new(4, 1);
    let situation = Situation { tables: &tables, affinity: &affinity, now: Timestamp::default() };
    let mut random = Random::new(1);
    let all: Vec<Decision> = (0..PACKETS as u32)
        .map(|number| {
            let (client, port) = (0xac1e_0a01 + number / 7, 20_000 + number as u16);
            Decision::new(flow_key(17, client, port, 0x0afe_8000 + number % 10, 80), 3, false)
        })
        .collect();
    let mut decisions = all.clone();
    for (name, stage) in DECIDE {
        meter.count(PACKETS, || {
            decisions.iter_mut().for_each(|decision| stage(&situation, &mut random, decision));
        });
        meter.ends(&format!("stage {name}"));
    }
    let mut decisions = all;
    meter.count(PACKETS, || {
        decisions.iter_mut().for_each(|decision| decide(&situation, &mut random, decision));
    });
    assert!(decisions.iter().all(|decision| decision.is_redirected() && decision.is_masqueraded()));
    meter.ends("decide, dnat and masquerade");
}
