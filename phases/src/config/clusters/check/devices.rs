//! Devices of the host that machines get.

use super::super::nodes::Placed;
use super::super::normal::hex_id;
use super::Told;
use crate::cluster::PciAddress;

pub(super) fn check(nodes: &[Placed<'_>], told: &mut Told) {
    let mut owned: Vec<(PciAddress, &Placed<'_>)> = Vec::new();
    for node in nodes {
        let Some(passthrough) = &node.node.pcie_passthrough else { continue };
        if passthrough.enabled && passthrough.devices.is_empty() {
            told.of(node, &["pcie_passthrough", "devices"], "it is enabled, and names no device");
        }
        for (at, device) in passthrough.devices.iter().enumerate() {
            let at = at.to_string();
            let mut tell = |field, message: String| {
                told.of(node, &["pcie_passthrough", "devices", &at, field], message);
            };
            if device.device_type.is_none() {
                tell("device_type", "missing field `device_type`".to_owned());
            }
            for (field, id) in [("vendor_id", &device.vendor_id), ("device_id", &device.device_id)] {
                if let Some(id) = id
                    && !is_id(&hex_id(id))
                {
                    tell(field, format!("`{id}` is not four hexadecimal digits"));
                }
            }
            let address = match device.pci_address.parse::<PciAddress>() {
                Ok(address) => address,
                Err(message) => {
                    tell("pci_address", message);
                    continue;
                }
            };
            if !passthrough.enabled {
                continue;
            }
            let place = |address: &PciAddress| (address.domain, address.bus, address.device);
            let other = owned.iter().find(|(other, owner)| {
                *other == address || (place(other) == place(&address) && owner.name != node.name)
            });
            match other {
                Some((other, owner)) if *other == address => {
                    tell("pci_address", format!("{address} is given to {} already", owner.name));
                }
                Some((other, owner)) => {
                    let message =
                        format!("{address} and {other} of {} are one device, which stays together", owner.name);
                    tell("pci_address", message);
                }
                None => owned.push((address, node)),
            }
        }
    }
}

fn is_id(digits: &str) -> bool {
    digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}
