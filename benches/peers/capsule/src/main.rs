//! capsule 0.1.5 as a peer: what a packet costs it on DPDK's net_null, on one core.
//!
//!   capsule-peer macswap|fill|nat [--seconds N] [--core N] [--flows N] [--services N] [--huge] [--as-published]
//!
//! macswap: what comes is sent back with its MAC addresses exchanged. fill: every packet is made a flow's packet first, and
//! sent as it is: what to subtract from the next. nat: that, and its destination is translated to the flow's backend, found in a
//! map, with all checksums computed. Prints one line of JSON. Threads are registered with EAL and mempools have a cache, since
//! capsule is three times slower as it comes: --as-published shows that.

mod load;
mod nat;

use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use capsule::batch::{Batch, Poll};
use capsule::config::RuntimeConfig;
use capsule::{PortQueue, Runtime};

use load::{CHECKED, COUNTED, Checked, Counted, Filled, Frames};
use nat::Nat;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Macswap,
    Fill,
    Nat,
}

struct Arguments {
    mode: Mode,
    seconds: u64,
    core: usize,
    flows: usize,
    services: usize,
    huge: bool,
    as_published: bool,
}

fn arguments() -> Result<Arguments> {
    let mut words = std::env::args().skip(1);
    let mode = match words.next().as_deref() {
        Some("macswap") => Mode::Macswap,
        Some("fill") => Mode::Fill,
        Some("nat") => Mode::Nat,
        _ => bail!("which one: macswap, fill or nat?"),
    };
    let mut arguments =
        Arguments { mode, seconds: 5, core: 1, flows: 1_000, services: 10, huge: false, as_published: false };
    while let Some(word) = words.next() {
        let mut number = || -> Result<usize> {
            let value = words.next().with_context(|| format!("{word} wants a number"))?;
            value.parse().with_context(|| format!("{word} wants a number, not {value:?}"))
        };
        match word.as_str() {
            "--seconds" => arguments.seconds = number()? as u64,
            "--core" => arguments.core = number()?,
            "--flows" => arguments.flows = number()?,
            "--services" => arguments.services = number()?,
            "--huge" => arguments.huge = true,
            "--as-published" => arguments.as_published = true,
            _ => bail!("not understood: {word}"),
        }
    }
    ensure!((1..=1 << 22).contains(&arguments.flows), "--flows: 1 to 4,194,304");
    ensure!((1..=50_000).contains(&arguments.services), "--services: 1 to 50,000");
    ensure!((1..=600).contains(&arguments.seconds), "--seconds: 1 to 600");
    Ok(arguments)
}

/// capsule reads its configuration from TOML only: core numbers have no constructor.
fn configuration(arguments: &Arguments) -> Result<RuntimeConfig> {
    let memory = if arguments.huge { "--in-memory" } else { "--no-huge --no-shconf -m 256" };
    let (core, seconds) = (arguments.core, arguments.seconds);
    let cache = if arguments.as_published { 0 } else { 256 };
    let text = format!(
        "app_name = 'capsule-peer'\nmaster_core = {}\nduration = {seconds}\n\
         dpdk_args = '{memory} --no-pci --log-level=lib.eal:error'\n\
         mempool = {{ capacity = 16383, cache_size = {cache} }}\n\
         ports = [{{ name = 'null', device = 'net_null0', cores = [{core}], rxd = 512, txd = 512 }}]\n",
        // The main thread sleeps meanwhile, on another core where there is one.
        usize::from(core == 0),
    );
    toml::from_str(&text).context("configuration")
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    capsule_ffi::set_thread_registration(!arguments.as_published);
    let mut runtime = Runtime::build(configuration(&arguments)?)?;
    let frames = Frames::new(arguments.flows, arguments.services);
    match arguments.mode {
        Mode::Macswap => runtime.add_pipeline_to_port("null", |port: PortQueue| {
            Poll::new(Counted(port.clone())).map(load::swap_addresses).send(port)
        }),
        Mode::Fill => runtime.add_pipeline_to_port("null", move |port: PortQueue| {
            Poll::new(Counted(Filled::new(port.clone(), frames.clone()))).send(port)
        }),
        Mode::Nat => {
            let (flows, services) = (arguments.flows, arguments.services);
            runtime.add_pipeline_to_port("null", move |port: PortQueue| {
                let mut table = Nat::new(flows, services);
                let packets = Poll::new(Counted(Filled::new(port.clone(), frames.clone())));
                packets.map(move |packet| table.translate(packet)).send(Checked::new(port))
            })
        }
    }?;
    let started = (Instant::now(), load::cycles());
    runtime.execute()?;
    let (seconds, cycles) = (started.0.elapsed().as_secs_f64(), load::cycles() - started.1);
    let packets = COUNTED.load(Ordering::Relaxed);
    ensure!(packets > 0, "no packets were received");
    let checked = CHECKED.load(Ordering::Relaxed);
    ensure!(arguments.mode != Mode::Nat || checked > 0, "no packet was found to be translated rightly");
    println!(
        "{{\"mode\":\"{:?}\",\"as_published\":{},\"flows\":{},\"packets\":{packets},\"checked\":{checked},\
         \"seconds\":{seconds:.3},\"mpps\":{:.3},\"cycles\":{:.1}}}",
        arguments.mode,
        arguments.as_published,
        arguments.flows,
        packets as f64 / seconds / 1e6,
        cycles as f64 / packets as f64,
    );
    Ok(())
}
