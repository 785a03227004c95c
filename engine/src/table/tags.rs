//! Sixteen one-byte tags compared at once.
#![allow(unsafe_code, reason = "SSE2 intrinsics")]

/// A bit for each of the sixteen bytes that equals `tag`.
#[inline(always)]
pub(crate) fn matching(tags: &[u8; 16], tag: u8) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is part of every x86-64 processor, and the load reads the sixteen bytes of the array (unaligned
    // loads are what _mm_loadu_si128 is for).
    unsafe {
        use core::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
        let tags = _mm_loadu_si128(tags.as_ptr().cast());
        _mm_movemask_epi8(_mm_cmpeq_epi8(tags, _mm_set1_epi8(tag as i8))) as u32
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        (0..16).fold(0, |bits, place| bits | u32::from(tags[place] == tag) << place)
    }
}
