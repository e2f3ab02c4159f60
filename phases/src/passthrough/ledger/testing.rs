//! Owners and devices of tests.

use taskrun_engine::process::{BootId, ProcessId};

use super::claims::{Owner, OwnerName};
use crate::cluster::PciAddress;

/// A device on bus `bus`.
pub(super) fn device(bus: u8) -> PciAddress {
    PciAddress { domain: 0, bus, device: 0, function: 0 }
}

/// The owner whose domain has the id `uuid`.
pub(super) fn owner(uuid: &str) -> Owner {
    let node = format!("cloud-gpu-worker-{uuid}");
    let name =
        OwnerName { environment: "lab", cluster: "cloud", node: &node, domain_uuid: uuid, uri: "qemu:///system" };
    Owner {
        since: "2026-11-26T07:00:00Z".parse().unwrap(),
        ..Owner::new(name, ["--config", "/srv/my lab.yaml"].map(str::to_owned).to_vec(), "/srv/.taskrun/lab".into())
            .unwrap()
    }
}

/// A process of this boot.
pub(super) fn process(pid: u32) -> ProcessId {
    ProcessId { pid, start_time: 1, boot_id: BootId::current().unwrap() }
}
