//! The PCI devices of the host, as its kernel tells them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cluster::PciAddress;

/// The variable that says where the host's `/sys`, `/proc` and `/lib/modules` are, for a program in a container that
/// has them elsewhere; `/` by default.
pub const ROOT_VARIABLE: &str = "TASKRUN_HOST_ROOT";

/// What the kernel of a host tells in its file systems.
#[derive(Debug, Clone)]
pub struct Sysfs {
    root: PathBuf,
}

/// A PCI device; each function is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciDevice {
    /// Where it is.
    pub address: PciAddress,
    /// Who made it, such as 0x10de.
    pub vendor: u16,
    /// What its maker calls it, such as 0x2684.
    pub device: u16,
    /// The vendor and the name of the card that it is on, if it says so.
    pub subsystem: Option<(u16, u16)>,
    /// What it is for, in 24 bits: base class, subclass, interface; 0x030000 is a VGA controller.
    pub class: u32,
    /// The driver that it is bound to.
    pub driver: Option<String>,
    /// The group of devices that the IOMMU cannot keep apart from it; nothing without an IOMMU.
    pub iommu_group: Option<u32>,
    /// Whether the firmware shows its messages there.
    pub boot_vga: bool,
}

/// A file of the kernel cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("read {}", path.display())]
pub struct SysfsError {
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl Sysfs {
    /// That of this host.
    pub fn host() -> Self {
        let root = std::env::var_os(ROOT_VARIABLE).filter(|root| !root.is_empty());
        Self::under(root.map_or_else(|| PathBuf::from("/"), PathBuf::from))
    }

    /// That of the host whose `/sys`, `/proc` and `/lib/modules` are in the folder `root`.
    pub fn under(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The path of a file of the host, given without the first `/`.
    pub(super) fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.root.join(inside)
    }

    /// All devices, by address.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn devices(&self) -> Result<Vec<PciDevice>, SysfsError> {
        self.listed(&self.path("sys/bus/pci/devices"))
    }

    /// The device at `address`, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn device(&self, address: PciAddress) -> Result<Option<PciDevice>, SysfsError> {
        let folder = self.path("sys/bus/pci/devices").join(address.to_string());
        let id = |name| number(&folder.join(name));
        // Without a class it is not there, or was taken out just now.
        let Some(class) = id("class")? else { return Ok(None) };
        let short = |name| Ok(id(name)?.and_then(|id| u16::try_from(id).ok()));
        let subsystem = short("subsystem_vendor")?.zip(short("subsystem_device")?);
        Ok(Some(PciDevice {
            address,
            vendor: short("vendor")?.unwrap_or_default(),
            device: short("device")?.unwrap_or_default(),
            subsystem: subsystem.filter(|ids| *ids != (0, 0)),
            class,
            driver: link(&folder.join("driver"))?,
            iommu_group: link(&folder.join("iommu_group"))?.and_then(|group| group.parse().ok()),
            boot_vga: id("boot_vga")? == Some(1),
        }))
    }

    /// Whether the kernel uses an IOMMU.
    pub fn iommu_enabled(&self) -> bool {
        let groups = fs::read_dir(self.path("sys/kernel/iommu_groups"));
        groups.is_ok_and(|mut groups| groups.next().is_some())
    }

    /// The devices of an IOMMU group, by address; none if there is no such group.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn group(&self, number: u32) -> Result<Vec<PciDevice>, SysfsError> {
        self.listed(&self.path(format!("sys/kernel/iommu_groups/{number}/devices")))
    }

    /// The functions of the slot that `address` is in, by address.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn slot(&self, address: PciAddress) -> Result<Vec<PciDevice>, SysfsError> {
        let functions = (0..8).map(|function| self.device(PciAddress { function, ..address }));
        functions.filter_map(Result::transpose).collect()
    }

    /// Whether the kernel has the module `name`, or can load it.
    pub fn has_module(&self, name: &str) -> bool {
        let plain = name.replace('-', "_");
        if self.path("sys/module").join(&plain).exists() {
            return true;
        }
        let release = fs::read_to_string(self.path("proc/sys/kernel/osrelease")).unwrap_or_default();
        let folder = self.path("lib/modules").join(release.trim());
        // Each line begins with the file of a module, such as `kernel/drivers/vfio/pci/vfio-pci.ko.xz:`.
        let is_it = |line: &str| {
            let file = line.split([':', ' ']).next().unwrap_or_default();
            let file = file.rsplit('/').next().unwrap_or_default();
            file.split_once(".ko").is_some_and(|(module, _)| module.replace('-', "_") == plain)
        };
        let listed = |list| fs::read_to_string(folder.join(list)).is_ok_and(|text| text.lines().any(is_it));
        !release.trim().is_empty() && (listed("modules.dep") || listed("modules.builtin"))
    }

    /// The devices that a folder has an entry for.
    fn listed(&self, folder: &Path) -> Result<Vec<PciDevice>, SysfsError> {
        let failed = |source| SysfsError { path: folder.to_owned(), source };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut addresses = Vec::new();
        for entry in entries {
            // A group may also have devices of other buses.
            addresses
                .extend(entry.map_err(failed)?.file_name().to_str().and_then(|name| name.parse::<PciAddress>().ok()));
        }
        addresses.sort_unstable();
        addresses.into_iter().filter_map(|address| self.device(address).transpose()).collect()
    }
}

impl PciDevice {
    /// Whether it is a bridge to other PCI devices: that is not passed, and does not hinder those behind it.
    pub fn is_bridge(&self) -> bool {
        self.class >> 8 == 0x0604
    }

    /// Whether it computes or shows pictures: a GPU or an accelerator.
    pub fn is_gpu(&self) -> bool {
        matches!(self.class >> 16, 0x03 | 0x12)
    }
}

/// The number in a file, in hexadecimal or decimal digits; nothing if there is no such file.
fn number(path: &Path) -> Result<Option<u32>, SysfsError> {
    let failed = |source| SysfsError { path: path.to_owned(), source };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let text = text.trim();
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map(Some).map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// The last part of what a link leads to; nothing if there is no such link.
fn link(path: &Path) -> Result<Option<String>, SysfsError> {
    match fs::read_link(path) {
        Ok(target) => Ok(target.file_name().map(|name| name.to_string_lossy().into_owned())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(source) => Err(SysfsError { path: path.to_owned(), source }),
    }
}

/// A device may be taken out while it is read.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Pci, Tree};
    use super::*;

    #[test]
    fn a_device_is_read_as_it_is() {
        let tree = Tree::new();
        tree.add(Pci { driver: Some("nvidia"), group: Some(14), boot_vga: true, ..Pci::gpu("0000:65:00.0") });
        tree.add(Pci { group: Some(14), ..Pci::audio("0000:65:00.1") });
        tree.add(Pci::bridge("0000:64:00.0"));
        let sysfs = tree.sysfs();
        let at = |text: &str| text.parse::<PciAddress>().unwrap();
        let gpu = sysfs.device(at("65:00.0")).unwrap().unwrap();
        let expected = PciDevice {
            address: at("65:00.0"),
            vendor: 0x10de,
            device: 0x2684,
            subsystem: Some((0x1043, 0x889a)),
            class: 0x03_0000,
            driver: Some("nvidia".to_owned()),
            iommu_group: Some(14),
            boot_vga: true,
        };
        assert_eq!(gpu, expected);
        assert!(gpu.is_gpu() && !gpu.is_bridge());
        let addresses = |devices: Vec<PciDevice>| devices.iter().map(|d| d.address.to_string()).collect::<Vec<_>>();
        assert_eq!(addresses(sysfs.devices().unwrap()), ["0000:64:00.0", "0000:65:00.0", "0000:65:00.1"]);
        assert_eq!(addresses(sysfs.group(14).unwrap()), ["0000:65:00.0", "0000:65:00.1"]);
        assert_eq!(addresses(sysfs.slot(at("65:00.1")).unwrap()), ["0000:65:00.0", "0000:65:00.1"]);
        assert!(sysfs.iommu_enabled() && sysfs.group(15).unwrap().is_empty());
        assert_eq!(sysfs.device(at("66:00.0")).unwrap(), None);
        let audio = sysfs.device(at("65:00.1")).unwrap().unwrap();
        assert_eq!((audio.driver, audio.boot_vga), (None, false));
        std::fs::write(tree.path("sys/bus/pci/devices/0000:64:00.0/class"), "bridge\n").unwrap();
        let error = sysfs.devices().unwrap_err();
        assert!(error.to_string().ends_with("0000:64:00.0/class"), "{error}");
    }

    #[test]
    fn a_host_without_any_of_it_has_no_devices() {
        let tree = Tree::new();
        assert!(tree.sysfs().devices().unwrap().is_empty() && !tree.sysfs().iommu_enabled());
    }

    #[test]
    fn a_module_is_loaded_built_in_or_can_be_loaded() {
        let tree = Tree::new();
        assert!(!tree.sysfs().has_module("vfio-pci"));
        tree.write("proc/sys/kernel/osrelease", "6.12.0-amd64\n");
        let folder = "lib/modules/6.12.0-amd64";
        tree.write(&format!("{folder}/modules.dep"), "kernel/drivers/vfio/pci/vfio-pci-core.ko.xz: a/vfio-pci.ko.xz\n");
        assert!(!tree.sysfs().has_module("vfio-pci"), "another module needs it, or has a longer name");
        tree.write(&format!("{folder}/modules.builtin"), "kernel/drivers/vfio/pci/vfio-pci.ko\n");
        assert!(tree.sysfs().has_module("vfio-pci") && tree.sysfs().has_module("vfio_pci"));
        tree.write(&format!("{folder}/modules.builtin"), "");
        assert!(!tree.sysfs().has_module("vfio-pci"));
        tree.write("sys/module/vfio_pci/refcnt", "0\n");
        assert!(tree.sysfs().has_module("vfio-pci"));
    }

    #[test]
    fn the_devices_of_this_machine_can_be_read() {
        for device in Sysfs::under("/").devices().unwrap() {
            assert_ne!(device.vendor, 0, "{device:?}");
            assert_eq!(Sysfs::under("/").device(device.address).unwrap().as_ref(), Some(&device));
        }
    }
}
