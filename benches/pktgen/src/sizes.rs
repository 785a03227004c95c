//! Which sizes frames have, and in what order they come.

/// Smallest frame, its check sequence of 4 bytes included (IEEE 802.3, clause 4.4.2).
pub const FRAME_MIN: u16 = 64;
/// Largest frame: a packet of 1,500 bytes with its Ethernet header and check sequence.
pub const FRAME_MAX: u16 = 1518;
/// Bytes of the check sequence, which devices add and no buffer holds.
pub const CHECK_SEQUENCE: u16 = 4;
/// Frames after which a mix starts over, at the most.
const PATTERN_MAX: u32 = 1_024;
/// Different sizes of a mix at the most.
const SIZES_MAX: usize = 16;

/// Why there is no mix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Too small or too large.
    #[error(
        "a frame of {0} bytes: from {FRAME_MIN} to {FRAME_MAX} can be sent, Ethernet header and check sequence included"
    )]
    Size(u16),
    /// Too many, or none.
    #[error(
        "a mix has 1 to {SIZES_MAX} sizes with weights from 1 that add up to {PATTERN_MAX} at the most, not {0} and {1}"
    )]
    Mix(usize, u32),
}

/// Frame sizes with their shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeMix {
    sizes: Vec<u16>,
    pattern: Vec<u8>,
}

impl SizeMix {
    /// Frames of these sizes (check sequence included) and weights, as evenly spread as can be.
    pub fn new(parts: &[(u16, u32)]) -> Result<Self, SizeError> {
        let total = parts.iter().fold(0u32, |sum, part| sum.saturating_add(part.1));
        let weightless = parts.iter().any(|part| part.1 == 0);
        if weightless || parts.is_empty() || parts.len() > SIZES_MAX || total > PATTERN_MAX {
            return Err(SizeError::Mix(parts.len(), total));
        }
        if let Some(wrong) = parts.iter().find(|part| !(FRAME_MIN..=FRAME_MAX).contains(&part.0)) {
            return Err(SizeError::Size(wrong.0));
        }
        // Each size earns its weight a step; the richest comes next and pays the total: none comes in clusters.
        let mut credit = vec![0i64; parts.len()];
        let mut pattern = Vec::with_capacity(total as usize);
        for _ in 0..total {
            for (credit, part) in credit.iter_mut().zip(parts) {
                *credit += i64::from(part.1);
            }
            let richest = (0..parts.len()).rev().max_by_key(|&index| credit[index]).unwrap_or(0);
            credit[richest] -= i64::from(total);
            pattern.push(richest as u8);
        }
        Ok(Self { sizes: parts.iter().map(|part| part.0).collect(), pattern })
    }

    /// "Simple IMIX": of twelve IP packets seven of 40 bytes, four of 576 and one of 1,500 (RFC 6985, section 4, calls
    /// such a sequence a genome); as Ethernet frames 64, 594 and 1,518 bytes.
    pub fn imix() -> Self {
        let parts = [(64, 7), (594, 4), (1518, 1)];
        Self::new(&parts).unwrap_or_else(|_| Self { sizes: vec![FRAME_MIN], pattern: vec![0] })
    }

    /// The sizes, check sequence included.
    pub fn sizes(&self) -> &[u16] {
        &self.sizes
    }

    /// Which size the frame with this number has.
    #[inline(always)]
    pub fn index(&self, number: u32) -> usize {
        match self.pattern.len() {
            1 => 0,
            length => usize::from(self.pattern[number as usize % length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imix_is_seven_to_four_to_one_and_spread() {
        let mix = SizeMix::imix();
        let order: Vec<_> = (0..24).map(|number| mix.sizes()[mix.index(number)]).collect();
        assert_eq!(order[..12], [64, 594, 64, 64, 594, 64, 1518, 64, 594, 64, 594, 64]);
        assert_eq!(order[..12], order[12..]);
        assert_eq!(order.iter().filter(|size| **size == 64).count(), 14);
    }

    #[test]
    fn wrong_mixes_are_refused() {
        assert_eq!(SizeMix::new(&[(63, 1)]), Err(SizeError::Size(63)));
        assert_eq!(SizeMix::new(&[(64, 1), (1519, 1)]), Err(SizeError::Size(1519)));
        assert_eq!(SizeMix::new(&[]), Err(SizeError::Mix(0, 0)));
        assert_eq!(SizeMix::new(&[(64, 0)]), Err(SizeError::Mix(1, 0)));
        assert_eq!(SizeMix::new(&[(64, u32::MAX), (65, 2)]), Err(SizeError::Mix(2, u32::MAX)));
        let one = SizeMix::new(&[(128, 1000)]).unwrap();
        assert_eq!((one.index(77), one.sizes()), (0, &[128][..]));
    }
}
