//! Networks, and what Kubernetes is made with.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::{Kubernetes, Network, NetworkMode};

/// How many addresses libvirt lets a range of DHCP have.
pub(super) const MOST_LEASES: u32 = 65535;

/// The network of virtual machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Its addresses: `192.168.200.0/24`; 4 to 2^24 of them.
    pub subnet: String,
    /// The bridge on the host, at most 15 letters, digits, `-`, `_` and `.`: `virbr200`.
    pub bridge: String,
    /// How it reaches others; `nat` by default.
    #[serde(default)]
    pub mode: NetworkMode,
    /// The address of the router: with `nat` the host's own; by default the first one of the subnet.
    #[serde(default)]
    pub gateway_ip: Option<String>,
    /// The first address that DHCP gives to who has no fixed one. With `nat` by default all of the subnet are given, but
    /// for fixed ones; with `bridge` this only tells which addresses others give, so that no node takes one of them.
    #[serde(default)]
    pub dhcp_start: Option<String>,
    /// The last address that DHCP gives.
    #[serde(default)]
    pub dhcp_end: Option<String>,
    /// Read since older files have it, and not used: the names of all nodes are known to all nodes.
    #[serde(default)]
    pub dns_mode: Option<String>,
    /// The servers that names are looked up at; by default those of the host.
    #[serde(default)]
    pub dns_servers: Vec<String>,
}

/// What Kubernetes is made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesConfig {
    /// The network plugin: `calico`, `cilium` or `flannel`.
    pub cni: String,
    /// The ingress controller: `nginx` or `none`.
    pub ingress: String,
    /// The default storage class: `local-path`.
    pub storage_class: String,
    /// The addresses of pods, a /24 of them for each node; 10.233.64.0/18 by default.
    #[serde(default)]
    pub pod_subnet: Option<String>,
    /// The addresses of services, a /12 to a /28; 10.233.0.0/18 by default.
    #[serde(default)]
    pub service_subnet: Option<String>,
}

/// The addresses of pods if the configuration does not say.
const PODS: &str = "10.233.64.0/18";
/// The addresses of services if the configuration does not say.
const SERVICES: &str = "10.233.0.0/18";

impl NetworkConfig {
    /// The network; nothing if something is wrong with it.
    pub(super) fn network(&self) -> Option<Network> {
        let subnet: Ipv4Net = self.subnet.parse().ok()?;
        let gateway = self.gateway(subnet)?;
        let dhcp = match (&self.dhcp_start, &self.dhcp_end, self.mode) {
            (None, None, NetworkMode::Nat) => default_range(subnet, gateway),
            (None, None, NetworkMode::Bridge) => None,
            (start, end, _) => Some((start.as_ref()?.parse().ok()?, end.as_ref()?.parse().ok()?)),
        };
        Some(Network {
            mode: self.mode,
            bridge: self.bridge.clone(),
            subnet,
            gateway,
            dhcp,
            dns_servers: self.dns_servers.iter().filter_map(|server| server.parse().ok()).collect(),
        })
    }

    /// The address of the router.
    pub(super) fn gateway(&self, subnet: Ipv4Net) -> Option<Ipv4Addr> {
        match &self.gateway_ip {
            Some(text) => text.parse().ok(),
            None => subnet.hosts().next(),
        }
    }
}

impl KubernetesConfig {
    /// The addresses of pods, as they are written.
    pub(super) fn pods(&self) -> &str {
        self.pod_subnet.as_deref().unwrap_or(PODS)
    }

    /// The addresses of services, as they are written.
    pub(super) fn services(&self) -> &str {
        self.service_subnet.as_deref().unwrap_or(SERVICES)
    }

    /// What is meant; nothing if something is wrong with it.
    pub(super) fn kubernetes(&self) -> Option<Kubernetes> {
        Some(Kubernetes {
            cni: self.cni.clone(),
            ingress: self.ingress.clone(),
            storage_class: self.storage_class.clone(),
            pod_subnet: self.pods().parse().ok()?,
            service_subnet: self.services().parse().ok()?,
        })
    }
}

/// All addresses of the subnet that hosts may have, without the router where that is the first or the last one; not more
/// than libvirt takes.
fn default_range(subnet: Ipv4Net, gateway: Ipv4Addr) -> Option<(Ipv4Addr, Ipv4Addr)> {
    if subnet.prefix_len() > 30 {
        return None;
    }
    let (mut first, mut last) = (u32::from(subnet.network()) + 1, u32::from(subnet.broadcast()) - 1);
    let gateway = u32::from(gateway);
    first += u32::from(first == gateway);
    last -= u32::from(last == gateway);
    last = last.min(first.checked_add(MOST_LEASES - 1)?);
    (first <= last).then(|| (first.into(), last.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_dhcp_gives_all_but_the_router() {
        let range = |subnet: &str, gateway: &str| {
            let range = default_range(subnet.parse().unwrap(), gateway.parse().unwrap());
            range.map(|(first, last)| format!("{first} {last}")).unwrap_or_default()
        };
        assert_eq!(range("192.168.200.0/24", "192.168.200.1"), "192.168.200.2 192.168.200.254");
        assert_eq!(range("192.168.200.0/24", "192.168.200.254"), "192.168.200.1 192.168.200.253");
        assert_eq!(range("192.168.200.0/30", "192.168.200.1"), "192.168.200.2 192.168.200.2");
        assert_eq!(range("0.0.0.0/32", "0.0.0.0"), "");
        assert_eq!(range("10.0.0.0/8", "10.0.0.1"), "10.0.0.2 10.1.0.0");
    }
}
