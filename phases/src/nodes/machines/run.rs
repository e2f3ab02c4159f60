//! Starting machines with what they need, and stopping them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use taskrun_engine::context::View;
use taskrun_engine::outcome::Failure;

use super::Machines;
use crate::cluster::{NetworkMode, Node, VirtualMachine};
use crate::hypervisor::spec::VolumeSpec;
use crate::hypervisor::{DomainState, Hypervisor, HypervisorError, ShutDown};
use crate::images::seed::{Seed, SeedNetwork, write_seed};
use crate::nodes::layout::{Layout, USER};
use crate::nodes::reach;
use crate::tools::files;

/// How long an image of some GiB may take into the pool.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(1800);

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

impl Machines<'_> {
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
        let _alone = self.disks.lock().await;
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
        let (base, whole) = (self.layout.image_volume(&image.key), self.layout.image_mark(&image.key));
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
        self.call(&format!("make {name}"), move |h| h.create_volume(&pool, &spec)).await?;
        // What begins with a new disk makes itself new host keys.
        let address = self.address(machine).await?.map(|address| address.to_string());
        match reach::target(self.layout.state, node, address.as_deref()) {
            Some(target) => target.forget().map_err(|error| files::failure("write", &target.known_hosts, &error)),
            None => Ok(()),
        }
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
}
