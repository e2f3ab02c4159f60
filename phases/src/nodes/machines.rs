//! The virtual machines of a cluster: defined, started, stopped, removed. Each call may be killed at any instant and
//! made again.

mod define;
mod run;
#[cfg(all(test, feature = "libvirt"))]
mod tests;

use std::path::Path;

use taskrun_engine::context::View;
use taskrun_engine::outcome::Failure;
use taskrun_engine::task::Drift;

pub use self::run::{Image, StopTimes, Stopped};
use super::devices::Devices;
use super::layout::{HostTraits, Layout};
use crate::cluster::{Node, PciAddress, VirtualMachine};
use crate::hypervisor::kvm::{Kvm, kvm_works};
use crate::hypervisor::patient::Patient;
use crate::hypervisor::spec::{DomainSpec, PoolSpec};
use crate::hypervisor::{DomainFacts, Hypervisor, HypervisorError, NetworkFacts, VolumeFacts};

/// The machines of a cluster, on the hypervisor.
pub struct Machines<'a> {
    layout: Layout<'a>,
    hypervisor: Patient,
    host: HostTraits,
    pool: PoolSpec,
    devices: Devices,
    /// The options that lead to this environment from anywhere, for who looks for the owner of a device.
    options: Vec<String>,
    /// Held while a disk is made: machines that start at once share an image, which is brought into the pool once.
    disks: tokio::sync::Mutex<()>,
}

impl<'a> Machines<'a> {
    /// Connects to the hypervisor; `config` is the configuration's file.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn connect(view: &View, layout: Layout<'a>, config: &Path) -> Result<Self, Failure> {
        let hypervisor = Patient::connect(&layout.virtualization.uri).await.map_err(HypervisorError::into_failure)?;
        Self::on(hypervisor, Devices::of_host()?, view, layout, config).await
    }

    /// The machines on this hypervisor, with the devices of its host.
    ///
    /// # Errors
    /// The hypervisor does not answer.
    pub async fn on(
        hypervisor: Patient,
        devices: Devices,
        view: &View,
        layout: Layout<'a>,
        config: &Path,
    ) -> Result<Self, Failure> {
        let facts = hypervisor.call("look at the host", |h| h.host()).await.map_err(HypervisorError::into_failure)?;
        let wanted = &layout.virtualization.hardware;
        let kvm = match wanted.kvm && facts.kvm_offered {
            true => matches!(kvm_works(view, &wanted.cpu_model, None).await, Kvm::Works(_)),
            false => false,
        };
        let config = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
        let root = layout.state.parent().unwrap_or(layout.state);
        let options =
            [("--config", config), ("--graph", view.graph_dir().join("graph.yaml")), ("--state-dir", root.into())];
        let options = options.into_iter().flat_map(|(name, path)| [name.to_owned(), path.display().to_string()]);
        let pool = layout.pool(nix::unistd::geteuid().is_root());
        let host = HostTraits { kvm, cpus: facts.cpus };
        Ok(Self {
            layout,
            hypervisor,
            host,
            pool,
            devices,
            options: options.collect(),
            disks: tokio::sync::Mutex::default(),
        })
    }

    /// Whether KVM runs the machines.
    pub fn has_kvm(&self) -> bool {
        self.host.kvm
    }

    /// Where everything of them is.
    pub fn layout(&self) -> &Layout<'a> {
        &self.layout
    }

    async fn call<T: Send + 'static>(
        &self,
        what: &str,
        call: impl FnOnce(&dyn Hypervisor) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, Failure> {
        self.hypervisor.call(what, call).await.map_err(HypervisorError::into_failure)
    }

    /// What a machine is to be.
    ///
    /// # Errors
    /// The devices that it gets are not there.
    pub fn spec(&self, node: &Node, machine: &VirtualMachine) -> Result<DomainSpec, Failure> {
        let devices = self.devices.whole_groups(&node.name, &machine.devices)?;
        Ok(self.layout.domain(node, machine, &self.pool.folder, self.host, devices))
    }

    /// What is there of a machine.
    ///
    /// # Errors
    /// The hypervisor does not answer.
    pub async fn domain(&self, node: &str) -> Result<Option<DomainFacts>, Failure> {
        let name = node.to_owned();
        self.call(&format!("look at {node}"), move |h| h.domain(&name)).await
    }

    /// The domains that were made for this environment, whatever the configuration says now.
    async fn ours(&self) -> Result<Vec<DomainFacts>, Failure> {
        let owner = self.layout.owner();
        let domains = self.call("list the machines", |h| h.domains()).await?;
        Ok(domains.into_iter().filter(|domain| domain.owner.as_ref() == Some(&owner)).collect())
    }

    /// Where the network, which is there, differs from what is wanted; nowhere where it is a bridge of others.
    ///
    /// # Errors
    /// The hypervisor does not answer.
    pub async fn network_drift(&self) -> Result<Vec<Drift>, Failure> {
        let Some(spec) = self.layout.network() else { return Ok(Vec::new()) };
        self.call("compare the network", move |h| h.network_drift(&spec)).await
    }

    fn refuse_foreign(&self, there: &DomainFacts) -> Result<(), Failure> {
        if there.owner.as_ref() == Some(&self.layout.owner()) {
            return Ok(());
        }
        let whose = there.owner.as_deref().map_or("not made by taskrun".to_owned(), |owner| format!("that of {owner}"));
        Err(Failure::permanent(format!("define {}: a machine of that name is there, {whose}", there.name))
            .with_hint("give the cluster another `name`, or remove that machine"))
    }

    /// Where a machine, which is there, differs from what is wanted.
    ///
    /// # Errors
    /// The hypervisor does not answer.
    pub async fn drift(&self, spec: &DomainSpec) -> Result<Vec<Drift>, Failure> {
        let wanted = spec.clone();
        self.call(&format!("compare {}", spec.name), move |h| h.drift(&wanted)).await
    }

    /// The volumes of the pool.
    async fn volumes(&self) -> Result<Vec<VolumeFacts>, Failure> {
        let pool = self.pool.name.clone();
        self.call("list the disks", move |h| h.volumes(&pool)).await
    }

    /// The network as it is; nothing where it is a bridge of others, or not there.
    ///
    /// # Errors
    /// The hypervisor does not answer.
    pub async fn network(&self) -> Result<Option<NetworkFacts>, Failure> {
        let name = self.layout.name();
        self.call("look at the network", move |h| h.network(&name)).await
    }

    /// Whether the storage pool is there and started.
    ///
    /// # Errors
    /// The hypervisor does not answer.
    pub async fn has_pool(&self) -> Result<bool, Failure> {
        let name = self.pool.name.clone();
        let pool = self.call("look at the storage pool", move |h| h.pool(&name)).await?;
        Ok(pool.is_some_and(|pool| pool.active))
    }

    /// Who owns each of the devices that a machine gets.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn owners(&self, machine: &VirtualMachine) -> Result<Vec<(PciAddress, Option<String>)>, Failure> {
        self.devices.owners(&self.layout, &machine.devices)
    }

    /// The address of a machine: the one that it always has, or the one that it was given.
    ///
    /// # Errors
    /// The hypervisor does not answer.
    pub async fn address(&self, machine: &VirtualMachine) -> Result<Option<std::net::Ipv4Addr>, Failure> {
        if machine.address.is_some() || self.layout.network().is_none() {
            return Ok(machine.address);
        }
        let name = self.layout.name();
        let leases = self.call("ask who has which address", move |h| h.leases(&name)).await?;
        Ok(leases.into_iter().find(|lease| lease.mac == machine.mac).map(|lease| lease.address))
    }
}
