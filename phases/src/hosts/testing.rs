//! A host for the tests of this module.

use super::{Facts, Host};
use crate::cluster::Role;
use crate::tools::ssh::SshTarget;

/// What a host with everything answers.
pub(crate) const ANSWER: &str = "\
facts=1
sudo=yes
os=debian 13
kernel=6.12.57+deb13-amd64
architecture=x86_64
host_name=one
machine_id=0123456789abcdef0123456789abcdef
reached_at=10.0.0.2
address=10.0.0.2
address=fd00::2
cpus=4
memory_kib=8388608
free_kib=/ 52428800
free_kib=/var 20971520
swap=/dev/sda3
python=3.13.5
apt=yes
cgroup=cgroup2fs
systemd=running
listening=10250 kubelet
listening=2379 
present=containerd
time_sync=systemd-timesyncd
gpu=0000:65:00.0 0x2684 nvidia
gpu=0000:66:00.0 0x2684 
nvidia_module=NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15
nvidia_smi=570.86.15, GPU-1, NVIDIA GeForce RTX 4090
dkms=nvidia/570.86.15, 6.12.57+deb13-amd64, x86_64: installed
clock=1000.2 1000.9
end=yes
";

/// The facts of a host that is fit.
pub(crate) fn facts() -> Facts {
    let answer: String = ANSWER
        .lines()
        .filter(|line| !["swap=", "listening=", "present="].iter().any(|name| line.starts_with(name)))
        .map(|line| format!("{line}\n"))
        .collect();
    Facts::parse(&answer, 1000.0, 1001.0).unwrap()
}

/// A host.
pub(crate) fn host(name: &str, role: Role) -> Host {
    let target = SshTarget {
        address: "10.0.0.2".to_owned(),
        port: 22,
        user: "admin".to_owned(),
        key: None,
        known_hosts: "/nonexistent/known_hosts".into(),
    };
    Host { name: name.to_owned(), role, target, internal_address: None }
}
