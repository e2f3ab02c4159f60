//! Judging a task for real: its key is computed, its files are looked at, its probe is asked.

use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::TaskState;
use crate::context::View;
use crate::fingerprint::{Change, KeyParts};
use crate::graph::{CommandSpec, NodeIndex, NodeKind};
use crate::plan::command;
use crate::plan::decide::{Asked, Facts, Key, Need, Probed, Verdict, decide};
use crate::plan::inspect::{Brief, Inspection};
use crate::plan::{Action, Decision, Drift, Reason};
use crate::process::{Cancel, Level};
use crate::registry::ErasedMade;
use crate::task::{Probe, ProofClass};
use crate::world::{Upstream, World};

/// How long a probe, with the quick proofs, may take before it counts as not answering.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// A task to be judged.
pub(crate) struct Case {
    pub(crate) brief: Brief,
    pub(crate) asked: Asked,
    pub(crate) needs: Vec<Need>,
    pub(crate) inspection: Inspection,
}

impl Case {
    /// Judges without asking anybody.
    fn decide(&self, world: &World, relevant: &Result<(), String>, probe: &Probed) -> Verdict {
        let changes = || self.changes(world);
        let key = match self.inspection.key {
            Some(key) => Key::Known { key, changes: &changes },
            None => Key::Unknown { changes: &changes },
        };
        decide(&Facts {
            asked: self.asked,
            needs: &self.needs,
            state: self.brief.state.as_deref(),
            relevant,
            key,
            damage: self.inspection.damage.as_ref(),
            probe,
            accept_data_loss: world.accept_data_loss,
        })
    }

    /// What differs between the last success and now, as far as now is known.
    fn changes(&self, world: &World) -> Vec<Change> {
        let Some(done) = self.brief.state.as_ref().and_then(|state| state.done.as_ref()) else { return Vec::new() };
        let Ok(mut old) = serde_json::from_str::<KeyParts>(done.parts.get()) else { return Vec::new() };
        let new = self.inspection.whole_parts(world, self.brief.index);
        if self.inspection.key.is_none() {
            // What is not known yet is neither new nor gone.
            old.reads.retain(|id, _| new.reads.contains_key(id));
            old.inputs.retain(|path, _| new.inputs.contains_key(path));
        }
        old.changes_to(&new)
    }
}

/// Judges a task, asking its probe if it hinges on that; `None` if it is to be decided after other tasks.
pub(crate) async fn judge(world: &Arc<World>, case: &Case, cancel: &Cancel) -> Option<Decision> {
    let index = case.brief.index;
    let relevant = is_relevant(world, case, cancel).await;
    let probed = if has_probe(world, index) { Probed::NotYet } else { Probed::NoProbe };
    let verdict = match case.decide(world, &relevant, &probed) {
        Verdict::AskProbe => {
            let (index, state) = (case.brief.index, case.brief.state.as_ref());
            let answer = probe(world, index, state, &case.inspection.upstream, cancel).await;
            case.decide(world, &relevant, &Probed::Answer(answer))
        }
        verdict => verdict,
    };
    match verdict {
        Verdict::Decided(decision) => Some(redacted(world, decision)),
        Verdict::After => None,
        Verdict::AskProbe => {
            let cause = "the probe was asked and gave no answer".to_owned();
            Some(Decision::new(Action::Blocked, Reason::CannotTell { cause }))
        }
    }
}

/// As [`judge`], for a task that nobody has to be asked about.
pub(crate) fn judge_at_once(world: &World, case: &Case) -> Option<Option<Decision>> {
    if world.bound.node(case.brief.index).task.is_some() {
        return None;
    }
    let probed = if has_probe(world, case.brief.index) { Probed::NotYet } else { Probed::NoProbe };
    match case.decide(world, &Ok(()), &probed) {
        Verdict::Decided(decision) => Some(Some(decision)),
        Verdict::After => Some(None),
        Verdict::AskProbe => None,
    }
}

fn has_probe(world: &World, index: NodeIndex) -> bool {
    match &world.graph[index].kind {
        NodeKind::Plugin { .. } => true,
        NodeKind::Command(command) => command.probe.is_some(),
    }
}

async fn is_relevant(world: &Arc<World>, case: &Case, cancel: &Cancel) -> Result<(), String> {
    let Some(task) = &world.bound.node(case.brief.index).task else { return Ok(()) };
    let view = world.view(&world.graph[case.brief.index].id, &case.inspection.upstream, cancel);
    match tokio::time::timeout(PROBE_TIMEOUT, task.relevant(&view)).await {
        Ok(relevant) => relevant.map_err(|reason| world.redactor.redact_str(&reason).into_owned()),
        // Whether it applies is found out by running it.
        Err(_) => Ok(()),
    }
}

/// Asks the probe and the quick proofs, for a bounded time.
async fn probe(
    world: &Arc<World>,
    index: NodeIndex,
    state: Option<&Arc<TaskState>>,
    upstream: &Upstream,
    cancel: &Cancel,
) -> Probe {
    bounded(cancel, async |own| match ask(world, index, state, upstream, own).await {
        Probe::Holds => ask_quick_proofs(world, index, state, upstream, own).await,
        other => other,
    })
    .await
}

/// Asks the probe alone, for a bounded time; nothing but whether what was made is there.
pub(crate) async fn look(
    world: &Arc<World>,
    index: NodeIndex,
    state: Option<&Arc<TaskState>>,
    upstream: &Upstream,
    cancel: &Cancel,
) -> Probe {
    bounded(cancel, async |own| ask(world, index, state, upstream, own).await).await
}

/// A probe changes nothing, so it may be dropped; its commands are ended by the token.
async fn bounded(cancel: &Cancel, asked: impl AsyncFnOnce(&Cancel) -> Probe) -> Probe {
    let own = cancel.child();
    match tokio::time::timeout(PROBE_TIMEOUT, asked(&own)).await {
        Ok(answer) => answer,
        Err(_) => {
            own.raise(Level::End);
            Probe::CannotTell(format!("the probe gave no answer within {PROBE_TIMEOUT:?}"))
        }
    }
}

async fn ask(
    world: &Arc<World>,
    index: NodeIndex,
    state: Option<&Arc<TaskState>>,
    upstream: &Upstream,
    cancel: &Cancel,
) -> Probe {
    let view = world.view(&world.graph[index].id, upstream, cancel);
    match (&world.graph[index].kind, &world.bound.node(index).task) {
        (NodeKind::Command(spec), _) => probe_command(world, spec, &view, upstream).await,
        (NodeKind::Plugin { .. }, Some(task)) => match state.and_then(|state| state.done.as_ref()) {
            None => Probe::CannotTell("it never succeeded".to_owned()),
            Some(done) => match ErasedMade::of(done) {
                Some(made) => task.probe(&view, &made).await.unwrap_or_else(unreadable),
                None => unreadable(),
            },
        },
        (NodeKind::Plugin { uses, .. }, None) => Probe::CannotTell(format!("no plugin is called `{uses}`")),
    }
}

fn unreadable() -> Probe {
    Probe::Drifted(vec![Drift::new("record", "readable", "of another version")])
}

async fn ask_quick_proofs(
    world: &Arc<World>,
    index: NodeIndex,
    state: Option<&Arc<TaskState>>,
    upstream: &Upstream,
    cancel: &Cancel,
) -> Probe {
    let made = state.and_then(|state| ErasedMade::of(state.done.as_ref()?));
    let (Some(task), Some(made)) = (&world.bound.node(index).task, made) else { return Probe::Holds };
    let view = world.view(&world.graph[index].id, upstream, cancel);
    for proof in task.proofs().iter().filter(|proof| proof.class == ProofClass::Quick) {
        if let Err(failure) = task.prove(&proof.name, &view, &made.output).await {
            return Probe::Drifted(vec![Drift::new(&*proof.name, true, failure.to_string())]);
        }
    }
    Probe::Holds
}

async fn probe_command(world: &Arc<World>, spec: &CommandSpec, view: &View, upstream: &Upstream) -> Probe {
    let Some(run) = &spec.probe else { return Probe::Holds };
    match command::build(world, spec, run, upstream) {
        Ok(command) => match view.command(command).await {
            Ok(_) => Probe::Holds,
            Err(failure) => match &failure.command {
                Some(failed) if failed.ended.starts_with("exit code") => {
                    let tail = failed.tail.lines().last().unwrap_or_default();
                    let colon = if tail.is_empty() { "" } else { ": " };
                    Probe::Missing(format!("its probe ended with {}{colon}{tail}", failed.ended))
                }
                _ => Probe::CannotTell(failure.to_string()),
            },
        },
        Err(failure) => Probe::CannotTell(failure.to_string()),
    }
}

/// Probes speak in the words of outside programs.
fn redacted(world: &World, mut decision: Decision) -> Decision {
    let clean = |text: &mut String| *text = world.redactor.redact_str(text).into_owned();
    match &mut decision.reason {
        Reason::Stopped { found } | Reason::Missing { found } | Reason::DataLost { found } => clean(found),
        Reason::CannotTell { cause } => clean(cause),
        Reason::Drifted { fields } => fields.iter_mut().for_each(|drift| {
            world.redactor.redact_json(&mut drift.expected);
            world.redactor.redact_json(&mut drift.found);
        }),
        _ => {}
    }
    decision
}
