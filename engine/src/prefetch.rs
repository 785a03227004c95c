//! Prefetch hints: the one instruction that hides memory latency behind the rest of a burst.
#![allow(unsafe_code, reason = "the prefetch intrinsic is unsafe to call")]

/// Asks for the cache line at `address` in all cache levels. A hint: any address is allowed.
#[inline(always)]
pub fn prefetch_read<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: PREFETCHT0 never faults, whatever the address (Intel SDM, volume 2, PREFETCHh).
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address.cast::<i8>());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
