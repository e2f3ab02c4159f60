//! Nodes: how many, of which kind, of which size, under which names and addresses they are reached.

use std::net::IpAddr;

use super::super::nodes::Placed;
use super::super::{CloudClusterConfig, ControlPlanes, HostConfig, NodeConfig};
use super::{Told, address, is_name};
use crate::cluster::Role;

/// A size, what it is at least and at most, and its unit.
type Size = (&'static str, Option<u32>, u32, u32, &'static str);

pub(super) fn check(cluster: &CloudClusterConfig, nodes: &[Placed<'_>], told: &mut Told) {
    let planes = nodes.iter().filter(|node| node.role == Role::ControlPlane).count();
    if planes % 2 == 0 {
        let message = format!("{planes} nodes of the control plane: etcd wants an odd number of them");
        told.at(&["control_plane"], message);
    }
    if nodes.len() == planes {
        told.at(&["worker_nodes"], "there is none, and the control plane runs no workloads");
    }
    let given = nodes.first().is_some_and(|node| node.node.host.is_some());
    if !given && cluster.network.is_none() {
        told.at(&["network"], "missing field `network`, which virtual machines need");
    }
    let first = match cluster.control_plane {
        ControlPlanes::One(_) => "`control_plane`",
        ControlPlanes::Several(_) => "the first one of `control_plane`",
    };
    for node in nodes {
        match &node.node.host {
            Some(host) => {
                if !given {
                    let message = format!("it is a given host, {first} a virtual machine: all nodes are of one kind");
                    told.of(node, &["host"], message);
                }
                check_no_machine(node, told);
                check_host(node, host, told);
            }
            None if given => {
                let message = format!("it is a virtual machine, {first} a given host: all nodes are of one kind");
                told.of(node, &[], message);
            }
            None => check_machine(node, told),
        }
        check_role(node, told);
    }
}

fn sizes(node: &NodeConfig) -> [Size; 3] {
    [
        ("cpu_cores", node.cpu_cores, 1, 1024, ""),
        ("memory_gb", node.memory_gb, 1, 65536, " GiB"),
        ("disk_gb", node.disk_gb, 10, 65536, " GiB"),
    ]
}

fn check_machine(node: &Placed<'_>, told: &mut Told) {
    for (field, size, least, most, unit) in sizes(node.node) {
        match size {
            None => told.of(node, &[field], format!("missing field `{field}`, or `host` for a given host")),
            Some(size) if !(least..=most).contains(&size) => {
                told.of(node, &[field], format!("{size}{unit} is not between {least} and {most}"));
            }
            Some(_) => {}
        }
    }
}

/// A given host has what it has.
fn check_no_machine(node: &Placed<'_>, told: &mut Told) {
    let NodeConfig { ip_address, ip, auto_start, pcie_passthrough, .. } = node.node;
    let others = [
        ("ip_address", ip_address.is_some()),
        ("ip", ip.is_some()),
        ("auto_start", auto_start.is_some()),
        ("pcie_passthrough", pcie_passthrough.is_some()),
    ];
    let sizes = sizes(node.node).map(|(field, size, ..)| (field, size.is_some()));
    for (field, _) in sizes.into_iter().chain(others).filter(|(_, there)| *there) {
        told.of(node, &[field], format!("`{field}` has no effect on a given host: take it out"));
    }
}

fn check_host(node: &Placed<'_>, host: &HostConfig, told: &mut Told) {
    if host.address.parse::<IpAddr>().is_err() && !is_name(&host.address) {
        told.of(node, &["host", "address"], format!("`{}` is neither a name nor an IP address", host.address));
    }
    if host.port == 0 {
        told.of(node, &["host", "port"], "0 is no port");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if host.user.is_empty() || host.user.len() > 32 || !host.user.chars().all(plain) || host.user.starts_with('-') {
        told.of(node, &["host", "user"], format!("`{}` cannot be the name of a user", host.user));
    }
    if host.key.as_ref().is_some_and(|key| !key.is_absolute()) {
        told.of(node, &["host", "key"], "it is not an absolute path");
    }
    if let Some(Err(message)) = host.internal_address.as_deref().map(address) {
        told.of(node, &["host", "internal_address"], message);
    }
}

fn check_role(node: &Placed<'_>, told: &mut Told) {
    if node.role == Role::ControlPlane {
        if node.node.pcie_passthrough.is_some() {
            let message = "a device goes to a worker: the control plane runs no workloads";
            told.of(node, &["pcie_passthrough"], message);
        }
        if node.node.host.as_ref().is_some_and(|host| host.gpu) {
            told.of(node, &["host", "gpu"], "a GPU belongs to a worker: the control plane runs no workloads");
        }
        if node.node.host.is_none() && node.node.auto_start.is_some() {
            told.of(node, &["auto_start"], "it is for workers: the control plane is always started with its cluster");
        }
    }
    match node.under {
        Some(Role::CpuWorker) if node.node.has_gpu() => {
            told.of(node, &[], "it has a GPU, and stands under `cpu`");
        }
        Some(Role::GpuWorker) if node.node.host.is_none() && !node.node.has_gpu() => {
            told.of(node, &[], "it stands under `gpu`, and gets no GPU: add an enabled device of the type `gpu`");
        }
        _ => {}
    }
}
