//! What the types of a cluster cannot say.

mod addresses;
mod devices;
mod nodes;

use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::Ipv4Net;
use taskrun_engine::graph::{Fault, nearest};

pub(super) use self::addresses::overlap;
use super::nodes::Placed;
use super::{CloudClusterConfig, ClustersConfig, HpcClusterConfig, WorkerNodes};

/// The network plugins that are known here.
const NETWORK_PLUGINS: [&str; 3] = ["calico", "cilium", "flannel"];
/// The ingress controllers that are known here.
const INGRESS: [&str; 2] = ["nginx", "none"];
/// The longest name of a network device that Linux takes.
const LONGEST_DEVICE: usize = 15;

/// What was found wrong so far.
struct Told(Vec<Fault>);

impl Told {
    /// Something is wrong with the value at `path` of the cluster.
    fn at(&mut self, path: &[&str], message: impl Into<String>) {
        self.0.push(Fault::new(["clusters", "cloud"].iter().chain(path).copied(), message));
    }

    /// Something is wrong with a node.
    fn of(&mut self, node: &Placed<'_>, path: &[&str], message: impl Into<String>) {
        let inside: Vec<&str> = node.path.iter().map(String::as_str).chain(path.iter().copied()).collect();
        self.at(&inside, message);
    }
}

impl ClustersConfig {
    /// What is wrong with it.
    pub(in crate::config) fn faults(&self) -> Vec<Fault> {
        let mut told = Told(Vec::new());
        if let Some(hpc) = &self.hpc
            && let Some(Err(message)) = hpc.subnet_text().map(subnet)
        {
            told.0.push(Fault::new(["clusters", "hpc", "network", "subnet"], message));
        }
        match (&self.cloud, &self.hpc) {
            (Some(cloud), hpc) => cloud.check(hpc.as_ref(), &mut told),
            (None, None) => told.0.push(Fault::new(["clusters"], "there is no cluster in it: describe `cloud`")),
            (None, Some(_)) => {
                told.0.push(Fault::new(["clusters"], "`cloud` is missing, and `hpc` is not made by this program"));
            }
        }
        told.0
    }

    /// What the user should know of it, though nothing is wrong.
    pub(in crate::config) fn warnings(&self) -> Vec<Fault> {
        let mut told = Told(Vec::new());
        if let Some(cloud) = &self.cloud {
            cloud.warn(&mut told);
        }
        told.0
    }
}

impl CloudClusterConfig {
    fn check(&self, hpc: Option<&HpcClusterConfig>, told: &mut Told) {
        let nodes = self.placed();
        self.check_name(&nodes, hpc, told);
        self.check_places(told);
        nodes::check(self, &nodes, told);
        devices::check(&nodes, told);
        addresses::check(self, &nodes, hpc, told);
        if let Some(network) = &self.network {
            if !is_device(&network.bridge) {
                let what = format!("it is not 1 to {LONGEST_DEVICE} letters, digits, `-`, `_` and `.`");
                told.at(&["network", "bridge"], what);
            }
            if hpc.and_then(HpcClusterConfig::bridge) == Some(&network.bridge) {
                let message = format!("`{}` is the bridge of the cluster `hpc` too", network.bridge);
                told.at(&["network", "bridge"], message);
            }
        }
        self.check_kubernetes(told);
        if let Some(image) = &self.image {
            let faults = image.faults().into_iter().map(|mut fault| {
                fault.path = ["clusters", "cloud", "image"].map(str::to_owned).into_iter().chain(fault.path).collect();
                fault
            });
            told.0.extend(faults);
            let smallest = nodes.iter().filter_map(|node| Some((node.node.disk_gb?, &node.name))).min();
            if let Some((disk, name)) = smallest.filter(|(disk, _)| *disk < image.size_gib) {
                let message = format!("{} GiB are more than the disk of {name} has: {disk} GiB", image.size_gib);
                told.at(&["image", "size_gib"], message);
            }
        }
    }

    fn check_name(&self, nodes: &[Placed<'_>], hpc: Option<&HpcClusterConfig>, told: &mut Told) {
        let longest = nodes.iter().map(|node| &node.name).max_by_key(|name| name.len());
        if !is_label(&self.name) {
            let what = "lower-case letters, digits and `-`, beginning and ending with a letter or digit";
            told.at(&["name"], format!("`{}` is not 1 to 63 {what}", self.name));
        } else if let Some(longest) = longest.filter(|name| name.len() > 63) {
            told.at(&["name"], format!("it is too long: `{longest}`, the name of a node, has more than 63 letters"));
        }
        if hpc.and_then(HpcClusterConfig::name) == Some(&self.name) {
            told.at(&["name"], format!("`{}` is the name of the cluster `hpc` too", self.name));
        }
    }

    fn check_places(&self, told: &mut Told) {
        if let Some(uri) = &self.hypervisor_uri {
            let url = url::Url::parse(uri);
            if !url.as_ref().is_ok_and(|url| url.has_authority()) {
                told.at(&["hypervisor_uri"], "it is not a URI of libvirt such as qemu:///system");
            } else if url.is_ok_and(|url| url.host_str().is_some_and(|host| !host.is_empty())) {
                told.at(&["hypervisor_uri"], "it is another machine's hypervisor: disks and images are on this one");
            }
        }
        for (field, path) in
            [("storage_pool_path", &self.storage_pool_path), ("base_image_path", &self.base_image_path)]
        {
            if path.as_deref().is_some_and(|path| !Path::is_absolute(path)) {
                told.at(&[field], "it is not an absolute path");
            }
        }
        if let Some(hardware) = &self.hardware {
            let model = &hardware.acceleration.cpu_model;
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if model.is_empty() || model.len() > 64 || !model.chars().all(plain) {
                let message = format!("`{model}` is not 1 to 64 letters, digits, `-`, `_` and `.`");
                told.at(&["hardware", "acceleration", "cpu_model"], message);
            }
        }
    }

    fn check_kubernetes(&self, told: &mut Told) {
        let Some(kubernetes) = &self.kubernetes_config else {
            return told.at(&["kubernetes_config"], "missing field `kubernetes_config`");
        };
        for (field, value, known) in
            [("cni", &kubernetes.cni, &NETWORK_PLUGINS[..]), ("ingress", &kubernetes.ingress, &INGRESS[..])]
        {
            if !known.contains(&&**value) {
                let names: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
                told.at(&["kubernetes_config", field], format!("`{value}` is none of {}", names.join(", ")));
                let hint = nearest(value, known.iter().copied()).map(|nearest| format!("did you mean `{nearest}`?"));
                told.0.last_mut().into_iter().for_each(|fault| fault.hint.clone_from(&hint));
            }
        }
        if !is_name(&kubernetes.storage_class) || kubernetes.storage_class != kubernetes.storage_class.to_lowercase() {
            let message = format!("`{}` is not lower-case letters, digits, `-` and `.`", kubernetes.storage_class);
            told.at(&["kubernetes_config", "storage_class"], message);
        }
    }

    fn warn(&self, told: &mut Told) {
        if let WorkerNodes::ByKind(_) = self.worker_nodes {
            let message = "a mapping by kind is read for the sake of older files: write a list; the kind of a worker \
                           follows from its devices";
            told.at(&["worker_nodes"], message);
        }
        if self.network.as_ref().is_some_and(|network| network.dns_mode.is_some()) {
            told.at(&["network", "dns_mode"], "it has no effect: the names of all nodes are known to all nodes");
        }
        let nodes = self.placed();
        for node in nodes.iter().filter(|node| node.node.memory_gb == Some(1)) {
            told.of(node, &["memory_gb"], "Kubespray finds 1 GiB too little: give it 2");
        }
        if nodes.iter().all(|node| node.node.host.is_some()) {
            for (field, there) in [
                ("network", self.network.is_some()),
                ("hardware", self.hardware.is_some()),
                ("hypervisor_uri", self.hypervisor_uri.is_some()),
                ("storage_pool_path", self.storage_pool_path.is_some()),
                ("base_image_path", self.base_image_path.is_some()),
                ("image", self.image.is_some()),
            ] {
                if there {
                    told.at(&[field], format!("`{field}` has no effect: all nodes are given hosts"));
                }
            }
        }
    }
}

/// The subnet that is written, which must begin with its first address.
fn subnet(text: &str) -> Result<Ipv4Net, String> {
    let net: Ipv4Net = text.parse().map_err(|_| format!("`{text}` is no subnet such as 192.168.200.0/24"))?;
    match net.trunc() {
        trunc if trunc == net => Ok(net),
        trunc => Err(format!("`{text}` is an address inside of a subnet: the subnet is {trunc}")),
    }
}

/// The address that is written.
fn address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("`{text}` is no IPv4 address"))
}

/// A name of one word, as RFC 1123 has it, in lower case.
fn is_label(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&name.len())
        && name.starts_with(plain)
        && name.ends_with(plain)
        && name.chars().all(|c| plain(c) || c == '-')
}

/// A name of words with dots between them, in any case.
fn is_name(name: &str) -> bool {
    name.len() <= 253 && name.to_ascii_lowercase().split('.').all(is_label)
}

/// The name of a network device.
fn is_device(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=LONGEST_DEVICE).contains(&name.len()) && name.chars().all(plain) && !name.starts_with(['.', '-'])
}
