//! DPDK devices.

use toml::de::DeValue;

use super::content;
use crate::control::config::readable::{Fault, Readable};

/// A DPDK device: a PCI address or a vdev string, with the driver's arguments behind commas.
pub(crate) struct Device(pub(crate) String);

impl Readable for Device {
    const WANTED: &'static str = "a string";

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        let text = String::read(value)?;
        let name = text.split(',').next().unwrap_or_default();
        let vdev = name.strip_prefix("net_").is_some_and(|driver| !driver.is_empty());
        if !vdev && !is_pci_address(name) {
            let right = if is_pci_address(&format!("0000:{name}")) {
                format!("write the PCI domain too: \"0000:{text}\"")
            } else {
                "write a PCI address, as in \"0000:01:00.0\", or a vdev, as in \"net_tap0,iface=pg-eth0\""
                    .to_owned()
            };
            return content("which is no DPDK device", right);
        }
        if text.contains(char::is_whitespace) {
            return content(
                "which holds a blank",
                "write driver and arguments with commas alone between them",
            );
        }
        if let Some(interface) = device_argument(&text, "iface").filter(|name| name.len() > 15) {
            let wrong = format!("whose interface name is {} characters long", interface.len());
            return content(wrong, "use 15 at the most: Linux takes no more (IFNAMSIZ)");
        }
        Ok(Self(text))
    }
}

/// Whether `text` is a PCI address with its domain: `0000:01:00.0`.
pub(crate) fn is_pci_address(text: &str) -> bool {
    let form = b"0000:00:00.0";
    text.len() == form.len()
        && text.bytes().zip(form).enumerate().all(|(place, (byte, wanted))| match wanted {
            b'0' if place == form.len() - 1 => (b'0'..=b'7').contains(&byte),
            b'0' => byte.is_ascii_hexdigit(),
            separator => byte == *separator,
        })
}

/// The value of one argument of a device string.
pub(crate) fn device_argument<'d>(device: &'d str, name: &str) -> Option<&'d str> {
    device.split(',').skip(1).find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config::testing::expect_at_value;

    #[test]
    fn devices_are_dpdks() {
        let device = |value: &str, said: &str| {
            expect_at_value("device = \"net_tap1,iface=pg-bm1\"", "device", value, "ports[1].device", said);
        };
        device("\"eth0\"", "which is no DPDK device; write a PCI address");
        device("\"01:00.0\"", "write the PCI domain too: \"0000:01:00.0\"");
        device("\"net_tap1, iface=pg-bm1\"", "which holds a blank");
        device("\"net_tap1,iface=business-manager-1\"", "whose interface name is 18 characters long; use 15");
        assert!(
            is_pci_address("0000:af:1f.7")
                && !is_pci_address("0000:01:00.8")
                && !is_pci_address("0000.01:00:0")
        );
        assert_eq!(device_argument("net_tap0,mac=x,iface=pg0", "iface"), Some("pg0"));
        assert_eq!(device_argument("net_tap0,iface", "iface"), None);
    }
}
