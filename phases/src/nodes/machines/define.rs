//! What is there of machines, whether they run or not: network, pool, definitions.

use std::path::Path;

use taskrun_engine::context::View;
use taskrun_engine::outcome::Failure;

use super::{Machines, StopTimes};
use crate::hypervisor::{DomainState, Hypervisor};
use crate::nodes::layout::Layout;
use crate::tools::files;

impl Machines<'_> {
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

    /// A bridge that others made.
    fn wanted_bridge(&self) -> Result<(), Failure> {
        let bridge = &self.layout.virtualization.network.bridge;
        match Path::new("/sys/class/net").join(bridge).join("bridge").exists() {
            true => Ok(()),
            false => Err(Failure::permanent(format!("use the bridge {bridge}: there is none"))
                .with_hint(format!("make it, or let one be made: `network.mode: nat`; see: ip link show {bridge}"))),
        }
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

    /// Takes everything away: machines, disks, images in the pool, the pool, the network. Other files in the pool's folder
    /// stay.
    ///
    /// # Errors
    /// Something is still used, or the hypervisor refuses.
    pub async fn remove_all(&self, view: &View) -> Result<(), Failure> {
        for domain in self.ours().await? {
            self.remove(view, &domain.name).await?;
        }
        self.remove_volumes().await?;
        let pool = self.pool.name.clone();
        self.call("remove the pool", move |h| h.remove_pool(&pool)).await?;
        if self.layout.network().is_some() {
            let name = self.layout.name();
            self.call("remove the network", move |h| h.remove_network(&name)).await?;
        }
        Ok(())
    }

    /// Removes the disks, seeds and images of this cluster from the pool.
    pub(super) async fn remove_volumes(&self) -> Result<(), Failure> {
        for volume in self.volumes().await?.into_iter().filter(|volume| self.layout.owns_volume(&volume.name)) {
            let (pool, name) = (self.pool.name.clone(), volume.name.clone());
            self.call(&format!("remove {}", volume.name), move |h| h.remove_volume(&pool, &name)).await?;
        }
        Ok(())
    }
}
