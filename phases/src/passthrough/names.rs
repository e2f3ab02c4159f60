//! What people call a PCI device.
//!
//! From the host's own list of ids, where it has one (Debian: the package pci.ids); else in words for its class.

use std::fs;

use super::sysfs::{PciDevice, Sysfs};

/// Where distributions put the list.
const LISTS: [&str; 3] = ["usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids", "usr/share/pci.ids"];

/// Names of makers and devices.
pub(super) struct Names {
    list: String,
}

impl Names {
    /// Those that a host knows.
    pub(super) fn of(sysfs: &Sysfs) -> Self {
        let read = |list: &&str| fs::read(sysfs.path(list)).ok();
        let list = LISTS.iter().find_map(read).unwrap_or_default();
        Self { list: String::from_utf8_lossy(&list).into_owned() }
    }

    /// The name of a device with its ids: `NVIDIA GPU [10de:2684]`.
    pub(super) fn of_device(&self, device: &PciDevice) -> String {
        let ids = format!("[{:04x}:{:04x}]", device.vendor, device.device);
        match self.find(device.vendor, device.device) {
            (Some(vendor), Some(name)) => format!("{vendor} {name} {ids}"),
            (Some(vendor), None) => format!("{vendor} {} {ids}", class_word(device.class)),
            (None, _) => match maker(device.vendor) {
                Some(vendor) => format!("{vendor} {} {ids}", class_word(device.class)),
                None => format!("{} {ids}", class_word(device.class)),
            },
        }
    }

    /// The names of a maker and of its device. Lines of the list are `10de  NVIDIA Corporation` for a maker and,
    /// below it behind a tab, `2684  AD102 [GeForce RTX 4090]` for a device.
    fn find(&self, vendor: u16, device: u16) -> (Option<&str>, Option<&str>) {
        let entry = |line: &'_ str| -> Option<(u16, usize)> {
            let (id, name) = line.split_once("  ")?;
            Some((u16::from_str_radix(id, 16).ok().filter(|_| id.len() == 4)?, line.len() - name.len()))
        };
        let mut lines = self.list.lines().skip_while(|line| entry(line).is_none_or(|(id, _)| id != vendor));
        let Some(maker) = lines.next().and_then(|line| line.get(6..)) else { return (None, None) };
        let own = lines.take_while(|line| line.starts_with(['\t', '#']));
        let mut own = own.filter_map(|line| line.strip_prefix('\t'));
        let name = own.find_map(|line| entry(line).filter(|(id, _)| *id == device).and_then(|(_, at)| line.get(at..)));
        (Some(maker), name)
    }
}

/// The makers that are met most.
fn maker(vendor: u16) -> Option<&'static str> {
    Some(match vendor {
        0x1002 | 0x1022 => "AMD",
        0x10de => "NVIDIA",
        0x10ec => "Realtek",
        0x144d => "Samsung",
        0x14e4 => "Broadcom",
        0x15b3 => "Mellanox",
        0x15b7 => "SanDisk",
        0x1af4 => "virtio",
        0x8086 => "Intel",
        _ => return None,
    })
}

/// What a class is, in words.
fn class_word(class: u32) -> &'static str {
    match (class >> 16, class >> 8) {
        (_, 0x0108) => "NVMe disk",
        (0x01, _) => "disk controller",
        (0x02, _) => "network device",
        (0x03, _) => "GPU",
        (0x04, 0x0401 | 0x0403) => "audio device",
        (0x04, _) => "multimedia device",
        (_, 0x0600) => "host bridge",
        (_, 0x0601) => "ISA bridge",
        (0x06, _) => "bridge",
        (_, 0x0c03) => "USB controller",
        (_, 0x0c05) => "SMBus",
        (0x0c, _) => "serial bus controller",
        (0x10, _) => "encryption device",
        (0x12, _) => "accelerator",
        _ => "device",
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Pci, Tree};
    use super::*;

    #[test]
    fn a_device_has_the_name_of_the_list_or_words_for_its_class() {
        let tree = Tree::new();
        tree.add(Pci::gpu("0000:65:00.0"));
        tree.add(Pci::audio("0000:65:00.1"));
        tree.add(Pci::disk("0000:66:00.0"));
        tree.add(Pci { ids: (0xabcd, 1), ..Pci::disk("0000:67:00.0") });
        let names = || {
            let names = Names::of(&tree.sysfs());
            tree.sysfs().devices().unwrap().iter().map(|device| names.of_device(device)).collect::<Vec<_>>()
        };
        assert_eq!(
            names(),
            [
                "NVIDIA GPU [10de:2684]",
                "NVIDIA audio device [10de:22ba]",
                "Samsung NVMe disk [144d:a80a]",
                "NVMe disk [abcd:0001]"
            ]
        );
        let list = "# Lists\n10d9  Macronix\n\t2684  No GPU\n10de  NVIDIA Corporation\n\t0020  NV4 [Riva TNT]\n\
                    \t\t1043 2684  V3400 TNT\n\t2684  AD102 [GeForce RTX 4090]\n10df  Emulex\n\t22ba  No audio\n\
                    ffff  Illegal\nC 03  Display controller\n";
        tree.write("usr/share/misc/pci.ids", list);
        assert_eq!(
            names(),
            [
                "NVIDIA Corporation AD102 [GeForce RTX 4090] [10de:2684]",
                "NVIDIA Corporation audio device [10de:22ba]",
                "Samsung NVMe disk [144d:a80a]",
                "NVMe disk [abcd:0001]"
            ]
        );
    }
}
