//! The virtual machines of a cluster: defined, started, stopped, removed. Each call may be killed at any instant and
//! made again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use taskrun_engine::context::View;
use taskrun_engine::outcome::Failure;
use taskrun_engine::task::Drift;

use super::devices::Devices;
use super::layout::{HostTraits, Layout, USER};
use crate::cluster::{NetworkMode, Node, PciAddress, VirtualMachine};
use crate::hypervisor::kvm::{Kvm, kvm_works};
use crate::hypervisor::patient::Patient;
use crate::hypervisor::spec::{DomainSpec, PoolSpec, VolumeSpec};
use crate::hypervisor::{DomainFacts, DomainState, Hypervisor, HypervisorError, NetworkFacts, ShutDown, VolumeFacts};
use crate::images::seed::{Seed, SeedNetwork, write_seed};
use crate::tools::files;

/// How long a machine may take to end, by each way of asking for it.
#[derive(Debug, Clone, Copy)]
pub struct StopTimes {
    /// By the power button.
    pub acpi: Duration,
    /// By the guest agent, after that.
    pub agent: Duration,
    /// Until it is off after it was turned off.
    pub off: Duration,
}

impl Default for StopTimes {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { acpi: seconds(90), agent: seconds(30), off: seconds(30) }
    }
}

/// How a machine was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It was off.
    Already,
    /// Its operating system ended.
    Gracefully,
    /// It was turned off.
    Forced,
}

/// What a machine's disk begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What tells it from others: a digest, in hexadecimal digits.
    pub key: String,
    /// The qcow2 file.
    pub file: PathBuf,
}

/// The machines of a cluster, on the hypervisor.
pub struct Machines<'a> {
    layout: Layout<'a>,
    hypervisor: Patient,
    host: HostTraits,
    pool: PoolSpec,
    devices: Devices,
    /// The options that lead to this environment from anywhere, for who looks for the owner of a device.
    options: Vec<String>,
}

impl<'a> Machines<'a> {
    /// Connects to the hypervisor; `config` is the configuration's file.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn connect(view: &View, layout: Layout<'a>, config: &Path) -> Result<Self, Failure> {
        Self::with_devices(view, layout, config, Devices::of_host()?).await
    }

    /// As [`connect`](Self::connect), with the devices of another host.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn with_devices(
        view: &View,
        layout: Layout<'a>,
        config: &Path,
        devices: Devices,
    ) -> Result<Self, Failure> {
        let hypervisor = Patient::connect(&layout.virtualization.uri).await.map_err(HypervisorError::into_failure)?;
        let facts = hypervisor.call("look at the host", |h| h.host()).await.map_err(HypervisorError::into_failure)?;
        let wanted = &layout.virtualization.hardware;
        let kvm =
            wanted.kvm && facts.kvm_offered && matches!(kvm_works(view, &wanted.cpu_model, None).await, Kvm::Works(_));
        let pool = layout.pool(nix::unistd::geteuid().is_root());
        let host = HostTraits { kvm, cpus: facts.cpus };
        let config = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
        let root = layout.state.parent().unwrap_or(layout.state);
        let options =
            [("--config", config), ("--graph", view.graph_dir().join("graph.yaml")), ("--state-dir", root.into())];
        let options =
            options.into_iter().flat_map(|(name, path)| [name.to_owned(), path.display().to_string()]).collect();
        Ok(Self { layout, hypervisor, host, pool, devices, options })
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

    /// Makes network, pool and definitions as they are wanted. Disks are made when a machine starts for the first time.
    ///
    /// # Errors
    /// A name or bridge is somebody else's, a change would lose something, or the hypervisor refuses.
    pub async fn define(&self, view: &View) -> Result<(), Failure> {
        self.define_network(view).await?;
        let pool = self.pool.clone();
        self.call(&format!("define the storage pool {}", pool.name), move |h| h.define_pool(&pool)).await?;
        for (node, machine) in self.layout.cluster.virtual_machines() {
            view.safe_point()?;
            let spec = self.spec(node, machine)?;
            let there = self.domain(&node.name).await?;
            if let Some(there) = &there {
                self.refuse_foreign(there)?;
            }
            if there.is_some() && self.drift(&spec).await?.is_empty() {
                continue;
            }
            let running = there.is_some_and(|there| there.state != DomainState::ShutOff);
            self.call(&format!("define {}", node.name), move |h| h.define_domain(&spec)).await?;
            view.say(match running {
                true => format!("{} is changed from its next start on: taskrun vm restart {}", node.name, node.name),
                false => format!("{} is defined", node.name),
            });
        }
        self.remove_unwanted(view).await
    }

    async fn define_network(&self, view: &View) -> Result<(), Failure> {
        let Some(spec) = self.layout.network() else { return self.wanted_bridge() };
        let (name, bridge) = (spec.name.clone(), spec.network.bridge.clone());
        let all = self.call("list the networks", |h| h.networks()).await?;
        if let Some(other) = all.iter().find(|other| other.name != name && other.bridge.as_ref() == Some(&bridge)) {
            return Err(Failure::permanent(format!("take the bridge {bridge}: the network `{}` has it", other.name))
                .with_hint("name another one: `network.bridge` in the configuration"));
        }
        view.say(format!("network {name}: {} on {bridge}", spec.network.subnet));
        let wanted = spec.clone();
        self.call(&format!("define the network {name}"), move |h| h.define_network(&wanted)).await?;
        let started = name.clone();
        self.call("start the network", move |h| h.start_network(&started)).await?;
        if self.network_drift().await?.is_empty() {
            return Ok(());
        }
        // What is left to change takes a new start of it, which cuts machines off.
        let running = self.running().await?;
        if !running.is_empty() {
            return Err(Failure::permanent(format!("change the network {name}: machines are connected to it"))
                .with_hint(format!("stop them first: taskrun cloud stop {}", running.join(" "))));
        }
        let again = move |h: &dyn Hypervisor| {
            h.remove_network(&name)?;
            h.define_network(&spec)?;
            h.start_network(&name)
        };
        self.call("make the network anew", again).await
    }

    /// Where the network, which is there, differs from what is wanted; nowhere where it is a bridge of others.
    ///
    /// # Errors
    /// The hypervisor does not answer.
    pub async fn network_drift(&self) -> Result<Vec<Drift>, Failure> {
        let Some(spec) = self.layout.network() else { return Ok(Vec::new()) };
        self.call("compare the network", move |h| h.network_drift(&spec)).await
    }

    /// A bridge that others made.
    fn wanted_bridge(&self) -> Result<(), Failure> {
        let bridge = &self.layout.virtualization.network.bridge;
        match Path::new("/sys/class/net").join(bridge).join("bridge").exists() {
            true => Ok(()),
            false => Err(Failure::permanent(format!("use the bridge {bridge}: there is none"))
                .with_hint(format!("make it, or let one be made: `network.mode: nat`; see: ip link show {bridge}"))),
        }
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

    /// Takes away machines of this environment that the configuration has no longer.
    async fn remove_unwanted(&self, view: &View) -> Result<(), Failure> {
        for gone in self.ours().await? {
            if self.layout.cluster.node(&gone.name).is_some() {
                continue;
            }
            let disk = Layout::disk(&gone.name);
            let has_disk = self.volumes().await?.iter().any(|volume| volume.name == disk);
            if has_disk && !view.accepts_data_loss() {
                let why =
                    format!("remove {}, which the configuration has no longer: its disk would be lost", gone.name);
                return Err(Failure::permanent(why).with_hint("let it go: taskrun run --accept-data-loss CLOUD-0.1"));
            }
            self.remove(view, &gone.name).await?;
            view.say(format!("{} is removed: the configuration has it no longer", gone.name));
        }
        Ok(())
    }

    /// The names of this environment's machines that are not off.
    async fn running(&self) -> Result<Vec<String>, Failure> {
        let ours = self.ours().await?.into_iter().filter(|domain| domain.state != DomainState::ShutOff);
        Ok(ours.map(|domain| domain.name).collect())
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

    /// Starts a machine, unless it runs; its disk is made of `image` if it has none. The devices that it gets are its own
    /// from here on.
    ///
    /// # Errors
    /// It is not defined, there is no image, another machine owns a device, or the hypervisor refuses.
    pub async fn start(&self, view: &View, node: &Node, image: Option<&Image>, key: &str) -> Result<bool, Failure> {
        let name = &node.name;
        let Some(machine) = node.virtual_machine() else { return Ok(false) };
        let hint = "define it: taskrun run CLOUD-0.1";
        let there = self.domain(name).await?;
        let there =
            there.ok_or_else(|| Failure::permanent(format!("start {name}: it is not defined")).with_hint(hint))?;
        self.refuse_foreign(&there)?;
        match there.state {
            DomainState::Running => return Ok(false),
            DomainState::Paused => {
                let hint = format!("let it go on: virsh --connect {} resume {name}", self.layout.virtualization.uri);
                return Err(Failure::permanent(format!("start {name}: it is paused")).with_hint(hint));
            }
            DomainState::ShuttingDown => self.wait_until_off(view, name, StopTimes::default().acpi).await?,
            DomainState::ShutOff | DomainState::Crashed => {}
        }
        if let Some(network) = self.layout.network() {
            self.call("start the network", move |h| h.start_network(&network.name)).await?;
        }
        self.make_disk(view, node, machine, image).await?;
        self.make_seed(view, node, machine, key).await?;
        let spec = self.spec(node, machine)?;
        let claim = self.devices.claim(&self.hypervisor, &self.layout, &self.options, &there, &spec.devices).await?;
        match self.hypervisor.start_domain(name).await {
            Ok(()) => claim.keep()?,
            // It may start yet. If it does not, the next one who wants its devices sees that.
            Err(error @ HypervisorError::TimedOut { .. }) => {
                claim.keep()?;
                return Err(error.into_failure());
            }
            Err(error) => {
                claim.roll_back()?;
                return Err(error.into_failure());
            }
        }
        view.say(format!("{name} is started"));
        Ok(true)
    }

    async fn make_disk(
        &self,
        view: &View,
        node: &Node,
        machine: &VirtualMachine,
        image: Option<&Image>,
    ) -> Result<(), Failure> {
        let name = Layout::disk(&node.name);
        let volumes = self.volumes().await?;
        let (pool, wanted) = (self.pool.name.clone(), machine.disk_gib << 30);
        if let Some(there) = volumes.iter().find(|volume| volume.name == name) {
            if there.capacity < wanted {
                let spec = self.layout.volume(node, machine, Path::new(""));
                self.call(&format!("grow {name}"), move |h| h.create_volume(&pool, &spec)).await?;
            }
            return Ok(());
        }
        let image = image.ok_or_else(|| {
            Failure::permanent(format!("make the disk of {}: there is no image yet", node.name))
                .with_hint("build it: taskrun run CLOUD-1")
        })?;
        let (base, whole) = (Layout::image_volume(&image.key), Layout::image_mark(&image.key));
        if ![&base, &whole].iter().all(|name| volumes.iter().any(|volume| volume.name == **name)) {
            view.say(format!("{} becomes {base} in the pool {}", image.file.display(), self.pool.name));
            let (pool, base, file) = (pool.clone(), base.clone(), image.file.clone());
            let import = move |h: &dyn Hypervisor| {
                h.import_volume(&pool, &base, &file)?;
                h.create_volume(&pool, &VolumeSpec { name: whole, capacity: 1 << 20, backing: None })
            };
            let imported = self.hypervisor.call_within(IMPORT_TIMEOUT, "import the image", import).await;
            imported.map_err(HypervisorError::into_failure)?;
        }
        let spec = self.layout.volume(node, machine, &self.pool.folder.join(base));
        self.call(&format!("make {name}"), move |h| h.create_volume(&pool, &spec)).await
    }

    async fn make_seed(&self, view: &View, node: &Node, machine: &VirtualMachine, key: &str) -> Result<(), Failure> {
        let network = &self.layout.virtualization.network;
        let seed = Seed {
            instance_id: format!("{}-{}", node.name, machine.mac.to_string().replace(':', "")),
            host_name: node.name.clone(),
            user: USER.to_owned(),
            authorized_keys: vec![key.to_owned()],
            network: match (network.mode, machine.address) {
                (NetworkMode::Bridge, Some(address)) => SeedNetwork::Static {
                    mac: machine.mac,
                    address: network.with_prefix(address),
                    gateway: Some(network.gateway),
                    dns_servers: network.dns_servers.clone(),
                },
                _ => SeedNetwork::Dhcp,
            },
        };
        let file = self.layout.folder(&node.name).join("seed.iso");
        std::fs::create_dir_all(self.layout.folder(&node.name))
            .map_err(|error| files::failure("make", &self.layout.folder(&node.name), &error))?;
        write_seed(view, &seed, &file).await?;
        let (pool, name) = (self.pool.name.clone(), Layout::seed(&node.name));
        let import = move |h: &dyn Hypervisor| h.import_volume(&pool, &name, &file);
        self.call(&format!("give {} its settings", node.name), import).await
    }

    /// Stops a machine: its operating system is asked twice, then it is turned off, or at once if `force`. Its devices are
    /// free afterwards.
    ///
    /// # Errors
    /// It does not end, or the hypervisor refuses.
    pub async fn stop(&self, view: &View, name: &str, times: StopTimes, force: bool) -> Result<Stopped, Failure> {
        let Some(there) = self.domain(name).await? else { return Ok(Stopped::Already) };
        self.refuse_foreign(&there)?;
        let mut how = Stopped::Already;
        if !matches!(there.state, DomainState::ShutOff | DomainState::Crashed) {
            how = Stopped::Forced;
            for (way, time) in [(ShutDown::Acpi, times.acpi), (ShutDown::Agent, times.agent)] {
                if force || there.state == DomainState::Paused {
                    break;
                }
                let asked = name.to_owned();
                if self.call(&format!("ask {name} to end"), move |h| h.shut_down_domain(&asked, way)).await.is_ok()
                    && self.wait_until_off(view, name, time).await.is_ok()
                {
                    how = Stopped::Gracefully;
                    break;
                }
                view.say(format!("{name} did not end within {time:?} of being asked by {way}"));
            }
            if how == Stopped::Forced {
                let forced = name.to_owned();
                self.call(&format!("turn {name} off"), move |h| h.turn_off_domain(&forced)).await?;
                self.wait_until_off(view, name, times.off).await?;
            }
        }
        self.devices.release(&there)?;
        Ok(how)
    }

    async fn wait_until_off(&self, view: &View, name: &str, time: Duration) -> Result<(), Failure> {
        let off = || async {
            match self.domain(name).await {
                Ok(Some(there)) if !matches!(there.state, DomainState::ShutOff | DomainState::Crashed) => {
                    Err(format!("it is {}", there.state))
                }
                Ok(_) => Ok(()),
                Err(failure) => Err(failure.to_string()),
            }
        };
        view.wait_until(&format!("{name} to end"), time, off).await
    }

    /// Takes a machine away with its disk. It is turned off.
    ///
    /// # Errors
    /// It is somebody else's, or the hypervisor refuses.
    pub async fn remove(&self, view: &View, name: &str) -> Result<(), Failure> {
        self.stop(view, name, StopTimes::default(), true).await?;
        let domain = name.to_owned();
        self.call(&format!("remove {name}"), move |h| h.remove_domain(&domain)).await?;
        for volume in [Layout::disk(name), Layout::seed(name)] {
            let pool = self.pool.name.clone();
            self.call(&format!("remove {volume}"), move |h| h.remove_volume(&pool, &volume)).await?;
        }
        files::remove(&self.layout.folder(name))
    }

    /// Takes everything away: machines, disks, images in the pool, the pool, the network.
    ///
    /// # Errors
    /// Something is still used, or the hypervisor refuses.
    pub async fn remove_all(&self, view: &View) -> Result<(), Failure> {
        for domain in self.ours().await? {
            self.remove(view, &domain.name).await?;
        }
        for volume in self.volumes().await? {
            let (pool, name) = (self.pool.name.clone(), volume.name.clone());
            self.call(&format!("remove {}", volume.name), move |h| h.remove_volume(&pool, &name)).await?;
        }
        let pool = self.pool.name.clone();
        self.call("remove the pool", move |h| h.remove_pool(&pool)).await?;
        if self.layout.network().is_some() {
            let name = self.layout.name();
            self.call("remove the network", move |h| h.remove_network(&name)).await?;
        }
        Ok(())
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

/// How long an image of some GiB may take into the pool.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(1800);
