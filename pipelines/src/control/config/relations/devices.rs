//! Devices: each serves one port.

use std::collections::HashMap;

use crate::control::config::draft::Draft;
use crate::control::config::model::PortRole;
use crate::control::config::notes::{At, Notes};
use crate::control::config::values::device_argument;

pub(super) fn check(draft: &Draft, notes: &Notes) {
    let ports = draft.ports.iter().filter_map(|port| port.device.as_ref());
    let exception = draft.exception.iter().filter_map(|exception| exception.device.as_ref());
    let (mut names, mut interfaces) = (HashMap::new(), HashMap::new());
    for device in ports.chain(exception) {
        let At { value, offset } = device;
        // PCI addresses are compared as numbers: their letters can be small or not.
        let name = value.split(',').next().unwrap_or(value).to_ascii_lowercase();
        if names.insert(name.clone(), *offset).is_some() {
            let wrong = format!("device `{name}` serves two ports");
            notes.error(
                *offset,
                wrong,
                "give each port a device of its own: number vdevs on, as in `net_tap1`",
            );
        }
        if let Some(interface) = device_argument(value, "iface")
            && interfaces.insert(interface, *offset).is_some()
        {
            let wrong = format!("interface `{interface}` serves two ports");
            notes.error(*offset, wrong, "give each an interface name of its own behind `iface=`");
        }
    }
    if draft.bridge.is_none() && notes.all_read(&["bridge"]) {
        for port in &draft.ports {
            if let Some(role) = port.role.filter(|role| role.value == PortRole::Pod) {
                notes.error(
                    role.offset,
                    "a pod port belongs to the bridge, and there is none",
                    "add `[bridge]` with the pods' gateway address and MAC",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::control::config::testing::{changed, expect, expect_one};

    #[test]
    fn each_device_serves_one_port() {
        expect_one(
            "net_tap2,iface=pg-bm2",
            "net_tap1,iface=pg-bm2",
            ("error", "\"net_tap1", "ports[2].device", "device `net_tap1` serves two ports"),
        );
        expect_one(
            "net_tap2,iface=pg-bm2",
            "net_tap2,iface=pg-bm1",
            ("error", "\"net_tap2", "ports[2].device", "interface `pg-bm1` serves two ports"),
        );
        expect_one(
            "net_tap6,iface=pg-host",
            "net_tap0,iface=pg-host",
            ("error", "\"net_tap0", "exception.device", "device `net_tap0` serves two ports"),
        );
        let text =
            changed(&[("net_tap1,iface=pg-bm1", "0000:0a:00.0"), ("net_tap2,iface=pg-bm2", "0000:0A:00.0")]);
        expect(&text, &[("error", "\"0000:0A:00.0", "ports[2].device", "serves two ports")]);
    }

    #[test]
    fn pod_ports_belong_to_the_bridge() {
        let text = "[[ports]]\nname = \"a\"\nrole = \"pod\"\n";
        expect(text, &[("error", "\"pod\"", "ports[0].role", "add `[bridge]`")]);
        expect(
            &format!("bridge = 1\n{text}"),
            &[("error", "1", "bridge", "`bridge` is an integer; write a table, `[bridge]`")],
        );
    }
}
