//! What is wanted of a hypervisor.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cluster::{MacAddress, Network, PciAddress};

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// Its kind, bridge and addresses.
    pub network: Network,
    /// Who always gets which address, by DHCP and DNS.
    pub reservations: Vec<Reservation>,
}

/// Who always gets an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The network device.
    pub mac: MacAddress,
    /// The host name.
    pub name: String,
    /// The address.
    pub address: Ipv4Addr,
}

/// A storage pool: a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSpec {
    /// Its name.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
}

/// A disk in a pool, in the format qcow2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Its name, with the ending.
    pub name: String,
    /// Its size as the guest sees it, in bytes; at least that of the backing file.
    pub capacity: u64,
    /// The qcow2 image that it is on top of, and that is never changed.
    pub backing: Option<PathBuf>,
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainSpec {
    /// Its name.
    pub name: String,
    /// The environment that it is made for, written into its metadata.
    pub owner: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Whether KVM runs it; else it is emulated.
    pub kvm: bool,
    /// The model of its processors: `host-passthrough`, `host-model`, or the name of one.
    pub cpu_model: String,
    /// Whether its memory is of huge pages.
    pub hugepages: bool,
    /// The host's processor for each virtual one; empty if they are not pinned.
    pub pinning: Vec<u32>,
    /// Whether OVMF starts it; else SeaBIOS.
    pub uefi: bool,
    /// Its disk.
    pub disk: PathBuf,
    /// An ISO image with the settings of cloud-init (NoCloud), if there is one.
    pub seed: Option<PathBuf>,
    /// Its network.
    pub network: NetworkRef,
    /// The address of its network device.
    pub mac: MacAddress,
    /// The file that its serial console is also written to.
    pub serial_log: Option<PathBuf>,
    /// The devices of the host that it gets: whole IOMMU groups; functions of one device stay together.
    pub devices: Vec<PciAddress>,
    /// Whether it is started with the host.
    pub auto_start: bool,
}

/// Where a network device is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkRef {
    /// To a network of the hypervisor, by name.
    Network(String),
    /// To a bridge of the host.
    Bridge(String),
}
