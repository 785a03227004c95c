//! What this host offers: cores, hugepages, memory. Read-only, and needs neither DPDK nor root.
#![allow(unsafe_code, reason = "the scheduler's affinity calls")]

use std::fs;
use std::io;
use std::path::Path;

/// Cores that the calling thread may run on, in ascending order; empty if the kernel does not say.
///
/// To be read before DPDK starts: starting it pins the calling thread to the control cores.
pub fn available_cores() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: the set is as large as the size that is passed, and lives through the call; 0 is the calling thread.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if result != 0 {
        return Vec::new();
    }
    // SAFETY: CPU_ISSET reads a bit below CPU_SETSIZE of an initialised set.
    (0..MAX_CORES).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect()
}

/// Cores that an affinity set can name.
const MAX_CORES: usize = libc::CPU_SETSIZE as usize;

/// Lets the calling thread run on `cores` alone, and the threads that it starts from now on.
pub fn set_affinity(cores: &[usize]) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    for core in cores.iter().filter(|core| **core < MAX_CORES) {
        // SAFETY: the index lies below CPU_SETSIZE.
        unsafe { libc::CPU_SET(*core, &mut set) };
    }
    // SAFETY: as in available_cores; an empty or impossible set is refused by the kernel.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Free hugepages of one size on one NUMA node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeHugepages {
    /// The NUMA node; none where the kernel does not count by node.
    pub node: Option<u32>,
    /// Size of a page, in KiB.
    pub page_kib: u64,
    /// Pages that are free.
    pub count: u64,
}

/// Free hugepages of this host, by NUMA node where the kernel counts so.
pub fn free_hugepages() -> Vec<FreeHugepages> {
    free_hugepages_below(Path::new("/sys"))
}

/// Memory in KiB that can be taken without swapping; none if the kernel does not say.
pub fn available_memory_kib() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

// Documentation/admin-guide/mm/hugetlbpage.rst: the files by node stand beside the host's own.
fn free_hugepages_below(sys: &Path) -> Vec<FreeHugepages> {
    let mut pages = Vec::new();
    for (name, folder) in numbered(&sys.join("devices/system/node"), "node", "") {
        pages.extend(pages_in(&folder.join("hugepages"), u32::try_from(name).ok()));
    }
    if pages.is_empty() {
        pages = pages_in(&sys.join("kernel/mm/hugepages"), None);
    }
    pages
}

fn pages_in(folder: &Path, node: Option<u32>) -> Vec<FreeHugepages> {
    let sizes = numbered(folder, "hugepages-", "kB");
    let free = |path: &Path| fs::read_to_string(path.join("free_hugepages")).ok()?.trim().parse().ok();
    sizes
        .iter()
        .filter_map(|(page_kib, path)| Some(FreeHugepages { node, page_kib: *page_kib, count: free(path)? }))
        .collect()
}

/// Entries of a folder whose names are a number between `prefix` and `suffix`, by that number.
fn numbered(folder: &Path, prefix: &str, suffix: &str) -> Vec<(u64, std::path::PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let number = |name: &str| name.strip_prefix(prefix)?.strip_suffix(suffix)?.parse().ok();
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path())))
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn hugepages_are_read_by_node_and_else_from_the_host() {
        let root = std::env::temp_dir().join(format!("pollgate-host-{}", std::process::id()));
        let huge = |node, page_kib, count| FreeHugepages { node, page_kib, count };
        write(&root, "kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "12\n");
        let host_only = free_hugepages_below(&root);
        write(&root, "devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "5\n");
        write(&root, "devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "7\n");
        write(&root, "devices/system/node/node0/hugepages/hugepages-1048576kB/free_hugepages", "1\n");
        write(&root, "devices/system/node/possible", "0-1\n");
        let by_node = free_hugepages_below(&root);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(host_only, [huge(None, 2048, 12)]);
        assert_eq!(by_node, [huge(Some(0), 2048, 7), huge(Some(0), 1_048_576, 1), huge(Some(1), 2048, 5)]);
        assert!(free_hugepages_below(&root).is_empty());
    }

    #[test]
    fn affinity_set_is_the_one_read_back() {
        let before = available_cores();
        let one = &before[before.len() - 1..];
        set_affinity(one).unwrap();
        assert_eq!(available_cores(), one);
        assert!(set_affinity(&[]).is_err());
        set_affinity(&before).unwrap();
        assert_eq!(available_cores(), before);
        assert!(available_memory_kib().unwrap() > 0);
    }
}
