//! Longest prefix match over IPv4 addresses, immutable once built.
//!
//! A multibit trie with strides of 16, 8 and 8 bits and prefixes expanded to the level that decides them (Srinivasan
//! and Varghese, "Fast Address Lookups Using Controlled Prefix Expansion", ACM TOCS 17(1), 1999). A lookup is one load
//! for prefixes up to /16, two up to /24, three beyond; each depends on the one before.
//!
//! **Invariant:** a block is reached by exactly one entry, and blocks are only ever added while building.
//!
//! **Bound:** the root takes 256 KiB, the list 12 bytes a prefix, and each block 1 KiB. A prefix longer than /16 needs
//! its /16's block, one longer than /24 its /24's too. [`PREFIXES_MAX`] prefixes therefore take less than 324 MiB, when
//! every one is in a /24 of its own and longer than /24, and less than 68 MiB when none is longer than /24. The nodes of
//! a cluster of 5,000 with a /24 each out of a /8 take less than 0.6 MiB.

use crate::prefetch::prefetch_read;

/// Prefixes that one table holds at the most.
pub const PREFIXES_MAX: usize = 1 << 18;
/// Largest value that a prefix can have.
pub const VALUE_MAX: u32 = CHILD - 1;

/// An entry below this is a value; from here on, less this, the number of a block.
const CHILD: u32 = 1 << 31;
/// The entry of an address that no prefix covers.
const NONE: u32 = u32::MAX;
const ROOT_LENGTH: usize = 1 << 16;
const BLOCK_LENGTH: usize = 1 << 8;

/// Why a table cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LpmError {
    /// A length above 32.
    #[error("prefix length {length} of {}: an IPv4 prefix has 0 to 32 bits", dotted(*.base))]
    Length {
        /// The prefix.
        base: u32,
        /// Its length.
        length: u8,
    },
    /// A base with bits set behind the prefix.
    #[error("{}/{length} has bits set behind its length; the prefix is {}/{length}", dotted(*.base), dotted(.base & mask(*.length)))]
    HostBits {
        /// The prefix.
        base: u32,
        /// Its length.
        length: u8,
    },
    /// A value above [`VALUE_MAX`].
    #[error("value {value} of {}/{length} is above {VALUE_MAX}", dotted(*.base))]
    Value {
        /// The prefix.
        base: u32,
        /// Its length.
        length: u8,
        /// Its value.
        value: u32,
    },
    /// One prefix twice.
    #[error("{}/{length} is given twice; keep one", dotted(*.base))]
    Duplicate {
        /// The prefix.
        base: u32,
        /// Its length.
        length: u8,
    },
    /// More than [`PREFIXES_MAX`] prefixes.
    #[error("more than {PREFIXES_MAX} prefixes; merge adjacent ones")]
    TooMany,
}

fn dotted(address: u32) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::from(address)
}

/// The bits of an address that a prefix of this length fixes.
fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0)
}

/// A table of prefixes. Addresses are in host order.
pub struct Lpm {
    root: Box<[u32; ROOT_LENGTH]>,
    blocks: Vec<[u32; BLOCK_LENGTH]>,
    /// All prefixes as (length, base, value), ascending.
    prefixes: Vec<(u8, u32, u32)>,
}

impl Lpm {
    /// Builds a table from (base, length, value), in any order.
    pub fn build(prefixes: impl IntoIterator<Item = (u32, u8, u32)>) -> Result<Self, LpmError> {
        let mut sorted = Vec::new();
        for (base, length, value) in prefixes {
            if sorted.len() == PREFIXES_MAX {
                return Err(LpmError::TooMany);
            }
            check(base, length, value)?;
            sorted.push((length, base, value));
        }
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1)) {
            return Err(LpmError::Duplicate { base: pair[0].1, length: pair[0].0 });
        }
        let mut table =
            Self { root: Box::new([NONE; ROOT_LENGTH]), blocks: Vec::new(), prefixes: Vec::new() };
        // Shorter prefixes first, so that longer ones overwrite them, and no block exists yet below a range that is
        // being filled.
        for &(length, base, value) in &sorted {
            table.insert(base, length, value);
        }
        table.prefixes = sorted;
        table.blocks.shrink_to_fit();
        Ok(table)
    }

    fn insert(&mut self, base: u32, length: u8, value: u32) {
        let [_, _, third, fourth] = base.to_be_bytes();
        let top = (base >> 16) as usize;
        if length <= 16 {
            self.root[top..top + (1 << (16 - length))].fill(value);
            return;
        }
        let second = child(&mut self.root[top], &mut self.blocks);
        let place = usize::from(third);
        if length <= 24 {
            self.blocks[second][place..place + (1 << (24 - length))].fill(value);
            return;
        }
        let mut entry = self.blocks[second][place];
        let last = child(&mut entry, &mut self.blocks);
        self.blocks[second][place] = entry;
        let place = usize::from(fourth);
        self.blocks[last][place..place + (1 << (32 - length))].fill(value);
    }

    /// The value of the longest prefix that covers `address`.
    #[inline(always)]
    pub fn lookup(&self, address: u32) -> Option<u32> {
        let [_, _, third, fourth] = address.to_be_bytes();
        let entry = self.root[(address >> 16) as usize];
        if entry < CHILD {
            return Some(entry);
        }
        // `NONE` is no block's number, so an address that nothing covers leaves here.
        let entry = self.blocks.get((entry - CHILD) as usize)?[usize::from(third)];
        if entry < CHILD {
            return Some(entry);
        }
        let entry = self.blocks.get((entry - CHILD) as usize)?[usize::from(fourth)];
        (entry < CHILD).then_some(entry)
    }

    /// Asks for the first cache line that a lookup of `address` reads.
    #[inline(always)]
    pub fn prefetch(&self, address: u32) {
        prefetch_read(&raw const self.root[(address >> 16) as usize]);
    }

    /// The longest prefix that covers `address` and its value, as (base, length, value): why `lookup` answers as it
    /// does. Searches the list of prefixes, so it is for people and not for packets.
    pub fn entry(&self, address: u32) -> Option<(u32, u8, u32)> {
        (0..=32u8).rev().find_map(|length| {
            let base = address & mask(length);
            let place =
                self.prefixes.binary_search_by_key(&(length, base), |&(length, base, _)| (length, base));
            place
                .ok()
                .and_then(|place| self.prefixes.get(place))
                .map(|&(length, base, value)| (base, length, value))
        })
    }

    /// All prefixes as (base, length, value), shortest first, then by base.
    pub fn prefixes(&self) -> impl ExactSizeIterator<Item = (u32, u8, u32)> + '_ {
        self.prefixes.iter().map(|&(length, base, value)| (base, length, value))
    }

    /// Bytes that the table takes.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.root)
            + size_of_val(self.blocks.as_slice())
            + self.prefixes.capacity() * size_of::<(u8, u32, u32)>()
    }
}

fn check(base: u32, length: u8, value: u32) -> Result<(), LpmError> {
    if length > 32 {
        Err(LpmError::Length { base, length })
    } else if base & mask(length) != base {
        Err(LpmError::HostBits { base, length })
    } else if value > VALUE_MAX {
        Err(LpmError::Value { base, length, value })
    } else {
        Ok(())
    }
}

/// The number of the block that `entry` leads to; made first, full of what `entry` said, if there is none.
fn child(entry: &mut u32, blocks: &mut Vec<[u32; BLOCK_LENGTH]>) -> usize {
    if *entry >= CHILD && *entry != NONE {
        return (*entry - CHILD) as usize;
    }
    let number = blocks.len();
    blocks.push([*entry; BLOCK_LENGTH]);
    // Two blocks a prefix and PREFIXES_MAX prefixes stay far below 2^31.
    *entry = CHILD + number as u32;
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn address(text: &str) -> u32 {
        text.parse::<std::net::Ipv4Addr>().unwrap().to_bits()
    }

    fn table(prefixes: &[(&str, u8, u32)]) -> Result<Lpm, LpmError> {
        Lpm::build(prefixes.iter().map(|&(base, length, value)| (address(base), length, value)))
    }

    #[test]
    fn node_one_of_the_reference_cluster() {
        let routes = [
            ("0.0.0.0", 0, 0),
            ("172.30.0.0", 16, 1),
            ("172.30.76.0", 24, 2),
            ("172.30.76.1", 32, 3),
            ("192.168.0.0", 24, 4),
        ];
        let lpm = table(&routes).unwrap();
        let answers =
            ["8.8.8.8", "172.30.9.2", "172.30.76.5", "172.30.76.1", "192.168.0.103", "255.255.255.255"]
                .map(|text| lpm.lookup(address(text)));
        assert_eq!(answers, [0, 1, 2, 3, 4, 0].map(Some));
        assert_eq!(lpm.entry(address("172.30.76.9")), Some((address("172.30.76.0"), 24, 2)));
        assert_eq!(lpm.prefixes().len(), routes.len());
        // Blocks: 172.30, 172.30.76, 192.168.
        assert_eq!(lpm.memory_bytes() / 1024, 256 + 3);
    }

    #[test]
    fn what_nothing_covers_has_no_answer() {
        let lpm = table(&[("10.1.2.128", 25, VALUE_MAX), ("10.1.0.0", 17, 0)]).unwrap();
        let answers =
            ["10.1.2.200", "10.1.2.1", "10.1.200.1", "11.0.0.0"].map(|text| lpm.lookup(address(text)));
        assert_eq!(answers, [Some(VALUE_MAX), Some(0), None, None]);
        let empty = table(&[]).unwrap();
        assert_eq!((empty.lookup(0), empty.entry(u32::MAX)), (None, None));
        let lonely = table(&[("10.1.2.3", 32, 5)]).unwrap();
        assert_eq!([address("10.1.2.3"), address("10.1.2.4")].map(|a| lonely.lookup(a)), [Some(5), None]);
    }

    #[test]
    fn wrong_prefixes_are_refused_with_what_would_be_right() {
        let error = |prefixes: &[(&str, u8, u32)]| table(prefixes).err().unwrap().to_string();
        assert_eq!(
            error(&[("10.1.2.3", 24, 0)]),
            "10.1.2.3/24 has bits set behind its length; the prefix is 10.1.2.0/24"
        );
        assert_eq!(
            error(&[("10.0.0.0", 33, 0)]),
            "prefix length 33 of 10.0.0.0: an IPv4 prefix has 0 to 32 bits"
        );
        assert_eq!(error(&[("10.0.0.0", 8, 0), ("10.0.0.0", 8, 1)]), "10.0.0.0/8 is given twice; keep one");
        assert!(matches!(table(&[("10.0.0.0", 8, 1 << 31)]), Err(LpmError::Value { .. })));
        let many = (0..=PREFIXES_MAX as u32).map(|number| (number << 8, 24, 0));
        assert!(matches!(Lpm::build(many), Err(LpmError::TooMany)));
    }

    /// Prefixes crowded into a few /16s and /24s, so that they nest and share blocks.
    fn prefixes() -> impl Strategy<Value = BTreeMap<(u32, u8), u32>> {
        let base =
            prop_oneof![any::<u32>(), (0..4u32, any::<u16>()).prop_map(|(a, b)| a << 14 | u32::from(b))];
        proptest::collection::vec((base, 0..=32u8, 0..=VALUE_MAX), 0..80).prop_map(|list| {
            list.into_iter().map(|(base, length, value)| ((base & mask(length), length), value)).collect()
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_linear_scan(prefixes in prefixes(), random in proptest::collection::vec(any::<u32>(), 40)) {
            let list: Vec<_> = prefixes.iter().map(|(&(base, length), &value)| (base, length, value)).collect();
            let lpm = Lpm::build(list.iter().rev().copied()).unwrap();
            let edges = list.iter().flat_map(|&(base, length, _)| {
                let last = base | !mask(length);
                [base, last, base.wrapping_sub(1), last.wrapping_add(1)]
            });
            for address in edges.chain(random) {
                let naive = list
                    .iter()
                    .filter(|(base, length, _)| address & mask(*length) == *base)
                    .max_by_key(|(_, length, _)| *length)
                    .copied();
                prop_assert_eq!(lpm.entry(address), naive);
                prop_assert_eq!(lpm.lookup(address), naive.map(|(_, _, value)| value));
                lpm.prefetch(address);
            }
        }
    }
}
