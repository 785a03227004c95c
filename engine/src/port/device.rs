//! Names of DPDK devices: PCI addresses and virtual device strings. Pure, so that a configuration can be checked
//! where DPDK is not installed.

/// A device as DPDK's arguments name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A device on the PCI bus; the address in full, `0000:01:00.0`.
    Pci {
        /// Domain, bus, device, function, in lower case.
        address: String,
    },
    /// A virtual device, which DPDK makes at start.
    Vdev {
        /// Its name, which begins with its driver's: `net_tap0`.
        name: String,
        /// What follows the name and its comma: `iface=pg-eth0`. May be empty.
        arguments: String,
    },
}

impl DeviceKind {
    /// The name by which DPDK knows the port.
    pub fn port_name(&self) -> &str {
        match self {
            Self::Pci { address } => address,
            Self::Vdev { name, .. } => name,
        }
    }
}

/// Why a string names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Neither form.
    #[error(
        "`{0}` is no device: write a PCI address as `0000:01:00.0` or `01:00.0`, or a virtual device as \
         `net_tap0,iface=NAME`, its name beginning with `net_`"
    )]
    Unknown(String),
    /// A virtual device with a name that DPDK cannot take.
    #[error("`{0}` is no virtual device's name: letters, digits and `_` after `net_`, 63 at the most")]
    Name(String),
    /// Arguments that DPDK would cut up differently.
    #[error("the arguments of `{0}` contain a space or a control character: write `key=value,key=value`")]
    Arguments(String),
}

/// RTE_ETH_NAME_MAX_LEN and RTE_DEV_NAME_MAX_LEN are 64 with the zero at the end.
const NAME_MAX: usize = 63;

/// Reads a device string: `0000:01:00.0`, `01:00.0`, or `net_DRIVER...[,ARGUMENTS]`.
pub fn classify_device(device: &str) -> Result<DeviceKind, DeviceError> {
    if let Some(address) = pci_address(device) {
        return Ok(DeviceKind::Pci { address });
    }
    let (name, arguments) = device.split_once(',').unwrap_or((device, ""));
    let Some(driver) = name.strip_prefix("net_") else { return Err(DeviceError::Unknown(device.into())) };
    let plain = driver.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if driver.is_empty() || !plain || name.len() > NAME_MAX {
        return Err(DeviceError::Name(name.into()));
    }
    if arguments.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(DeviceError::Arguments(name.into()));
    }
    Ok(DeviceKind::Vdev { name: name.into(), arguments: arguments.into() })
}

/// `[domain:]bus:device.function` in hexadecimal, the domain 0000 when left out (PCI Local Bus 3.0, section 3.2.2.3.2:
/// 8 bits of bus, 5 of device, 3 of function).
fn pci_address(text: &str) -> Option<String> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
    let (domain, bus) = (hexadecimal(domain, 4, 0xffff)?, hexadecimal(bus, 2, 0xff)?);
    let (device, function) = (hexadecimal(device, 2, 0x1f)?, hexadecimal(function, 1, 7)?);
    Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function:x}"))
}

fn hexadecimal(text: &str, digits: usize, max: u16) -> Option<u16> {
    let all = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u16::from_str_radix(text, 16).ok().filter(|value| all && *value <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vdev(name: &str, arguments: &str) -> Result<DeviceKind, DeviceError> {
        Ok(DeviceKind::Vdev { name: name.into(), arguments: arguments.into() })
    }

    #[test]
    fn both_forms_of_a_pci_address_are_one() {
        let expected = Ok(DeviceKind::Pci { address: "0000:0a:1f.7".into() });
        assert_eq!(classify_device("0a:1f.7"), expected);
        assert_eq!(classify_device("0000:0A:1f.7"), expected);
        for wrong in
            ["0a:20.0", "0a:00.8", "0a:0.0", "00:0a:00.0", "+a:00.0", "0000:0000:0a:00.0", "", "eth0"]
        {
            assert_eq!(classify_device(wrong), Err(DeviceError::Unknown(wrong.into())));
        }
    }

    #[test]
    fn virtual_devices_have_a_name_and_arguments() {
        assert_eq!(classify_device("net_null0"), vdev("net_null0", ""));
        assert_eq!(
            classify_device("net_tap1,iface=pg-eth0,mac=fixed"),
            vdev("net_tap1", "iface=pg-eth0,mac=fixed")
        );
        assert_eq!(classify_device("net_"), Err(DeviceError::Name("net_".into())));
        assert_eq!(classify_device("net_tap-0"), Err(DeviceError::Name("net_tap-0".into())));
        assert_eq!(classify_device("net_tap0,iface=a b"), Err(DeviceError::Arguments("net_tap0".into())));
        let long = format!("net_{}", "a".repeat(60));
        assert_eq!(classify_device(&long), Err(DeviceError::Name(long)));
    }
}
