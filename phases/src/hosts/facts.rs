//! What a host tells of itself, in one call.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use taskrun_engine::context::View;
use taskrun_engine::outcome::Failure;

use super::Host;
use crate::tools::ssh::{Script, SshError};

/// The script that a host is asked by.
const SCRIPT: &str = include_str!("../../assets/hosts/facts.sh");

/// How long a host may take to answer.
const TIMEOUT: Duration = Duration::from_secs(18);

/// What a host is.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Its operating system, as `/etc/os-release` calls it: `debian`.
    pub os: String,
    /// The version of that: `13`; empty for an unreleased one.
    pub os_version: String,
    /// The release of its kernel.
    pub kernel: String,
    /// The processor architecture: `x86_64`.
    pub architecture: String,
    /// Its own host name.
    pub host_name: String,
    /// The content of `/etc/machine-id`; empty if there is none.
    pub machine_id: String,
    /// Its address as the SSH server sees it.
    pub reached_at: Option<IpAddr>,
    /// Its IPv4 addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// Processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// What is free for others than root on `/` and in `/var`, in MiB.
    pub free_mib: BTreeMap<String, u64>,
    /// What it swaps to.
    pub swap: Vec<String>,
    /// How one becomes root there.
    pub sudo: Sudo,
    /// The version of `python3`, if there is one.
    pub python: Option<String>,
    /// Whether there is `apt-get`.
    pub apt: bool,
    /// The version of control groups: 1 or 2.
    pub cgroup: u8,
    /// The state of systemd, such as `running` or `degraded`, if it is what runs the host.
    pub systemd: Option<String>,
    /// What it is a container of, if it is one: its clock is then another machine's.
    pub container: Option<String>,
    /// The programs that listen on ports which Kubernetes needs; the name is empty where it cannot be seen.
    pub listening: BTreeMap<u16, String>,
    /// Container runtimes and programs of Kubernetes that are there.
    pub present: Vec<String>,
    /// The services that run and keep the clock right.
    pub time_sync: Vec<String>,
    /// By how much its clock is ahead of this machine's, at least, in seconds; negative if it is behind.
    pub clock_ahead: f64,
    /// Its NVIDIA GPUs.
    pub gpus: Vec<GpuDevice>,
    /// What the NVIDIA kernel module says of its version, if it is loaded.
    pub nvidia_module: Option<String>,
    /// The GPUs that nvidia-smi(1) lists; nothing if there is no such program.
    pub nvidia_smi: Option<Result<Vec<String>, String>>,
    /// Whether the module nouveau is loaded.
    pub nouveau: bool,
    /// What dkms(8) says of NVIDIA's modules.
    pub dkms: Vec<String>,
    /// The cluster that the host was prepared for, if it was.
    pub owner: Option<String>,
}

/// An NVIDIA GPU on the PCI bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuDevice {
    /// Where it is: `0000:65:00.0`.
    pub address: String,
    /// The device id: `0x2684`.
    pub device_id: String,
    /// The driver that has it, if one has.
    pub driver: Option<String>,
}

/// How one becomes root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sudo {
    /// Who logs in is root.
    Root,
    /// By sudo(8), without a password.
    Free,
    /// sudo wants a password, or forbids it.
    Refused,
    /// There is no sudo.
    Missing,
}

/// Why a host's facts are not known.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// It cannot be reached.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// What it says is not understood.
    #[error("understand what it says of itself: {0}")]
    Unclear(String),
}

impl FactsError {
    /// The error of a task.
    pub fn into_failure(self, host: &Host) -> Failure {
        match self {
            Self::Ssh(error) => error.into_failure(),
            Self::Unclear(_) => Failure::permanent(format!("{}: {self}", host.title())),
        }
    }
}

impl Facts {
    /// Asks a host.
    ///
    /// # Errors
    /// It cannot be reached, or its answer is not understood.
    pub async fn ask(view: &View, host: &Host) -> Result<Self, FactsError> {
        let ports: Vec<String> = super::ports_of(host.role).iter().map(u16::to_string).collect();
        let script = Script::new(SCRIPT).arg(ports.join(" ")).timeout(TIMEOUT);
        let before = now();
        let answer = host.target.run_script(view, &script).await?;
        Self::parse(&answer, before, now())
    }

    /// Reads an answer that was asked for at `before` and had come at `after`, in seconds since 1970.
    ///
    /// # Errors
    /// A line is unknown, or one is missing.
    pub(crate) fn parse(answer: &str, before: f64, after: f64) -> Result<Self, FactsError> {
        let mut lines = Lines::read(answer)?;
        if lines.one("facts")? != "1" || lines.one("end")? != "yes" {
            return Err(FactsError::Unclear("it is of another version".to_owned()));
        }
        let os = lines.one("os")?;
        let (os, os_version) = os.split_once(' ').unwrap_or((&os, ""));
        let (began, ended): (f64, f64) = pair(&lines.one("clock")?)?;
        let facts = Self {
            os: os.to_owned(),
            os_version: os_version.to_owned(),
            kernel: lines.one("kernel")?,
            architecture: lines.one("architecture")?,
            host_name: lines.one("host_name")?,
            machine_id: lines.one("machine_id")?,
            reached_at: lines.one("reached_at")?.parse().ok(),
            addresses: lines.all("address").iter().filter_map(|address| address.parse().ok()).collect(),
            cpus: number(&lines.one("cpus")?)?,
            memory_mib: number::<u64>(&lines.one("memory_kib")?)? / 1024,
            free_mib: lines
                .all("free_kib")
                .iter()
                .map(|free| pair::<String, u64>(free).map(|(folder, kib)| (folder, kib / 1024)))
                .collect::<Result<_, _>>()?,
            swap: lines.all("swap"),
            sudo: match &*lines.one("sudo")? {
                "root" => Sudo::Root,
                "yes" => Sudo::Free,
                "missing" => Sudo::Missing,
                _ => Sudo::Refused,
            },
            python: lines.optional("python")?.filter(|version| !version.is_empty()),
            apt: lines.optional("apt")?.is_some(),
            cgroup: if lines.one("cgroup")? == "cgroup2fs" { 2 } else { 1 },
            systemd: lines.optional("systemd")?,
            container: lines.optional("container")?,
            listening: listening(&lines.all("listening"))?,
            present: lines.all("present"),
            time_sync: lines.all("time_sync"),
            clock_ahead: ahead(began - before, ended - after),
            gpus: lines.all("gpu").iter().map(|gpu| device(gpu)).collect::<Result<_, _>>()?,
            nvidia_module: lines.optional("nvidia_module")?,
            nvidia_smi: match (lines.all("nvidia_smi"), lines.optional("nvidia_smi_error")?) {
                (_, Some(error)) => Some(Err(error)),
                (gpus, None) if gpus.is_empty() => None,
                (gpus, None) => Some(Ok(gpus)),
            },
            nouveau: lines.optional("nouveau")?.is_some(),
            dkms: lines.all("dkms"),
            owner: lines.optional("owner")?,
        };
        lines.nothing_is_left()?;
        Ok(facts)
    }

    /// The operating system with its version: `debian 13`.
    pub fn system(&self) -> String {
        format!("{} {}", self.os, self.os_version).trim_end().to_owned()
    }

    /// The address by which other nodes reach it, if nobody says another: the one that it was reached at.
    pub fn own_address(&self) -> Option<Ipv4Addr> {
        match self.reached_at {
            Some(IpAddr::V4(address)) => Some(address),
            _ => self.addresses.first().copied(),
        }
    }

    /// The version of the NVIDIA driver, as nvidia-smi(1) tells it.
    pub fn driver(&self) -> Option<&str> {
        let gpus = self.nvidia_smi.as_ref()?.as_ref().ok()?;
        gpus.first()?.split(',').next().map(str::trim)
    }
}

/// The lines of an answer that were not read yet.
struct Lines(BTreeMap<String, Vec<String>>);

impl Lines {
    fn read(answer: &str) -> Result<Self, FactsError> {
        let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in answer.lines() {
            let (name, value) =
                line.split_once('=').ok_or_else(|| FactsError::Unclear(format!("the line `{line}`")))?;
            lines.entry(name.to_owned()).or_default().push(value.trim().to_owned());
        }
        Ok(Self(lines))
    }

    fn all(&mut self, name: &str) -> Vec<String> {
        self.0.remove(name).unwrap_or_default()
    }

    fn optional(&mut self, name: &str) -> Result<Option<String>, FactsError> {
        let mut values = self.all(name);
        if values.len() > 1 {
            return Err(FactsError::Unclear(format!("`{name}` comes more than once")));
        }
        Ok(values.pop())
    }

    fn one(&mut self, name: &str) -> Result<String, FactsError> {
        self.optional(name)?.ok_or_else(|| FactsError::Unclear(format!("`{name}` is missing")))
    }

    fn nothing_is_left(&self) -> Result<(), FactsError> {
        match self.0.keys().next() {
            Some(name) => Err(FactsError::Unclear(format!("`{name}` is unknown"))),
            None => Ok(()),
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, FactsError> {
    text.parse().map_err(|_| FactsError::Unclear(format!("`{text}` is no number")))
}

fn pair<A: std::str::FromStr, B: std::str::FromStr>(text: &str) -> Result<(A, B), FactsError> {
    let (a, b) = text.split_once(' ').ok_or_else(|| FactsError::Unclear(format!("`{text}` is one word")))?;
    Ok((number(a)?, number(b)?))
}

fn listening(lines: &[String]) -> Result<BTreeMap<u16, String>, FactsError> {
    let split = lines.iter().map(|line| line.split_once(' ').unwrap_or((line, "")));
    split.map(|(port, who)| Ok((number(port)?, who.to_owned()))).collect()
}

fn device(text: &str) -> Result<GpuDevice, FactsError> {
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        [address, device_id, ref driver @ ..] => Ok(GpuDevice {
            address: address.to_owned(),
            device_id: device_id.to_owned(),
            driver: driver.first().filter(|driver| !driver.is_empty()).map(|driver| (*driver).to_owned()),
        }),
        _ => Err(FactsError::Unclear(format!("the GPU `{text}`"))),
    }
}

/// The least by which a clock can be ahead: it said to be `most` ahead when it was asked, the way there included, and
/// `least` when its answer had come, the way back included.
fn ahead(most: f64, least: f64) -> f64 {
    if least > 0.0 { least } else { most.min(0.0) }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::super::testing::ANSWER;
    use super::*;

    #[test]
    fn an_answer_is_read_strictly() {
        let facts = Facts::parse(ANSWER, 1000.0, 1001.0).unwrap();
        assert_eq!((facts.system(), facts.cpus, facts.memory_mib), ("debian 13".to_owned(), 4, 8192));
        assert_eq!(facts.free_mib, [("/".to_owned(), 51200), ("/var".to_owned(), 20480)].into());
        assert_eq!(facts.listening, [(10250, "kubelet".to_owned()), (2379, String::new())].into());
        assert_eq!(facts.own_address(), Some(Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(facts.driver(), Some("570.86.15"));
        let [with, without] = &facts.gpus[..] else { panic!("{:?}", facts.gpus) };
        assert_eq!((with.driver.as_deref(), without.driver.as_deref()), (Some("nvidia"), None));
        for (broken, why) in [
            (ANSWER.replace("end=yes\n", ""), "`end` is missing"),
            (ANSWER.replace("cpus=4", "cpus=four"), "`four` is no number"),
            (ANSWER.replace("kernel=", "colour="), "`kernel` is missing"),
            (format!("{ANSWER}colour=red\n"), "`colour` is unknown"),
            (format!("{ANSWER}cpus=5\n"), "`cpus` comes more than once"),
            (format!("Welcome!\n{ANSWER}"), "the line `Welcome!`"),
        ] {
            let told = Facts::parse(&broken, 1000.0, 1001.0).unwrap_err().to_string();
            assert!(told.ends_with(why), "{told}");
        }
    }

    #[test]
    fn a_clock_is_off_by_what_the_way_cannot_explain() {
        // Asked at 1000, answered at 1001; the host says 1000.2 to 1000.9.
        assert_eq!(Facts::parse(ANSWER, 1000.0, 1001.0).unwrap().clock_ahead, 0.0);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert!(close(Facts::parse(ANSWER, 1005.0, 1006.0).unwrap().clock_ahead, -4.8));
        assert!(close(Facts::parse(ANSWER, 990.0, 991.0).unwrap().clock_ahead, 9.9));
    }

    /// This machine is asked as a host is.
    #[test]
    fn the_script_is_understood() {
        let mut shell = std::process::Command::new("sh")
            .args(["-eus", "--", "22 6443"])
            .env("LC_ALL", "C")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let before = now();
        std::io::Write::write_all(&mut shell.stdin.take().unwrap(), SCRIPT.as_bytes()).unwrap();
        let answer = String::from_utf8(shell.wait_with_output().unwrap().stdout).unwrap();
        let facts = Facts::parse(&answer, before, now()).unwrap();
        assert!(facts.cpus > 0 && facts.memory_mib > 0 && facts.free_mib.len() == 2, "{facts:?}");
        assert_eq!(facts.clock_ahead, 0.0);
    }
}
