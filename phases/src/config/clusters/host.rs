//! What a configuration asks of this machine, and whether it has it. None of it makes the file unreadable: what was made
//! must be taken away also where the GPU is gone.

use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use nix::sys::statvfs::statvfs;
use taskrun_engine::graph::Document;
use taskrun_engine::task::Problem;

use super::check::overlap;
use super::nodes::Placed;
use super::normal::hex_id;
use super::{CloudClusterConfig, PassthroughDeviceConfig};
use crate::cluster::{Machine, NetworkMode, PciAddress, Virtualization};
use crate::config::Config;

/// What a disk takes of the host's at least, in GiB.
const SMALLEST_DISK_GIB: u64 = 4;

/// What a qcow2 image begins with.
const QCOW2: [u8; 4] = *b"QFI\xfb";

/// What is looked at of a machine that virtual machines run on.
#[derive(Debug, Clone)]
pub struct HostView {
    /// Its memory, in MiB; nothing if it could not be seen.
    pub memory_mib: Option<u64>,
    /// Its routes, but for the default ones.
    pub routes: Vec<Route>,
    /// Where its sysfs is: `/sys`.
    pub sysfs: PathBuf,
    /// The folder of disks where the configuration names none.
    pub pool: Option<PathBuf>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The network device.
    pub device: String,
    /// Where it leads to.
    pub subnet: Ipv4Net,
    /// Whether another machine passes packets on; else the subnet is this machine's own.
    pub through_gateway: bool,
}

impl HostView {
    /// This machine.
    pub fn of_this_host() -> Self {
        let read = |file| std::fs::read_to_string(file).unwrap_or_default();
        let memory = read("/proc/meminfo");
        let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
        Self {
            memory_mib: memory.and_then(|kib| kib.parse::<u64>().ok()).map(|kib| kib / 1024),
            routes: routes(&read("/proc/net/route")),
            sysfs: PathBuf::from("/sys"),
            pool: None,
        }
    }

    /// With the folder of disks where the configuration names none.
    #[must_use]
    pub fn with_pool(mut self, pool: impl Into<PathBuf>) -> Self {
        self.pool = Some(pool.into());
        self
    }
}

/// Reads `/proc/net/route`; see proc_net(5).
fn routes(table: &str) -> Vec<Route> {
    let each = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let address = |at: usize| {
            let number = u32::from_str_radix(words.get(at)?, 16).ok()?;
            // The bytes stand there as they lie in memory.
            Some(Ipv4Addr::from(number.to_ne_bytes()))
        };
        let subnet = Ipv4Net::with_netmask(address(1)?, address(7)?).ok()?;
        let through_gateway = !address(2)?.is_unspecified();
        let route = Route { device: (*words.first()?).to_owned(), subnet, through_gateway };
        (route.subnet.prefix_len() > 0).then_some(route)
    };
    table.lines().skip(1).filter_map(each).collect()
}

/// What `config`, which was read from `file`, asks of the host and the host has not. Each message begins with the place
/// in the file. Whatever a cluster of given hosts needs is looked for on the hosts themselves.
pub fn host_problems(file: &Path, config: &Config, host: &HostView) -> Vec<Problem> {
    let name = file.display().to_string();
    let document = std::fs::read_to_string(file).ok().and_then(|text| Document::parse(&name, &text).ok());
    let mut found = Found { name, document, problems: Vec::new() };
    let cloud = config.clusters.as_ref().and_then(|clusters| clusters.cloud.as_ref());
    if let Some((cloud, cluster)) = cloud.zip(config.cluster()) {
        let nodes = cloud.placed();
        if let Some(virtualization) = &cluster.virtualization {
            memory(&nodes, host, &mut found);
            disk(&nodes, virtualization, host, &mut found);
            network(cloud, virtualization, host, &mut found);
            devices(&nodes, host, &mut found);
            images(cloud, &mut found);
        }
        for (node, given) in nodes.iter().zip(&cluster.nodes) {
            if let Machine::Given(given) = &given.machine
                && let Some(key) = given.key.as_ref().filter(|key| !key.is_file())
            {
                let message = format!("there is no key {}", key.display());
                found.of(node, &["host", "key"], message, "make one: ssh-keygen -t ed25519 -f FILE");
            }
        }
    }
    found.problems
}

/// The problems found so far.
struct Found {
    name: String,
    document: Option<Document>,
    problems: Vec<Problem>,
}

impl Found {
    fn at(&mut self, path: &[&str], message: impl std::fmt::Display, hint: impl Into<String>) {
        let path: Vec<String> = ["clusters", "cloud"].iter().chain(path).map(|part| (*part).to_owned()).collect();
        let place = self.document.as_ref().map_or_else(|| self.name.clone(), |document| document.place(&path));
        self.problems.push(Problem::new(format!("{place}: {message}"), hint));
    }

    fn of(&mut self, node: &Placed<'_>, path: &[&str], message: impl std::fmt::Display, hint: impl Into<String>) {
        let inside: Vec<&str> = node.path.iter().map(String::as_str).chain(path.iter().copied()).collect();
        self.at(&inside, message, hint);
    }
}

fn memory(nodes: &[Placed<'_>], host: &HostView, found: &mut Found) {
    let Some(there) = host.memory_mib else { return };
    let mut sum = 0;
    for node in nodes {
        let wanted = u64::from(node.node.memory_gb.unwrap_or_default()) * 1024;
        let starts = node.node.auto_start.unwrap_or(true);
        if wanted > there {
            let message = format!("{} needs {wanted} MiB of memory, and this machine has {there}", node.name);
            found.of(node, &["memory_gb"], message, "give it less");
        } else if starts && sum <= there && sum + wanted > there {
            let all = sum + wanted;
            let message =
                format!("the machines up to {} need {all} MiB of memory, and this one has {there}", node.name);
            found.of(node, &["memory_gb"], message, "give them less, or set `auto_start: false` for one");
        }
        sum += if starts { wanted } else { 0 };
    }
}

fn disk(nodes: &[Placed<'_>], virtualization: &Virtualization, host: &HostView, found: &mut Found) {
    let Some(pool) = virtualization.pool.as_ref().or(host.pool.as_ref()) else { return };
    let Some(there) = pool.ancestors().find(|folder| folder.exists()) else { return };
    let Ok(disk) = statvfs(there) else { return };
    let free = disk.blocks_available() * disk.fragment_size() / (1 << 30);
    let files = std::fs::read_dir(pool).into_iter().flatten().flatten();
    let files: Vec<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    // What is there has taken its room already.
    let new = nodes.iter().filter(|node| !files.iter().any(|file| file.starts_with(&node.name)));
    let sizes: Vec<u64> = new.map(|node| u64::from(node.node.disk_gb.unwrap_or_default())).collect();
    let least = sizes.len() as u64 * SMALLEST_DISK_GIB;
    if free < least {
        let most: u64 = sizes.iter().sum();
        let message = format!(
            "{} disks take at least {least} GiB and may grow to {most}, and {} has {free} GiB free",
            sizes.len(),
            there.display()
        );
        found.at(&["storage_pool_path"], message, "make room, or name another folder as `storage_pool_path`");
    }
}

fn network(cloud: &CloudClusterConfig, virtualization: &Virtualization, host: &HostView, found: &mut Found) {
    let network = &virtualization.network;
    let bridge = host.sysfs.join("class/net").join(&network.bridge);
    if network.mode == NetworkMode::Bridge && !bridge.join("bridge").is_dir() {
        let message = format!("there is no bridge {}, and `mode: bridge` makes none", network.bridge);
        found.at(&["network", "bridge"], message, "make it, or take `mode: nat`");
    } else if network.mode == NetworkMode::Nat && bridge.exists() && !bridge.join("bridge").is_dir() {
        let message = format!("{} is a network device, and no bridge", network.bridge);
        found.at(&["network", "bridge"], message, "give the bridge another name");
    }
    let kubernetes = cloud.kubernetes_config.as_ref().and_then(|kubernetes| kubernetes.kubernetes());
    let kubernetes = kubernetes.into_iter().flat_map(|kubernetes| {
        let pods = ("pod_subnet", "the subnet of pods", kubernetes.pod_subnet);
        let services = ("service_subnet", "the subnet of services", kubernetes.service_subnet);
        [pods, services].map(|(field, what, net)| (["kubernetes_config", field], what, net))
    });
    for (path, what, net) in std::iter::once((["network", "subnet"], "the subnet", network.subnet)).chain(kubernetes) {
        // A wider route to elsewhere stays in force for all other addresses.
        let mut in_the_way = host.routes.iter().filter(|route| {
            route.device != network.bridge
                && overlap(&route.subnet, &net)
                && !(route.through_gateway && route.subnet.prefix_len() < net.prefix_len())
        });
        if let Some(route) = in_the_way.next() {
            let message = format!("{what}, {net}, overlaps {}, which {} leads to", route.subnet, route.device);
            found.at(
                &path,
                message,
                format!("choose another one, or take the route away: ip route show {}", route.subnet),
            );
        }
    }
}

fn devices(nodes: &[Placed<'_>], host: &HostView, found: &mut Found) {
    for node in nodes {
        for (at, device) in node.node.devices().iter().enumerate() {
            let Ok(address) = device.pci_address.parse::<PciAddress>() else { continue };
            let at = at.to_string();
            for (field, message) in device_problems(device, address, &host.sysfs) {
                found.of(node, &["pcie_passthrough", "devices", &at, field], message, "see what is there: lspci -Dnn");
            }
        }
    }
}

fn device_problems(device: &PassthroughDeviceConfig, address: PciAddress, sysfs: &Path) -> Vec<(&'static str, String)> {
    let folder = sysfs.join("bus/pci/devices").join(address.to_string());
    if !folder.exists() {
        return vec![("pci_address", format!("this machine has no device {address}"))];
    }
    let id = |file| std::fs::read_to_string(folder.join(file)).ok().map(|text| hex_id(text.trim()));
    let group = std::fs::read_link(folder.join("iommu_group")).ok();
    let group = group.and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()));
    let wanted_group = device.iommu_group.map(|group| group.to_string());
    let compared = [
        ("vendor_id", device.vendor_id.as_deref().map(hex_id), id("vendor")),
        ("device_id", device.device_id.as_deref().map(hex_id), id("device")),
        ("iommu_group", wanted_group, group),
    ];
    let differs = compared.into_iter().filter_map(|(field, wanted, there)| {
        let wanted = wanted?;
        match there {
            Some(there) if there == wanted => None,
            Some(there) => Some((field, format!("{address} has the {field} {there}, not {wanted}"))),
            None => Some((field, format!("{address} has no {field}: is the IOMMU on?"))),
        }
    });
    differs.collect()
}

fn images(cloud: &CloudClusterConfig, found: &mut Found) {
    let source = cloud.image.as_ref().and_then(|image| image.source.as_ref()?.path.as_ref());
    for (path, file) in
        [(&["base_image_path"][..], cloud.base_image_path.as_ref()), (&["image", "source", "path"], source)]
    {
        let Some(file) = file else { continue };
        let mut magic = [0; QCOW2.len()];
        match std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut magic)) {
            Ok(()) if magic == QCOW2 => {}
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                found.at(path, format!("cannot read {}: {error}", file.display()), "name an image that is there");
            }
            _ => {
                let hint = format!("see what it is: qemu-img info {}", file.display());
                found.at(path, format!("{} is no qcow2 image", file.display()), hint);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn routes_are_read_as_the_kernel_writes_them() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     virbr200\t00C8A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                     tun0\t0000000A\t010200C0\t0003\t0\t0\t0\t000000FF\t0\t0\t0\nhalf a line\n";
        let told: Vec<String> = routes(table)
            .iter()
            .map(|route| format!("{} {} {}", route.device, route.subnet, route.through_gateway))
            .collect();
        assert_eq!(told, ["virbr200 192.168.200.0/24 false", "tun0 10.0.0.0/8 true"]);
    }
}
