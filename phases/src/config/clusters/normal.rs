//! The cluster that a configuration describes.

use std::collections::HashSet;

use taskrun_engine::fingerprint::Digest;

use super::nodes::Placed;
use super::{CloudClusterConfig, HostConfig, NodeConfig};
use crate::cluster::{
    Cluster, GivenHost, Hardware, MacAddress, Machine, Node, Passthrough, VirtualMachine, Virtualization,
};

/// What libvirt is reached by if the configuration does not say.
const HYPERVISOR: &str = "qemu:///system";

impl CloudClusterConfig {
    /// What it describes; nothing if something is wrong with it.
    pub(in crate::config) fn cluster(&self) -> Option<Cluster> {
        let mut taken = HashSet::new();
        let nodes = self.placed().into_iter().map(|Placed { name, role, node, .. }| {
            let machine = match &node.host {
                Some(host) => Machine::Given(host.given()?),
                None => Machine::Virtual(node.machine(mac(&self.name, &name, &mut taken))?),
            };
            Some(Node { name, role, machine })
        });
        let nodes: Vec<Node> = nodes.collect::<Option<_>>()?;
        let virtualization = match nodes.iter().any(|node| matches!(node.machine, Machine::Virtual(_))) {
            true => Some(self.virtualization()?),
            false => None,
        };
        let kubernetes = self.kubernetes_config.as_ref()?.kubernetes()?;
        Some(Cluster { name: self.name.clone(), nodes, virtualization, kubernetes })
    }

    fn virtualization(&self) -> Option<Virtualization> {
        let acceleration = self.hardware.clone().unwrap_or_default().acceleration;
        Some(Virtualization {
            uri: self.hypervisor_uri.clone().unwrap_or_else(|| HYPERVISOR.to_owned()),
            network: self.network.as_ref()?.network()?,
            pool: self.storage_pool_path.clone(),
            hardware: Hardware {
                kvm: acceleration.enable_kvm,
                cpu_model: acceleration.cpu_model,
                hugepages: acceleration.performance.enable_hugepages,
                cpu_pinning: acceleration.performance.cpu_pinning,
                firmware: acceleration.firmware,
            },
            base_image: self.base_image_path.clone(),
        })
    }
}

impl NodeConfig {
    fn machine(&self, mac: MacAddress) -> Option<VirtualMachine> {
        let devices = self.devices().iter().map(|device| {
            Some(Passthrough {
                address: device.pci_address.parse().ok()?,
                kind: device.device_type?,
                vendor_id: device.vendor_id.as_deref().map(hex_id),
                device_id: device.device_id.as_deref().map(hex_id),
                iommu_group: device.iommu_group,
            })
        });
        Some(VirtualMachine {
            cpus: self.cpu_cores?,
            memory_mib: u64::from(self.memory_gb?) * 1024,
            disk_gib: u64::from(self.disk_gb?),
            address: self.fixed_address(),
            mac,
            auto_start: self.auto_start.unwrap_or(true),
            devices: devices.collect::<Option<_>>()?,
        })
    }
}

impl HostConfig {
    fn given(&self) -> Option<GivenHost> {
        let internal_address = match &self.internal_address {
            Some(text) => Some(text.parse().ok()?),
            None => None,
        };
        let Self { address, port, user, key, .. } = self.clone();
        Some(GivenHost { address, port, user, key, internal_address })
    }
}

/// The id of a vendor or device as Linux writes it, without `0x`.
pub(super) fn hex_id(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    text.strip_prefix("0x").map(str::to_owned).unwrap_or(text)
}

/// An address in the range that QEMU and KVM use. Where two names would get the same one, the later takes another.
fn mac(cluster: &str, node: &str, taken: &mut HashSet<MacAddress>) -> MacAddress {
    let of_turn = |turn: u32| {
        let digest = Digest::of(format!("{cluster}\0{node}\0{turn}").as_bytes()).to_string();
        let byte = |at: usize| u8::from_str_radix(&digest[at..at + 2], 16).unwrap_or_default();
        MacAddress([0x52, 0x54, 0x00, byte(0), byte(2), byte(4)])
    };
    // There are 2^24 of them, and far fewer nodes.
    let mut turn = 0;
    while !taken.insert(of_turn(turn)) {
        turn += 1;
    }
    of_turn(turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stay_and_differ() {
        let mut taken = HashSet::new();
        let first = mac("cloud", "cloud-control-plane", &mut taken);
        assert_eq!(first, mac("cloud", "cloud-control-plane", &mut HashSet::new()));
        assert_ne!(first, mac("cloud", "cloud-control-plane", &mut taken), "it is taken");
        assert_ne!(first, mac("cloud2", "cloud-control-plane", &mut HashSet::new()));
        assert!(first.to_string().starts_with("52:54:00:"));
        let many: HashSet<_> = (0..20_000).map(|at| mac("cloud", &at.to_string(), &mut taken)).collect();
        assert_eq!(many.len(), 20_000);
    }

    #[test]
    fn ids_are_as_linux_writes_them() {
        assert_eq!((hex_id("0x10DE"), hex_id("2684")), ("10de".to_owned(), "2684".to_owned()));
    }
}
