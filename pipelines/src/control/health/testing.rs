//! For tests: addresses on loopback that nobody else uses.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};

/// An address in 127.0.0.0/8 for one test alone: any port of it is free, a port that was closed stays so, and no
/// connection to it can meet itself, since clients connect from 127.0.0.1.
pub(super) fn home() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high.max(1), low, NEXT.fetch_add(1, Ordering::Relaxed))
}
