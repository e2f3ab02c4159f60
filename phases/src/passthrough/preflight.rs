//! What stands in the way of giving devices to virtual machines, told before anything starts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use taskrun_engine::task::Problem;

use super::group::{GroupError, NO_IOMMU_HINT, whole_group};
use super::names::Names;
use super::sysfs::{PciDevice, Sysfs, SysfsError};
use crate::cluster::{Cluster, DeviceKind, Passthrough, PciAddress};

/// A machine that gets devices.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The node.
    pub node: &'a str,
    /// What it gets.
    pub devices: &'a [Passthrough],
    /// Whether it is started with the cluster.
    pub auto_start: bool,
}

impl<'a> Candidate<'a> {
    /// The virtual machines of a cluster that get devices.
    pub fn of(cluster: &'a Cluster) -> Vec<Self> {
        let machines = cluster.virtual_machines().filter(|(_, machine)| !machine.devices.is_empty());
        let candidate = |(node, machine): (&'a crate::cluster::Node, &'a crate::cluster::VirtualMachine)| Self {
            node: &node.name,
            devices: &machine.devices,
            auto_start: machine.auto_start,
        };
        machines.map(candidate).collect()
    }
}

/// Everything that stands in the way, on the host that `sysfs` tells of.
pub fn problems(sysfs: &Sysfs, machines: &[Candidate]) -> Vec<Problem> {
    let machines: Vec<&Candidate> = machines.iter().filter(|machine| !machine.devices.is_empty()).collect();
    if machines.is_empty() {
        return Vec::new();
    }
    let iommu = sysfs.iommu_enabled();
    let names = Names::of(sysfs);
    let mut problems = host(sysfs, iommu);
    for machine in &machines {
        for device in machine.devices {
            match one(sysfs, &names, machine.node, device) {
                Ok(found) => problems.extend(found),
                Err(error) => problems.push(unreadable(&error)),
            }
        }
        if iommu {
            problems.extend(group(sysfs, machine));
        }
    }
    problems.extend(shared(sysfs, &machines));
    let mut seen = BTreeSet::new();
    problems.retain(|problem| seen.insert(problem.message.clone()));
    problems
}

/// What concerns all devices.
fn host(sysfs: &Sysfs, iommu: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !iommu {
        problems
            .push(Problem::new("the kernel uses no IOMMU: no device can be given to a virtual machine", NO_IOMMU_HINT));
    }
    if !sysfs.has_module("vfio-pci") {
        problems.push(Problem::new(
            "the kernel has no module vfio-pci, which gives devices to virtual machines",
            "run a kernel that has it, such as Debian's linux-image-amd64, then: modprobe vfio-pci",
        ));
    }
    problems
}

/// What concerns one device of the node `node`.
fn one(sysfs: &Sysfs, names: &Names, node: &str, wanted: &Passthrough) -> Result<Vec<Problem>, SysfsError> {
    let address = wanted.address;
    let Some(device) = sysfs.device(address)? else {
        return Ok(vec![absent(sysfs, node, wanted)?]);
    };
    let name = names.of_device(&device);
    let mut problems = Vec::new();
    let ids = [("vendor_id", &wanted.vendor_id, device.vendor), ("device_id", &wanted.device_id, device.device)];
    for (field, said, is) in ids {
        if let Some(said) = said.as_ref().filter(|said| id(said) != Some(is)) {
            problems.push(Problem::new(
                format!("{address} of {node} has the {field} {is:04x}, not {said}: it is {name}"),
                format!("set `{field}: \"{is:04x}\"` if that is the device, else correct `pci_address`: lspci -Dnn"),
            ));
        }
    }
    if wanted.kind == DeviceKind::Gpu && !device.is_gpu() {
        problems.push(Problem::new(
            format!("{address} of {node} is said to be a GPU and is {name}"),
            "correct `pci_address` or `device_type`: lspci -Dnn",
        ));
    }
    if device.is_bridge() {
        problems.push(Problem::new(
            format!("{address} of {node} is a bridge, which cannot be passed: {name}"),
            "take it out of `pcie_passthrough.devices`; bridges need not be passed",
        ));
    }
    if let (Some(said), Some(is)) = (wanted.iommu_group, device.iommu_group)
        && said != is
    {
        problems.push(Problem::new(
            format!("{address} of {node} is in IOMMU group {is}, not {said}"),
            format!("set `iommu_group: {is}`, or leave it out: it may change when cards or firmware do"),
        ));
    }
    problems.extend(driver(sysfs, node, &device, &name));
    Ok(problems)
}

/// A device is not there; perhaps it was moved.
fn absent(sysfs: &Sysfs, node: &str, wanted: &Passthrough) -> Result<Problem, SysfsError> {
    let message = format!("there is no PCI device {} for {node}", wanted.address);
    let is = |said: &Option<String>| said.as_deref().and_then(id);
    let (Some(vendor), Some(model)) = (is(&wanted.vendor_id), is(&wanted.device_id)) else {
        return Ok(Problem::new(message, "see which there are: lspci -Dnn"));
    };
    let like = sysfs.devices()?.into_iter().filter(|device| (device.vendor, device.device) == (vendor, model));
    let like: Vec<String> = like.map(|device| device.address.to_string()).collect();
    Ok(match like.is_empty() {
        true => Problem::new(message, "see which there are, and whether the card is seated: lspci -Dnn"),
        false => Problem::new(message, format!("such a device is at {}: correct `pci_address`", like.join(", "))),
    })
}

/// What concerns the driver that a device is bound to. libvirt binds it to vfio-pci when the machine starts, and back
/// afterwards; that fails, or hangs, where the host uses it.
fn driver(sysfs: &Sysfs, node: &str, device: &PciDevice, name: &str) -> Option<Problem> {
    let address = device.address;
    let driver = device.driver.as_deref().filter(|driver| *driver != "vfio-pci")?;
    if device.boot_vga {
        return Some(Problem::new(
            format!("{address} of {node} is the display of this host, held by the driver {driver}: {name}"),
            format!(
                "let the host use another GPU for its display (firmware setup: primary display), or bind this one to \
                 vfio-pci before any driver: `vfio-pci.ids={:04x}:{:04x}` on the kernel command line",
                device.vendor, device.device
            ),
        ));
    }
    let users = if driver == "nvidia" { nvidia_users(sysfs, address) } else { Vec::new() };
    if users.is_empty() {
        return None;
    }
    let daemon = users.iter().any(|user| user.starts_with("nvidia-persiste"));
    let hint = match daemon {
        true => "stop what uses it, and the persistence daemon: systemctl stop nvidia-persistenced",
        false => "stop what uses it: nvidia-smi names it",
    };
    Some(Problem::new(format!("{address} of {node} is in use on this host by {}: {name}", users.join(", ")), hint))
}

/// The processes that have the NVIDIA GPU at `address` open, as far as this user may see; each as `name (pid 1)`.
fn nvidia_users(sysfs: &Sysfs, address: PciAddress) -> Vec<String> {
    let about = sysfs.path(format!("proc/driver/nvidia/gpus/{address}/information"));
    let about = fs::read_to_string(about).unwrap_or_default();
    let minor = about.lines().find_map(|line| line.strip_prefix("Device Minor:")?.trim().parse::<u32>().ok());
    let Some(minor) = minor else { return Vec::new() };
    let file = format!("/dev/nvidia{minor}");
    let processes = fs::read_dir(sysfs.path("proc")).into_iter().flatten().flatten();
    let uses = |process: &fs::DirEntry| {
        let open = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        open.into_iter().any(|open| fs::read_link(open.path()).is_ok_and(|path| path.as_os_str() == file.as_str()))
    };
    let mut users: Vec<(u32, String)> = processes
        .filter_map(|process| Some((process.file_name().to_str()?.parse().ok()?, process)))
        .filter(|(_, process)| uses(process))
        .map(|(pid, process)| (pid, fs::read_to_string(process.path().join("comm")).unwrap_or_default()))
        .collect();
    users.sort_unstable();
    users.into_iter().map(|(pid, name)| format!("{} (pid {pid})", name.trim())).collect()
}

/// What concerns the groups of a machine's devices. Devices that are not there are told elsewhere.
fn group(sysfs: &Sysfs, machine: &Candidate) -> Option<Problem> {
    match whole_group(sysfs, machine.devices) {
        Ok(_) | Err(GroupError::Absent { .. }) => None,
        Err(error) => {
            let hint = error.hint();
            match error {
                GroupError::Read(error) => Some(unreadable(&error)),
                error => Some(Problem::new(format!("{error}, so it cannot go to {}", machine.node), hint)),
            }
        }
    }
}

/// What two machines that are started with the cluster both get: a device, or parts of a group.
fn shared(sysfs: &Sysfs, machines: &[&Candidate]) -> Vec<Problem> {
    let mut nodes: BTreeMap<PciAddress, Vec<&str>> = BTreeMap::new();
    let mut groups: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
    for machine in machines.iter().filter(|machine| machine.auto_start) {
        for device in machine.devices {
            let nodes = nodes.entry(device.address).or_default();
            if !nodes.contains(&machine.node) {
                nodes.push(machine.node);
            }
            if let Ok(Some(PciDevice { iommu_group: Some(group), .. })) = sysfs.device(device.address) {
                groups.entry(group).or_default().insert(machine.node);
            }
        }
    }
    let hint = "set `auto_start: false` for all but one of them, and start them in turn: taskrun vm start NODE";
    let both: BTreeSet<BTreeSet<&str>> = nodes.values().map(|nodes| nodes.iter().copied().collect()).collect();
    let devices = nodes.into_iter().filter(|(_, nodes)| nodes.len() > 1).map(|(address, nodes)| {
        let nodes = nodes.join(" and ");
        Problem::new(format!("{address} is given to {nodes}, which are both started with the cluster"), hint)
    });
    // A device that several get is told; here are those whose devices only share a group.
    let groups = groups.into_iter().filter(|(_, nodes)| nodes.len() > 1 && !both.contains(nodes));
    let groups = groups.map(|(group, nodes)| {
        let nodes = nodes.into_iter().collect::<Vec<_>>().join(" and ");
        let message = format!("devices of IOMMU group {group} are given to {nodes}; a group goes to one machine");
        Problem::new(message, "give all of them to one machine")
    });
    devices.chain(groups).collect()
}

fn unreadable(error: &SysfsError) -> Problem {
    Problem::new(format!("{error}: {}", error.source), "let this user read /sys")
}

/// The number that an id means: `10de`, `0x10DE`.
fn id(text: &str) -> Option<u16> {
    let text = text.trim();
    let digits = text.strip_prefix("0x").or(text.strip_prefix("0X")).unwrap_or(text);
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests;
