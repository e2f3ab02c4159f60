//! CLOUD-1.2 for a cluster of given hosts: the NVIDIA driver of GPU workers works. Nothing is changed on them.
//!
//! Proof: nvidia-smi(1) lists every GPU of the host; nouveau is not loaded; where dkms(8) builds the module, it is built
//! for the kernel that runs.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::Failure;
use taskrun_engine::task::{Applied, Drift, Earlier, Made, Probe, Proof, Read, Task, Traces};

use super::host_base::hosts_of;
use crate::cluster::{Cluster, Role};
use crate::hosts::{self, Facts, Host};
use crate::outputs::{GpuBase, NodeBase, Nodes};

const SEEN: Proof = Proof::safe("nvidia-smi lists every GPU");
const NOUVEAU: Proof = Proof::safe("nouveau is not loaded");
const BUILT: Proof = Proof::safe("the module is built for the kernel that runs");

/// The task.
pub struct HostGpuTask {
    settings: HostGpu,
}

/// What it reads of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostGpu {
    /// The names of the GPU workers.
    pub workers: Vec<String>,
}

impl HostGpuTask {
    /// The task for a cluster of given hosts.
    pub fn new(cluster: &Cluster) -> Self {
        let workers = cluster.nodes.iter().filter(|node| node.role == Role::GpuWorker);
        Self { settings: HostGpu { workers: workers.map(|node| node.name.clone()).collect() } }
    }
}

#[async_trait]
impl Task for HostGpuTask {
    type Settings = HostGpu;
    type Output = GpuBase;

    fn settings(&self) -> &HostGpu {
        &self.settings
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::of::<Nodes>(), Read::of::<NodeBase>()]
    }

    async fn relevant(&self, _view: &View) -> Result<(), String> {
        if self.settings.workers.is_empty() { Err("no worker has a GPU".to_owned()) } else { Ok(()) }
    }

    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe {
        let workers = match workers(view).await {
            Ok(workers) => workers,
            Err(failure) => return Probe::CannotTell(failure.to_string()),
        };
        let mut drifts = Vec::new();
        for (host, facts) in &workers {
            let (recorded, found) = (made.output.drivers.get(&host.name), facts.driver());
            if recorded.map(String::as_str) != found {
                let text = |version: Option<&str>| version.unwrap_or("none").to_owned();
                let recorded = text(recorded.map(String::as_str));
                drifts.push(Drift::new(format!("driver of {}", host.name), recorded, text(found)));
            }
        }
        if drifts.is_empty() { Probe::Holds } else { Probe::Drifted(drifts) }
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<GpuBase>, Failure> {
        let mut drivers = std::collections::BTreeMap::new();
        for (host, facts) in workers(context).await? {
            seen(&host, &facts)?;
            let driver = facts.driver().unwrap_or_default().to_owned();
            context.say(format!("{}: {} GPUs, driver {driver}", host.title(), facts.gpus.len()));
            drivers.insert(host.name, driver);
        }
        Ok(Applied::complete(GpuBase { image: None, drivers }))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[SEEN, NOUVEAU, BUILT];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, _output: &GpuBase) -> Result<(), Failure> {
        let judge: fn(&Host, &Facts) -> Result<(), Failure> = match proof {
            proof if proof == SEEN.name => seen,
            proof if proof == NOUVEAU.name => no_nouveau,
            _ => built,
        };
        workers(view).await?.iter().try_for_each(|(host, facts)| judge(host, facts))
    }

    async fn destroy(&self, _context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

/// The GPU workers with what they say of themselves.
async fn workers(view: &View) -> Result<Vec<(Host, Facts)>, Failure> {
    let mut hosts = hosts_of(view)?;
    hosts.retain(|host| host.role == Role::GpuWorker);
    let asked = hosts::ask_all(view, &hosts).await.into_iter();
    asked.map(|(host, answer)| answer.map_err(|error| error.into_failure(&host)).map(|facts| (host, facts))).collect()
}

fn seen(host: &Host, facts: &Facts) -> Result<(), Failure> {
    let listed = match &facts.nvidia_smi {
        Some(Ok(listed)) => listed.len(),
        Some(Err(said)) => {
            return Err(Failure::permanent(format!("list the GPUs of {}: nvidia-smi says: {said}", host.title()))
                .with_hint("see there: dmesg | grep -i nvrm; after an upgrade of the driver, reboot"));
        }
        None => {
            return Err(Failure::permanent(format!("list the GPUs of {}: there is no nvidia-smi", host.title()))
                .with_hint("install the driver there: apt-get install nvidia-driver (non-free), and reboot"));
        }
    };
    // MIG and the like make more of one, never fewer.
    if listed < facts.gpus.len() {
        let (title, there) = (host.title(), facts.gpus.len());
        return Err(Failure::permanent(format!("list the GPUs of {title}: {listed} of {there} are listed"))
            .with_hint("see there why one does not start: dmesg | grep -i nvrm"));
    }
    Ok(())
}

fn no_nouveau(host: &Host, facts: &Facts) -> Result<(), Failure> {
    if !facts.nouveau {
        return Ok(());
    }
    let hint = "keep it out there: echo 'blacklist nouveau' >/etc/modprobe.d/nouveau.conf; update-initramfs -u; reboot";
    Err(Failure::permanent(format!("find nouveau not loaded on {}", host.title())).with_hint(hint))
}

fn built(host: &Host, facts: &Facts) -> Result<(), Failure> {
    let for_this_kernel = |line: &String| line.contains(&facts.kernel) && line.contains("installed");
    if facts.dkms.is_empty() || facts.dkms.iter().any(for_this_kernel) {
        return Ok(());
    }
    let message = format!("find NVIDIA's module built for kernel {} on {}", facts.kernel, host.title());
    Err(Failure::permanent(message)
        .with_hint("build it there: apt-get install linux-headers-$(uname -r); dkms autoinstall"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::testing::{facts, host};

    #[test]
    fn each_fault_of_a_driver_is_told() {
        let host = host("gpu", Role::GpuWorker);
        let mut fit = facts();
        fit.gpus.truncate(1);
        for judge in [seen, no_nouveau, built] {
            judge(&host, &fit).unwrap();
        }
        let failed = |judge: fn(&Host, &Facts) -> Result<(), Failure>, change: &dyn Fn(&mut Facts)| {
            let mut facts = fit.clone();
            change(&mut facts);
            judge(&host, &facts).unwrap_err().to_string()
        };
        assert!(failed(seen, &|facts| facts.nvidia_smi = None).ends_with("there is no nvidia-smi"));
        assert!(failed(seen, &|facts| facts.nvidia_smi = Some(Err("no".into()))).ends_with("says: no"));
        assert!(failed(seen, &|facts| facts.gpus = self::facts().gpus).ends_with("1 of 2 are listed"));
        assert!(failed(no_nouveau, &|facts| facts.nouveau = true).contains("nouveau not loaded on gpu"));
        assert!(failed(built, &|facts| facts.kernel = "6.12.99".into()).contains("kernel 6.12.99"));
        let mut packaged = fit.clone();
        packaged.dkms.clear();
        built(&host, &packaged).unwrap();
    }
}
