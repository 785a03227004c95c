//! Which station is behind which port of the bridge: static entries and learned ones that age.
//!
//! Workers look stations up and note when they last heard them; the neighbour machine alone adds, moves and forgets.

use std::sync::atomic::{AtomicU32, Ordering};

use engine::batch::PortId;
use engine::table::atomic_map::AtomicMap;
use engine::wire::ethernet::MacAddress;

/// Stations at the most; beyond that frames to unknown ones are flooded.
pub const STATIONS_MAX: usize = 8_192;
/// A station's time of last hearing is written at the most this often, so that its line is not written per packet.
const HEARD_RESOLUTION_MS: u32 = 1_000;
/// In an entry's value above the port: never ages, never moves.
const STATIC: u64 = 1 << 16;

/// The bridge's forwarding table.
pub struct BridgeMacs {
    map: AtomicMap,
    /// By place in the map: millisecond tick at which the station was last heard. Written by any worker.
    heard: Box<[AtomicU32]>,
}

/// What is known of a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its address.
    pub mac: MacAddress,
    /// The port it is behind.
    pub port: PortId,
    /// From the configuration.
    pub is_static: bool,
    /// Millisecond tick at which it was last heard.
    pub heard_ms: u32,
}

impl Default for BridgeMacs {
    fn default() -> Self {
        Self::new(STATIONS_MAX)
    }
}

impl BridgeMacs {
    /// Room for `capacity` stations.
    pub fn new(capacity: usize) -> Self {
        let map = AtomicMap::new(capacity);
        let heard = (0..map.place_count()).map(|_| AtomicU32::new(0)).collect();
        Self { map, heard }
    }

    /// The port that a station is behind.
    #[inline]
    pub fn find(&self, mac: MacAddress) -> Option<PortId> {
        self.map.find(mac.to_u64()).map(|(_, value)| value as u16)
    }

    /// Notes that a station was heard behind `port`. True if that is known already; false: tell the machine.
    #[inline]
    pub fn hear(&self, mac: MacAddress, port: PortId, now_ms: u32) -> bool {
        let Some((place, value)) = self.map.find(mac.to_u64()) else { return false };
        if value & STATIC != 0 {
            return true;
        }
        if value as u16 != port {
            return false;
        }
        let heard = &self.heard[place];
        if now_ms.wrapping_sub(heard.load(Ordering::Relaxed)) >= HEARD_RESOLUTION_MS {
            heard.store(now_ms, Ordering::Relaxed);
        }
        true
    }

    /// Adds or moves a station. False if there is no place. For the neighbour machine alone.
    pub fn learn(&self, mac: MacAddress, port: PortId, is_static: bool, now_ms: u32) -> bool {
        let value = u64::from(port) | if is_static { STATIC } else { 0 };
        match self.map.set(mac.to_u64(), value) {
            Some(place) => {
                self.heard[place].store(now_ms, Ordering::Relaxed);
                true
            }
            None => false,
        }
    }

    /// Forgets a station. For the neighbour machine alone.
    pub fn forget(&self, mac: MacAddress) {
        self.map.remove(mac.to_u64());
    }

    /// All stations as of now.
    pub fn stations(&self) -> impl Iterator<Item = Station> + '_ {
        self.map.iter().map(|(place, key, value)| Station {
            mac: MacAddress::from_u64(key),
            port: value as u16,
            is_static: value & STATIC != 0,
            heard_ms: self.heard[place].load(Ordering::Relaxed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stations_are_heard_moved_and_forgotten() {
        let macs = BridgeMacs::new(16);
        let (pod, fixed) = (MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2]));
        assert!(!macs.hear(pod, 1, 0) && macs.learn(pod, 1, false, 5) && macs.hear(pod, 1, 3_000));
        assert!(!macs.hear(pod, 2, 3_000), "a move is news");
        assert!(macs.learn(fixed, 3, true, 0) && macs.hear(fixed, 1, 0), "a static one does not move");
        assert_eq!((macs.find(pod), macs.find(fixed)), (Some(1), Some(3)));
        let pod_station = macs.stations().find(|station| station.mac == pod).unwrap();
        assert_eq!((pod_station.heard_ms, pod_station.is_static), (3_000, false));
        macs.forget(pod);
        assert_eq!(macs.find(pod), None);
    }
}
