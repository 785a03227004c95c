//! Forwards packets between two DPDK devices on one pinned core, swapping MAC addresses: what the binding itself
//! costs, beside `dpdk-testpmd --forward-mode=macswap` on the same devices.
//!
//! `null_forward [PACKETS [CORE [DEVICE DEVICE]]]`, by default 100 million packets on the last core between two
//! net_null devices.
use std::error::Error;
use std::thread;
use std::time::Instant;

use engine::dpdk::{
    DpdkPool, Eal, EalConfiguration, MemoryChoice, ThreadRegistration, available_cores, classify_device,
};
use engine::packet::Packet;
use engine::port::dpdk::{DpdkPort, DpdkQueue, PortOptions};
use engine::port::{BURST, Burst, PortQueue};

const BUFFER_COUNT: u32 = 16_384;

struct Outcome {
    packet_count: u64,
    refused_count: u64,
    cycles: u64,
    seconds: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let cores = available_cores();
    let packets = arguments.first().map_or(Ok(100_000_000), |text| text.parse::<u64>())?;
    let core = arguments.get(1).map_or(Ok(cores.last().copied().unwrap_or(0)), |text| text.parse())?;
    let devices = match arguments.get(2..4) {
        Some(given) => given.to_vec(),
        None => vec!["net_null0".to_owned(), "net_null1".to_owned()],
    };

    let eal = Eal::start(&EalConfiguration {
        memory: MemoryChoice::Auto,
        buffer_count: BUFFER_COUNT,
        control_cores: cores.iter().copied().find(|other| *other != core).into_iter().collect(),
        devices: devices.iter().map(|device| classify_device(device)).collect::<Result<_, _>>()?,
        ..EalConfiguration::default()
    })?;
    println!("{}\n{}", engine::dpdk::version(), eal.memory().line);
    let pool = DpdkPool::create(&eal, "packets", BUFFER_COUNT, None)?;
    let open = |(number, device): (u16, &String)| {
        let options = PortOptions {
            port_number: number,
            queue_pairs: 1,
            descriptors: 512,
            mtu: 1500,
            promiscuous: true,
            pool: &pool,
            rss: false,
            only_pool: true,
        };
        DpdkPort::open(device, &options)
    };
    let mut ports = (0..).zip(&devices).map(open).collect::<Result<Vec<_>, _>>()?;
    let queues = ports.iter_mut().map(|port| port.take_queue(0)).collect::<Result<Vec<_>, _>>()?;

    let worker = thread::spawn(move || forward(queues, packets, core));
    let outcome = worker.join().map_err(|_| "the worker panicked")??;
    for port in ports {
        println!("{} ({}): {:?}", port.name(), port.driver(), port.statistics()?);
        port.stop()?;
    }
    println!(
        "{} packets, {} refused, {:.1} cycles a packet, {:.2} Mpps; {} buffers in flight after the stop",
        outcome.packet_count,
        outcome.refused_count,
        outcome.cycles as f64 / outcome.packet_count as f64,
        outcome.packet_count as f64 / outcome.seconds / 1e6,
        pool.in_use()
    );
    if pool.in_use() == 0 { Ok(()) } else { Err("buffers were lost".into()) }
}

fn forward(mut queues: Vec<DpdkQueue>, packets: u64, core: usize) -> Result<Outcome, String> {
    if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        return Err(format!("cannot run on core {core}"));
    }
    let registration = ThreadRegistration::new().map_err(|error| error.to_string())?;
    let mut burst = Burst::new();
    let (mut packet_count, mut refused_count) = (0, 0);
    let (start, start_cycles) = (Instant::now(), cycles());
    while packet_count < packets {
        for index in 0..queues.len() {
            queues[index].receive(&mut burst, BURST);
            packet_count += burst.len() as u64;
            burst.iter_mut().for_each(swap_addresses);
            let other = (index + 1) % queues.len();
            queues[other].transmit(&mut burst);
            refused_count += burst.len() as u64;
            Packet::free_bulk(&mut burst);
        }
    }
    let (cycles, seconds) = (cycles() - start_cycles, start.elapsed().as_secs_f64());
    drop(queues);
    drop(registration);
    Ok(Outcome { packet_count, refused_count, cycles, seconds })
}

#[inline(always)]
fn swap_addresses(packet: &mut Packet) {
    if let Some(addresses) = packet.data_mut().first_chunk_mut::<12>() {
        let (destination, source) = addresses.split_at_mut(6);
        destination.swap_with_slice(source);
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "reads the time stamp counter")]
fn cycles() -> u64 {
    // SAFETY: every x86-64 processor has the counter, and Linux lets processes read it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Nanoseconds, where there is no such counter.
#[cfg(not(target_arch = "x86_64"))]
fn cycles() -> u64 {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}
