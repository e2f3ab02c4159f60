//! What must be put right on given hosts before a cluster is made of them.

use std::collections::BTreeMap;

use taskrun_engine::task::Problem;

use super::{Asked, Facts, FactsError, Host, Sudo};
use crate::cluster::Role;

/// The least versions.
const DEBIAN: f64 = 12.0;
const UBUNTU: f64 = 22.04;
const PYTHON: (u32, u32) = (3, 8);

/// By how much clocks may differ, in seconds: certificates and logs want no more.
const CLOCK_SECONDS: f64 = 2.0;

/// The least that Kubernetes wants, in MiB. A machine of so many GiB has a little less for its programs.
const CONTROL_PLANE_MEMORY_MIB: u64 = 2 * 1024;
const WORKER_MEMORY_MIB: u64 = 1024;
const KERNEL_TAKES_PERCENT: u64 = 10;
const VAR_FREE_MIB: u64 = 10 * 1024;
const ROOT_FREE_MIB: u64 = 1024;

/// The problems of all hosts, each named. `owner` is what the mark of this cluster on its hosts says: what is there of
/// Kubernetes then is its own.
pub fn problems(owner: &str, asked: &[Asked]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (host, answer) in asked {
        match answer {
            Ok(facts) => {
                let mut about = About { host, facts, problems: &mut problems };
                about.system();
                about.root();
                about.size();
                about.clock();
                about.others(owner);
                about.gpu();
            }
            Err(error) => problems.push(unknown(host, error)),
        }
    }
    twins(asked, &mut problems);
    problems
}

/// A host that did not answer, or not clearly.
fn unknown(host: &Host, error: &FactsError) -> Problem {
    match error {
        FactsError::Ssh(error) => Problem { message: format!("{}: {error}", host.name), hint: error.hint() },
        FactsError::Unclear(_) => {
            let hint = format!(
                "see that the shell of {} writes nothing of its own: ssh {} true",
                host.target.user,
                host.target.login()
            );
            Problem::new(format!("{}: {error}", host.title()), hint)
        }
    }
}

/// A host, and where what is wrong with it goes.
struct About<'a> {
    host: &'a Host,
    facts: &'a Facts,
    problems: &'a mut Vec<Problem>,
}

impl About<'_> {
    fn wrong(&mut self, what: impl AsRef<str>, hint: impl Into<String>) {
        self.problems.push(Problem::new(format!("{}: {}", self.host.title(), what.as_ref()), hint));
    }

    fn system(&mut self) {
        let facts = self.facts;
        // What has no version is not released yet, and newer than any.
        let version = facts.os_version.parse().unwrap_or(f64::MAX);
        let fit = match &*facts.os {
            "debian" => version >= DEBIAN,
            "ubuntu" => version >= UBUNTU,
            _ => false,
        };
        if !fit {
            self.wrong(format!("it runs {}", facts.system()), "install Debian 12 or newer, or Ubuntu 22.04 or newer");
        }
        if facts.systemd.is_none() {
            self.wrong("it is not run by systemd", "boot it with systemd: services of Kubernetes are its units");
        }
        if !facts.apt {
            self.wrong("it has no `apt-get`", "install Debian or Ubuntu in the ordinary way");
        }
        match facts.python.as_deref().map(|version| (version, python(version))) {
            // It is installed with the base packages.
            None => {}
            Some((_, Some(version))) if version >= PYTHON => {}
            Some((version, _)) => {
                self.wrong(
                    format!("its python3 is {version}"),
                    format!("install Python {}.{} or newer", PYTHON.0, PYTHON.1),
                );
            }
        }
        if facts.machine_id.len() != 32 {
            self.wrong("it has no machine-id", "make one there: systemd-machine-id-setup");
        }
    }

    fn root(&mut self) {
        let user = self.host.target.user.clone();
        match self.facts.sudo {
            Sudo::Root | Sudo::Free => {}
            Sudo::Refused => self.wrong(
                format!("{user} may not use sudo without a password"),
                format!("allow it there: echo '{user} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/{user}"),
            ),
            Sudo::Missing => self.wrong(
                format!("{user} is not root, and there is no sudo"),
                "install it there (apt-get install sudo), or log in as root",
            ),
        }
    }

    fn size(&mut self) {
        let facts = self.facts;
        let (cpus, memory) = match self.host.role {
            Role::ControlPlane => (2, CONTROL_PLANE_MEMORY_MIB),
            Role::CpuWorker | Role::GpuWorker => (1, WORKER_MEMORY_MIB),
        };
        if facts.cpus < cpus {
            self.wrong(format!("it has {} processor, {cpus} are needed", facts.cpus), "give it more, or take another");
        }
        if facts.memory_mib < memory * (100 - KERNEL_TAKES_PERCENT) / 100 {
            self.wrong(
                format!("it has {} MiB of memory, {memory} are needed", facts.memory_mib),
                "give it more, or take another",
            );
        }
        for (folder, needed) in [("/", ROOT_FREE_MIB), ("/var", VAR_FREE_MIB)] {
            if let Some(free) = facts.free_mib.get(folder).filter(|free| **free < needed) {
                self.wrong(format!("{folder} has {free} MiB free, {needed} are needed"), "make room there");
            }
        }
        if !facts.swap.is_empty() {
            let hint =
                "turn it off there (swapoff -a), and take it out of /etc/fstab: the kubelet does not start with it";
            self.wrong(format!("it swaps to {}", facts.swap.join(" and ")), hint);
        }
    }

    fn clock(&mut self) {
        let ahead = self.facts.clock_ahead;
        if ahead.abs() > CLOCK_SECONDS {
            let way = if ahead > 0.0 { "ahead of" } else { "behind" };
            self.wrong(
                format!("its clock is {:.1} s {way} this machine's", ahead.abs()),
                "keep both right: timedatectl set-ntp true, or apt-get install chrony; see timedatectl status",
            );
        }
    }

    /// What others did with the host.
    fn others(&mut self, owner: &str) {
        let facts = self.facts;
        match &facts.owner {
            Some(found) if found == owner => return,
            Some(found) => {
                self.wrong(
                    format!("it belongs to another cluster already: {found}"),
                    "take it out of that one (taskrun destroy, there), or take another host",
                );
                return;
            }
            None => {}
        }
        let taken: Vec<String> = facts
            .listening
            .iter()
            .map(|(port, who)| if who.is_empty() { port.to_string() } else { format!("{port} ({who})") })
            .collect();
        if !taken.is_empty() {
            let hint = "stop who has them: ss -ltnp tells who that is";
            self.wrong(format!("ports that Kubernetes needs are taken: {}", taken.join(", ")), hint);
        }
        if !facts.present.is_empty() {
            let hint = "remove it, or take a fresh host: the cluster brings its own, of versions that fit together";
            self.wrong(format!("there is {} already", facts.present.join(" and ")), hint);
        }
    }

    fn gpu(&mut self) {
        if self.host.role != Role::GpuWorker {
            return;
        }
        let facts = self.facts;
        if facts.gpus.is_empty() {
            let hint = "correct the configuration (`gpu: false`), or the hardware: lspci -d 10de:";
            return self.wrong("it has no NVIDIA GPU", hint);
        }
        if facts.nouveau {
            let hint = "keep it out there: echo 'blacklist nouveau' >/etc/modprobe.d/nouveau.conf; update-initramfs -u; reboot";
            self.wrong("the module nouveau has the GPU", hint);
        }
        let hint = "install the driver there: apt-get install nvidia-driver (non-free), and reboot";
        match &facts.nvidia_smi {
            Some(Ok(_)) => {}
            Some(Err(said)) => self.wrong(format!("nvidia-smi does not work: {said}"), hint),
            None => self.wrong("it has no NVIDIA driver", hint),
        }
    }
}

/// Hosts that are one machine, or look like it.
fn twins(asked: &[Asked], problems: &mut Vec<Problem>) {
    let known = || asked.iter().filter_map(|(host, answer)| Some((host, answer.as_ref().ok()?)));
    let mut shared = |what: &str, value_of: fn(&Facts) -> &str, hint: &str| {
        let mut hosts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (host, facts) in known().filter(|(_, facts)| !value_of(facts).is_empty()) {
            hosts.entry(value_of(facts)).or_default().push(host.title());
        }
        for (value, hosts) in hosts.into_iter().filter(|(_, hosts)| hosts.len() > 1) {
            problems.push(Problem::new(format!("{} have one {what}: {value}", hosts.join(" and ")), hint));
        }
    };
    shared(
        "machine-id",
        |facts| &facts.machine_id,
        "if they are copies of one disk, give one its own: rm /etc/machine-id; systemd-machine-id-setup; reboot. If it is one \
         machine by two addresses, take one out",
    );
    shared("host name", |facts| &facts.host_name, "rename one: hostnamectl set-hostname NAME");
}

fn python(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, host};
    use super::super::{GpuDevice, Sudo};
    use super::*;

    const OWNER: &str = "ai on workstation:/srv/state";

    fn told(role: Role, change: impl FnOnce(&mut Facts)) -> Vec<String> {
        let mut facts = facts();
        change(&mut facts);
        problems(OWNER, &[(host("node", role), Ok(facts))]).into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn a_fit_host_has_none() {
        for role in [Role::ControlPlane, Role::CpuWorker, Role::GpuWorker] {
            assert_eq!(told(role, |_| {}), [] as [String; 0]);
        }
        assert_eq!(told(Role::CpuWorker, |facts| facts.os_version.clear()), [] as [String; 0]);
        assert_eq!(told(Role::CpuWorker, |facts| facts.python = None), [] as [String; 0]);
        assert_eq!(told(Role::CpuWorker, |facts| facts.gpus.clear()), [] as [String; 0]);
    }

    #[test]
    fn each_fault_is_told_with_the_host() {
        let control = Role::ControlPlane;
        type Case = (Role, fn(&mut Facts), &'static str);
        let cases: Vec<Case> = vec![
            (control, |facts| facts.os_version = "11".into(), "it runs debian 11"),
            (control, |facts| (facts.os, facts.os_version) = ("ubuntu".into(), "20.04".into()), "it runs ubuntu 20.04"),
            (control, |facts| (facts.os, facts.os_version) = ("fedora".into(), "44".into()), "it runs fedora 44"),
            (control, |facts| facts.systemd = None, "it is not run by systemd"),
            (control, |facts| facts.apt = false, "it has no `apt-get`"),
            (control, |facts| facts.python = Some("3.7.3".into()), "its python3 is 3.7.3"),
            (control, |facts| facts.python = Some("2".into()), "its python3 is 2"),
            (control, |facts| facts.machine_id.clear(), "it has no machine-id"),
            (control, |facts| facts.sudo = Sudo::Refused, "admin may not use sudo without a password"),
            (control, |facts| facts.sudo = Sudo::Missing, "admin is not root, and there is no sudo"),
            (control, |facts| facts.cpus = 1, "it has 1 processor, 2 are needed"),
            (control, |facts| facts.memory_mib = 1800, "it has 1800 MiB of memory, 2048 are needed"),
            (Role::CpuWorker, |facts| facts.memory_mib = 512, "it has 512 MiB of memory, 1024 are needed"),
            (
                Role::CpuWorker,
                |facts| facts.free_mib = [("/var".into(), 9000)].into(),
                "/var has 9000 MiB free, 10240 are needed",
            ),
            (Role::CpuWorker, |facts| facts.swap = vec!["/dev/sda3".into()], "it swaps to /dev/sda3"),
            (control, |facts| facts.clock_ahead = -2.5, "its clock is 2.5 s behind this machine's"),
            (control, |facts| facts.clock_ahead = 61.25, "its clock is 61.2 s ahead of this machine's"),
            (
                control,
                |facts| facts.listening = [(6443, "haproxy".into()), (2379, String::new())].into(),
                "ports that Kubernetes needs are taken: 2379, 6443 (haproxy)",
            ),
            (control, |facts| facts.present = vec!["kubelet".into()], "there is kubelet already"),
            (
                control,
                |facts| facts.owner = Some("other on laptop:/state".into()),
                "it belongs to another cluster already: other on laptop:/state",
            ),
            (Role::GpuWorker, |facts| facts.gpus.clear(), "it has no NVIDIA GPU"),
            (Role::GpuWorker, |facts| facts.nvidia_smi = None, "it has no NVIDIA driver"),
            (
                Role::GpuWorker,
                |facts| facts.nvidia_smi = Some(Err("couldn't communicate".into())),
                "nvidia-smi does not work: couldn't communicate",
            ),
            (Role::GpuWorker, |facts| facts.nouveau = true, "the module nouveau has the GPU"),
        ];
        for (role, change, message) in cases {
            assert_eq!(told(role, change), [format!("node (10.0.0.2): {message}")]);
        }
    }

    #[test]
    fn what_is_there_of_the_own_cluster_is_no_problem() {
        let own = |facts: &mut Facts| {
            facts.owner = Some(OWNER.to_owned());
            facts.listening = [(6443, "kube-apiserver".to_owned())].into();
            facts.present = vec!["kubelet".to_owned()];
        };
        assert_eq!(told(Role::ControlPlane, own), [] as [String; 0]);
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let (mut first, mut second) = (facts(), facts());
        first.swap = vec!["/swap".to_owned()];
        second.swap = vec!["/swap".to_owned()];
        second.sudo = Sudo::Refused;
        let refused = FactsError::Ssh(host("three", Role::CpuWorker).target.unclear());
        let asked = [
            (host("one", Role::ControlPlane), Ok(first)),
            (host("two", Role::CpuWorker), Ok(second)),
            (host("three", Role::CpuWorker), Err(refused)),
        ];
        let told: Vec<String> = problems(OWNER, &asked).into_iter().map(|problem| problem.message).collect();
        let expected = [
            "one (10.0.0.2): it swaps",
            "two (10.0.0.2): admin may not",
            "two (10.0.0.2): it swaps",
            "three: run a script",
            "one (10.0.0.2) and two (10.0.0.2) have one machine-id",
            "one (10.0.0.2) and two (10.0.0.2) have one host name",
        ];
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        for (told, begins) in told.iter().zip(expected) {
            assert!(told.starts_with(begins), "{told}");
        }
    }

    #[test]
    fn a_gpu_is_found_by_its_device() {
        let device = GpuDevice { address: "0000:65:00.0".to_owned(), device_id: "0x2684".to_owned(), driver: None };
        let found = told(Role::GpuWorker, |facts| {
            facts.gpus = vec![device];
            facts.nvidia_smi = None;
        });
        assert_eq!(found, ["node (10.0.0.2): it has no NVIDIA driver"]);
    }
}
