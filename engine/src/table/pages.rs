//! A fixed array on large pages: mmap with a hint for 2 MiB pages, so that a random access costs one TLB miss less.
//!
//! No page needs to be reserved: with transparent huge pages in `madvise` or `always` mode the kernel backs the mapping
//! with 2 MiB pages as it is touched (Documentation/admin-guide/mm/transhuge.rst), and with ordinary ones elsewhere.
#![allow(unsafe_code, reason = "maps memory for tables")]

use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::slice;

use zerocopy::FromZeros;

const LARGE_PAGE: usize = 2 << 20;

/// A zeroed array of fixed length, aligned to 2 MiB.
pub struct PageArray<T> {
    mapping: NonNull<core::ffi::c_void>,
    mapping_length: usize,
    start: NonNull<T>,
    length: usize,
}

// SAFETY: the array owns its mapping like a Box<[T]>.
unsafe impl<T: Send> Send for PageArray<T> {}
// SAFETY: as for Box<[T]>.
unsafe impl<T: Sync> Sync for PageArray<T> {}

/// Why no memory was to be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot map {bytes} bytes for a table: {source}; lower the capacity in the configuration")]
pub struct PageArrayError {
    /// How many were asked for.
    pub bytes: usize,
    /// What the kernel said.
    pub source: std::io::Error,
}

impl<T: FromZeros> PageArray<T> {
    /// `length` elements, all bytes zero, every page touched so that none faults later.
    pub fn new(length: usize) -> Result<Self, PageArrayError> {
        let bytes = length.saturating_mul(size_of::<T>()).max(1);
        // One large page more, so that the array can start on one.
        let mapping_length = bytes.next_multiple_of(LARGE_PAGE).saturating_add(LARGE_PAGE);
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no existing memory.
        let mapping = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                mapping_length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let mapping = NonNull::new(mapping)
            .filter(|mapping| mapping.as_ptr() != libc::MAP_FAILED)
            .ok_or_else(|| PageArrayError { bytes, source: std::io::Error::last_os_error() })?;
        let padding = mapping.as_ptr().align_offset(LARGE_PAGE);
        // SAFETY: padding < LARGE_PAGE, and the mapping has that much beyond `bytes`.
        let start = unsafe { mapping.cast::<u8>().add(padding) };
        // The kernel takes large pages for whole ones alone: the last, too, unless most of it would be for nothing.
        let advised =
            if bytes % LARGE_PAGE >= LARGE_PAGE / 4 { bytes.next_multiple_of(LARGE_PAGE) } else { bytes };
        // SAFETY: the range lies in the mapping made above, which goes on for a large page behind `bytes` rounded up less
        // the padding, so at least to `bytes` rounded up; the advice changes no content. Failure means ordinary pages,
        // which is allowed.
        unsafe { libc::madvise(start.as_ptr().cast(), advised, libc::MADV_HUGEPAGE) };
        for offset in (0..bytes).step_by(4096) {
            // SAFETY: offset < bytes lies in the mapping; zero is what is there already.
            unsafe { start.add(offset).write_volatile(0) };
        }
        Ok(Self { mapping, mapping_length, start: start.cast(), length })
    }
}

impl<T> Drop for PageArray<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in new() with this length and nothing refers to it any more. Elements are
        // FromZeros table entries without drop glue of their own.
        unsafe { libc::munmap(self.mapping.as_ptr(), self.mapping_length) };
    }
}

impl<T> Deref for PageArray<T> {
    type Target = [T];
    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `length` elements from `start` lie in the mapping, aligned to 2 MiB, valid as zeros (FromZeros).
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T> DerefMut for PageArray<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in deref, and &mut self makes it exclusive.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}
