//! Surroundings that the unit tests share.

use engine::wire::ethernet::MacAddress;

use crate::link::{Link, Tunnel};

pub(crate) fn plain_link() -> Link {
    Link {
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        gateway_mac: MacAddress([2, 0, 0, 0, 0, 2]),
        tunnel: None,
        addresses: None,
    }
}

pub(crate) fn tunnel_link() -> Link {
    let tunnel = Tunnel {
        local: 0xc0a8_0016,
        remote: 0xc0a8_0015,
        udp_port: 8472,
        vni: 1,
        mac: MacAddress([2, 0, 0, 0, 1, 1]),
        gateway_mac: MacAddress([2, 0, 0, 0, 1, 2]),
        checksum: false,
    };
    Link { tunnel: Some(tunnel), ..plain_link() }
}
