//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3).
//!
//! Sums are kept as 16-bit ones' complement sums of big-endian words in host order, not complemented; the checksum
//! field on the wire is the complement.

/// Folds carries back in until 16 bits are left.
#[inline(always)]
pub fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum as u32) + (sum >> 32) as u32;
    // The lower half of the sum with its own rotation carries into the upper half what both halves' sum carries.
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// Ones' complement sum of `bytes` (an odd last byte is padded with zero), added to `initial`.
#[inline]
pub fn sum(bytes: &[u8], initial: u64) -> u64 {
    // The sum is the same whatever the word size, since 2^16 is 1 modulo 2^16 - 1, and in the machine's own byte order, but
    // for the order of its two bytes (RFC 1071, section 2). Of 32-bit words 2^32 can be added before 64 bits overflow, so no
    // carry needs care, and two chains keep two adders busy.
    let (mut even, mut odd) = (u64::from(u16::from_be(fold(initial))), 0);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        even += u64::from(u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
        odd += u64::from(u32::from_ne_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]));
    }
    let mut last = [0; 8];
    let rest = chunks.remainder();
    last[..rest.len()].copy_from_slice(rest);
    even += u64::from(u32::from_ne_bytes([last[0], last[1], last[2], last[3]]));
    odd += u64::from(u32::from_ne_bytes([last[4], last[5], last[6], last[7]]));
    u64::from(u16::from_be(fold(u64::from(fold(even)) + u64::from(fold(odd)))))
}

/// Whether an IPv4 header without options sums up right: the one case that every packet has. Byte order does not matter to
/// a sum of all ones.
#[inline(always)]
pub fn is_valid_20(header: &[u8; 20]) -> bool {
    let word = |at: usize| {
        u64::from(u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
    };
    fold(word(0) + word(4) + word(8) + word(12) + word(16)) == 0xffff
}

/// The checksum field for `bytes` in which that field is zero.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes, 0))
}

/// Whether `bytes`, checksum field included, sum up right.
#[inline(always)]
pub fn is_valid(bytes: &[u8]) -> bool {
    match <&[u8; 20]>::try_from(bytes) {
        Ok(header) => is_valid_20(header),
        Err(_) => fold(sum(bytes, 0)) == 0xffff,
    }
}

/// Sum of TCP's and UDP's pseudo-header (RFC 9293, section 3.1). Addresses in host order.
#[inline(always)]
pub fn pseudo_header(source: u32, destination: u32, protocol: u8, length: u16) -> u64 {
    u64::from(source) + u64::from(destination) + u64::from(protocol) + u64::from(length)
}

/// What a change of words adds to the sum: `!old + new` for each (RFC 1624). A delta of 0 and of 0xffff are the same.
#[inline(always)]
pub fn delta_u32(old: u32, new: u32) -> u64 {
    u64::from(!old) + u64::from(new)
}

/// As [`delta_u32`], for one 16-bit word.
#[inline(always)]
pub fn delta_u16(old: u16, new: u16) -> u64 {
    u64::from(!old) + u64::from(new)
}

/// The checksum field after a change by `delta` (folded): HC' = ~(~HC + ~m + m'), RFC 1624, equation 3.
#[inline(always)]
pub fn update(checksum: u16, delta: u16) -> u16 {
    // Two words carry once at the most.
    let sum = u32::from(!checksum) + u32::from(delta);
    !((sum as u16).wrapping_add((sum >> 16) as u16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_1071_example() {
        // RFC 1071, section 3: the sum of these words is ddf2.
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0)), 0xddf2);
    }

    proptest! {
        #[test]
        fn folding_is_the_rest_by_all_ones(sum: u64, few in 0u64..0x3_0000) {
            for sum in [sum, few, few << 16, u64::MAX - few] {
                let rest = if sum == 0 { 0 } else { (sum - 1) % 0xffff + 1 };
                prop_assert_eq!(u64::from(fold(sum)), rest);
            }
        }

        #[test]
        fn sum_equals_word_by_word(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut plain = 0u64;
            for pair in bytes.chunks(2) {
                plain += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            }
            while plain > 0xffff {
                plain = (plain & 0xffff) + (plain >> 16);
            }
            prop_assert_eq!(u64::from(fold(sum(&bytes, 0))), plain);
        }

        #[test]
        fn incremental_equals_fresh(mut bytes in proptest::collection::vec(any::<u8>(), 20..60), new: u32, at in 0usize..4) {
            bytes[10] = 0;
            bytes[11] = 0;
            // A header of zeros alone has two representations of its sum; real headers start with a version.
            bytes[0] = 0x45;
            let at = 12 + at / 2 * 4;
            let old = u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            let before = checksum(&bytes);
            bytes[at..at + 4].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update(before, fold(delta_u32(old, new))), checksum(&bytes));
        }
    }
}
