//! What to do for one model, from what is wanted and what was seen. Pure: the controller looks, asks here, and acts.
//!
//! Each step is small and can be repeated. A replica lives through: started, ready, in the proxy, drained, stopped,
//! forgotten. A new revision gets the requests once it has as many ready replicas as are wanted; only then are the
//! replicas of the old one drained, and stopped when their last request has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use super::replica::Replica;
use super::spec::InferenceService;
use super::status::{Reason, Status};
use super::store::Wanted;
use crate::tools::haproxy::Slot;

/// How long the last requests of a replica may take before it is stopped nevertheless.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(600);

/// A replica, as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    /// Which one.
    pub(super) replica: Replica,
    /// What it does.
    pub(super) phase: Phase,
    /// Whether it has a process.
    pub(super) running: bool,
    /// What the proxy does with it.
    pub(super) traffic: Traffic,
}

/// What a replica does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// It answers.
    Ready,
    /// It fetches or loads the model, or was started again after it ended.
    Starting,
    /// It was stopped, or never started.
    Stopped,
    /// It was asked to stop.
    Stopping,
    /// It will not answer.
    Failed(Reason, String),
}

/// What the proxy does with a replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    /// The state of its slot, as the proxy says.
    pub(super) slot: Slot,
    /// Whether the proxy finds it healthy.
    pub(super) up: bool,
    /// Its requests, under way and waiting.
    pub(super) requests: u32,
    /// For how long it has been drained.
    pub(super) drained_for: Duration,
}

/// All that is known of a model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene<'a> {
    /// What is wanted of it; nothing if it is to go.
    pub(super) wanted: Option<&'a Wanted>,
    /// Its last state.
    pub(super) before: Option<&'a Status>,
    /// Its replicas, by revision and number.
    pub(super) seen: &'a [Seen],
    /// The replicas that the autoscaler wants.
    pub(super) desired: u32,
    /// How many more replicas of the latest revision the free GPU slots are enough for.
    pub(super) room: u32,
    /// Whether replicas may be started now, or a pause after failures is not over.
    pub(super) may_start: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// For the services.
    pub(super) actions: Vec<Action>,
    /// For the proxy: the slots that are not off.
    pub(super) slots: BTreeMap<usize, Slot>,
    /// The revision of what is wanted.
    pub(super) latest: u32,
    /// The revision that gets the requests.
    pub(super) active: Option<u32>,
    /// Why the latest revision cannot serve, if so.
    pub(super) failure: Option<(Reason, String)>,
}

/// Something to do for the services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Make a replica of a revision and start it.
    Make(u32),
    /// Start a stopped one again.
    Start(String),
    /// Ask one to stop.
    Stop(String),
    /// Remove the description of one that has stopped.
    Forget(String),
}

/// The replicas of one revision.
struct Group<'a> {
    kept: Vec<&'a Seen>,
    missing: u32,
}

impl<'a> Group<'a> {
    /// Keeps the `desired` best ones; the ones that answer are better than others, and old ones better than new ones.
    fn new(seen: &'a [Seen], revision: u32, desired: u32) -> Self {
        let rank = |seen: &Seen| match seen.phase {
            Phase::Ready => 0,
            Phase::Starting => 1,
            Phase::Stopped => 2,
            Phase::Stopping | Phase::Failed(..) => 3,
        };
        let mut own: Vec<&Seen> = seen.iter().filter(|seen| seen.replica.revision == revision).collect();
        own.sort_by_key(|seen| (rank(seen), seen.replica.number));
        let usable = own.iter().filter(|seen| rank(seen) < 3).count();
        own.truncate(usable.min(desired as usize));
        let missing = desired.saturating_sub(own.len() as u32);
        Self { kept: own, missing }
    }

    fn ready(&self) -> u32 {
        self.kept.iter().filter(|seen| seen.phase == Phase::Ready).count() as u32
    }
}

/// What to do for a model.
pub(super) fn plan(scene: &Scene<'_>) -> Plan {
    let Some(wanted) = scene.wanted else { return farewell(scene) };
    let latest = latest(wanted, scene.before);
    let active = scene.before.and_then(|before| before.revision);
    let serving = active == Some(latest);
    let group = Group::new(scene.seen, latest, scene.desired);
    let failure = match serving {
        true => None,
        false => failure(scene, wanted, latest, &group),
    };
    let sticky = failure.as_ref().is_some_and(|(reason, _)| is_final(*reason));
    // Without room beside the old revision, the old one ends first.
    let crowded = scene.room == 0 && group.kept.is_empty() && active.is_some() && !serving && !sticky;
    let old = active.filter(|active| *active != latest).map(|active| {
        let desired = if crowded { 0 } else { scene.desired };
        Group::new(scene.seen, active, desired)
    });
    let old_answers = old.as_ref().is_some_and(|old| old.ready() > 0);
    let enough = group.ready() >= scene.desired || (group.ready() > 0 && !old_answers);
    let switched = !sticky && (serving || enough);

    let mut plan = Plan { actions: Vec::new(), slots: BTreeMap::new(), latest, active, failure };
    for seen in scene.seen {
        let (is_latest, is_old) = (seen.replica.revision == latest, Some(seen.replica.revision) == active);
        let among = |group: &Group<'_>| group.kept.iter().any(|kept| kept.replica == seen.replica);
        let kept = match (is_latest, is_old) {
            (true, _) => !sticky && among(&group),
            (false, true) => !switched && old.as_ref().is_some_and(among),
            (false, false) => false,
        };
        match kept {
            true => keep(&mut plan, seen, !is_latest || switched),
            false => retire(&mut plan, seen),
        }
    }
    if scene.may_start && !sticky {
        let starts = group.missing.min(scene.room);
        plan.actions.extend((0..starts).map(|_| Action::Make(latest)));
    }
    if let (Some(old), Some(active), false) = (old, active, switched || crowded)
        && scene.may_start
    {
        plan.actions.extend((0..old.missing.min(scene.room)).map(|_| Action::Make(active)));
    }
    if switched {
        plan.active = Some(latest);
    }
    plan
}

/// The revision of what is wanted: a new one if what replicas run has changed, or has failed and is tried again.
fn latest(wanted: &Wanted, before: Option<&Status>) -> u32 {
    match before {
        None => 1,
        Some(before) if before.generation == wanted.generation => before.latest,
        Some(before) if before.service.same_revision(&wanted.service) && before.failed().is_none() => before.latest,
        Some(before) => before.latest + 1,
    }
}

/// Why the latest revision, which does not serve yet, never will.
fn failure(scene: &Scene<'_>, wanted: &Wanted, latest: u32, group: &Group<'_>) -> Option<(Reason, String)> {
    if let Err(error) = wanted.service.validate() {
        return Some((Reason::InvalidSpec, error.to_string()));
    }
    let told = scene.before.filter(|before| before.generation == wanted.generation).and_then(Status::failed);
    if let Some(told) = told.filter(|told| is_final(told.reason)) {
        return Some((told.reason, told.message.clone()));
    }
    let own = scene.seen.iter().filter(|seen| seen.replica.revision == latest);
    let mut failed = own.filter_map(|seen| match &seen.phase {
        Phase::Failed(reason, message) => Some((*reason, message.clone())),
        _ => None,
    });
    let alone = scene.seen.iter().all(|seen| seen.replica.revision == latest);
    failed.next().or_else(|| {
        let each = wanted.service.resources.gpu_slots;
        (alone && group.kept.is_empty() && scene.room == 0).then(|| {
            let message = format!("a replica needs {each} GPU slots, and fewer are free");
            (Reason::InsufficientGpu, message)
        })
    })
}

/// Whether only a new deployment mends it.
fn is_final(reason: Reason) -> bool {
    matches!(reason, Reason::ModelLoadFailed | Reason::CrashLoop | Reason::StartupTimeout | Reason::InvalidSpec)
}

/// A replica goes on; `open` tells whether its revision gets requests.
fn keep(plan: &mut Plan, seen: &Seen, open: bool) {
    if seen.phase == Phase::Stopped {
        plan.actions.push(Action::Start(seen.replica.name()));
    }
    // One that was ready stays: the proxy itself sees when it does not answer, and when it does again.
    let was_ready = seen.traffic.slot != Slot::Off;
    if open && (seen.phase == Phase::Ready || was_ready) {
        plan.slots.insert(seen.replica.slot, Slot::Ready(seen.replica.port));
    }
}

/// A replica goes, one step at each call.
fn retire(plan: &mut Plan, seen: &Seen) {
    let (name, Traffic { slot, requests, drained_for, .. }) = (seen.replica.name(), seen.traffic);
    if !seen.running {
        plan.actions.push(Action::Forget(name));
        return;
    }
    let drained = match slot {
        Slot::Off => true,
        Slot::Ready(_) => false,
        Slot::Drain(_) => requests == 0 || drained_for >= DRAIN_TIMEOUT,
    };
    if slot != Slot::Off {
        plan.slots.insert(seen.replica.slot, Slot::Drain(seen.replica.port));
    }
    if drained && seen.phase != Phase::Stopping {
        plan.actions.push(Action::Stop(name));
    }
}

/// Everything goes.
fn farewell(scene: &Scene<'_>) -> Plan {
    let latest = scene.before.map_or(0, |before| before.latest);
    let mut plan = Plan { actions: Vec::new(), slots: BTreeMap::new(), latest, active: None, failure: None };
    scene.seen.iter().for_each(|seen| retire(&mut plan, seen));
    plan
}

/// How many slots the backend of a model has: enough for two revisions, and for what is there.
pub(super) fn slots(wanted: Option<&InferenceService>, seen: &[Seen]) -> usize {
    let wanted = wanted.map_or(0, |service| 2 * service.replicas.max as usize);
    let used = seen.iter().map(|seen| seen.replica.slot + 1).max().unwrap_or(0);
    wanted.max(used)
}

#[cfg(test)]
mod tests;
