//! The engine of Pollgate: it moves packets and knows no gateway policy.

pub mod batch;
pub mod clock;
pub mod counters;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod host;
pub mod packet;
pub mod pool;
pub mod port;
pub mod prefetch;
pub mod random;
pub mod rate;
pub mod ring;
pub mod snapshot;
pub mod socket;
mod sync;
pub mod table;
pub mod wire;
pub mod worker;
