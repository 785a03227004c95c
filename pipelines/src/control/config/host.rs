//! What only the machine itself can tell: its cores, devices, memory, permissions and addresses.
//!
//! Facts are gathered first, from the kernel's files and by asking it for the socket; what to make of them is decided
//! apart, so that it can be tested for machines that are not at hand.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::diagnostic::Diagnostic;
use super::memory::{buffers_needed, hugepage_bytes_needed};
use super::model::{Configuration, DpdkMemory};
use super::run::pci_address;
use super::values::device_argument;

/// Bits of the effective set, linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
/// Drivers that leave a PCI device to user space, and those of the cards whose kernel driver DPDK works beside.
const USER_SPACE_DRIVERS: [&str; 6] =
    ["vfio-pci", "uio_pci_generic", "igb_uio", "mlx5_core", "mlx4_core", "mana"];

/// Compares a configuration with this machine. [`super::Loaded::locate`] adds the places.
pub fn host_check(configuration: &Configuration) -> Vec<Diagnostic> {
    judge(configuration, &Facts::gather(configuration))
}

/// A device of the PCI bus.
#[derive(Clone, Debug, PartialEq)]
enum PciDevice {
    Absent,
    /// With the driver bound to it.
    Present(Option<String>),
}

/// What was found. `None`: could not be found out, and nothing is said about it.
#[derive(Clone, Debug, Default)]
struct Facts {
    online_cores: Option<BTreeSet<usize>>,
    allowed_cores: Option<BTreeSet<usize>>,
    /// Effective capabilities of this process.
    capabilities: Option<u64>,
    /// Why /dev/net/tun cannot be opened.
    tun_problem: Option<io::ErrorKind>,
    pci_devices: BTreeMap<String, PciDevice>,
    network_interfaces: BTreeSet<String>,
    free_hugepage_bytes: Option<u64>,
    /// Why the metrics server cannot listen.
    metrics_problem: Option<io::ErrorKind>,
    /// Why no file can be made in the control socket's folder.
    socket_folder_problem: Option<io::ErrorKind>,
    /// Whether a gateway answers at the control socket.
    gateway_answers: bool,
}

impl Facts {
    fn gather(configuration: &Configuration) -> Self {
        let devices = || configuration.ports.iter().filter_map(|port| port.device.as_deref());
        let sysfs = Path::new("/sys/bus/pci/devices");
        let socket = configuration.control.socket.as_deref();
        Self {
            online_cores: read("/sys/devices/system/cpu/online").map(|text| core_list(&text)),
            allowed_cores: read("/proc/self/status")
                .and_then(|text| status_field(&text, "Cpus_allowed_list:").map(core_list)),
            capabilities: read("/proc/self/status")
                .and_then(|text| u64::from_str_radix(status_field(&text, "CapEff:")?, 16).ok()),
            tun_problem: problem(
                std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").map(drop),
            ),
            pci_devices: devices()
                .filter_map(pci_address)
                .map(|address| {
                    let device = pci_device(&sysfs.join(&address));
                    (address, device)
                })
                .collect(),
            network_interfaces: std::fs::read_dir("/sys/class/net").map_or_else(
                |_| BTreeSet::new(),
                |entries| {
                    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
                },
            ),
            free_hugepage_bytes: free_hugepage_bytes(Path::new("/sys/kernel/mm/hugepages")),
            metrics_problem: configuration
                .metrics
                .as_ref()
                .and_then(|metrics| problem(std::net::TcpListener::bind(metrics.listen).map(drop))),
            socket_folder_problem: socket.and_then(Path::parent).and_then(folder_problem),
            gateway_answers: socket.is_some_and(|socket| UnixStream::connect(socket).is_ok()),
        }
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn problem(result: io::Result<()>) -> Option<io::ErrorKind> {
    result.err().map(|error| error.kind())
}

/// The value of a field of /proc/self/status.
fn status_field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Cores as the kernel lists them: `0-3,8`.
fn core_list(text: &str) -> BTreeSet<usize> {
    text.trim()
        .split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse().ok()?..=last.parse().ok()?)
        })
        .flatten()
        .collect()
}

fn pci_device(folder: &Path) -> PciDevice {
    if !folder.exists() {
        return PciDevice::Absent;
    }
    let driver = std::fs::read_link(folder.join("driver")).ok();
    PciDevice::Present(
        driver.and_then(|link| link.file_name().map(|name| name.to_string_lossy().into_owned())),
    )
}

/// What is free of all sizes of hugepages together. None: the kernel has none at all.
fn free_hugepage_bytes(folder: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(folder).ok()?;
    let free = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let size_kb: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count: u64 =
            std::fs::read_to_string(entry.path().join("free_hugepages")).ok()?.trim().parse().ok()?;
        Some(count * size_kb * 1024)
    });
    Some(free.sum())
}

/// Asks the kernel for a nameless file in the folder, or in the one above where it is still to be made: that tells
/// permissions, read-only mounts and quotas in one, and leaves nothing behind.
fn folder_problem(folder: &Path) -> Option<io::ErrorKind> {
    let existing = folder.ancestors().find(|folder| folder.exists())?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).custom_flags(libc::O_TMPFILE);
    match options.open(existing) {
        // A file system without nameless files says nothing about permissions.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => None,
        result => problem(result.map(drop)),
    }
}

fn judge(configuration: &Configuration, facts: &Facts) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    judge_cores(configuration, facts, &mut found);
    judge_devices(configuration, facts, &mut found);
    judge_memory(configuration, facts, &mut found);
    judge_sockets(configuration, facts, &mut found);
    found
}

fn judge_cores(configuration: &Configuration, facts: &Facts, found: &mut Vec<Diagnostic>) {
    let list = |cores: &BTreeSet<usize>| {
        let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
        cores.join(", ")
    };
    for (key, cores) in [("workers", &configuration.workers.cores), ("control", &configuration.control.cores)]
    {
        for (place, core) in cores.iter().enumerate() {
            let key = format!("{key}.cores[{place}]");
            if let Some(online) = facts.online_cores.as_ref().filter(|online| !online.contains(core)) {
                let wrong = format!("this machine has no core {core} online");
                found.push(Diagnostic::error(key, wrong, format!("use some of {}", list(online))));
            } else if let Some(allowed) =
                facts.allowed_cores.as_ref().filter(|allowed| !allowed.contains(core))
            {
                found.push(Diagnostic::error(
                    key,
                    format!("this process may not use core {core}"),
                    format!(
                        "use some of {}, or widen its cpuset (taskset, systemd's CPUAffinity)",
                        list(allowed)
                    ),
                ));
            }
        }
    }
}

/// Every device string with its key.
fn devices(configuration: &Configuration) -> impl Iterator<Item = (String, &str)> {
    let ports = configuration.ports.iter().enumerate();
    let ports =
        ports.filter_map(|(place, port)| Some((format!("ports[{place}].device"), port.device.as_deref()?)));
    let exception = configuration.exception.iter();
    ports.chain(exception.map(|exception| ("exception.device".to_owned(), exception.device.as_str())))
}

fn judge_devices(configuration: &Configuration, facts: &Facts, found: &mut Vec<Diagnostic>) {
    let lacks = |capability: u32| facts.capabilities.is_some_and(|set| set & (1 << capability) == 0);
    for (key, device) in devices(configuration) {
        let tap = device.starts_with("net_tap");
        let socket = device.starts_with("net_af_packet") || device.starts_with("net_af_xdp");
        if let Some(problem) = facts.tun_problem.filter(|_| tap) {
            found.push(Diagnostic::error(
                key.as_str(),
                format!("/dev/net/tun cannot be opened ({problem})"),
                "load the module `tun`, give the container the device, or run as root",
            ));
        }
        if (tap || socket) && lacks(CAP_NET_ADMIN) {
            let wrong = format!("`{device}` needs CAP_NET_ADMIN");
            found.push(Diagnostic::error(key.as_str(), wrong, "run as root, or with that capability"));
        } else if socket && lacks(CAP_NET_RAW) {
            let wrong = format!("`{device}` needs CAP_NET_RAW");
            found.push(Diagnostic::error(key.as_str(), wrong, "run as root, or with that capability"));
        }
        if let Some(interface) = device_argument(device, "iface").filter(|_| socket)
            && !facts.network_interfaces.contains(interface)
        {
            let wrong = format!("there is no network interface `{interface}` here");
            found.push(Diagnostic::error(key.as_str(), wrong, "create it first, or correct `iface=`"));
        }
        if let Some(address) = pci_address(device)
            && let Some(pci) = facts.pci_devices.get(&address)
        {
            found.extend(judge_pci(key, &address, pci));
        }
    }
}

fn judge_pci(key: String, address: &str, device: &PciDevice) -> Option<Diagnostic> {
    match device {
        PciDevice::Absent => Some(Diagnostic::error(
            key,
            format!("there is no PCI device {address} here"),
            "see `dpdk-devbind.py --status-dev net` for those that are",
        )),
        PciDevice::Present(Some(driver)) if USER_SPACE_DRIVERS.contains(&driver.as_str()) => None,
        PciDevice::Present(driver) => {
            let driver = driver.as_deref().unwrap_or("no driver");
            Some(Diagnostic::error(
                key,
                format!("PCI device {address} is bound to {driver}"),
                format!("give it to user space: `dpdk-devbind.py --bind=vfio-pci {address}`"),
            ))
        }
    }
}

fn judge_memory(configuration: &Configuration, facts: &Facts, found: &mut Vec<Diagnostic>) {
    if configuration.dpdk.memory != DpdkMemory::Huge {
        return;
    }
    let (needed, free) = (hugepage_bytes_needed(configuration), facts.free_hugepage_bytes.unwrap_or(0));
    if free < needed {
        // Rounded up to whole 2 MiB pages, and a tenth for EAL's own structures.
        let pages = (needed + needed / 10).div_ceil(2 << 20);
        found.push(Diagnostic::error(
            "dpdk.memory",
            format!(
                "{} MiB of hugepages are free, and {} buffers need {} MiB",
                free >> 20,
                buffers_needed(configuration),
                needed.div_ceil(1 << 20)
            ),
            format!("reserve more: `sysctl vm.nr_hugepages={pages}`, or use memory = \"auto\""),
        ));
    }
}

fn judge_sockets(configuration: &Configuration, facts: &Facts, found: &mut Vec<Diagnostic>) {
    if facts.gateway_answers {
        found.push(Diagnostic::warning(
            "control.socket",
            "a gateway answers at this socket already",
            "stop it before another is started with this configuration",
        ));
    } else if let Some(problem) = facts.socket_folder_problem {
        found.push(Diagnostic::error(
            "control.socket",
            format!("no file can be made in the socket's folder ({problem})"),
            "give a folder that this user may write to, as in \"/run/pollgate/control.sock\"",
        ));
    }
    let (Some(metrics), Some(problem)) = (&configuration.metrics, facts.metrics_problem) else { return };
    let (wrong, right) = match problem {
        // The one that answers at the control socket probably holds it.
        io::ErrorKind::AddrInUse if facts.gateway_answers => return,
        io::ErrorKind::AddrInUse => {
            ("is in use already".to_owned(), "stop what listens there, or use another port")
        }
        io::ErrorKind::AddrNotAvailable => {
            ("is no address of this machine".to_owned(), "use one of its own, as in \"127.0.0.1:9106\"")
        }
        other => (format!("cannot be listened on ({other})"), "use a port above 1023, or run as root"),
    };
    found.push(Diagnostic::error("metrics.listen", format!("{} {wrong}", metrics.listen), right));
}

#[cfg(test)]
mod tests {
    use super::super::testing::{REFERENCE, changed, parsed};
    use super::*;

    /// A machine with everything the reference needs.
    fn good() -> Facts {
        Facts {
            online_cores: Some(BTreeSet::from([0, 1])),
            allowed_cores: Some(BTreeSet::from([0, 1])),
            capabilities: Some(u64::MAX),
            free_hugepage_bytes: Some(1 << 30),
            ..Facts::default()
        }
    }

    /// `key: wrong` of each finding.
    fn judged(configuration: &Configuration, facts: &Facts) -> Vec<String> {
        judge(configuration, facts).iter().map(|found| format!("{}: {}", found.key, found.wrong)).collect()
    }

    #[test]
    fn a_fit_machine_is_left_alone() {
        assert!(judged(&parsed(REFERENCE), &good()).is_empty());
        assert!(judged(&parsed(REFERENCE), &Facts::default()).is_empty(), "what is not known is not judged");
    }

    #[test]
    fn cores_are_online_and_allowed() {
        let configuration = parsed(&changed(&[("cores = [1] ", "cores = [1, 9] ")]));
        assert_eq!(judged(&configuration, &good()), ["workers.cores[1]: this machine has no core 9 online"]);
        let facts = Facts { allowed_cores: Some(BTreeSet::from([1])), ..good() };
        assert_eq!(judged(&parsed(REFERENCE), &facts), ["control.cores[0]: this process may not use core 0"]);
    }

    #[test]
    fn taps_need_their_device_and_a_capability() {
        let facts = Facts { tun_problem: Some(io::ErrorKind::NotFound), ..good() };
        let found = judged(&parsed(REFERENCE), &facts);
        assert_eq!(found.len(), 7, "six ports and the exception port: {found:?}");
        assert_eq!(found[6], "exception.device: /dev/net/tun cannot be opened (entity not found)");
        let facts = Facts { capabilities: Some(!(1 << CAP_NET_ADMIN)), ..good() };
        assert!(judged(&parsed(REFERENCE), &facts)[0].contains("needs CAP_NET_ADMIN"));

        let socket = parsed(&changed(&[("net_tap1,iface=pg-bm1", "net_af_packet0,iface=pg-bm1")]));
        let facts = Facts { capabilities: Some(1 << CAP_NET_ADMIN), ..good() };
        assert_eq!(
            judged(&socket, &facts),
            [
                "ports[1].device: `net_af_packet0,iface=pg-bm1` needs CAP_NET_RAW",
                "ports[1].device: there is no network interface `pg-bm1` here"
            ]
        );
    }

    #[test]
    fn pci_devices_are_there_and_in_user_space() {
        let configuration = parsed(&changed(&[("net_tap0,iface=pg-eth0", "0000:0A:00.0,txq_inline=1")]));
        let with = |device: PciDevice| Facts {
            pci_devices: BTreeMap::from([("0000:0a:00.0".to_owned(), device)]),
            ..good()
        };
        let driver = |name: &str| PciDevice::Present(Some(name.to_owned()));
        assert!(judged(&configuration, &with(driver("vfio-pci"))).is_empty());
        assert!(judged(&configuration, &with(driver("mlx5_core"))).is_empty());
        let one = |device| judged(&configuration, &with(device)).join("\n");
        assert_eq!(one(PciDevice::Absent), "ports[0].device: there is no PCI device 0000:0a:00.0 here");
        assert_eq!(one(driver("ixgbe")), "ports[0].device: PCI device 0000:0a:00.0 is bound to ixgbe");
        assert_eq!(
            one(PciDevice::Present(None)),
            "ports[0].device: PCI device 0000:0a:00.0 is bound to no driver"
        );
    }

    #[test]
    fn hugepages_suffice_when_they_are_wanted() {
        let huge = parsed(&changed(&[("memory = \"none\"", "memory = \"huge\"")]));
        assert!(judged(&huge, &good()).is_empty());
        let facts = Facts { free_hugepage_bytes: Some(2 << 20), ..good() };
        assert_eq!(
            judged(&huge, &facts),
            ["dpdk.memory: 2 MiB of hugepages are free, and 10112 buffers need 24 MiB"]
        );
        assert!(judge(&huge, &facts)[0].right.contains("sysctl vm.nr_hugepages=13"));
        assert!(judged(&parsed(REFERENCE), &facts).is_empty());
    }

    #[test]
    fn sockets_can_be_made() {
        let reference = parsed(REFERENCE);
        let in_use = Facts { metrics_problem: Some(io::ErrorKind::AddrInUse), ..good() };
        assert_eq!(judged(&reference, &in_use), ["metrics.listen: 127.0.0.1:9106 is in use already"]);
        let running = Facts { gateway_answers: true, ..in_use };
        assert_eq!(
            judged(&reference, &running),
            ["control.socket: a gateway answers at this socket already"]
        );
        assert!(!judge(&reference, &running)[0].is_error());
        let elsewhere = Facts { metrics_problem: Some(io::ErrorKind::AddrNotAvailable), ..good() };
        assert_eq!(
            judged(&reference, &elsewhere),
            ["metrics.listen: 127.0.0.1:9106 is no address of this machine"]
        );
        let folder = Facts { socket_folder_problem: Some(io::ErrorKind::PermissionDenied), ..good() };
        assert_eq!(
            judged(&reference, &folder),
            ["control.socket: no file can be made in the socket's folder (permission denied)"]
        );
    }

    #[test]
    fn facts_are_read_as_the_kernel_writes_them() {
        assert_eq!(core_list("0-2,7,9-10\n"), BTreeSet::from([0, 1, 2, 7, 9, 10]));
        assert_eq!(core_list("\n"), BTreeSet::new());
        let status = "Name:\tx\nCapEff:\t000001ffffffffff\nCpus_allowed_list:\t0-1\n";
        assert_eq!(status_field(status, "CapEff:"), Some("000001ffffffffff"));

        let folder = tempfile::tempdir().unwrap();
        let pages = folder.path().join("hugepages-2048kB");
        std::fs::create_dir(&pages).unwrap();
        std::fs::write(pages.join("free_hugepages"), "3\n").unwrap();
        assert_eq!(free_hugepage_bytes(folder.path()), Some(6 << 20));
        assert_eq!(free_hugepage_bytes(&folder.path().join("none")), None);

        let device = folder.path().join("0000:01:00.0");
        assert_eq!(pci_device(&device), PciDevice::Absent);
        std::fs::create_dir(&device).unwrap();
        assert_eq!(pci_device(&device), PciDevice::Present(None));
        std::os::unix::fs::symlink("../../../bus/pci/drivers/vfio-pci", device.join("driver")).unwrap();
        assert_eq!(pci_device(&device), PciDevice::Present(Some("vfio-pci".into())));

        assert_eq!(folder_problem(folder.path()), None);
        assert_eq!(folder_problem(&folder.path().join("still/to/be/made")), None);
        assert!(folder_problem(Path::new("/proc/self")).is_some());
    }

    #[test]
    fn this_machine_tells_of_itself() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let text =
            format!("[control]\nsocket = \"{}\"\n[metrics]\nlisten = \"{address}\"\n", socket.display());
        let configuration = parsed(&text);
        assert_eq!(
            host_check(&configuration).iter().map(|found| found.wrong.clone()).collect::<Vec<_>>(),
            [format!("{address} is in use already")]
        );
        let _answering = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        drop(listener);
        assert_eq!(
            host_check(&configuration).iter().map(|found| &found.key).collect::<Vec<_>>(),
            ["control.socket"]
        );
        let facts = Facts::gather(&configuration);
        assert!(facts.online_cores.is_some_and(|cores| !cores.is_empty()));
        assert!(facts.allowed_cores.is_some_and(|cores| !cores.is_empty()));
        assert!(facts.network_interfaces.contains("lo") && facts.capabilities.is_some());
    }
}
