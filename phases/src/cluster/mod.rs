//! A cluster of nodes, as the tasks and verbs work with it: made from the configuration, where it has been checked.
//!
//! A node is a virtual machine that is made here, or a given host that is reached by SSH; what comes after CLOUD-1.2
//! does not tell them apart.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name: lower-case letters, digits and `-`. Names of networks, pools and domains begin with it.
    pub name: String,
    /// The nodes: the control plane first, then the workers in the order of the configuration.
    pub nodes: Vec<Node>,
    /// What virtual machines need; nothing where all nodes are given hosts.
    pub virtualization: Option<Virtualization>,
    /// What Kubernetes is made with.
    pub kubernetes: Kubernetes,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its host name, and the name of its domain: `CLUSTER-control-plane`, `CLUSTER-cpu-worker-01`,
    /// `CLUSTER-gpu-worker-01`.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// What it is.
    pub machine: Machine,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It runs Kubernetes' control plane and etcd.
    ControlPlane,
    /// It runs workloads.
    CpuWorker,
    /// It runs workloads and owns a GPU.
    GpuWorker,
}

impl Role {
    /// The word for it: `control-plane`, `cpu-worker`, `gpu-worker`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::CpuWorker => "cpu-worker",
            Self::GpuWorker => "gpu-worker",
        }
    }
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Machine {
    /// A virtual machine that is made here.
    Virtual(VirtualMachine),
    /// A machine that is there already.
    Given(GivenHost),
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualMachine {
    /// Virtual processors, 1 or more.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// The size of its disk, in GiB.
    pub disk_gib: u64,
    /// Its address in the cluster's subnet; nothing if it takes any that DHCP gives.
    pub address: Option<Ipv4Addr>,
    /// The address of its network device, made from the names of cluster and node so that it never changes.
    pub mac: MacAddress,
    /// Whether it is started with the cluster and with the host.
    pub auto_start: bool,
    /// The devices of the host that it gets, by PCI passthrough.
    pub devices: Vec<Passthrough>,
}

/// A device of the host that a virtual machine gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passthrough {
    /// Where it is.
    pub address: PciAddress,
    /// What it is.
    pub kind: DeviceKind,
    /// The vendor id that it must have, such as `10de`, if that is said.
    pub vendor_id: Option<String>,
    /// The device id that it must have, such as `2684`, if that is said.
    pub device_id: Option<String>,
    /// The IOMMU group that it must be in, if that is said.
    pub iommu_group: Option<u32>,
}

/// The kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A GPU.
    Gpu,
    /// The audio function of a GPU.
    Audio,
    /// A network device.
    Network,
    /// A disk or its controller.
    Storage,
    /// Anything else.
    Other,
}

/// A machine that is there already, reached by SSH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenHost {
    /// Its address: a name or an IP address.
    pub address: String,
    /// The port of its SSH server.
    pub port: u16,
    /// Who logs in; either root, or somebody who may use sudo without a password.
    pub user: String,
    /// The file of the private key; by default those that ssh(1) takes.
    pub key: Option<PathBuf>,
    /// The address by which the other nodes reach it, where that is another one.
    pub internal_address: Option<Ipv4Addr>,
}

/// What virtual machines need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Virtualization {
    /// The hypervisor, as libvirt calls it: `qemu:///system`.
    pub uri: String,
    /// The network.
    pub network: Network,
    /// The folder of the storage pool; by default one in the state folder.
    pub pool: Option<PathBuf>,
    /// How processors are virtualised.
    pub hardware: Hardware,
    /// A disk image to begin with in place of the one that CLOUD-1.1 builds.
    pub base_image: Option<PathBuf>,
}

/// The network of the virtual machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// How it reaches others.
    pub mode: NetworkMode,
    /// The bridge on the host.
    pub bridge: String,
    /// The addresses.
    pub subnet: Ipv4Net,
    /// The host's own address in it; the first of the subnet by default.
    pub gateway: Ipv4Addr,
    /// The first and the last address that DHCP gives to who has no reservation.
    pub dhcp: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Servers that names are looked up at; those of the host by default.
    pub dns_servers: Vec<Ipv4Addr>,
}

/// How a network reaches others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// By the host, which translates addresses. libvirt makes the bridge, and serves DHCP and DNS.
    #[default]
    Nat,
    /// By a bridge that is there already; others serve DHCP and DNS there.
    Bridge,
}

/// How processors are virtualised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// Whether KVM is used where it works; where not, processors are emulated, about 20 times slower.
    pub kvm: bool,
    /// The model: `host-passthrough` by default.
    pub cpu_model: String,
    /// Whether memory is of huge pages.
    pub hugepages: bool,
    /// Whether each virtual processor stays on one of the host's.
    pub cpu_pinning: bool,
    /// What starts the machine.
    pub firmware: Firmware,
}

/// What starts a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    /// OVMF for machines that get a device of the host, which large GPUs need, and the BIOS for others.
    #[default]
    Auto,
    /// OVMF (UEFI).
    Uefi,
    /// SeaBIOS.
    Bios,
}

/// What Kubernetes is made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kubernetes {
    /// The network plugin: `calico`, `cilium` or `flannel`.
    pub cni: String,
    /// The ingress controller: `nginx` or `none`.
    pub ingress: String,
    /// The storage class.
    pub storage_class: String,
    /// The addresses of pods.
    pub pod_subnet: Ipv4Net,
    /// The addresses of services.
    pub service_subnet: Ipv4Net,
}

/// Where a device is on the PCI bus: domain, bus, device and function, as Linux writes them: `0000:65:00.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// The domain.
    pub domain: u16,
    /// The bus.
    pub bus: u8,
    /// The device: 0 to 31.
    pub device: u8,
    /// The function: 0 to 7.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl FromStr for PciAddress {
    type Err = String;

    /// Reads `DDDD:BB:DD.F` or, for domain 0, `BB:DD.F`, in hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (rest, function) = text.split_once('.')?;
            let mut parts = rest.rsplit(':');
            let (device, bus, domain) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0000"));
            let number = |digits: &str, width: usize| {
                let plain = digits.len() == width && digits.bytes().all(|b| b.is_ascii_hexdigit());
                plain.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
            };
            let small = |digits: &str, width, most: u16| {
                number(digits, width).filter(|found| *found <= most).and_then(|found| u8::try_from(found).ok())
            };
            let address = Self {
                domain: number(domain, 4)?,
                bus: small(bus, 2, 0xff)?,
                device: small(device, 2, 0x1f)?,
                function: small(function, 1, 7)?,
            };
            parts.next().is_none().then_some(address)
        };
        parse().ok_or_else(|| format!("`{text}` is no PCI address such as 0000:65:00.0"))
    }
}

/// The address of a network device: `52:54:00:12:34:56`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = text.split(':').map(|part| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten());
        let bytes: Option<Vec<u8>> = bytes.collect();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| format!("`{text}` is no MAC address such as 52:54:00:12:34:56"))
    }
}

/// Written and read as text.
macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(PciAddress);
as_text!(MacAddress);

impl Cluster {
    /// The node called `name`.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The virtual machines among the nodes.
    pub fn virtual_machines(&self) -> impl Iterator<Item = (&Node, &VirtualMachine)> {
        self.nodes.iter().filter_map(|node| match &node.machine {
            Machine::Virtual(machine) => Some((node, machine)),
            Machine::Given(_) => None,
        })
    }

    /// The given hosts among the nodes.
    pub fn given_hosts(&self) -> impl Iterator<Item = (&Node, &GivenHost)> {
        self.nodes.iter().filter_map(|node| match &node.machine {
            Machine::Given(host) => Some((node, host)),
            Machine::Virtual(_) => None,
        })
    }
}

impl Node {
    /// The virtual machine that it is, if it is one.
    pub fn virtual_machine(&self) -> Option<&VirtualMachine> {
        match &self.machine {
            Machine::Virtual(machine) => Some(machine),
            Machine::Given(_) => None,
        }
    }
}

impl Network {
    /// An address in it, with the size of its network: `192.168.200.10/24`.
    pub fn with_prefix(&self, address: Ipv4Addr) -> Ipv4Net {
        Ipv4Net::new_assert(address, self.subnet.prefix_len())
    }
}

impl VirtualMachine {
    /// Whether it gets a GPU.
    pub fn has_gpu(&self) -> bool {
        self.devices.iter().any(|device| device.kind == DeviceKind::Gpu)
    }
}
