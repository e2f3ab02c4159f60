//! CLOUD-0.1 on a cluster of virtual machines: network, storage pool and definitions of the machines.
//!
//! Machines are defined here and not started: `taskrun cloud start` does that. What was started so and has ended since
//! without being asked to is started again. Proof: every machine is defined as it is wanted, so that a second definition
//! changes nothing; what is not meant to run is off; devices are given as whole IOMMU groups.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::Failure;
use taskrun_engine::task::{Applied, Drift, Earlier, Made, Probe, Problem, Proof, Task, Traces};

use super::missing_programs;
use crate::cluster::{Cluster, Machine, Node};
use crate::config::{Config, HostView, host_problems};
use crate::hypervisor::DomainState;
use crate::images::seed;
use crate::nodes::{Layout, Machines, Power, reach};
use crate::outputs::{NodeEndpoint, Nodes};
use crate::passthrough::ledger::Ledger;
use crate::passthrough::preflight::{self, Candidate};
use crate::passthrough::sysfs::Sysfs;
use crate::tools::{files, ssh};

/// The task.
pub struct VirtualMachinesTask {
    settings: Settings,
    config: Config,
    file: PathBuf,
}

/// What it reads of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    environment: String,
    cluster: Cluster,
}

const DEFINED: &str = "every machine is defined as it is wanted";
const OFF: &str = "what is not meant to run is off";
const GROUPS: &str = "devices are given as whole IOMMU groups";

impl VirtualMachinesTask {
    /// The task for a cluster of a configuration, which stands in `file`.
    pub fn new(config: &Config, cluster: Cluster, file: &Path) -> Self {
        let settings = Settings { environment: config.name().to_owned(), cluster };
        Self { settings, config: config.clone(), file: file.to_owned() }
    }

    /// The cluster without the devices that are not there, which are told with their places.
    fn present(&self, sysfs: &Sysfs) -> Cluster {
        let mut cluster = self.settings.cluster.clone();
        for node in &mut cluster.nodes {
            if let Machine::Virtual(machine) = &mut node.machine {
                machine.devices.retain(|device| !matches!(sysfs.device(device.address), Ok(None)));
            }
        }
        cluster
    }

    fn nodes(&self, state: &Path) -> Nodes {
        let key = reach::key_folder(state).join(reach::KEY_FILE);
        let endpoints = self.settings.cluster.virtual_machines().map(|(node, machine)| NodeEndpoint {
            name: node.name.clone(),
            role: node.role,
            address: machine.address.map(|address| address.to_string()),
            ssh_port: 22,
            user: crate::nodes::layout::USER.to_owned(),
            key: Some(key.clone()),
            internal_address: machine.address,
            gpu: machine.has_gpu(),
            identity: None,
        });
        Nodes { nodes: endpoints.collect(), known_hosts: Nodes::known_hosts_file(state) }
    }
}

/// The machines of these settings; `config` is the configuration's file.
async fn machines<'a>(settings: &'a Settings, view: &'a View, config: &Path) -> Result<Machines<'a>, Failure> {
    Machines::connect(view, settings.layout(view.state_dir())?, config).await
}

impl Settings {
    fn layout<'a>(&'a self, state: &'a Path) -> Result<Layout<'a>, Failure> {
        Layout::new(&self.cluster, &self.environment, state)
            .ok_or_else(|| Failure::permanent("lay out the machines: the cluster has given hosts only"))
    }

    /// The machines that are meant to run.
    fn wanted(&self, state: &Path) -> Result<Vec<&Node>, Failure> {
        let power = Power::read(state)?;
        Ok(self.cluster.virtual_machines().map(|(node, _)| node).filter(|node| power.is_on(&node.name)).collect())
    }
}

/// Where the machines differ from what is wanted, and which of those that are meant to run do not.
async fn look(settings: &Settings, view: &View, config: &Path) -> Result<Probe, Failure> {
    let machines = machines(settings, view, config).await?;
    if let Some(network) = machines.layout().network() {
        match machines.network().await? {
            None => return Ok(Probe::Missing(format!("there is no network {}", network.name))),
            Some(there) if !there.active => return Ok(Probe::Stopped(format!("the network {} is off", network.name))),
            Some(_) => {}
        }
    }
    if !machines.has_pool().await? {
        return Ok(Probe::Missing(format!("there is no storage pool {}", machines.layout().name())));
    }
    let mut drifts = machines.network_drift().await?;
    for (node, machine) in settings.cluster.virtual_machines() {
        if machines.domain(&node.name).await?.is_none() {
            return Ok(Probe::Missing(format!("{} is not defined", node.name)));
        }
        let spec = machines.spec(node, machine)?;
        let named = |drift: Drift| Drift { field: format!("{}: {}", node.name, drift.field), ..drift };
        drifts.extend(machines.drift(&spec).await?.into_iter().map(named));
    }
    if !drifts.is_empty() {
        return Ok(Probe::Drifted(drifts));
    }
    for node in settings.wanted(view.state_dir())? {
        let there = machines.domain(&node.name).await?;
        if let Some(there) = there.filter(|there| there.state != DomainState::Running) {
            return Ok(Probe::Stopped(format!("{} is {} and meant to run", node.name, there.state)));
        }
    }
    Ok(Probe::Holds)
}

#[async_trait]
impl Task for VirtualMachinesTask {
    type Settings = Settings;
    type Output = Nodes;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn check(&self, view: &View) -> Vec<Problem> {
        let host = HostView::of_this_host();
        let host = match self.settings.layout(view.state_dir()) {
            Ok(layout) => host.with_pool(layout.pool(nix::unistd::geteuid().is_root()).folder),
            Err(_) => host,
        };
        let mut problems = host_problems(&self.file, &self.config, &host);
        problems.extend(missing_programs(&[("ssh", "openssh-client"), ("ssh-keygen", "openssh-client")]));
        problems.extend(seed::missing_program());
        problems.extend(Ledger::of_host().ok().and_then(|ledger| ledger.problem()));
        problems.extend(preflight::problems(&Sysfs::host(), &Candidate::of(&self.present(&Sysfs::host()))));
        if let Err(failure) = machines(&self.settings, view, &self.file).await {
            problems.push(Problem { message: failure.to_string(), hint: failure.hint });
        }
        problems
    }

    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe {
        match look(&made.settings, view, &self.file).await {
            Ok(probe) => probe,
            Err(failure) => Probe::CannotTell(failure.to_string()),
        }
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<Nodes>, Failure> {
        let (_, key) = ssh::ensure_key(context, &reach::key_folder(context.state_dir())).await?;
        let machines = machines(&self.settings, context, &self.file).await?;
        let way =
            if machines.has_kvm() { "KVM runs them" } else { "they are emulated, about 20 times slower than by KVM" };
        context.say(format!("{} machines; {way}", self.settings.cluster.virtual_machines().count()));
        machines.define(context).await?;
        for node in self.settings.wanted(context.state_dir())? {
            machines.start(context, node, None, &key).await?;
        }
        Ok(Applied::complete(self.nodes(context.state_dir())))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[Proof::quick(DEFINED), Proof::quick(OFF), Proof::quick(GROUPS)];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, _output: &Nodes) -> Result<(), Failure> {
        let machines = machines(&self.settings, view, &self.file).await?;
        let power = Power::read(view.state_dir())?;
        for (node, machine) in self.settings.cluster.virtual_machines() {
            let spec = machines.spec(node, machine)?;
            match proof {
                DEFINED => {
                    if let Some(drift) = machines.drift(&spec).await?.first() {
                        return Err(Failure::permanent(format!("find {} as it is wanted: {drift}", node.name)));
                    }
                }
                OFF => {
                    let there = machines.domain(&node.name).await?;
                    let on = there.is_some_and(|there| there.state == DomainState::Running);
                    if on && !machine.auto_start && !power.is_on(&node.name) {
                        let hint = format!("stop it: taskrun vm stop {}", node.name);
                        return Err(Failure::permanent(format!("find {} off", node.name)).with_hint(hint));
                    }
                }
                _ => {
                    if let Some(missing) = machine.devices.iter().find(|device| !spec.devices.contains(&device.address))
                    {
                        return Err(Failure::permanent(format!("give {} to {}", missing.address, node.name)));
                    }
                }
            }
        }
        Ok(())
    }

    async fn destroy(&self, context: &Context, made: &Traces<Self>) -> Result<(), Failure> {
        let home = context.state_dir();
        for settings in &made.settings {
            machines(settings, context, &self.file).await?.remove_all(context).await?;
        }
        for name in ["nodes", "ssh", "pool"] {
            files::remove(&home.join(name))?;
        }
        Ok(())
    }
}
