//! What the tasks of a cluster of real nodes give: nodes that can be logged in to, and what they are made of.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use taskrun_engine::task::Output;

use super::DiskImage;
use crate::cluster::Role;
use crate::tools::ssh::SshTarget;

/// CLOUD-0.1: the nodes of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nodes {
    /// The nodes, in the order of the cluster.
    pub nodes: Vec<NodeEndpoint>,
    /// The file of their SSH host keys.
    pub known_hosts: PathBuf,
}

/// How a node is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEndpoint {
    /// Its name in the cluster.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Where it is logged in to: a name or an IP address. Nothing for a virtual machine whose address is only known
    /// when it runs.
    pub address: Option<String>,
    /// The port of its SSH server.
    pub ssh_port: u16,
    /// Who logs in: root, or somebody who may use sudo without a password.
    pub user: String,
    /// The file of the private key; by default those that ssh(1) takes.
    pub key: Option<PathBuf>,
    /// The address by which the other nodes reach it; nothing where it is only known when the node runs.
    pub internal_address: Option<Ipv4Addr>,
    /// Whether it has a GPU.
    pub gpu: bool,
    /// What makes a given host recognisable; nothing for a virtual machine.
    #[serde(default)]
    pub identity: Option<HostIdentity>,
}

/// What a given host is, as far as that does not change by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIdentity {
    /// The content of `/etc/machine-id`.
    pub machine_id: String,
    /// Its own host name.
    pub host_name: String,
    /// The operating system with its version: `debian 13`.
    pub os: String,
    /// The processor architecture: `x86_64`.
    pub architecture: String,
    /// Processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// The PCI addresses of its NVIDIA GPUs.
    pub gpus: Vec<String>,
}

impl Output for Nodes {
    const KIND: &'static str = "nodes";
}

impl Nodes {
    /// The file of SSH host keys of an environment.
    pub fn known_hosts_file(state: &Path) -> PathBuf {
        state.join("ssh").join("known_hosts")
    }

    /// The node called `name`.
    pub fn node(&self, name: &str) -> Option<&NodeEndpoint> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// How a node is logged in to; nothing while its address is not known.
    pub fn target(&self, node: &NodeEndpoint) -> Option<SshTarget> {
        Some(SshTarget {
            address: node.address.clone()?,
            port: node.ssh_port,
            user: node.user.clone(),
            key: node.key.clone(),
            known_hosts: self.known_hosts.clone(),
        })
    }
}

/// CLOUD-1.1: what every node is based on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeBase {
    /// The disk image that virtual machines begin with; nothing where the nodes are given hosts.
    pub image: Option<DiskImage>,
    /// The operating system with its version, by node: `debian 13`. With an image, one entry with the image's name.
    pub systems: BTreeMap<String, String>,
    /// The packages that are there on every node.
    pub packages: Vec<String>,
}

impl Output for NodeBase {
    const KIND: &'static str = "node-base";
}

/// CLOUD-1.2: what GPU workers have besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuBase {
    /// The disk image that virtual GPU workers begin with; nothing where the nodes are given hosts.
    pub image: Option<DiskImage>,
    /// The version of the NVIDIA driver, by node. With an image, one entry with the image's name.
    pub drivers: BTreeMap<String, String>,
}

impl Output for GpuBase {
    const KIND: &'static str = "gpu-base";
}
