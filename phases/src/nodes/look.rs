//! Looking at all nodes of a cluster, many at a time.

use std::path::Path;

use futures_util::future::join_all;
use taskrun_engine::context::View;
use taskrun_engine::outcome::Failure;

use super::machines::Machines;
use super::power::Power;
use super::reach;
use super::status::{ClusterStatus, DeviceStatus, NetworkStatus, NodeStatus};
use crate::cluster::{Cluster, Machine, Node, VirtualMachine};
use crate::hypervisor::DomainState;

/// How the nodes of `cluster` are; `machines` are those that are virtual, if there are any.
///
/// # Errors
/// The hypervisor does not answer, or what is meant to run cannot be read.
pub async fn status(
    view: &View,
    cluster: &Cluster,
    machines: Option<&Machines<'_>>,
    state: &Path,
) -> Result<ClusterStatus, Failure> {
    let power = Power::read(state)?;
    let network = match machines.and_then(|machines| Some((machines, machines.layout().network()?))) {
        Some((machines, wanted)) => Some(NetworkStatus {
            active: machines.network().await?.is_some_and(|there| there.active),
            name: wanted.name,
            bridge: wanted.network.bridge,
            subnet: wanted.network.subnet.to_string(),
        }),
        None => None,
    };
    let power = &power;
    let looks = cluster.nodes.iter().map(|node| async move {
        match (&node.machine, machines) {
            (Machine::Virtual(machine), Some(machines)) => {
                virtual_machine(view, machines, node, machine, power, state).await
            }
            _ => Ok(given_host(view, node, state).await),
        }
    });
    let nodes: Result<Vec<NodeStatus>, Failure> = join_all(looks).await.into_iter().collect();
    Ok(ClusterStatus::new(cluster, network, nodes?))
}

async fn virtual_machine(
    view: &View,
    machines: &Machines<'_>,
    node: &Node,
    machine: &VirtualMachine,
    power: &Power,
    state: &Path,
) -> Result<NodeStatus, Failure> {
    let there = machines.domain(&node.name).await?;
    let running = there.as_ref().is_some_and(|there| there.state == DomainState::Running);
    let address = if running { machines.address(machine).await? } else { machine.address };
    let address = address.map(|address| address.to_string());
    let target = reach::target(state, node, address.as_deref()).filter(|_| running);
    let (ssh, unreachable) = match target {
        None => (None, None),
        Some(target) => match target.reachable(view).await {
            Ok(()) => (Some(true), None),
            Err(error) => (Some(false), Some(error.reason())),
        },
    };
    let wanted = power.is_on(&node.name);
    let detail = match &there {
        None => Some("not defined yet: taskrun run CLOUD-0.1".to_owned()),
        Some(_) if wanted && !running => Some("it ended without being asked to: taskrun resume".to_owned()),
        Some(_) => unreachable,
    };
    let devices = machines.owners(machine)?.into_iter();
    Ok(NodeStatus {
        name: node.name.clone(),
        role: node.role,
        kind: "virtual",
        state: there.map_or_else(|| "undefined".to_owned(), |there| there.state.to_string()),
        wanted,
        address,
        ssh,
        cpus: Some(machine.cpus),
        memory_mib: Some(machine.memory_mib),
        disk_gib: Some(machine.disk_gib),
        devices: devices.map(|(address, owner)| DeviceStatus { address: address.to_string(), owner }).collect(),
        detail,
    })
}

async fn given_host(view: &View, node: &Node, state: &Path) -> NodeStatus {
    let target = reach::target(state, node, None);
    let (address, reached) = match &target {
        Some(target) => (Some(target.address.clone()), target.reachable(view).await.map_err(|error| error.reason())),
        None => (None, Err("it has no address".to_owned())),
    };
    NodeStatus {
        name: node.name.clone(),
        role: node.role,
        kind: "given",
        state: if reached.is_ok() { "up" } else { "down" }.to_owned(),
        wanted: true,
        address,
        ssh: Some(reached.is_ok()),
        cpus: None,
        memory_mib: None,
        disk_gib: None,
        devices: Vec::new(),
        detail: reached.err(),
    }
}
