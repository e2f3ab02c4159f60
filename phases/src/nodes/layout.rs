//! From a cluster to what the hypervisor is asked for. Nothing here looks at the world.

use std::path::{Path, PathBuf};

use crate::cluster::{Cluster, Firmware, NetworkMode, Node, PciAddress, VirtualMachine, Virtualization};
use crate::hypervisor::spec::{DomainSpec, NetworkRef, NetworkSpec, PoolSpec, Reservation, VolumeSpec};

/// Who logs in to virtual machines: made by cloud-init, with sudo.
pub const USER: &str = "taskrun";

/// Where libvirt keeps disks, and may read them, whoever runs this program.
const SYSTEM_POOLS: &str = "/var/lib/libvirt/images";

/// The names, files and definitions of a cluster's virtual machines.
#[derive(Debug, Clone, Copy)]
pub struct Layout<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// What its virtual machines need.
    pub virtualization: &'a Virtualization,
    /// The environment that it belongs to.
    pub environment: &'a str,
    /// The state folder.
    pub state: &'a Path,
}

/// What is known of the host when a machine is defined.
#[derive(Debug, Clone, Copy)]
pub struct HostTraits {
    /// Whether KVM works.
    pub kvm: bool,
    /// The processors.
    pub cpus: u32,
}

impl<'a> Layout<'a> {
    /// The layout of a cluster that has virtual machines; nothing for one of given hosts.
    pub fn new(cluster: &'a Cluster, environment: &'a str, state: &'a Path) -> Option<Self> {
        let virtualization = cluster.virtualization.as_ref()?;
        Some(Self { cluster, virtualization, environment, state })
    }

    /// What is written into definitions, so that they are known again: environment and state folder.
    pub fn owner(&self) -> String {
        format!("{} {}", self.environment, self.state.display())
    }

    /// The name of network and pool.
    pub fn name(&self) -> String {
        format!("taskrun-{}", self.cluster.name)
    }

    /// The folder of a node's own files: console log, seed.
    pub fn folder(&self, node: &str) -> PathBuf {
        self.state.join("nodes").join(node)
    }

    /// What a machine's serial console says.
    pub fn console_log(&self, node: &str) -> PathBuf {
        self.folder(node).join("console.log")
    }

    /// The network that is made for the cluster; nothing where it uses a bridge that is there.
    pub fn network(&self) -> Option<NetworkSpec> {
        let network = self.virtualization.network.clone();
        let reservations = self.cluster.virtual_machines().filter_map(|(node, machine)| {
            Some(Reservation { mac: machine.mac, name: node.name.clone(), address: machine.address? })
        });
        (network.mode == NetworkMode::Nat).then(|| NetworkSpec {
            name: self.name(),
            reservations: reservations.collect(),
            network,
        })
    }

    /// The storage pool. Only root's state folder is one that the hypervisor may read.
    pub fn pool(&self, root: bool) -> PoolSpec {
        let own = || match root {
            true => self.state.join("pool"),
            false => Path::new(SYSTEM_POOLS).join(self.name()),
        };
        PoolSpec { name: self.name(), folder: self.virtualization.pool.clone().unwrap_or_else(own) }
    }

    /// The name of the volume that an image becomes, by the image's key or digest.
    pub fn image_volume(&self, key: &str) -> String {
        format!("{}{}.qcow2", self.image_prefix(), &key[..key.len().min(16)])
    }

    /// The name of the volume that says that the one of an image is whole: it is made after that one.
    pub fn image_mark(&self, key: &str) -> String {
        format!("{}{}.whole", self.image_prefix(), &key[..key.len().min(16)])
    }

    fn image_prefix(&self) -> String {
        format!("{}-base-", self.cluster.name)
    }

    /// Whether a volume of the pool is one of this cluster's. The folder may have others, which are left alone.
    pub fn owns_volume(&self, volume: &str) -> bool {
        let key = volume.strip_prefix(&self.image_prefix()).and_then(|rest| rest.split_once('.'));
        let image = key.is_some_and(|(key, ending)| {
            key.len() == 16 && key.bytes().all(|b| b.is_ascii_hexdigit()) && matches!(ending, "qcow2" | "whole")
        });
        let node = |name: &str| volume == Self::disk(name) || volume == Self::seed(name);
        image || self.cluster.virtual_machines().any(|(there, _)| node(&there.name))
    }

    /// The name of a machine's disk.
    pub fn disk(node: &str) -> String {
        format!("{node}.qcow2")
    }

    /// The name of the image that tells a machine who it is (cloud-init's NoCloud).
    pub fn seed(node: &str) -> String {
        format!("{node}-seed.iso")
    }

    /// A machine's disk, on top of an image in the pool.
    pub fn volume(&self, node: &Node, machine: &VirtualMachine, image: &Path) -> VolumeSpec {
        VolumeSpec { name: Self::disk(&node.name), capacity: machine.disk_gib << 30, backing: Some(image.to_owned()) }
    }

    /// A machine. `devices` are those of its whole IOMMU groups.
    pub fn domain(
        &self,
        node: &Node,
        machine: &VirtualMachine,
        pool: &Path,
        host: HostTraits,
        devices: Vec<PciAddress>,
    ) -> DomainSpec {
        let Virtualization { network, hardware, .. } = self.virtualization;
        let kvm = hardware.kvm && host.kvm;
        let passes_devices = !devices.is_empty();
        DomainSpec {
            name: node.name.clone(),
            owner: self.owner(),
            cpus: machine.cpus,
            memory_mib: machine.memory_mib,
            kvm,
            cpu_model: if kvm { hardware.cpu_model.clone() } else { "max".to_owned() },
            hugepages: hardware.hugepages,
            pinning: match hardware.cpu_pinning {
                true => self.pinning(&node.name, host.cpus),
                false => Vec::new(),
            },
            uefi: match hardware.firmware {
                Firmware::Auto => passes_devices,
                Firmware::Uefi => true,
                Firmware::Bios => false,
            },
            disk: pool.join(Self::disk(&node.name)),
            seed: Some(pool.join(Self::seed(&node.name))),
            network: match network.mode {
                NetworkMode::Nat => NetworkRef::Network(self.name()),
                NetworkMode::Bridge => NetworkRef::Bridge(network.bridge.clone()),
            },
            mac: machine.mac,
            serial_log: Some(self.console_log(&node.name)),
            // Who owns a device is settled before a machine starts; libvirt alone would not ask.
            auto_start: machine.auto_start && !passes_devices,
            devices,
        }
    }

    /// The host's processors for a machine: one after another, the first one left to the host where there are others.
    fn pinning(&self, name: &str, cpus: u32) -> Vec<u32> {
        let mut next = 0;
        for (node, machine) in self.cluster.virtual_machines() {
            if node.name == name {
                let (first, usable) = if cpus > 1 { (1, cpus - 1) } else { (0, 1) };
                return (next..next + machine.cpus).map(|at| first + at % usable).collect();
            }
            next += machine.cpus;
        }
        Vec::new()
    }
}
