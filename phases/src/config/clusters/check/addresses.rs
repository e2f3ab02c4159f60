//! Addresses: all in their subnets, and no two alike.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::super::network::{MOST_LEASES, NetworkConfig};
use super::super::nodes::Placed;
use super::super::{CloudClusterConfig, HpcClusterConfig};
use super::{Told, address, subnet};
use crate::cluster::{NetworkMode, Role};

/// A range of addresses, both ends included.
type Range = (Ipv4Addr, Ipv4Addr);

pub(super) fn check(
    cluster: &CloudClusterConfig,
    nodes: &[Placed<'_>],
    hpc: Option<&HpcClusterConfig>,
    told: &mut Told,
) {
    let mut own = None;
    if let Some(network) = &cluster.network {
        own = check_subnet(network, told);
        let gateway = check_gateway(network, own, told);
        let range = check_range(network, own, told);
        check_machines(nodes, network, own, gateway, range, told);
        for (at, server) in network.dns_servers.iter().enumerate() {
            if let Err(message) = address(server) {
                told.at(&["network", "dns_servers", &at.to_string()], message);
            }
        }
    }
    let (pods, services) = check_kubernetes(cluster, nodes.len(), told);
    let subnets = [
        (None, "the subnet of the cluster `hpc`", hpc.and_then(HpcClusterConfig::subnet)),
        (Some(["network", "subnet"]), "the subnet", own),
        (Some(["kubernetes_config", "pod_subnet"]), "the subnet of pods", pods),
        (Some(["kubernetes_config", "service_subnet"]), "the subnet of services", services),
    ];
    for (at, (path, what, net)) in subnets.iter().enumerate() {
        for (_, other_what, other) in &subnets[..at] {
            if let (Some(path), Some(net), Some(other)) = (path, net, other)
                && overlap(net, other)
            {
                told.at(path, format!("{what}, {net}, overlaps {other_what}, {other}"));
            }
        }
    }
    check_hosts(nodes, &[("pods", pods), ("services", services)], told);
}

/// Whether two subnets have addresses in common.
pub(in super::super) fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(other) || other.contains(one)
}

fn check_subnet(network: &NetworkConfig, told: &mut Told) -> Option<Ipv4Net> {
    match subnet(&network.subnet) {
        Ok(net) if !(8..=30).contains(&net.prefix_len()) => {
            told.at(&["network", "subnet"], format!("/{} is not between /8 and /30", net.prefix_len()));
            None
        }
        Ok(net) if net.addr().is_loopback() || net.addr().is_multicast() || net.addr().is_unspecified() => {
            told.at(&["network", "subnet"], format!("{net} is not for machines"));
            None
        }
        Ok(net) => Some(net),
        Err(message) => {
            told.at(&["network", "subnet"], message);
            None
        }
    }
}

fn check_gateway(network: &NetworkConfig, own: Option<Ipv4Net>, told: &mut Told) -> Option<Ipv4Addr> {
    let Some(text) = &network.gateway_ip else { return network.gateway(own?) };
    match address(text).and_then(|gateway| inside(gateway, own)) {
        Ok(gateway) => Some(gateway),
        Err(message) => {
            told.at(&["network", "gateway_ip"], message);
            None
        }
    }
}

/// The address, if a machine of the subnet may have it.
fn inside(address: Ipv4Addr, own: Option<Ipv4Net>) -> Result<Ipv4Addr, String> {
    match own {
        Some(net) if !net.contains(&address) => Err(format!("{address} is not in the subnet {net}")),
        Some(net) if address == net.network() => Err(format!("{address} stands for the subnet {net} itself")),
        Some(net) if address == net.broadcast() => Err(format!("{address} is the broadcast address of {net}")),
        _ => Ok(address),
    }
}

fn check_range(network: &NetworkConfig, own: Option<Ipv4Net>, told: &mut Told) -> Option<Range> {
    let mut end = |field, other, text: &Option<String>, present: bool| {
        let Some(text) = text else {
            if present {
                told.at(&["network", other], format!("`{field}` is missing, and `{other}` is there"));
            }
            return None;
        };
        address(text).and_then(|end| inside(end, own)).map_err(|message| told.at(&["network", field], message)).ok()
    };
    let start = end("dhcp_start", "dhcp_end", &network.dhcp_start, network.dhcp_end.is_some());
    let last = end("dhcp_end", "dhcp_start", &network.dhcp_end, network.dhcp_start.is_some());
    let (start, last) = (start?, last?);
    if start > last {
        told.at(&["network", "dhcp_end"], format!("{last} comes before `dhcp_start`, {start}"));
        return None;
    }
    let size = u64::from(u32::from(last) - u32::from(start)) + 1;
    if size > u64::from(MOST_LEASES) {
        told.at(&["network", "dhcp_end"], format!("libvirt gives {MOST_LEASES} addresses at most, not {size}"));
    }
    Some((start, last))
}

fn check_machines(
    nodes: &[Placed<'_>],
    network: &NetworkConfig,
    own: Option<Ipv4Net>,
    gateway: Option<Ipv4Addr>,
    range: Option<Range>,
    told: &mut Told,
) {
    let within = |address: &Ipv4Addr| range.is_some_and(|(start, end)| (start..=end).contains(address));
    let (mut taken, mut free): (Vec<(Ipv4Addr, &str)>, u32) = (Vec::new(), 0);
    for node in nodes.iter().filter(|node| node.node.host.is_none()) {
        if node.node.ip_address.is_some() && node.node.ip.is_some() {
            told.of(node, &["ip"], "`ip_address` says the same: take one of them out");
        }
        let (field, text) = node.node.address().unwrap_or(("ip_address", "DHCP"));
        if text.eq_ignore_ascii_case("dhcp") {
            if node.role == Role::ControlPlane {
                told.of(node, &[field], "the control plane needs a fixed address: all nodes call it by that");
            }
            free += 1;
            continue;
        }
        let address = match address(text).and_then(|address| inside(address, own)) {
            Ok(address) => address,
            Err(message) => {
                told.of(node, &[field], message);
                continue;
            }
        };
        if Some(address) == gateway {
            told.of(node, &[field], format!("{address} is the address of the router"));
        } else if let Some((_, other)) = taken.iter().find(|(other, _)| *other == address) {
            told.of(node, &[field], format!("{address} is the address of {other} too"));
        } else if network.mode == NetworkMode::Bridge && within(&address) {
            told.of(node, &[field], format!("{address} is one of those that DHCP gives to others on that bridge"));
        }
        taken.push((address, &node.name));
    }
    let said = network.dhcp_start.is_some() || network.dhcp_end.is_some();
    let by_default = || own.filter(|_| !said).and(network.network())?.dhcp;
    let given = range.or_else(by_default);
    if let (Some((start, end)), NetworkMode::Nat) = (given, network.mode) {
        let within = |address: &Ipv4Addr| (start..=end).contains(address);
        let fixed = taken.iter().map(|(address, _)| *address).chain(gateway).filter(within).count();
        let left = (u64::from(u32::from(end) - u32::from(start)) + 1).saturating_sub(fixed as u64);
        if left < u64::from(free) {
            let message = format!("DHCP has {left} addresses to give, and {free} nodes want one");
            let field = if range.is_some() { "dhcp_end" } else { "subnet" };
            told.at(&["network", field], message);
        }
    }
}

fn check_kubernetes(cluster: &CloudClusterConfig, nodes: usize, told: &mut Told) -> (Option<Ipv4Net>, Option<Ipv4Net>) {
    let Some(kubernetes) = &cluster.kubernetes_config else { return (None, None) };
    let mut read = |field, text: &str| match subnet(text) {
        Ok(net) => Some(net),
        Err(message) => {
            told.at(&["kubernetes_config", field], message);
            None
        }
    };
    let (pods, services) = (read("pod_subnet", kubernetes.pods()), read("service_subnet", kubernetes.services()));
    // Each node takes a /24.
    let room = pods.map(|net| 1_u64 << 24_u8.saturating_sub(net.prefix_len()));
    if let Some(net) = pods
        && (net.prefix_len() > 24 || room < Some(nodes as u64))
    {
        let message = format!("{net} has no /24 for each of {nodes} nodes");
        told.at(&["kubernetes_config", "pod_subnet"], message);
    }
    if let Some(net) = services.filter(|net| !(12..=28).contains(&net.prefix_len())) {
        told.at(&["kubernetes_config", "service_subnet"], format!("/{} is not between /12 and /28", net.prefix_len()));
    }
    (pods, services)
}

/// Given hosts have addresses of their own.
fn check_hosts(nodes: &[Placed<'_>], subnets: &[(&str, Option<Ipv4Net>)], told: &mut Told) {
    let hosts: Vec<_> = nodes.iter().filter_map(|node| Some((node, node.node.host.as_ref()?))).collect();
    for (at, (node, host)) in hosts.iter().enumerate() {
        let (field, address) = host.reached_by();
        for (what, net) in subnets {
            if let Some((net, address)) = net.zip(address).filter(|(net, address)| net.contains(address)) {
                told.of(node, &["host", field], format!("{address} is in the subnet of {what}, {net}"));
            }
        }
        let before = &hosts[..at];
        if let Some((other, _)) = before.iter().find(|(_, other)| address.is_some() && other.reached_by().1 == address)
        {
            told.of(node, &["host", field], format!("it is the address of {} too", other.name));
        } else if let Some((other, _)) =
            before.iter().find(|(_, other)| (&other.address, other.port) == (&host.address, host.port))
        {
            told.of(node, &["host", "address"], format!("it is that of {} too", other.name));
        }
    }
}
