//! What must go to a virtual machine together.
//!
//! The IOMMU keeps groups of devices apart, not the devices in one: a group goes to one machine as a whole. Bridges are
//! not passed, and do not count. A GPU takes along the functions that its card has for sound, for USB-C and the like,
//! if they are in its group. Any other device of the group has to be asked for by name: it may be the host's own disk.

use super::names::Names;
use super::sysfs::{PciDevice, Sysfs, SysfsError};
use crate::cluster::{Passthrough, PciAddress};

/// Why devices cannot go to a virtual machine.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// There is no such device.
    #[error("there is no PCI device {address}")]
    Absent {
        /// Where it should be.
        address: PciAddress,
    },
    /// Nothing keeps the device apart from the host's memory.
    #[error("{address} is in no IOMMU group")]
    NoGroup {
        /// The device.
        address: PciAddress,
    },
    /// The group has other devices.
    #[error("IOMMU group {group} of {address} also has {foreign}")]
    NotViable {
        /// The device.
        address: PciAddress,
        /// Its group.
        group: u32,
        /// The others, each with its name and driver.
        foreign: String,
    },
    /// The host's devices cannot be read.
    #[error(transparent)]
    Read(#[from] SysfsError),
}

/// The devices that a virtual machine gets so that each IOMMU group goes to it as a whole, by address.
///
/// # Errors
/// What is `wanted` cannot go to a machine like that; see [`GroupError`].
pub fn whole_group(sysfs: &Sysfs, wanted: &[Passthrough]) -> Result<Vec<PciAddress>, GroupError> {
    let mut whole: Vec<PciAddress> = wanted.iter().map(|device| device.address).collect();
    let mut groups = Vec::new();
    for Passthrough { address, .. } in wanted {
        let address = *address;
        let device = sysfs.device(address)?.ok_or(GroupError::Absent { address })?;
        let group = device.iommu_group.ok_or(GroupError::NoGroup { address })?;
        let members = sysfs.group(group)?;
        whole.extend(members.iter().filter(|member| goes_along(member, &device)).map(|member| member.address));
        groups.push((address, group, members));
    }
    for (address, group, members) in groups {
        let foreign: Vec<&PciDevice> =
            members.iter().filter(|member| !member.is_bridge() && !whole.contains(&member.address)).collect();
        if !foreign.is_empty() {
            let names = Names::of(sysfs);
            let foreign = foreign.into_iter().map(|member| told(&names, member)).collect::<Vec<_>>().join(", ");
            return Err(GroupError::NotViable { address, group, foreign });
        }
    }
    whole.sort_unstable();
    whole.dedup();
    Ok(whole)
}

impl GroupError {
    /// What to try.
    pub fn hint(&self) -> String {
        match self {
            Self::Absent { .. } => "see which there are: lspci -Dnn".to_owned(),
            Self::NoGroup { .. } => NO_IOMMU_HINT.to_owned(),
            Self::NotViable { .. } => {
                "put the card into another slot, best one of the processor's own; or give these devices to the same \
                 machine under `pcie_passthrough.devices`, if the host can do without them"
                    .to_owned()
            }
            Self::Read(_) => "let this user read /sys".to_owned(),
        }
    }
}

/// How an IOMMU is turned on.
pub(super) const NO_IOMMU_HINT: &str = "enable VT-d (Intel) or AMD-Vi, also called IOMMU, in the firmware setup; put \
     `intel_iommu=on iommu=pt` or `amd_iommu=on iommu=pt` on the kernel command line; restart the host";

/// A device with its name and driver.
fn told(names: &Names, device: &PciDevice) -> String {
    let driver = match &device.driver {
        Some(driver) => format!("held by the driver {driver}"),
        None => "without a driver".to_owned(),
    };
    format!("{} ({}, {driver})", device.address, names.of_device(device))
}

/// Whether `member` of the group of `device` is a part of the same card that is of no use without it.
fn goes_along(member: &PciDevice, device: &PciDevice) -> bool {
    let slot = |address: PciAddress| (address.domain, address.bus, address.device);
    // Sound, and serial buses: USB-C and what controls it.
    device.is_gpu() && slot(member.address) == slot(device.address) && matches!(member.class >> 16, 0x04 | 0x0c)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Pci, Tree, wanted};
    use super::*;

    fn whole(tree: &Tree, addresses: &[&str]) -> Result<Vec<String>, GroupError> {
        let wanted: Vec<_> = addresses.iter().map(|address| wanted(address)).collect();
        Ok(whole_group(&tree.sysfs(), &wanted)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_gpu_takes_its_sound_along_and_no_bridge() {
        let tree = Tree::with_a_gpu();
        assert_eq!(whole(&tree, &["0000:65:00.0"]).unwrap(), ["0000:65:00.0", "0000:65:00.1"]);
        assert_eq!(whole(&tree, &["65:00.1", "65:00.0"]).unwrap(), ["0000:65:00.0", "0000:65:00.1"]);
        tree.add(Pci { group: Some(15), ..Pci::audio("0000:65:00.2") });
        assert_eq!(whole(&tree, &["65:00.0"]).unwrap().len(), 2, "what is kept apart stays");
        assert!(whole(&tree, &[]).unwrap().is_empty());
    }

    #[test]
    fn another_device_of_the_group_is_only_passed_if_it_is_asked_for() {
        let tree = Tree::with_a_gpu();
        tree.add(Pci { group: Some(14), ..Pci::disk("0000:66:00.0") });
        tree.add(Pci { group: Some(14), class: 0x06_0100, driver: None, ..Pci::bridge("0000:65:00.3") });
        let error = whole(&tree, &["65:00.0"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "IOMMU group 14 of 0000:65:00.0 also has 0000:65:00.3 (Intel ISA bridge [8086:1901], without a driver), \
             0000:66:00.0 (Samsung NVMe disk [144d:a80a], held by the driver nvme)"
        );
        assert!(error.hint().contains("another slot"));
        let all = whole(&tree, &["65:00.0", "65:00.3", "66:00.0"]).unwrap();
        assert_eq!(all, ["0000:65:00.0", "0000:65:00.1", "0000:65:00.3", "0000:66:00.0"]);
        let sound = whole(&tree, &["65:00.1"]).unwrap_err();
        assert!(sound.to_string().contains("0000:65:00.0 (NVIDIA GPU"), "sound does not take its GPU along: {sound}");
    }

    #[test]
    fn what_is_not_there_or_not_kept_apart_is_told() {
        let tree = Tree::new();
        tree.add(Pci::gpu("0000:65:00.0"));
        assert_eq!(whole(&tree, &["65:00.0"]).unwrap_err().to_string(), "0000:65:00.0 is in no IOMMU group");
        assert_eq!(whole(&tree, &["66:00.0"]).unwrap_err().to_string(), "there is no PCI device 0000:66:00.0");
    }
}
