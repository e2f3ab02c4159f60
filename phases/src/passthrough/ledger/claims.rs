//! Who owns which device: the state and its transitions, without a disk.
//!
//! A claim goes through two stages: the machine is being started by a process, then it runs. In the first stage the
//! claim is safe from others for as long as that process lives, because the machine cannot be seen to run yet; in the
//! second for as long as the machine runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use taskrun_engine::process::{BootId, Command, ProcessId};

use super::alive::identity;
use crate::cluster::PciAddress;

/// A virtual machine that owns devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The environment that it belongs to.
    pub environment: String,
    /// The cluster.
    pub cluster: String,
    /// The node, whose name its domain has.
    pub node: String,
    /// The id of its domain: what tells one owner from another.
    pub domain_uuid: String,
    /// The hypervisor that runs it, as [`identity`] calls it.
    pub hypervisor: String,
    /// The options that lead to the environment from anywhere, for a hint: `--config /srv/lab.yaml` and the like.
    pub options: Vec<String>,
    /// The state folder of the environment.
    pub state_dir: PathBuf,
    /// When it became the owner.
    pub since: Timestamp,
    /// The boot of the host in which it did.
    pub boot_id: BootId,
}

/// Which machine an owner is.
#[derive(Debug, Clone, Copy)]
pub struct OwnerName<'a> {
    /// The environment.
    pub environment: &'a str,
    /// The cluster.
    pub cluster: &'a str,
    /// The node.
    pub node: &'a str,
    /// The id of its domain.
    pub domain_uuid: &'a str,
    /// The URI of its hypervisor.
    pub uri: &'a str,
}

impl Owner {
    /// A machine that becomes an owner now, of the environment in `state_dir`, to which `options` lead from anywhere.
    ///
    /// # Errors
    /// The id of this boot cannot be read.
    pub fn new(name: OwnerName, options: Vec<String>, state_dir: PathBuf) -> std::io::Result<Self> {
        Ok(Self {
            environment: name.environment.to_owned(),
            cluster: name.cluster.to_owned(),
            node: name.node.to_owned(),
            domain_uuid: name.domain_uuid.to_owned(),
            hypervisor: identity(name.uri),
            options,
            state_dir,
            since: Timestamp::now(),
            boot_id: BootId::current()?,
        })
    }

    /// The command that stops it.
    pub fn stop_command(&self) -> String {
        Command::new("taskrun").args(&self.options).args(["vm", "stop", &self.node]).to_string()
    }
}

/// A device and its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owned {
    /// The device.
    pub device: PciAddress,
    /// Who owns it.
    pub owner: Owner,
    /// The process that is starting the owner; nothing once it was started.
    pub starting: Option<ProcessId>,
}

/// Whether the machine of an owner is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alive {
    /// It runs, also if it is paused or ending: it has its devices.
    Running,
    /// It is off, or there is none of that id.
    Gone,
    /// Nobody here can say.
    CannotTell,
}

/// All claims.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims {
    /// The number of the last claim.
    last: u64,
    devices: BTreeMap<PciAddress, Holding>,
}

/// What is known of a device that has an owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Holding {
    owner: Owner,
    /// The number of the claim.
    claim: u64,
    starting: Option<ProcessId>,
}

/// What one claim took.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    claim: u64,
    owner: Owner,
    /// What was known of each device before.
    before: BTreeMap<PciAddress, Option<Holding>>,
}

impl Claims {
    /// Gives `devices` to `owner`, all or none, while the process `by` starts it; `lives` says whether a process does.
    /// What it owns already it keeps, unless somebody else is starting it just now.
    ///
    /// # Errors
    /// The devices that others have.
    pub(super) fn claim(
        &mut self,
        owner: &Owner,
        by: ProcessId,
        devices: &[PciAddress],
        lives: impl Fn(&ProcessId) -> bool,
    ) -> Result<Taken, Vec<Owned>> {
        let free =
            |held: &Holding| held.owner.domain_uuid == owner.domain_uuid && !held.starting.as_ref().is_some_and(&lives);
        let held = devices.iter().filter_map(|device| Some((*device, self.devices.get(device)?)));
        let conflicts: BTreeMap<_, _> = held.filter(|(_, held)| !free(held)).collect();
        if !conflicts.is_empty() {
            return Err(conflicts.into_iter().map(|(device, held)| held.owned(device)).collect());
        }
        self.last += 1;
        let claim = self.last;
        let mut before = BTreeMap::new();
        for device in devices {
            let earlier = before.entry(*device).or_insert_with(|| self.devices.get(device).cloned());
            // In the same boot it has had the device all along.
            let since = earlier.as_ref().filter(|held| held.owner.boot_id == owner.boot_id);
            let since = since.map_or(owner.since, |held| held.owner.since);
            let owner = Owner { since, ..owner.clone() };
            self.devices.insert(*device, Holding { owner, claim, starting: Some(by) });
        }
        Ok(Taken { claim, owner: owner.clone(), before })
    }

    /// The machine of a claim was started.
    ///
    /// # Errors
    /// The devices that others have by now, because the ledger was begun anew in between.
    pub(super) fn keep(&mut self, taken: &Taken) -> Result<(), Vec<Owned>> {
        let lost = |device: &PciAddress| self.devices.get(device).filter(|held| held.claim != taken.claim);
        let lost: Vec<Owned> = taken.before.keys().filter_map(|device| Some(lost(device)?.owned(*device))).collect();
        for device in taken.before.keys() {
            let anew = || Holding { owner: taken.owner.clone(), claim: taken.claim, starting: None };
            let held = self.devices.entry(*device).or_insert_with(anew);
            if held.claim == taken.claim {
                held.starting = None;
            }
        }
        if lost.is_empty() { Ok(()) } else { Err(lost) }
    }

    /// The machine of a claim was not started: everything is as before the claim.
    pub(super) fn give_back(&mut self, taken: &Taken) {
        for (device, before) in &taken.before {
            if self.devices.get(device).is_some_and(|held| held.claim == taken.claim) {
                match before {
                    Some(held) => self.devices.insert(*device, held.clone()),
                    None => self.devices.remove(device),
                };
            }
        }
    }

    /// The machine of the domain `uuid` was stopped: gives free what it owns, unless another process than `by` is
    /// starting it just now.
    pub(super) fn release(&mut self, uuid: &str, by: ProcessId, lives: impl Fn(&ProcessId) -> bool) -> Vec<PciAddress> {
        let busy = |held: &Holding| held.starting.is_some_and(|starter| starter != by && lives(&starter));
        let released = self.devices.extract_if(.., |_, held| held.owner.domain_uuid == uuid && !busy(held));
        released.map(|(device, _)| device).collect()
    }

    /// Which claims may be settled: those whose machine should run, because nobody is starting it any more.
    pub(super) fn settled(&self, lives: impl Fn(&ProcessId) -> bool) -> Claims {
        let devices = self.devices.iter().filter(|(_, held)| !held.starting.as_ref().is_some_and(&lives));
        Self { last: self.last, devices: devices.map(|(device, held)| (*device, held.clone())).collect() }
    }

    /// What follows from how the machines of the claims in `seen` are, as of `boot_id`: those that are gone own
    /// nothing any more, those that run were started. A claim that has changed since is left alone. Returns what was
    /// freed.
    pub(super) fn settle(&mut self, seen: &Claims, alive: impl Fn(&Owner) -> Alive, boot_id: BootId) -> Vec<Owned> {
        let mut freed = Vec::new();
        for (device, seen) in &seen.devices {
            let Some(held) = self.devices.get_mut(device).filter(|held| *held == seen) else { continue };
            match alive(&held.owner) {
                Alive::Running => {
                    held.starting = None;
                    held.owner.boot_id = boot_id;
                }
                Alive::Gone => freed.extend(self.devices.remove(device).map(|held| held.owned(*device))),
                Alive::CannotTell => {}
            }
        }
        freed
    }

    /// All devices that have an owner.
    pub(super) fn owned(&self) -> Vec<Owned> {
        self.devices.iter().map(|(device, held)| held.owned(*device)).collect()
    }
}

impl Holding {
    fn owned(&self, device: PciAddress) -> Owned {
        Owned { device, owner: self.owner.clone(), starting: self.starting }
    }
}

#[cfg(test)]
mod tests;
