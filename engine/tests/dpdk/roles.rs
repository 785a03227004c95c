//! What runs in the processes that the checks start. Each role starts EAL once and panics if something is not so.

use std::fs::File;
use std::io::{BufWriter, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use engine::dpdk::{
    DpdkPool, Eal, EalConfiguration, EalError, MemoryChoice, PoolError, ThreadRegistration, available_cores,
    classify_device,
};
use engine::packet::Packet;
use engine::pool::{MemoryPool, PacketSource};
use engine::port::dpdk::{DpdkPort, DpdkQueue, PortError, PortOptions};
use engine::port::{BURST, Burst, PortQueue};
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};

const BUFFER_COUNT: u32 = 2_048;

pub(crate) fn run(role: &str, arguments: &[String]) {
    match (role, arguments) {
        ("mistakes", []) => mistakes(),
        ("unknown_driver", []) => unknown_driver(),
        ("buffers", []) => buffers(),
        ("ring", []) => ring(),
        ("capture", [input, output, count]) => capture(input, output, count.parse().unwrap()),
        ("tap", [interface]) => tap(interface),
        _ => panic!("no role {role} with {arguments:?}"),
    }
}

fn configuration(devices: &[&str]) -> EalConfiguration {
    EalConfiguration {
        memory: MemoryChoice::None,
        buffer_count: BUFFER_COUNT,
        control_cores: vec![available_cores()[0]],
        devices: devices.iter().map(|device| classify_device(device).unwrap()).collect(),
        ..EalConfiguration::default()
    }
}

fn start(devices: &[&str]) -> DpdkPool {
    let eal = Eal::start(&configuration(devices)).unwrap();
    assert!(eal.memory().dense && !eal.memory().hugepages);
    DpdkPool::create(&eal, "packets", BUFFER_COUNT, None).unwrap()
}

fn options(pool: &DpdkPool) -> PortOptions<'_> {
    PortOptions {
        port_number: 7,
        queue_pairs: 1,
        descriptors: 256,
        mtu: 1500,
        promiscuous: true,
        pool,
        rss: true,
        only_pool: false,
    }
}

/// A start that DPDK refuses is an error that names the device, counts as the one start, and pins nobody.
fn unknown_driver() {
    let cores = available_cores();
    let error = Eal::start(&configuration(&["net_nosuch0"])).unwrap_err();
    assert!(
        matches!(error, EalError::Refused { .. }) && error.to_string().contains("net_nosuch0"),
        "{error}"
    );
    assert_eq!(available_cores(), cores);
    let again = Eal::start(&configuration(&["net_null0"]));
    assert!(matches!(again, Err(EalError::AlreadyStarted)), "{again:?}");
    assert!(ThreadRegistration::new().is_err());
}

/// A line of a thread's status (proc_pid_status(5)).
fn status(task: &Path, key: &str) -> String {
    let text = std::fs::read_to_string(task.join("status")).unwrap();
    text.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned()
}

fn blocked_signals(task: &Path) -> u64 {
    u64::from_str_radix(&status(task, "SigBlk:"), 16).unwrap()
}

/// The caller can be ended by a signal and takes none of net_tap's; DPDK's own threads take none and keep off the
/// workers' cores.
fn check_threads(blocked_before: u64) {
    let caller = Path::new("/proc/thread-self").canonicalize().unwrap();
    // SIGIO (29) takes the place of net_tap's signals when too many of those are pending.
    let sigio = 1_u64 << 28;
    let standard = (1_u64 << 31) - 1;
    assert_eq!(blocked_signals(&caller) & standard, blocked_before & standard | sigio);
    assert_eq!(blocked_signals(&caller) >> 33, u64::MAX >> 33, "signals 34 to 64");
    let tasks: Vec<_> =
        std::fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(tasks.len() > 1);
    for task in tasks.iter().filter(|task| task.file_name() != caller.file_name()) {
        assert_eq!(blocked_signals(task) >> 14 & 1, 1, "SIGTERM goes to the caller");
        assert_eq!(status(task, "Cpus_allowed_list:"), status(&caller, "Cpus_allowed_list:"));
    }
}

fn mistakes() {
    let blocked_before = blocked_signals(Path::new("/proc/thread-self"));
    let cores = available_cores();
    // The second device fails, and EAL starts all the same.
    let absent = "net_pcap0,rx_pcap=/nonexistent.pcap";
    let eal = Eal::start(&configuration(&["net_null0", absent])).unwrap();
    assert_eq!(available_cores(), cores[..1], "the caller is on the control core");
    check_threads(blocked_before);
    let second = Eal::start(&configuration(&["net_null1"]));
    assert!(matches!(second, Err(EalError::AlreadyStarted)), "{second:?}");

    let pool = DpdkPool::create(&eal, "packets", BUFFER_COUNT, None).unwrap();
    let refused = |name, count| DpdkPool::create(&eal, name, count, None).unwrap_err();
    assert!(matches!(refused("packets", 64), PoolError::Refused { .. }), "the same name twice");
    assert!(matches!(refused("huge", 1_000_000), PoolError::Refused { .. }), "more than the memory");
    assert!(matches!(refused("a pool", 64), PoolError::Name(_)));
    assert!(matches!(refused("none", 0), PoolError::Empty(_)));

    let fails = |device, options| DpdkPort::open(device, &options).unwrap_err();
    for missing in ["net_pcap0", "net_null5", "0000:7f:1f.7"] {
        let error = fails(missing, options(&pool));
        assert!(matches!(&error, PortError::NoSuchPort(name) if name == missing), "{error}");
    }
    assert!(matches!(fails("eth0", options(&pool)), PortError::Device(_)));
    let jumbo = PortOptions { mtu: 9000, ..options(&pool) };
    assert!(matches!(fails("net_null0", jumbo), PortError::Mtu { mtu: 9000, max: 2022, .. }));
    assert_eq!(pool.in_use(), 0);
}

fn buffers() {
    let mut pool = start(&["net_null0", "net_null1"]);
    let before = pool.capacity();
    let work = move || {
        let _registration = ThreadRegistration::new().unwrap();
        let packets: Vec<Packet> = core::iter::from_fn(|| pool.allocate()).collect();
        assert_eq!((packets.len(), pool.in_use()), (before, before), "the pool is exhausted, not more");
        assert!(packets.iter().all(|packet| packet.is_empty() && packet.headroom() == 128));
        packets
    };
    // Taken on a registered thread, freed on this one, so that both ways home are used.
    let mut packets = thread::spawn(work).join().unwrap();
    assert_eq!(packets.pop().unwrap().segment_count(), 1);
    drop(packets);
    assert_eq!(pool.in_use(), 0);

    let mut first = DpdkPort::open("net_null0", &options(&pool)).unwrap();
    let twice = DpdkPort::open("net_null0", &options(&pool)).unwrap_err();
    assert!(matches!(twice, PortError::AlreadyOpen(_)), "{twice}");
    let mut queue = first.take_queue(0).unwrap();
    assert!(matches!(first.take_queue(0), Err(PortError::NoQueue { queue_pairs: 1, .. })));
    assert!(matches!(first.take_queue(1), Err(PortError::NoQueue { .. })));

    let mut burst = Burst::new();
    queue.receive(&mut burst, BURST);
    assert_eq!((burst.len(), burst[0].port(), pool.in_use()), (32, 7, 32));
    queue.receive(&mut burst, BURST);
    assert_eq!(burst.len(), 32, "no room, nothing more");
    // A packet that no mempool owns is not taken, nor what stands behind it.
    burst[20] = MemoryPool::new(1).packet(0, b"not DPDK's").unwrap();
    queue.transmit(&mut burst);
    assert_eq!((burst.len(), burst[0].data()), (12, &b"not DPDK's"[..]));
    Packet::free_bulk(&mut burst);
    assert_eq!(pool.in_use(), 0);
    drop(queue);
    first.stop().unwrap();

    let mut second = DpdkPort::open("net_null1", &PortOptions { only_pool: true, ..options(&pool) }).unwrap();
    let queue = second.take_queue(0).unwrap();
    assert!(matches!(second.stop(), Err(PortError::QueuesInUse(_))));
    drop(queue);
    let closed = DpdkPort::open("net_null1", &options(&pool)).unwrap_err();
    assert!(matches!(closed, PortError::NoSuchPort(_)), "the last queue closed it: {closed}");
    assert_eq!(pool.in_use(), 0);
}

/// net_ring hands back what it was given.
fn ring() {
    let mut pool = start(&["net_ring0"]);
    let mut port = DpdkPort::open("net_ring0", &options(&pool)).unwrap();
    assert_eq!((port.name(), port.driver().as_str(), port.spreads_flows()), ("net_ring0", "net_ring", false));
    let mut queue = port.take_queue(0).unwrap();
    let mut burst = Burst::new();
    for value in 0..10 {
        let mut packet = pool.allocate().unwrap();
        assert!(packet.fill(&[value; 200]));
        burst.push(packet);
    }
    queue.transmit(&mut burst);
    assert_eq!((burst.len(), pool.in_use()), (0, 10));
    queue.receive(&mut burst, BURST);
    let values: Vec<u8> = burst.iter().map(|packet| packet.data()[199]).collect();
    assert_eq!(values, (0..10).collect::<Vec<u8>>());
    assert!(burst.iter().all(|packet| packet.port() == 7 && packet.len() == 200));
    Packet::free_bulk(&mut burst);
    let statistics = port.statistics().unwrap();
    assert_eq!((statistics.received_packets, statistics.transmitted_packets), (10, 10));
    assert!(port.link().unwrap().up);
    drop(queue);
    port.stop().unwrap();
    assert_eq!(pool.in_use(), 0);
}

/// Moves what has arrived to the same port's transmit queue; returns how many packets that were.
fn turn_around(queue: &mut DpdkQueue, mut change: impl FnMut(&mut Packet)) -> usize {
    let mut burst = Burst::new();
    queue.receive(&mut burst, BURST);
    let count = burst.len();
    burst.iter_mut().for_each(&mut change);
    queue.transmit(&mut burst);
    assert!(burst.is_empty(), "the queue is full");
    count
}

fn capture(input: &str, output: &str, count: usize) {
    let device = format!("net_pcap0,rx_pcap={input},tx_pcap={output}");
    let pool = start(&[&device]);
    let mut port = DpdkPort::open(&device, &options(&pool)).unwrap();
    let mut queue = port.take_queue(0).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut passed = 0;
    while passed < count && Instant::now() < deadline {
        passed += turn_around(&mut queue, |packet| assert_eq!(packet.segment_count(), 1));
    }
    assert_eq!(passed, count);
    drop(queue);
    port.stop().unwrap();
    assert_eq!(pool.in_use(), 0);
}

pub(crate) fn write_capture(path: &Path, frames: &[Vec<u8>]) {
    let mut writer = PcapWriter::new(BufWriter::new(File::create(path).unwrap())).unwrap();
    for frame in frames {
        let packet = PcapPacket::new(Duration::ZERO, frame.len() as u32, frame);
        writer.write_packet(&packet).unwrap();
    }
}

pub(crate) fn read_capture(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(File::open(path).unwrap()).unwrap();
    core::iter::from_fn(|| reader.next_packet().map(|packet| packet.unwrap().data.into_owned())).collect()
}

/// A port with two queues whose Linux side is moved to another namespace while it runs: answers every frame.
fn tap(interface: &str) {
    let cores = available_cores();
    let device = format!("net_tap0,iface={interface}");
    let pool = start(&[&device]);
    let two_queues = PortOptions { queue_pairs: 2, mtu: 1450, ..options(&pool) };
    let mut port = DpdkPort::open(&device, &two_queues).unwrap();
    let mut queues = [port.take_queue(0).unwrap(), port.take_queue(1).unwrap()];
    let linux = std::fs::read_to_string(format!("/sys/class/net/{interface}/address")).unwrap();
    let mac: Vec<String> = port.mac().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(linux.trim(), mac.join(":"), "the device's address is the Linux side's");
    let mtu = std::fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).unwrap();
    assert_eq!(mtu.trim(), "1450");
    assert!(pool.in_use() > 0, "posted buffers are in use");

    let ended = Arc::new(AtomicBool::new(false));
    let worker_ended = Arc::clone(&ended);
    let worker = thread::spawn(move || {
        assert!(core_affinity::set_for_current(core_affinity::CoreId { id: cores[cores.len() - 1] }));
        let _registration = ThreadRegistration::new().unwrap();
        let mut passed = 0;
        while !worker_ended.load(Ordering::Relaxed) {
            for queue in &mut queues {
                passed += turn_around(queue, |packet| {
                    assert_eq!((packet.port(), packet.segment_count()), (7, 1));
                    packet.data_mut()[..12].rotate_left(6);
                });
            }
        }
        passed as u64
    });
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    ended.store(true, Ordering::Relaxed);
    let passed = worker.join().unwrap();
    let statistics = port.statistics().unwrap();
    println!("{passed} frames, link {:?}, {statistics:?}", port.link());
    assert!(passed >= 2 && statistics.received_packets == passed, "{passed} frames, {statistics:?}");
    assert_eq!(statistics.transmitted_packets, passed);
    port.stop().unwrap();
    assert_eq!(pool.in_use(), 0);
}
