//! Huge or ordinary pages: decided before EAL starts, because a process can start it only once.
//!
//! Without hugepages DPDK takes memory of a size fixed at start. A pool made the usual way then lets no buffer cross a
//! page, so each costs a whole one, and all headers stand at the same place in their pages: a burst of them competes
//! for one set of the first-level cache, which made plain forwarding three times as expensive. Drivers that reach
//! buffers by virtual address do not need that, so pools are dense unless a device does. With hugepages buffers lie
//! side by side anyway, and the translation cache reaches far more of them.

use crate::host::FreeHugepages;
use crate::packet::{BUFFER_SIZE, PRIVATE_SIZE, PacketHeader};

/// Which memory DPDK is to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryChoice {
    /// Hugepages if enough are free, else ordinary pages.
    #[default]
    Auto,
    /// Hugepages or an error.
    Huge,
    /// Ordinary pages.
    None,
}

/// Why there is not the memory that is needed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// Hugepages were asked for.
    #[error(
        "{need_mib} MiB of hugepages are needed and {free_mib} MiB are free: reserve them with \
         `sysctl -w vm.nr_hugepages={pages}`, or configure fewer buffers, or let memory be `auto`"
    )]
    TooFewHugepages {
        /// Needed, in MiB.
        need_mib: u64,
        /// Free, in MiB.
        free_mib: u64,
        /// Pages of 2 MiB to reserve.
        pages: u64,
    },
    /// Devices that reach memory by themselves.
    #[error(
        "PCI devices need hugepages, {need_mib} MiB of them, and {free_mib} MiB are free: reserve them with \
         `sysctl -w vm.nr_hugepages={pages}`"
    )]
    PciNeedsHugepages {
        /// Needed, in MiB.
        need_mib: u64,
        /// Free, in MiB.
        free_mib: u64,
        /// Pages of 2 MiB to reserve.
        pages: u64,
    },
    /// Neither.
    #[error(
        "{need_mib} MiB of memory are needed for {buffer_count} buffers and {available_mib} MiB are available: \
         configure fewer buffers"
    )]
    TooLittleMemory {
        /// Needed, in MiB.
        need_mib: u64,
        /// Available, in MiB.
        available_mib: u64,
        /// Buffers that were asked for.
        buffer_count: u32,
    },
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Whether hugepages are used.
    pub hugepages: bool,
    /// Whether buffers in ordinary pages lie side by side and may cross pages.
    pub dense: bool,
    /// Memory that is needed, in MiB.
    pub need_mib: u64,
    /// The decision and its cost, for people.
    pub line: String,
}

/// What the decision depends on.
pub(crate) struct MemoryQuestion<'a> {
    pub(crate) choice: MemoryChoice,
    pub(crate) buffer_count: u32,
    pub(crate) pages: PageNeed,
    pub(crate) free: &'a [FreeHugepages],
    pub(crate) available_kib: Option<u64>,
}

/// What the devices need of a buffer's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageNeed {
    /// Nothing: they reach it by its virtual address.
    Any,
    /// Each buffer in one page: AF_XDP, whose kernel side takes no buffer across two unconnected pages.
    Whole,
    /// Memory that a device on the bus reaches by itself.
    Device,
}

/// What DPDK and its drivers take besides buffers: EAL's tables, rings of pools, caches of threads, queues.
const BASE_MIB: u64 = 48;
/// A buffer and the header that a mempool puts in front, rounded up by the padding that spreads buffers over memory
/// channels.
const DENSE_BUFFER_BYTES: u64 =
    64 * 3 + size_of::<PacketHeader>() as u64 + PRIVATE_SIZE as u64 + BUFFER_SIZE as u64;
/// A page, since a buffer is larger than half of one, and its place in the pool's ring (at most two pointers).
const WHOLE_PAGE_BUFFER_BYTES: u64 = 4096 + 16;
const MIB: u64 = 1024 * 1024;

pub(crate) fn plan(question: &MemoryQuestion<'_>) -> Result<MemoryPlan, MemoryError> {
    let need_huge_mib = need_mib(question.buffer_count, DENSE_BUFFER_BYTES);
    let free_mib = question.free.iter().map(|pages| pages.page_kib * pages.count / 1024).sum::<u64>();
    let pages = need_huge_mib.div_ceil(2);
    match question.choice {
        MemoryChoice::Auto | MemoryChoice::Huge if free_mib >= need_huge_mib => {
            Ok(huge_plan(question, need_huge_mib, free_mib))
        }
        MemoryChoice::Huge => Err(MemoryError::TooFewHugepages { need_mib: need_huge_mib, free_mib, pages }),
        MemoryChoice::Auto if question.pages == PageNeed::Device => {
            Err(MemoryError::PciNeedsHugepages { need_mib: need_huge_mib, free_mib, pages })
        }
        MemoryChoice::Auto | MemoryChoice::None => ordinary_plan(question, need_huge_mib, free_mib),
    }
}

fn need_mib(buffer_count: u32, buffer_bytes: u64) -> u64 {
    BASE_MIB + (u64::from(buffer_count) * buffer_bytes).div_ceil(MIB)
}

fn huge_plan(question: &MemoryQuestion<'_>, need_mib: u64, free_mib: u64) -> MemoryPlan {
    let mut line = format!(
        "memory: hugepages, about {need_mib} of {free_mib} MiB free, for {} buffers at 2.5 KiB each",
        question.buffer_count
    );
    let mut nodes: Vec<_> = question.free.iter().filter_map(|pages| pages.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let free_on = |node| {
        let here = question.free.iter().filter(|pages| pages.node == Some(node));
        here.map(|pages| pages.page_kib * pages.count / 1024).sum::<u64>()
    };
    if nodes.len() > 1 && nodes.iter().all(|node| free_on(*node) < need_mib) {
        line += "; no NUMA node alone has them, so some packets cross nodes";
    }
    MemoryPlan { hugepages: true, dense: false, need_mib, line }
}

fn ordinary_plan(
    question: &MemoryQuestion<'_>,
    need_huge_mib: u64,
    free_mib: u64,
) -> Result<MemoryPlan, MemoryError> {
    let buffer_count = question.buffer_count;
    let dense = question.pages == PageNeed::Any;
    let (buffer_bytes, each) =
        if dense { (DENSE_BUFFER_BYTES, "2.5 KiB") } else { (WHOLE_PAGE_BUFFER_BYTES, "a page of 4 KiB") };
    let need_mib = need_mib(buffer_count, buffer_bytes);
    if let Some(available_mib) = question.available_kib.map(|kib| kib / 1024).filter(|mib| *mib < need_mib) {
        return Err(MemoryError::TooLittleMemory { need_mib, available_mib, buffer_count });
    }
    let reason = match question.choice {
        MemoryChoice::None => "as configured".to_owned(),
        _ => format!("since {free_mib} MiB of hugepages are free and {need_huge_mib} needed"),
    };
    let line = format!(
        "memory: ordinary pages, {need_mib} MiB for {buffer_count} buffers at {each} each, {reason}; hugepages miss \
         the translation cache less: sysctl -w vm.nr_hugepages={}",
        need_huge_mib.div_ceil(2)
    );
    Ok(MemoryPlan { hugepages: false, dense, need_mib, line })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFERS: u32 = 65_536;

    fn decide(choice: MemoryChoice, pages: PageNeed, free: &[(u32, u64)]) -> Result<MemoryPlan, MemoryError> {
        let free: Vec<_> = free
            .iter()
            .map(|(node, count)| FreeHugepages { node: Some(*node), page_kib: 2048, count: *count })
            .collect();
        let available_kib = Some(400 * 1024);
        plan(&MemoryQuestion { choice, buffer_count: BUFFERS, pages, free: &free, available_kib })
    }

    #[test]
    fn auto_takes_hugepages_exactly_when_they_suffice() {
        let plenty = decide(MemoryChoice::Auto, PageNeed::Any, &[(0, 200)]).unwrap();
        assert!(plenty.hugepages);
        let pages = plenty.need_mib.div_ceil(2);
        assert!(decide(MemoryChoice::Auto, PageNeed::Any, &[(0, pages)]).unwrap().hugepages);
        let short = decide(MemoryChoice::Auto, PageNeed::Any, &[(0, pages - 1)]).unwrap();
        assert!(!short.hugepages);
        assert!(short.line.contains(&format!("vm.nr_hugepages={pages}")), "{}", short.line);
        assert_eq!(short.need_mib, plenty.need_mib);
    }

    #[test]
    fn what_was_asked_for_and_is_not_there_is_an_error() {
        let few = decide(MemoryChoice::Huge, PageNeed::Any, &[(0, 3)]);
        assert!(matches!(few, Err(MemoryError::TooFewHugepages { free_mib: 6, .. })), "{few:?}");
        let pci = decide(MemoryChoice::Auto, PageNeed::Device, &[]);
        assert!(matches!(pci, Err(MemoryError::PciNeedsHugepages { free_mib: 0, .. })), "{pci:?}");
        assert!(!decide(MemoryChoice::None, PageNeed::Device, &[(0, 500)]).unwrap().hugepages);
        let whole = decide(MemoryChoice::Auto, PageNeed::Whole, &[]).unwrap();
        let dense = decide(MemoryChoice::Auto, PageNeed::Any, &[]).unwrap();
        assert!(dense.dense && !whole.dense && whole.need_mib > 256 && dense.need_mib < 256);
        assert!(whole.line.contains("a page of 4 KiB each"), "{}", whole.line);
        let question = MemoryQuestion {
            choice: MemoryChoice::None,
            buffer_count: BUFFERS,
            pages: PageNeed::Any,
            free: &[],
            available_kib: Some(102_400),
        };
        assert!(matches!(plan(&question), Err(MemoryError::TooLittleMemory { available_mib: 100, .. })));
    }

    #[test]
    fn pages_spread_over_nodes_are_said() {
        let spread = decide(MemoryChoice::Auto, PageNeed::Any, &[(0, 90), (1, 90)]).unwrap();
        assert!(spread.hugepages && spread.line.contains("no NUMA node alone"), "{}", spread.line);
        let whole = decide(MemoryChoice::Auto, PageNeed::Any, &[(0, 200), (1, 90)]).unwrap();
        assert!(!whole.line.contains("NUMA"), "{}", whole.line);
    }
}
