//! What makes virtual machines: a small trait over libvirt.
//!
//! Calls block, as libvirt's do; [`patient::Patient`] makes them from asynchronous code.
//! What is wanted is said by the types of [`spec`]; what is there by the types here. All names are global on the host.

mod error;
pub mod kvm;
#[cfg(feature = "libvirt")]
mod libvirt;
pub mod patient;
pub mod spec;
pub mod xml;

use std::fmt;
use std::path::{Path, PathBuf};

use taskrun_engine::task::Drift;

pub use self::error::HypervisorError;
#[cfg(feature = "libvirt")]
pub use self::libvirt::Libvirt;
use self::spec::{DomainSpec, NetworkSpec, PoolSpec, VolumeSpec};
use crate::cluster::MacAddress;

/// A hypervisor. Defining what is there already changes it to what is wanted; removing what is not there is no error.
pub trait Hypervisor: Send + Sync + 'static {
    /// What the host has.
    fn host(&self) -> Result<HostFacts, HypervisorError>;

    /// The network called `name`, if there is one.
    fn network(&self, name: &str) -> Result<Option<NetworkFacts>, HypervisorError>;
    /// The names of all networks, with the bridge of each.
    fn networks(&self) -> Result<Vec<NetworkFacts>, HypervisorError>;
    /// Where a network, which exists, differs from what is wanted, field by field; as it is now, if it is active.
    fn network_drift(&self, spec: &NetworkSpec) -> Result<Vec<Drift>, HypervisorError>;
    /// Defines a network and has it started with the host; does not start it. An active one takes reservations and names
    /// over at once, anything else when it is started again.
    fn define_network(&self, spec: &NetworkSpec) -> Result<(), HypervisorError>;
    /// Starts it, unless it is active.
    fn start_network(&self, name: &str) -> Result<(), HypervisorError>;
    /// Stops and undefines it.
    fn remove_network(&self, name: &str) -> Result<(), HypervisorError>;
    /// Who has which address there.
    fn leases(&self, network: &str) -> Result<Vec<Lease>, HypervisorError>;

    /// The storage pool called `name`, if there is one.
    fn pool(&self, name: &str) -> Result<Option<PoolFacts>, HypervisorError>;
    /// Defines a pool and has it started with the host; makes its folder, and starts it.
    fn define_pool(&self, spec: &PoolSpec) -> Result<(), HypervisorError>;
    /// Stops and undefines it; its folder and the files in it stay.
    fn remove_pool(&self, name: &str) -> Result<(), HypervisorError>;

    /// The volumes of a pool; none if there is no such pool.
    fn volumes(&self, pool: &str) -> Result<Vec<VolumeFacts>, HypervisorError>;
    /// Makes a volume, on top of its backing file; one that is there stays, and grows if it is smaller.
    fn create_volume(&self, pool: &str, spec: &VolumeSpec) -> Result<(), HypervisorError>;
    /// Makes a volume of the contents of a file, in place of one of that name. If this fails or is killed, a part of it
    /// may be there.
    fn import_volume(&self, pool: &str, name: &str, file: &Path) -> Result<(), HypervisorError>;
    /// Removes a volume with its data.
    fn remove_volume(&self, pool: &str, name: &str) -> Result<(), HypervisorError>;

    /// All domains of the host.
    fn domains(&self) -> Result<Vec<DomainFacts>, HypervisorError>;
    /// The domain called `name`, if there is one.
    fn domain(&self, name: &str) -> Result<Option<DomainFacts>, HypervisorError>;
    /// Where the definition of a domain, which exists, differs from what is wanted, field by field.
    fn drift(&self, spec: &DomainSpec) -> Result<Vec<Drift>, HypervisorError>;
    /// Defines a domain; a running one takes it over at its next start.
    fn define_domain(&self, spec: &DomainSpec) -> Result<(), HypervisorError>;
    /// Starts it, unless it runs.
    fn start_domain(&self, name: &str) -> Result<(), HypervisorError>;
    /// Asks its operating system to end, and does not wait.
    fn shut_down_domain(&self, name: &str, way: ShutDown) -> Result<(), HypervisorError>;
    /// Turns it off at once, unless it is off.
    fn turn_off_domain(&self, name: &str) -> Result<(), HypervisorError>;
    /// Undefines it, with its NVRAM; turned off before.
    fn remove_domain(&self, name: &str) -> Result<(), HypervisorError>;
}

/// How the operating system of a domain is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutDown {
    /// By the power button (ACPI).
    Acpi,
    /// By the guest agent.
    Agent,
}

/// What a host has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// The version of libvirt, such as `9.0.0`.
    pub libvirt: String,
    /// The version of the hypervisor, such as `QEMU 7.2.22`.
    pub hypervisor: String,
    /// Processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Whether the hypervisor offers KVM; whether it also works, a boot test tells.
    pub kvm_offered: bool,
}

/// A network that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkFacts {
    /// Its name.
    pub name: String,
    /// Its bridge, if it has one.
    pub bridge: Option<String>,
    /// Whether it is started.
    pub active: bool,
    /// Whether it is started with the host.
    pub auto_start: bool,
    /// Its definition.
    pub xml: String,
}

/// An address that DHCP gave to somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Who.
    pub mac: MacAddress,
    /// The address.
    pub address: std::net::Ipv4Addr,
    /// The name that it told.
    pub host_name: Option<String>,
}

/// A storage pool that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolFacts {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Whether it is started.
    pub active: bool,
    /// What is free, in bytes.
    pub available: u64,
}

/// A volume that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFacts {
    /// Its name.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Its size as the guest sees it, in bytes.
    pub capacity: u64,
    /// What it takes of the disk, in bytes.
    pub allocation: u64,
    /// The file that it is on top of.
    pub backing: Option<PathBuf>,
}

/// A domain that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainFacts {
    /// Its name.
    pub name: String,
    /// Its id, which stays the same for as long as it is defined.
    pub uuid: String,
    /// What it does.
    pub state: DomainState,
    /// Whether it is started with the host.
    pub auto_start: bool,
    /// What stands in its definition for programs to read: made by taskrun for this environment, or empty.
    pub owner: Option<String>,
    /// The devices of the host that its definition has.
    pub devices: Vec<crate::cluster::PciAddress>,
}

/// What a domain does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DomainState {
    /// It runs.
    Running,
    /// It is stopped for the moment, with its memory.
    Paused,
    /// It is ending.
    ShuttingDown,
    /// It is off.
    ShutOff,
    /// Its operating system or the hypervisor's process crashed.
    Crashed,
}

impl fmt::Display for DomainState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::ShuttingDown => "shutting-down",
            Self::ShutOff => "shut-off",
            Self::Crashed => "crashed",
        })
    }
}

impl fmt::Display for ShutDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Acpi => "the power button",
            Self::Agent => "the guest agent",
        })
    }
}
