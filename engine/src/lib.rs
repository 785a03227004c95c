//! The engine of Pollgate: it moves packets and knows no gateway policy.

pub mod batch;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod host;
pub mod packet;
pub mod pool;
pub mod port;
pub mod prefetch;
pub mod ring;
pub mod wire;
