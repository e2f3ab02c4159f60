//! What is in an image, as it tells itself: the output of `describe.sh`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use taskrun_engine::outcome::Failure;

/// The oldest kernel that will do.
const KERNEL: (u32, u32) = (6, 12);

/// What every node has.
pub const REQUIRED: [&str; 14] = [
    "cloud-guest-utils",
    "cloud-init",
    "curl",
    "htop",
    "network-manager",
    "openssh-server",
    "prometheus-node-exporter",
    "python3",
    "qemu-guest-agent",
    "sudo",
    "systemd-resolved",
    "vim",
    "wget",
    "ca-certificates",
];

/// What comes with CLOUD-2.1, or with nothing.
const FORBIDDEN: [&str; 13] = [
    "containerd",
    "containerd.io",
    "cri-o",
    "crun",
    "docker-ce",
    "docker.io",
    "kubeadm",
    "kubectl",
    "kubelet",
    "kubernetes-client",
    "lxc",
    "podman",
    "runc",
];

/// What a GPU worker does not have besides; beginnings of names.
const FORBIDDEN_FOR_GPU: [&str; 6] =
    ["nvidia-cuda-toolkit", "cuda-toolkit", "cuda-compiler", "datacenter-gpu-manager", "dcgm", "nvidia-container"];

/// The units that are enabled, and those that are not.
const UNITS: [(&str, bool); 5] = [
    ("NetworkManager", true),
    ("systemd-resolved", true),
    ("ssh", true),
    ("prometheus-node-exporter", false),
    ("systemd-networkd", false),
];

/// What is in an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The operating system: `Debian GNU/Linux 13 (trixie)`.
    pub os: String,
    /// The kernel that machines boot: `6.12.57+deb13-amd64`.
    pub kernel: String,
    /// The kernel that ran while this was told; nothing in a chroot.
    pub running: Option<String>,
    /// What cloud-init said of itself.
    pub cloud_init: Option<String>,
    /// What `/etc/machine-id` held.
    pub machine_id: String,
    /// The fingerprints of the SSH host keys.
    pub host_keys: BTreeSet<String>,
    /// Whether units are enabled, in systemd's words.
    pub units: BTreeMap<String, String>,
    /// The units that failed.
    pub failed: BTreeSet<String>,
    /// Whether nouveau is kept out.
    pub nouveau_blacklisted: bool,
    /// The lines of `dkms status` for the kernel.
    pub dkms: Vec<String>,
    /// The packages that are held.
    pub held: BTreeSet<String>,
    /// Where nvidia-smi is.
    pub nvidia_smi: Option<String>,
    /// The licence of the module `nvidia` for the kernel.
    pub nvidia_license: Option<String>,
    /// The users who are people.
    pub users: BTreeSet<String>,
    /// What the root file system takes, in KiB.
    pub used_kib: u64,
    /// The versions of the installed packages.
    pub packages: BTreeMap<String, String>,
}

impl Description {
    /// Reads what `describe.sh` wrote.
    ///
    /// # Errors
    /// It does not name the kernel or no package: it was cut short.
    pub fn read(text: &str) -> Result<Self, Failure> {
        let mut found = Self::default();
        for line in text.lines() {
            let (word, value) = line.split_once(' ').unwrap_or((line, ""));
            let owned = value.to_owned();
            let pair = || value.split_once(' ').map(|(name, rest)| (name.to_owned(), rest.to_owned()));
            match word {
                "os" => found.os = owned,
                "kernel" => found.kernel = owned,
                "running" => found.running = Some(owned),
                "cloud-init" => found.cloud_init = Some(owned),
                "machine-id" => found.machine_id = owned,
                "host-key" => drop(found.host_keys.insert(owned)),
                "unit" => found.units.extend(pair()),
                "failed" => drop(found.failed.insert(owned)),
                "nouveau" => found.nouveau_blacklisted = value == "blacklisted",
                "dkms" => found.dkms.push(owned),
                "held" => drop(found.held.insert(owned)),
                "nvidia-smi" => found.nvidia_smi = Some(owned),
                "nvidia-license" => found.nvidia_license = Some(owned),
                "user" => drop(found.users.insert(owned)),
                "used-kib" => found.used_kib = value.parse().unwrap_or(0),
                "package" => found.packages.extend(pair()),
                _ => {}
            }
        }
        if found.kernel.is_empty() || found.packages.is_empty() {
            return Err(Failure::permanent("read what the image tells of itself: it ends too early"));
        }
        Ok(found)
    }

    /// The version of the NVIDIA driver, by dkms.
    pub fn driver(&self) -> Option<String> {
        let line = self.dkms.iter().find(|line| line.starts_with("nvidia"))?;
        Some(line.split(['/', ',']).nth(1)?.trim().to_owned())
    }

    /// What is wrong with it as the base of every node.
    pub fn faults_of_base(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if version(&self.kernel) < KERNEL {
            faults.push(format!("its kernel {} is older than {}.{}", self.kernel, KERNEL.0, KERNEL.1));
        }
        if self.running.as_ref().is_some_and(|running| *running != self.kernel) {
            let running = self.running.as_deref().unwrap_or_default();
            faults.push(format!("it boots the kernel {running}, not {}", self.kernel));
        }
        let has = |name: &str| self.packages.contains_key(name);
        faults.extend(REQUIRED.iter().filter(|name| !has(name)).map(|name| format!("it lacks {name}")));
        faults.extend(FORBIDDEN.iter().filter(|name| has(name)).map(|name| format!("it has {name}")));
        for (unit, enabled) in UNITS {
            let said = self.units.get(unit).map_or("", String::as_str);
            if (said == "enabled") != enabled {
                faults.push(format!("{unit} is {}", if said.is_empty() { "not there" } else { said }));
            }
        }
        faults
    }

    /// What is wrong with it as the base of a GPU worker, but for what [`faults_of_base`](Self::faults_of_base) finds.
    pub fn faults_of_driver(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.nvidia_smi.is_none() {
            faults.push("it lacks nvidia-smi".to_owned());
        }
        if !self.nouveau_blacklisted {
            faults.push("nouveau is not blacklisted".to_owned());
        }
        let built =
            |line: &String| line.starts_with("nvidia") && line.contains(&self.kernel) && line.ends_with("installed");
        if !self.dkms.iter().any(built) {
            faults.push(format!("dkms has no nvidia module for {}: {}", self.kernel, self.dkms.join("; ")));
        }
        if self.nvidia_license.is_none() {
            faults.push(format!("the kernel {} finds no module nvidia", self.kernel));
        }
        if !self.held.contains(&format!("linux-image-{}", self.kernel)) {
            faults.push(format!("the kernel {} is not held", self.kernel));
        }
        let forbidden = |name: &&String| FORBIDDEN_FOR_GPU.iter().any(|start| name.starts_with(start));
        faults.extend(self.packages.keys().filter(forbidden).map(|name| format!("it has {name}")));
        faults
    }
}

/// The first two numbers of a version.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// What two clones of an image must not share but do, and what is wrong with either.
pub fn faults_of_clones(clones: &[Description]) -> Vec<String> {
    let mut faults = Vec::new();
    for (at, clone) in clones.iter().enumerate() {
        let number = at + 1;
        if clone.machine_id.len() != 32 {
            faults.push(format!("clone {number} has the machine id `{}`", clone.machine_id));
        }
        if clone.host_keys.is_empty() {
            faults.push(format!("clone {number} has no SSH host keys"));
        }
        match clone.cloud_init.as_deref() {
            Some("done") => {}
            said => faults.push(format!("on clone {number} cloud-init says `{}`", said.unwrap_or("nothing"))),
        }
        for other in &clones[..at] {
            if other.machine_id == clone.machine_id {
                faults.push(format!("clones share the machine id {}", clone.machine_id));
            }
            let shared = other.host_keys.intersection(&clone.host_keys);
            faults.extend(shared.map(|key| format!("clones share the SSH host key {key}")));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Description {
        let mut text =
            "os Debian GNU/Linux 13 (trixie)\nkernel 6.12.57+deb13-amd64\nrunning 6.12.57+deb13-amd64\n".to_owned();
        text.push_str("machine-id 0123456789abcdef0123456789abcdef\nhost-key SHA256:a\nhost-key SHA256:b\n");
        text.push_str("cloud-init done\nused-kib 7\nuser build\n");
        for (unit, enabled) in UNITS {
            text.push_str(&format!("unit {unit} {}\n", if enabled { "enabled" } else { "disabled" }));
        }
        for package in REQUIRED {
            text.push_str(&format!("package {package} 1:2-3\n"));
        }
        Description::read(&text).unwrap()
    }

    fn gpu() -> Description {
        let kernel = base().kernel;
        Description {
            nouveau_blacklisted: true,
            dkms: vec![format!("nvidia-current-open/550.163.01, {kernel}, x86_64: installed")],
            held: [format!("linux-image-{kernel}")].into(),
            nvidia_smi: Some("/usr/bin/nvidia-smi".to_owned()),
            nvidia_license: Some("Dual MIT/GPL".to_owned()),
            ..base()
        }
    }

    #[test]
    fn an_image_as_it_should_be_has_no_faults() {
        assert_eq!(base().faults_of_base(), [""; 0]);
        assert_eq!(gpu().faults_of_driver(), [""; 0]);
        assert_eq!(gpu().driver().as_deref(), Some("550.163.01"));
        assert_eq!(base().packages["wget"], "1:2-3");
    }

    #[test]
    fn each_fault_of_an_image_is_told() {
        let mut found = base();
        found.kernel = "6.1.0-42-amd64".to_owned();
        found.packages.remove("wget");
        found.packages.insert("containerd".to_owned(), "1".to_owned());
        found.units.insert("prometheus-node-exporter".to_owned(), "enabled".to_owned());
        found.units.remove("ssh");
        let told = found.faults_of_base().join("\n");
        insta::assert_snapshot!(told, @r"
        its kernel 6.1.0-42-amd64 is older than 6.12
        it boots the kernel 6.12.57+deb13-amd64, not 6.1.0-42-amd64
        it lacks wget
        it has containerd
        ssh is not there
        prometheus-node-exporter is enabled
        ");
    }

    #[test]
    fn each_fault_of_a_driver_is_told() {
        let other = "nvidia-current/550.163.01, 6.18.0-amd64, x86_64: installed".to_owned();
        let found = Description {
            dkms: vec![other],
            packages: [("nvidia-cuda-toolkit".to_owned(), "12".to_owned())].into(),
            ..base()
        };
        insta::assert_snapshot!(found.faults_of_driver().join("\n"), @r"
        it lacks nvidia-smi
        nouveau is not blacklisted
        dkms has no nvidia module for 6.12.57+deb13-amd64: nvidia-current/550.163.01, 6.18.0-amd64, x86_64: installed
        the kernel 6.12.57+deb13-amd64 finds no module nvidia
        the kernel 6.12.57+deb13-amd64 is not held
        it has nvidia-cuda-toolkit
        ");
    }

    #[test]
    fn clones_share_nothing_that_tells_who_they_are() {
        let other = Description { machine_id: "f".repeat(32), host_keys: ["SHA256:c".to_owned()].into(), ..base() };
        assert_eq!(faults_of_clones(&[base(), other.clone()]), [""; 0]);
        assert_eq!(faults_of_clones(&[base(), base()]).len(), 3);
        let blank = Description { machine_id: String::new(), host_keys: BTreeSet::new(), cloud_init: None, ..base() };
        assert_eq!(faults_of_clones(&[other, blank]).len(), 3);
    }

    #[test]
    fn what_is_cut_short_is_no_description() {
        assert!(Description::read("os Debian\nkernel 6.12\n").is_err());
        assert!(Description::read("").is_err());
    }
}
