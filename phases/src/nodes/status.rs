//! How the nodes of a cluster are: as a table, as JSON, and as a picture for `dot`.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cluster::{Cluster, Role};

/// The version of the JSON.
const VERSION: u32 = 1;

/// How the nodes are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterStatus {
    version: u32,
    /// The cluster's name.
    pub cluster: String,
    /// Whether everything that is meant to run does, and answers.
    pub healthy: bool,
    /// The network; nothing where nodes are given hosts.
    pub network: Option<NetworkStatus>,
    /// The nodes, in the order of the configuration.
    pub nodes: Vec<NodeStatus>,
}

/// How the network is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NetworkStatus {
    /// Its name.
    pub name: String,
    /// Its bridge.
    pub bridge: String,
    /// Its addresses.
    pub subnet: String,
    /// Whether it is started.
    pub active: bool,
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// `virtual` or `given`.
    pub kind: &'static str,
    /// `running`, `shut-off`, `undefined`, …; for given hosts `up` or `down`.
    pub state: String,
    /// Whether it is meant to run.
    pub wanted: bool,
    /// Its address, where that is known.
    pub address: Option<String>,
    /// Whether SSH lets us in; nothing where it was not asked.
    pub ssh: Option<bool>,
    /// Virtual processors; nothing for given hosts.
    pub cpus: Option<u32>,
    /// Memory, in MiB; nothing for given hosts.
    pub memory_mib: Option<u64>,
    /// The size of the disk, in GiB; nothing for given hosts.
    pub disk_gib: Option<u64>,
    /// The host's devices that it gets.
    pub devices: Vec<DeviceStatus>,
    /// What else is to be said: why it does not answer.
    pub detail: Option<String>,
}

/// A device of the host that a node gets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceStatus {
    /// Where it is.
    pub address: String,
    /// Who owns it now: the node of this or another cluster; nothing if it is free.
    pub owner: Option<String>,
}

impl NodeStatus {
    /// Whether it is as it is meant to be.
    pub fn is_well(&self) -> bool {
        let up = matches!(&*self.state, "running" | "up");
        if self.wanted { up && self.ssh != Some(false) } else { self.state != "crashed" }
    }
}

impl ClusterStatus {
    /// The status of a cluster.
    pub fn new(cluster: &Cluster, network: Option<NetworkStatus>, nodes: Vec<NodeStatus>) -> Self {
        let connected = network.as_ref().is_none_or(|network| network.active || nodes.iter().all(|node| !node.wanted));
        let healthy = connected && nodes.iter().all(NodeStatus::is_well);
        Self { version: VERSION, cluster: cluster.name.clone(), healthy, network, nodes }
    }

    /// For people.
    pub fn table(&self) -> String {
        let dash = || "-".to_owned();
        let size = |node: &NodeStatus| match (node.cpus, node.memory_mib, node.disk_gib) {
            (Some(cpus), Some(memory), Some(disk)) => {
                let memory =
                    if memory % 1024 == 0 { format!("{} GiB", memory / 1024) } else { format!("{memory} MiB") };
                format!("{cpus} cpus, {memory}, {disk} GiB")
            }
            _ => dash(),
        };
        let head = ["NODE", "ROLE", "STATE", "ADDRESS", "SSH", "SIZE", "DEVICES"].map(str::to_owned);
        let rows = self.nodes.iter().map(|node| {
            let devices = node.devices.iter().map(|device| match &device.owner {
                Some(owner) if *owner != node.name => format!("{} (of {owner})", device.address),
                Some(_) => device.address.clone(),
                None => format!("{} (free)", device.address),
            });
            let devices = devices.collect::<Vec<_>>().join(", ");
            [
                node.name.clone(),
                node.role.as_str().to_owned(),
                if node.wanted || matches!(&*node.state, "running" | "up") {
                    node.state.clone()
                } else {
                    format!("{} (as wanted)", node.state)
                },
                node.address.clone().unwrap_or_else(dash),
                node.ssh.map_or_else(dash, |ssh| if ssh { "yes" } else { "no" }.to_owned()),
                size(node),
                if devices.is_empty() { dash() } else { devices },
            ]
        });
        let rows: Vec<[String; 7]> = std::iter::once(head).chain(rows).collect();
        let widths: Vec<usize> =
            (0..7).map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
        let mut out = String::new();
        if let Some(network) = &self.network {
            let state = if network.active { "active" } else { "not started" };
            let _ = writeln!(out, "network {}: {} on {}, {state}", network.name, network.subnet, network.bridge);
        }
        for (at, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).map(|(cell, wide)| format!("{cell:<wide$}"));
            let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
            let detail = at.checked_sub(1).and_then(|at| self.nodes[at].detail.as_ref());
            if let Some(detail) = detail {
                let _ = writeln!(out, "{:wide$}  {detail}", "", wide = widths[0]);
            }
        }
        out
    }

    /// A picture of the topology, in the language of `dot`.
    pub fn dot(&self) -> String {
        let mut out = String::from("graph cluster {\n  rankdir=TB;\n  node [shape=box, fontname=\"sans-serif\"];\n");
        let quote = |text: &str| format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""));
        let centre = match &self.network {
            Some(network) => {
                let label = format!("{}\\n{} on {}", network.name, network.subnet, network.bridge);
                let style = if network.active { "solid" } else { "dashed" };
                let _ = writeln!(out, "  net [shape=ellipse, style={style}, label=\"{label}\"];");
                "net"
            }
            None => {
                let _ = writeln!(out, "  net [shape=ellipse, label={}];", quote(&self.cluster));
                "net"
            }
        };
        for node in &self.nodes {
            let colour = match (node.is_well(), node.wanted) {
                (false, _) => "#f4c7c3",
                (true, true) => "#c8e6c9",
                (true, false) => "#eeeeee",
            };
            let address = node.address.as_deref().unwrap_or("no address yet");
            let label = format!("{}\\n{}\\n{address}\\n{}", node.name, node.role.as_str(), node.state);
            let name = quote(&node.name);
            let _ = writeln!(out, "  {name} [style=filled, fillcolor=\"{colour}\", label=\"{label}\"];");
            let _ = writeln!(out, "  {centre} -- {name};");
            for device in &node.devices {
                let at = quote(&device.address);
                let style = if device.owner.as_deref() == Some(&*node.name) { "solid" } else { "dashed" };
                let owner = device.owner.as_deref().unwrap_or("free");
                let _ = writeln!(out, "  {at} [shape=component, label=\"{}\\n{owner}\"];", device.address);
                let _ = writeln!(out, "  {name} -- {at} [style={style}];");
            }
        }
        out.push_str("}\n");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Kubernetes;
    use crate::testing::snapshot;

    fn cluster() -> Cluster {
        Cluster {
            name: "cloud".to_owned(),
            nodes: Vec::new(),
            virtualization: None,
            kubernetes: Kubernetes {
                cni: "calico".to_owned(),
                ingress: "nginx".to_owned(),
                storage_class: "local-path".to_owned(),
                pod_subnet: "10.233.64.0/18".parse().unwrap(),
                service_subnet: "10.233.0.0/18".parse().unwrap(),
            },
        }
    }

    fn node(name: &str, role: Role) -> NodeStatus {
        NodeStatus {
            name: name.to_owned(),
            role,
            kind: "virtual",
            state: "running".to_owned(),
            wanted: true,
            address: Some("192.168.200.10".to_owned()),
            ssh: Some(true),
            cpus: Some(4),
            memory_mib: Some(8192),
            disk_gib: Some(100),
            devices: Vec::new(),
            detail: None,
        }
    }

    fn status() -> ClusterStatus {
        let worker = NodeStatus {
            state: "crashed".to_owned(),
            ssh: None,
            address: None,
            memory_mib: Some(1500),
            detail: Some("it ended without being asked to; start it again: taskrun resume".to_owned()),
            ..node("cloud-cpu-worker-01", Role::CpuWorker)
        };
        let device = |address: &str, owner: Option<&str>| DeviceStatus {
            address: address.to_owned(),
            owner: owner.map(str::to_owned),
        };
        let gpu = NodeStatus {
            state: "shut-off".to_owned(),
            wanted: false,
            ssh: None,
            devices: vec![device("0000:65:00.0", Some("hpc/hpc-compute-01")), device("0000:65:00.1", None)],
            ..node("cloud-gpu-worker-01", Role::GpuWorker)
        };
        let network = NetworkStatus {
            name: "taskrun-cloud".to_owned(),
            bridge: "virbr-cloud".to_owned(),
            subnet: "192.168.200.0/24".to_owned(),
            active: true,
        };
        let nodes = vec![node("cloud-control-plane", Role::ControlPlane), worker, gpu];
        ClusterStatus::new(&cluster(), Some(network), nodes)
    }

    #[test]
    fn a_table_for_people() {
        snapshot("cluster-status", &status().table());
    }

    #[test]
    fn a_picture_for_dot() {
        snapshot("cluster-dot", &status().dot());
    }

    #[test]
    fn json_for_programs() {
        snapshot("cluster-json", &serde_json::to_string_pretty(&status()).unwrap());
    }

    #[test]
    fn what_is_off_as_it_should_be_is_well() {
        let mut status = status();
        assert!(!status.healthy);
        status.nodes.remove(1);
        let ClusterStatus { network, nodes, .. } = status;
        assert!(ClusterStatus::new(&cluster(), network.clone(), nodes.clone()).healthy);
        let stopped = network.map(|network| NetworkStatus { active: false, ..network });
        assert!(!ClusterStatus::new(&cluster(), stopped, nodes).healthy);
    }
}
