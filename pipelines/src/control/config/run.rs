//! What a configuration must have to be run, over and above being right.

use super::diagnostic::Diagnostic;
use super::model::{Configuration, DpdkMemory};
use super::values::is_pci_address;

/// Ports of one process (`RTE_MAX_ETHPORTS` in Debian's DPDK).
const DEVICE_LIMIT: usize = 32;
/// Threads known to EAL (`RTE_MAX_LCORE` in Debian's DPDK), less the main and the control thread.
const WORKER_LIMIT: usize = 126;

/// What `pollgate run` needs and `check`, `trace` and `replay` do not. [`super::Loaded::locate`] adds the places.
pub fn run_requirements(configuration: &Configuration) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if configuration.ports.is_empty() {
        found.push(Diagnostic::error(
            "ports",
            "there is no port to run on",
            "add `[[ports]]` with a `device`",
        ));
    }
    let no_huge = configuration.dpdk.memory == DpdkMemory::None;
    for (place, port) in configuration.ports.iter().enumerate() {
        match port.device.as_deref() {
            None => found.push(Diagnostic::error(
                format!("ports[{place}].device"),
                format!("port `{}` has no `device` to run on", port.name),
                "add a PCI address, as in `device = \"0000:01:00.0\"`, or a vdev, as in `device = \"net_tap0,iface=pg0\"`",
            )),
            Some(device) if no_huge && pci_address(device).is_some() => found.push(Diagnostic::warning(
                format!("ports[{place}].device"),
                format!("port `{}` is a PCI device, and `[dpdk] memory` is \"none\"", port.name),
                "use memory = \"huge\": without it such a device works behind an IOMMU alone, and slowly",
            )),
            Some(_) => {}
        }
    }
    let devices = configuration.ports.len() + usize::from(configuration.exception.is_some());
    if devices > DEVICE_LIMIT {
        found.push(Diagnostic::error(
            "ports",
            format!(
                "{devices} devices, the exception port's among them, are more than DPDK's {DEVICE_LIMIT}"
            ),
            "put several pods behind one port, or run a second gateway",
        ));
    }
    let workers = configuration.workers.cores.len();
    if workers > WORKER_LIMIT {
        found.push(Diagnostic::error(
            "workers.cores",
            format!("{workers} workers are more than DPDK takes threads for"),
            format!("use {WORKER_LIMIT} cores at the most"),
        ));
    }
    found
}

/// The PCI address of a device string, in small letters, if it is a PCI device's.
pub(super) fn pci_address(device: &str) -> Option<String> {
    let name = device.split(',').next()?;
    is_pci_address(name).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{REFERENCE, parsed};
    use super::*;

    fn keys(configuration: &Configuration) -> Vec<String> {
        run_requirements(configuration).into_iter().map(|diagnostic| diagnostic.key).collect()
    }

    #[test]
    fn asks_for_devices_within_limits() {
        let good = parsed(REFERENCE);
        assert!(keys(&good).is_empty());

        let mut bad = good.clone();
        bad.ports[2].device = None;
        bad.ports[3].device = Some("0000:01:00.0".into());
        assert_eq!(keys(&bad), ["ports[2].device", "ports[3].device"]);
        assert!(!run_requirements(&bad)[1].is_error(), "memory is \"none\" there");
        bad.dpdk.memory = DpdkMemory::Huge;
        assert_eq!(keys(&bad), ["ports[2].device"]);

        let mut many = good.clone();
        many.ports = vec![good.ports[1].clone(); 32];
        many.workers.cores = (0..127).collect();
        assert_eq!(keys(&many), ["ports", "workers.cores"]);

        let services_alone = parsed("[node]\nname = \"n\"\n[services]\n");
        assert_eq!(keys(&services_alone), ["ports"]);
    }
}
