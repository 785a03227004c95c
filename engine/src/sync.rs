//! The primitives that lock-free code here is written with, so that its models can exchange them for loom's.
//!
//! Loom runs a model under every interleaving that the memory model allows. The models are the modules named
//! `loom_model`; they run with
//! `RUSTFLAGS="--cfg loom" cargo test -p pollgate-engine --lib --target-dir target/loom loom_model`.
//! A build that is no test always gets the standard library's.

#[cfg(all(test, loom))]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::Arc,
    sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence},
};
#[cfg(not(all(test, loom)))]
pub(crate) use std::{
    sync::Arc,
    sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence},
};

/// The standard cell with loom's interface: loom sees an access while its closure runs.
#[cfg(not(all(test, loom)))]
pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

#[cfg(not(all(test, loom)))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    /// Lends a pointer to write through.
    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }
}
