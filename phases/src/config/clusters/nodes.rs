//! Nodes, and the two ways in which each of their groups may be written.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::cluster::{DeviceKind, Role};

/// A node: a virtual machine with `cpu_cores`, `memory_gb` and `disk_gb`, or a given `host`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Virtual processors: 1 to 1024.
    #[schemars(range(min = 1, max = 1024))]
    pub cpu_cores: Option<u32>,
    /// Memory, in GiB: 1 to 65536.
    #[schemars(range(min = 1, max = 65536))]
    pub memory_gb: Option<u32>,
    /// The size of its disk, in GiB: 10 to 65536. It takes as much of the host's as was written to it.
    #[schemars(range(min = 10, max = 65536))]
    pub disk_gb: Option<u32>,
    /// Its address in the cluster's subnet. A worker's may also be `DHCP`, the default: it then gets a free one and keeps
    /// it.
    pub ip_address: Option<String>,
    /// The same as `ip_address`.
    pub ip: Option<String>,
    /// Only for workers: whether it is started with the cluster and with the host; true by default. If not, it is defined
    /// and stays off until it is started by name.
    pub auto_start: Option<bool>,
    /// Only for workers: devices of the host that it gets. With a GPU it is a GPU worker.
    pub pcie_passthrough: Option<PassthroughConfig>,
    /// A machine that is there already, in place of all other fields.
    pub host: Option<HostConfig>,
}

/// Devices of the host that a virtual machine gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PassthroughConfig {
    /// Whether it gets them.
    pub enabled: bool,
    /// The devices: all functions of each, and everything else in their IOMMU groups.
    #[serde(default)]
    pub devices: Vec<PassthroughDeviceConfig>,
}

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PassthroughDeviceConfig {
    /// Where it is on the PCI bus, as lspci(8) shows it: `0000:65:00.0`.
    pub pci_address: String,
    /// What it is.
    #[schemars(required)]
    pub device_type: Option<DeviceKind>,
    /// The vendor id that it must have: four hexadecimal digits in quotes, such as `"10de"`.
    #[serde(default)]
    pub vendor_id: Option<String>,
    /// The device id that it must have: four hexadecimal digits in quotes, such as `"2684"`.
    #[serde(default)]
    pub device_id: Option<String>,
    /// The IOMMU group that it must be in.
    #[serde(default)]
    pub iommu_group: Option<u32>,
}

/// A machine that is there already, reached by SSH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// Its address: a name or an IP address.
    pub address: String,
    /// The port of its SSH server; 22 by default.
    #[serde(default = "ssh_port")]
    #[schemars(range(min = 1))]
    pub port: u16,
    /// Who logs in, `root` by default; somebody else must be allowed to use sudo without a password.
    #[serde(default = "root")]
    pub user: String,
    /// The file of the private key; an absolute path, by default the files that ssh(1) takes.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// The IPv4 address by which the other nodes reach it, where that is another one.
    #[serde(default)]
    pub internal_address: Option<String>,
    /// Only for workers: whether it has a GPU, which makes it a GPU worker; false by default.
    #[serde(default)]
    pub gpu: bool,
}

fn ssh_port() -> u16 {
    22
}

fn root() -> String {
    "root".to_owned()
}

/// The nodes of the control plane: one, or a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ControlPlanes {
    /// One.
    One(Box<NodeConfig>),
    /// An odd number of them.
    Several(Vec<NodeConfig>),
}

/// The nodes that run workloads: a list, or, as older files have them, a mapping by kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum WorkerNodes {
    /// A list.
    List(Vec<NodeConfig>),
    /// A mapping by kind.
    ByKind(WorkersByKind),
}

/// Workers by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkersByKind {
    /// Those without a GPU.
    pub cpu: Vec<NodeConfig>,
    /// Those with one.
    pub gpu: Vec<NodeConfig>,
}

/// Either a list of `T` or a mapping `M`. An untagged enum would lose the places of what is wrong inside.
struct ListOr<T, M>(PhantomData<(T, M)>, &'static str);

enum ListOrMapping<T, M> {
    List(Vec<T>),
    Mapping(M),
}

impl<'de, T: Deserialize<'de>, M: Deserialize<'de>> Visitor<'de> for ListOr<T, M> {
    type Value = ListOrMapping<T, M>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut read = Vec::new();
        while let Some(next) = list.next_element()? {
            read.push(next);
        }
        Ok(ListOrMapping::List(read))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        M::deserialize(MapAccessDeserializer::new(map)).map(ListOrMapping::Mapping)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Err(E::custom(format!("expected {}, found nothing", self.1)))
    }
}

impl<'de> Deserialize<'de> for ControlPlanes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = ListOr(PhantomData, "a node or a list of nodes");
        Ok(match deserializer.deserialize_any(visitor)? {
            ListOrMapping::List(nodes) => Self::Several(nodes),
            ListOrMapping::Mapping(node) => Self::One(node),
        })
    }
}

impl<'de> Deserialize<'de> for WorkerNodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = ListOr(PhantomData, "a list of nodes");
        Ok(match deserializer.deserialize_any(visitor)? {
            ListOrMapping::List(nodes) => Self::List(nodes),
            ListOrMapping::Mapping(kinds) => Self::ByKind(kinds),
        })
    }
}

/// A node and where it stands.
pub(super) struct Placed<'a> {
    /// The way to it from the cluster.
    pub(super) path: Vec<String>,
    /// Its host name.
    pub(super) name: String,
    /// What it does.
    pub(super) role: Role,
    /// The kind that it stands under, where the workers are a mapping.
    pub(super) under: Option<Role>,
    pub(super) node: &'a NodeConfig,
}

impl super::CloudClusterConfig {
    /// All nodes: the control plane first, then the workers as they stand.
    pub(super) fn placed(&self) -> Vec<Placed<'_>> {
        let (alone, planes) = match &self.control_plane {
            ControlPlanes::One(node) => (true, std::slice::from_ref(&**node)),
            ControlPlanes::Several(nodes) => (false, &nodes[..]),
        };
        let mut groups = vec![(vec!["control_plane"], Some(Role::ControlPlane), planes)];
        match &self.worker_nodes {
            WorkerNodes::List(nodes) => groups.push((vec!["worker_nodes"], None, nodes)),
            WorkerNodes::ByKind(WorkersByKind { cpu, gpu }) => {
                groups.push((vec!["worker_nodes", "cpu"], Some(Role::CpuWorker), cpu));
                groups.push((vec!["worker_nodes", "gpu"], Some(Role::GpuWorker), gpu));
            }
        }
        let found = groups.into_iter().flat_map(|(path, role, nodes)| {
            nodes.iter().enumerate().map(move |(at, node)| {
                let is_plane = role == Some(Role::ControlPlane);
                let at = (!(alone && is_plane)).then(|| at.to_string());
                let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).chain(at).collect();
                (path, role.unwrap_or_else(|| node.worker_role()), role.filter(|_| !is_plane), node)
            })
        });
        let several = planes.len() > 1;
        let mut counts = BTreeMap::new();
        let numbered = found.map(|(path, role, under, node)| {
            let count = counts.entry(role).or_insert(0_usize);
            *count += 1;
            let name = match role {
                Role::ControlPlane if !several => format!("{}-{}", self.name, role.as_str()),
                _ => format!("{}-{}-{count:02}", self.name, role.as_str()),
            };
            Placed { path, name, role, under, node }
        });
        numbered.collect()
    }
}

impl HostConfig {
    /// The address by which other nodes reach it, if that is known, and the field that has it.
    pub(super) fn reached_by(&self) -> (&'static str, Option<Ipv4Addr>) {
        match &self.internal_address {
            Some(text) => ("internal_address", text.parse().ok()),
            None => ("address", self.address.parse().ok()),
        }
    }
}

impl NodeConfig {
    /// The address as it is written, with the field that has it.
    pub(super) fn address(&self) -> Option<(&'static str, &str)> {
        let spelled = [("ip_address", &self.ip_address), ("ip", &self.ip)];
        spelled.into_iter().find_map(|(field, text)| Some((field, text.as_deref()?)))
    }

    /// The address in the cluster's subnet; nothing if it is any.
    pub(super) fn fixed_address(&self) -> Option<Ipv4Addr> {
        self.address()?.1.parse().ok()
    }

    /// The devices that it gets.
    pub(super) fn devices(&self) -> &[PassthroughDeviceConfig] {
        self.pcie_passthrough.as_ref().filter(|passthrough| passthrough.enabled).map_or(&[], |found| &found.devices)
    }

    /// Whether it has a GPU.
    pub(super) fn has_gpu(&self) -> bool {
        self.host.as_ref().is_some_and(|host| host.gpu)
            || self.devices().iter().any(|device| device.device_type == Some(DeviceKind::Gpu))
    }

    fn worker_role(&self) -> Role {
        if self.has_gpu() { Role::GpuWorker } else { Role::CpuWorker }
    }
}
