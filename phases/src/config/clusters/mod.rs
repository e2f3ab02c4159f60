//! Clusters of real nodes: virtual machines that are made here, or given hosts.

mod check;
mod host;
mod hpc;
mod network;
mod nodes;
mod normal;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::host::{HostView, Route, host_problems};
pub use self::hpc::HpcClusterConfig;
pub use self::network::{KubernetesConfig, NetworkConfig};
pub use self::nodes::{ControlPlanes, HostConfig, NodeConfig, PassthroughConfig, PassthroughDeviceConfig, WorkerNodes};
use super::ImageConfig;
use crate::cluster::Firmware;

/// What a configuration is about, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetadataConfig {
    /// The environment's name where the file has no `name`: 1 to 32 letters, digits, `-` and `_`.
    pub name: Option<String>,
    /// What it is for, in words.
    pub description: Option<String>,
}

/// The clusters of a workstation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClustersConfig {
    /// The cluster that serves: it is made here.
    pub cloud: Option<CloudClusterConfig>,
    /// The cluster that trains: others make it. Only what must not collide with it is read.
    pub hpc: Option<HpcClusterConfig>,
}

/// The cluster that serves. Its nodes are either all virtual machines or all given hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloudClusterConfig {
    /// Its name: lower-case letters, digits and `-`. Names of nodes, domains, networks and pools begin with it.
    pub name: String,
    /// The hypervisor, as libvirt calls it: one of this machine, `qemu:///system` by default.
    #[serde(default)]
    pub hypervisor_uri: Option<String>,
    /// The folder of the disks of virtual machines; an absolute path, by default a folder in the state folder.
    #[serde(default)]
    pub storage_pool_path: Option<PathBuf>,
    /// A qcow2 image that virtual machines begin with in place of the one that CLOUD-1.1 builds; an absolute path.
    #[serde(default)]
    pub base_image_path: Option<PathBuf>,
    /// How images are built.
    #[serde(default)]
    pub image: Option<ImageConfig>,
    /// How virtual machines are run.
    #[serde(default)]
    pub hardware: Option<HardwareConfig>,
    /// The network of virtual machines; given hosts have theirs.
    #[serde(default)]
    pub network: Option<NetworkConfig>,
    /// The node of the control plane; or a list of an odd number of them.
    pub control_plane: ControlPlanes,
    /// The nodes that run workloads.
    pub worker_nodes: WorkerNodes,
    /// What Kubernetes is made with.
    #[schemars(required)]
    pub kubernetes_config: Option<KubernetesConfig>,
}

/// How virtual machines are run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HardwareConfig {
    /// Processors and firmware.
    pub acceleration: AccelerationConfig,
}

/// Processors and firmware of virtual machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccelerationConfig {
    /// Whether KVM is used where it works; true by default. Where not, processors are emulated, about 20 times slower.
    pub enable_kvm: bool,
    /// The model of the processors, as libvirt calls it: `host-passthrough`, the default, `host-model`, or a name such as
    /// `EPYC`.
    pub cpu_model: String,
    /// What starts the machines; `auto` by default.
    pub firmware: Firmware,
    /// What makes them faster, and takes from the host.
    pub performance: TuningConfig,
}

impl Default for AccelerationConfig {
    fn default() -> Self {
        Self {
            enable_kvm: true,
            cpu_model: "host-passthrough".to_owned(),
            firmware: Firmware::default(),
            performance: TuningConfig::default(),
        }
    }
}

/// What makes virtual machines faster, and takes from the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TuningConfig {
    /// Whether their memory is of huge pages, which the host must have set aside; false by default.
    pub enable_hugepages: bool,
    /// Whether each virtual processor stays on one of the host's; false by default.
    pub cpu_pinning: bool,
}
