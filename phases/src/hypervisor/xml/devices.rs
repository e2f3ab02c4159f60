//! The devices of a domain.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::domain::text;
use super::{Empty, named_by};
use crate::cluster::PciAddress;
use crate::hypervisor::spec::{DomainSpec, NetworkRef};

/// All devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// Disks: first the one that it boots from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disk: Vec<Disk>,
    /// The slots that devices of the host stand on; libvirt adds what else is needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controller: Vec<Controller>,
    /// Network devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interface: Vec<Interface>,
    /// Serial ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serial: Vec<Serial>,
    /// What programs in the domain are talked to by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channel: Vec<Channel>,
    /// Devices of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostdev: Vec<HostDevice>,
    /// Takes memory back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memballoon: Option<Balloon>,
    /// Gives randomness.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rng: Vec<Rng>,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// `file`
    #[serde(rename = "@type")]
    pub kind: String,
    /// `disk`
    #[serde(rename = "@device", default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// How its file is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<DiskDriver>,
    /// Its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<DiskSource>,
    /// Where the domain sees it.
    pub target: DiskTarget,
    /// Whether it cannot be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readonly: Option<Empty>,
}

/// How a disk's file is read and written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskDriver {
    /// `qemu`
    #[serde(rename = "@name", default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `qcow2` or `raw`
    #[serde(rename = "@type", default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// `none`: past the host's page cache.
    #[serde(rename = "@cache", default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// `native`: by the kernel's asynchronous calls.
    #[serde(rename = "@io", default, skip_serializing_if = "Option::is_none")]
    pub io: Option<String>,
    /// `unmap`: what the guest frees is free on the host.
    #[serde(rename = "@discard", default, skip_serializing_if = "Option::is_none")]
    pub discard: Option<String>,
}

/// The file of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSource {
    /// Its path; nothing where the disk is of another kind.
    #[serde(rename = "@file", default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Where a domain sees a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskTarget {
    /// Its name, such as `vda`.
    #[serde(rename = "@dev")]
    pub dev: String,
    /// Its bus: `virtio`.
    #[serde(rename = "@bus", default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<String>,
}

/// A controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// `pci`
    #[serde(rename = "@type")]
    pub kind: String,
    /// Its number, which is the number of its bus.
    #[serde(rename = "@index", default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// `pcie-root-port`
    #[serde(rename = "@model", default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// `network` or `bridge`
    #[serde(rename = "@type")]
    pub kind: String,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Where it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<InterfaceSource>,
    /// What it is: `virtio`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
}

named_by!(
    /// The address of a network device.
    Mac,
    "@address"
);
named_by!(
    /// What a device is.
    Model,
    "@type"
);

/// Where a network device is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceSource {
    /// A network of libvirt.
    #[serde(rename = "@network", default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// A bridge of the host.
    #[serde(rename = "@bridge", default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
}

/// A serial port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serial {
    /// `pty`: `virsh console` gets at it.
    #[serde(rename = "@type")]
    pub kind: String,
    /// The file that it is also written to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<SerialLog>,
}

/// A file that a serial port is written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerialLog {
    /// Its path.
    #[serde(rename = "@file")]
    pub file: String,
    /// `on`: what it has from before stays.
    #[serde(rename = "@append", default, skip_serializing_if = "Option::is_none")]
    pub append: Option<String>,
}

/// What a program in the domain is talked to by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// `unix`
    #[serde(rename = "@type")]
    pub kind: String,
    /// Which program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<ChannelTarget>,
}

/// The name of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelTarget {
    /// `virtio`
    #[serde(rename = "@type")]
    pub kind: String,
    /// `org.qemu.guest_agent.0`
    #[serde(rename = "@name", default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The name of the guest agent's channel.
pub(super) const GUEST_AGENT: &str = "org.qemu.guest_agent.0";

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDevice {
    /// `subsystem`
    #[serde(rename = "@mode")]
    pub mode: String,
    /// `pci`
    #[serde(rename = "@type")]
    pub kind: String,
    /// `yes`: libvirt takes it from the host's driver and gives it back.
    #[serde(rename = "@managed", default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<String>,
    /// How: `vfio`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<HostDeviceDriver>,
    /// Where it is on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<HostDeviceSource>,
    /// Where it is in the domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<PciPlace>,
}

named_by!(
    /// How a device is passed on.
    HostDeviceDriver,
    "@name"
);

/// Where a device is on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDeviceSource {
    /// Its address; nothing where it is no PCI device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<PciPlace>,
}

/// A place on a PCI bus, in hexadecimal digits that begin with `0x`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciPlace {
    /// `pci`, where that is not clear.
    #[serde(rename = "@type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The domain.
    #[serde(rename = "@domain", default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// The bus.
    #[serde(rename = "@bus", default, skip_serializing_if = "String::is_empty")]
    pub bus: String,
    /// The device.
    #[serde(rename = "@slot", default, skip_serializing_if = "String::is_empty")]
    pub slot: String,
    /// The function.
    #[serde(rename = "@function", default, skip_serializing_if = "String::is_empty")]
    pub function: String,
    /// `on` where other functions stand beside it.
    #[serde(rename = "@multifunction", default, skip_serializing_if = "Option::is_none")]
    pub multifunction: Option<String>,
}

named_by!(
    /// What takes memory back: `virtio`.
    Balloon,
    "@model"
);

/// What gives randomness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rng {
    /// `virtio`
    #[serde(rename = "@model")]
    pub model: String,
    /// Where the host has it from.
    pub backend: RngBackend,
}

/// Where randomness is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngBackend {
    /// `random`
    #[serde(rename = "@model")]
    pub model: String,
    /// A device.
    #[serde(rename = "$text", default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

impl Devices {
    pub(super) fn of(spec: &DomainSpec, direct_io: bool) -> Self {
        // The seed is a virtual disk too: small kernels lack the driver of SATA, or load it after cloud-init looked.
        let seed = spec.seed.as_ref().map(|seed| Disk::new("vdb", "raw", text(seed)).read_only());
        let log = |file| SerialLog { file: text(file), append: Some("on".to_owned()) };
        let (controller, hostdev) = passthrough(&spec.devices);
        Self {
            disk: std::iter::once(Disk::new("vda", "qcow2", text(&spec.disk)).writable(direct_io))
                .chain(seed)
                .collect(),
            controller,
            interface: vec![Interface::of(spec)],
            serial: vec![Serial { kind: "pty".to_owned(), log: spec.serial_log.as_deref().map(log) }],
            channel: vec![Channel {
                kind: "unix".to_owned(),
                target: Some(ChannelTarget { kind: "virtio".to_owned(), name: Some(GUEST_AGENT.to_owned()) }),
            }],
            hostdev,
            memballoon: Some(Balloon::new("virtio")),
            rng: vec![Rng {
                model: "virtio".to_owned(),
                backend: RngBackend { model: "random".to_owned(), device: Some("/dev/urandom".to_owned()) },
            }],
        }
    }
}

impl Disk {
    fn new(dev: &str, format: &str, file: String) -> Self {
        let driver = DiskDriver {
            name: Some("qemu".to_owned()),
            format: Some(format.to_owned()),
            cache: None,
            io: None,
            discard: None,
        };
        Self {
            kind: "file".to_owned(),
            device: Some("disk".to_owned()),
            driver: Some(driver),
            source: Some(DiskSource { file: Some(file) }),
            target: DiskTarget { dev: dev.to_owned(), bus: Some("virtio".to_owned()) },
            readonly: None,
        }
    }

    fn read_only(self) -> Self {
        Self { readonly: Some(Empty {}), ..self }
    }

    fn writable(mut self, direct_io: bool) -> Self {
        if let Some(driver) = &mut self.driver {
            driver.discard = Some("unmap".to_owned());
            driver.cache = direct_io.then(|| "none".to_owned());
            driver.io = direct_io.then(|| "native".to_owned());
        }
        self
    }
}

impl Interface {
    fn of(spec: &DomainSpec) -> Self {
        let (kind, network, bridge) = match &spec.network {
            NetworkRef::Network(name) => ("network", Some(name.clone()), None),
            NetworkRef::Bridge(name) => ("bridge", None, Some(name.clone())),
        };
        Self {
            kind: kind.to_owned(),
            mac: Some(Mac::new(spec.mac.to_string())),
            source: Some(InterfaceSource { network, bridge }),
            model: Some(Model::new("virtio")),
        }
    }
}

/// The devices of the host, and the slots that they stand on: functions of one device there stay functions of one here.
fn passthrough(devices: &[PciAddress]) -> (Vec<Controller>, Vec<HostDevice>) {
    let mut slots: BTreeMap<(u16, u8, u8), Vec<PciAddress>> = BTreeMap::new();
    for device in devices {
        slots.entry((device.domain, device.bus, device.device)).or_default().push(*device);
    }
    let (mut controllers, mut found) = (Vec::new(), Vec::new());
    for (mut functions, bus) in slots.into_values().zip(1u8..) {
        functions.sort();
        functions.dedup();
        controllers.push(Controller {
            kind: "pci".to_owned(),
            index: Some(bus.into()),
            model: Some("pcie-root-port".to_owned()),
        });
        // A device without function 0 is not seen.
        let first = functions.first().map_or(0, |device| device.function);
        let several = functions.len() > 1;
        for device in functions {
            let function = device.function - first;
            let place = PciAddress { domain: 0, bus, device: 0, function };
            found.push(HostDevice {
                mode: "subsystem".to_owned(),
                kind: "pci".to_owned(),
                managed: Some("yes".to_owned()),
                driver: Some(HostDeviceDriver::new("vfio")),
                source: Some(HostDeviceSource { address: Some(PciPlace::new(device)) }),
                address: Some(PciPlace {
                    kind: Some("pci".to_owned()),
                    multifunction: (several && function == 0).then(|| "on".to_owned()),
                    ..PciPlace::new(place)
                }),
            });
        }
    }
    (controllers, found)
}

impl PciPlace {
    fn new(address: PciAddress) -> Self {
        Self {
            kind: None,
            domain: format!("0x{:04x}", address.domain),
            bus: format!("0x{:02x}", address.bus),
            slot: format!("0x{:02x}", address.device),
            function: format!("0x{:x}", address.function),
            multifunction: None,
        }
    }

    /// The address, if it is one.
    pub fn address(&self) -> Option<PciAddress> {
        let number = |text: &str| u16::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        Some(PciAddress {
            domain: number(&self.domain).unwrap_or(0),
            bus: number(&self.bus)?.try_into().ok()?,
            device: number(&self.slot)?.try_into().ok()?,
            function: number(&self.function)?.try_into().ok()?,
        })
    }
}

impl Devices {
    /// The PCI devices of the host among them, in order.
    pub fn of_host(&self) -> Vec<PciAddress> {
        let addresses = self.hostdev.iter().filter_map(|device| device.source.as_ref()?.address.as_ref()?.address());
        let mut addresses: Vec<_> = addresses.collect();
        addresses.sort();
        addresses
    }
}
