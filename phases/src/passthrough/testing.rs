//! Made-up hosts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::sysfs::Sysfs;
use crate::cluster::{DeviceKind, Passthrough};

/// The files of a host.
pub(super) struct Tree(tempfile::TempDir);

/// A device of it.
#[derive(Clone, Copy)]
pub(super) struct Pci {
    pub(super) address: &'static str,
    pub(super) ids: (u16, u16),
    pub(super) class: u32,
    pub(super) driver: Option<&'static str>,
    pub(super) group: Option<u32>,
    pub(super) boot_vga: bool,
}

impl Pci {
    pub(super) fn gpu(address: &'static str) -> Self {
        Self { address, ids: (0x10de, 0x2684), class: 0x03_0000, driver: None, group: None, boot_vga: false }
    }

    pub(super) fn audio(address: &'static str) -> Self {
        Self { ids: (0x10de, 0x22ba), class: 0x04_0300, ..Self::gpu(address) }
    }

    pub(super) fn bridge(address: &'static str) -> Self {
        Self { ids: (0x8086, 0x1901), class: 0x06_0400, driver: Some("pcieport"), ..Self::gpu(address) }
    }

    pub(super) fn disk(address: &'static str) -> Self {
        Self { ids: (0x144d, 0xa80a), class: 0x01_0802, driver: Some("nvme"), ..Self::gpu(address) }
    }
}

impl Tree {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.0.path().join(inside)
    }

    pub(super) fn sysfs(&self) -> Sysfs {
        Sysfs::under(self.0.path())
    }

    pub(super) fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn add(&self, pci: Pci) {
        let folder = format!("sys/bus/pci/devices/{}", pci.address);
        let file = |name: &str, text: String| self.write(&format!("{folder}/{name}"), &text);
        file("vendor", format!("{:#06x}\n", pci.ids.0));
        file("device", format!("{:#06x}\n", pci.ids.1));
        file("subsystem_vendor", "0x1043\n".to_owned());
        file("subsystem_device", "0x889a\n".to_owned());
        file("class", format!("{:#08x}\n", pci.class));
        if pci.class >> 16 == 3 {
            file("boot_vga", format!("{}\n", u8::from(pci.boot_vga)));
        }
        if let Some(driver) = pci.driver {
            symlink(format!("../../../bus/pci/drivers/{driver}"), self.path(&format!("{folder}/driver"))).unwrap();
        }
        if let Some(group) = pci.group {
            symlink(format!("../../../kernel/iommu_groups/{group}"), self.path(&format!("{folder}/iommu_group")))
                .unwrap();
            let members = format!("sys/kernel/iommu_groups/{group}/devices");
            fs::create_dir_all(self.path(&members)).unwrap();
            symlink(self.path(&folder), self.path(&format!("{members}/{}", pci.address))).unwrap();
        }
    }

    /// A host whose GPU and its audio function are alone in a group, behind a bridge, and can be passed.
    pub(super) fn with_a_gpu() -> Self {
        let tree = Self::new();
        tree.add(Pci { group: Some(14), ..Pci::bridge("0000:64:00.0") });
        tree.add(Pci { driver: Some("vfio-pci"), group: Some(14), ..Pci::gpu("0000:65:00.0") });
        tree.add(Pci { driver: Some("snd_hda_intel"), group: Some(14), ..Pci::audio("0000:65:00.1") });
        tree.write("sys/module/vfio_pci/refcnt", "0\n");
        tree
    }
}

/// What a configuration says of a GPU.
pub(super) fn wanted(address: &str) -> Passthrough {
    Passthrough {
        address: address.parse().unwrap(),
        kind: DeviceKind::Gpu,
        vendor_id: Some("10de".to_owned()),
        device_id: Some("2684".to_owned()),
        iommu_group: None,
    }
}
