//! Packet sizes: what comes in by one interface must fit through the next.

use engine::wire::vxlan;

use crate::control::config::draft::Draft;
use crate::control::config::model::PortRole;
use crate::control::config::notes::{At, Notes};

/// What the tunnel puts in front of an inner IP packet: inner Ethernet, VXLAN, UDP and outer IP (RFC 7348 section 5).
const OVERHEAD: u16 = vxlan::OVERHEAD as u16;

pub(super) fn check(draft: &Draft, notes: &Notes) {
    let overlay = draft.overlay.as_ref();
    let overlay_mtu = overlay.and_then(|overlay| overlay.mtu);
    let underlay = overlay.and_then(|overlay| draft.ports.get(overlay.underlay_port?)?.mtu);
    if let (Some(At { value: inner, offset }), Some(At { value: outer, .. })) = (overlay_mtu, underlay)
        && inner + OVERHEAD > outer
    {
        notes.error(
            offset,
            format!("overlay `mtu` {inner} and the tunnel's {OVERHEAD} bytes do not fit the underlay port's {outer}"),
            format!("use {} at the most, or raise the underlay port's `mtu`", outer - OVERHEAD),
        );
    }
    let bridge = draft.bridge.as_ref().and_then(|bridge| bridge.mtu);
    if let (Some(bridge), Some(overlay)) = (bridge, overlay_mtu)
        && bridge.value > overlay.value
    {
        notes.warning(
            bridge.offset,
            format!("bridge `mtu` {} is above the overlay's {}", bridge.value, overlay.value),
            format!("use {}: larger packets between nodes are refused", overlay.value),
        );
    }
    let Some(bridge) = bridge else { return };
    for port in draft.ports.iter().filter(|port| port.has_role(PortRole::Pod)) {
        let Some(At { value: pod, offset }) = port.mtu else { continue };
        if pod != bridge.value {
            let consequence = if pod < bridge.value {
                "the bridge's larger packets are lost"
            } else {
                "larger packets cannot leave the bridge"
            };
            notes.warning(
                offset,
                format!("pod port `mtu` {pod} is not the bridge's {}", bridge.value),
                format!("use {} (the default): {consequence}", bridge.value),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::control::config::testing::{changed, expect, expect_one, parsed};

    const OVERLAY: &str = "mtu = 1450\npod_network";

    #[test]
    fn the_tunnel_fits_the_underlay() {
        let text = changed(&[(OVERLAY, "mtu = 1451\npod_network")]);
        let said =
            "overlay `mtu` 1451 and the tunnel's 50 bytes do not fit the underlay port's 1500; use 1450";
        expect(&text, &[("error", "1451", "overlay.mtu", said)]);
        let text = changed(&[(OVERLAY, "pod_network"), ("mtu = 1500", "mtu = 1480")]);
        expect(&text, &[("error", "[overlay]", "overlay", "use 1430 at the most")]);
    }

    #[test]
    fn packets_of_pods_fit_the_tunnel_and_the_bridge() {
        let text = changed(&[(OVERLAY, "mtu = 1400\npod_network")]);
        expect(
            &text,
            &[("warning", "1450", "bridge.mtu", "bridge `mtu` 1450 is above the overlay's 1400; use 1400")],
        );
        let first_pod = "pg-bm1\"\nmtu = 1450";
        expect_one(
            first_pod,
            "pg-bm1\"\nmtu = 1500",
            (
                "warning",
                "1500",
                "ports[1].mtu",
                "is not the bridge's 1450; use 1450 (the default): larger packets cannot",
            ),
        );
        expect_one(
            first_pod,
            "pg-bm1\"\nmtu = 1400",
            ("warning", "1400", "ports[1].mtu", "the bridge's larger packets are lost"),
        );
    }

    #[test]
    fn a_pod_port_has_the_bridges_size_by_default() {
        let text = changed(&[("pg-bm1\"\nmtu = 1450", "pg-bm1\"")]);
        assert_eq!(parsed(&text).ports[1].mtu, 1_450);
    }
}
