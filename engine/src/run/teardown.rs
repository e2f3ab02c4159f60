//! Taking away what tasks made, dependents first.
//!
//! It works from the journal: also tasks that the graph no longer has, attempts that never ended, and settings that have
//! changed since are covered. One task is taken away at a time; a task whose dependent could not be taken away stays.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::attempt::{Attempt, Ended};
use super::driver::Summary;
use super::events::{EventSink, now};
use super::journaler::{Append, AppendError};
use super::log::AttemptLog;
use crate::TaskId;
use crate::checkpoint::{Checkpoint, Finished, Record, Starting, StepRecord};
use crate::context::Recorder;
use crate::event::{Counts, EventKind, Verb};
use crate::fingerprint::KeyParts;
use crate::graph::{NodeKind, Run};
use crate::outcome::{Failure, Outcome};
use crate::plan::Reason;
use crate::plan::command::{bare, build};
use crate::plan::inspect::COMMAND;
use crate::process::{Cancel, Cookie, Level};
use crate::registry::Registry;
use crate::world::{Upstream, World, upstream_output};

/// The tasks of which something may be on the machine, in the order in which they can be taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Teardown {
    /// Each after all that depend on it.
    pub order: Vec<TaskId>,
    /// Those that were not asked for but depend on one that was.
    pub dragged: Vec<TaskId>,
    /// Those that the graph no longer has.
    pub orphans: Vec<TaskId>,
}

/// Finds what is to be taken away: the tasks for which `asked` holds, with all that depend on them.
pub fn teardown(world: &World, checkpoint: &Checkpoint, asked: &dyn Fn(&TaskId) -> bool) -> Teardown {
    let mut existing: Vec<&TaskId> =
        checkpoint.tasks.iter().filter(|(_, state)| state.may_exist()).map(|(id, _)| id).collect();
    existing.sort();
    let needs = Needs::new(world, checkpoint, &existing);
    let mut doomed: HashSet<&TaskId> = existing.iter().copied().filter(|id| asked(id)).collect();
    let mut dragged = Vec::new();
    loop {
        let more: Vec<&TaskId> = existing
            .iter()
            .copied()
            .filter(|id| !doomed.contains(*id) && needs.of(id).any(|need| doomed.contains(need)))
            .collect();
        if more.is_empty() {
            break;
        }
        dragged.extend(more.iter().map(|id| (*id).clone()));
        doomed.extend(more);
    }
    // Dependents first: a task goes when nothing that is left needs it.
    let (mut order, mut left) = (Vec::new(), doomed);
    while !left.is_empty() {
        let needed: HashSet<&TaskId> = left.iter().flat_map(|id| needs.of(id)).collect();
        let mut free: Vec<&TaskId> = left.iter().copied().filter(|id| !needed.contains(*id)).collect();
        if free.is_empty() {
            // Records of different versions of the graph may contradict each other: then any order is as good.
            free = left.iter().copied().collect();
        }
        free.sort_by(|a, b| b.cmp(a));
        free.iter().for_each(|id| {
            left.remove(*id);
        });
        order.extend(free.into_iter().cloned());
    }
    let orphans = order.iter().filter(|id| world.graph.find(id).is_none()).cloned().collect();
    Teardown { order, dragged, orphans }
}

/// What needs what, from the graph and from the journal.
struct Needs<'a>(HashMap<&'a TaskId, HashSet<TaskId>>);

impl<'a> Needs<'a> {
    fn new(world: &World, checkpoint: &'a Checkpoint, existing: &[&'a TaskId]) -> Self {
        let needs = existing.iter().map(|id| {
            let mut needs = HashSet::new();
            if let Some(index) = world.graph.find(id) {
                let below = world.graph.with_ancestors([index]);
                let others = world.graph.indices().filter(|other| below[other.index()] && *other != index);
                needs.extend(others.map(|other| world.graph[other].id.clone()));
            }
            let made_with = checkpoint.tasks.get(*id).map(|state| state.made_with()).unwrap_or_default();
            for trace in made_with {
                let parts = serde_json::from_str::<KeyParts>(trace.parts.get()).unwrap_or_default();
                needs.extend(serde_json::from_value::<Vec<TaskId>>(parts.aside["needs"].clone()).unwrap_or_default());
            }
            needs.remove(*id);
            (*id, needs)
        });
        Self(needs.collect())
    }

    fn of(&self, id: &TaskId) -> impl Iterator<Item = &TaskId> {
        self.0.get(id).into_iter().flatten()
    }
}

/// Takes the tasks of `teardown` away.
///
/// Returns the checkpoint as the journal has it.
pub async fn destroy(
    world: Arc<World>,
    registry: &Registry,
    mut checkpoint: Checkpoint,
    teardown: &Teardown,
    append: Append,
    events: EventSink,
    cancel: Cancel,
) -> (Checkpoint, Summary) {
    let mut ledger = Ledger { append: Some(append), broken: None };
    let mut counts = Counts::default();
    let mut stuck: Vec<TaskId> = Vec::new();
    for id in &teardown.order {
        let Some(state) = checkpoint.tasks.get(id).cloned() else { continue };
        let existing: Vec<&TaskId> = stuck.iter().chain([id]).collect();
        let needs = Needs::new(&world, &checkpoint, &existing);
        if let Some(above) = stuck.iter().find(|above| needs.of(above).any(|need| need == id)) {
            events.send(EventKind::Notice {
                task: Some(id.clone()),
                text: format!("{id} stays: {above}, which needs it, could not be taken away"),
            });
            counts.blocked += 1;
            continue;
        }
        if cancel.level() >= Level::Asked || ledger.broken.is_some() {
            counts.cancelled += 1;
            continue;
        }
        let started = tokio::time::Instant::now();
        let (attempt, cookie) = (state.attempt + 1, Cookie::random());
        let newest = state.made_with().pop();
        let Some(trace) = newest else { continue };
        let reason = Reason::Forced;
        let starting = Starting {
            task: id.clone(),
            at: now(),
            verb: Verb::Destroy,
            attempt,
            cookie,
            reason: reason.clone(),
            key: trace.key,
            parts: trace.parts.clone(),
        };
        if !ledger.write(&mut checkpoint, vec![Record::Starting(starting)]).await {
            continue;
        }
        events.send(EventKind::TaskStarted { task: id.clone(), attempt, reason });
        let parts = serde_json::from_str::<KeyParts>(trace.parts.get()).unwrap_or_default();
        let log = AttemptLog::new(id.clone(), world.log_path(id, attempt), Some(events.clone()));
        let work = Attempt {
            world: Arc::clone(&world),
            id: id.clone(),
            number: attempt,
            timeout: world.graph.find(id).and_then(|index| world.graph[index].timeout),
            cookie,
            key: trace.key,
            upstream: upstream(&world, &checkpoint, &parts),
            inputs: Vec::new(),
            state: Some(Arc::clone(&state)),
            disruptive: false,
            cancel: cancel.child(),
            log,
        };
        let ended = take_away(work, registry, parts, &events).await;
        let seconds = started.elapsed().as_secs_f64();
        let record = match &ended.outcome {
            Outcome::Succeeded | Outcome::Degraded { .. } | Outcome::Skipped { .. } => {
                counts.succeeded += 1;
                Record::Destroyed { task: id.clone() }
            }
            outcome => {
                *(if matches!(outcome, Outcome::Cancelled) { &mut counts.cancelled } else { &mut counts.failed }) += 1;
                stuck.push(id.clone());
                let (task, outcome) = (id.clone(), outcome.clone());
                let (output, files) = (None, Vec::new());
                Record::Finished(Finished { task, at: now(), outcome, output, files: files.into(), seconds })
            }
        };
        ledger.write(&mut checkpoint, vec![record]).await;
        events.send(EventKind::TaskFinished { task: id.clone(), attempt, outcome: ended.outcome, seconds });
    }
    (checkpoint, Summary { counts, stopped: cancel.level(), broken: ledger.broken })
}

/// The outputs that the task read when it was made, of those tasks that still stand.
fn upstream(world: &World, checkpoint: &Checkpoint, parts: &KeyParts) -> Upstream {
    let read = parts.reads.keys().filter_map(|id| {
        let index = world.graph.find(id)?;
        let done = checkpoint.tasks.get(id)?.done.as_ref()?;
        Some((id.clone(), upstream_output(world.output_kind(index), done)?))
    });
    Arc::new(read.collect())
}

async fn take_away(attempt: Attempt, registry: &Registry, parts: KeyParts, events: &EventSink) -> Ended {
    let world = Arc::clone(&attempt.world);
    let failed = |failure: Failure| Ended { outcome: failure.into(), output: None, files: Vec::new() };
    if parts.plugin == COMMAND {
        let recorded = parts.aside.get("destroy").filter(|run| !run.is_null());
        let command = match world.graph.find(&attempt.id).map(|index| &world.graph[index].kind) {
            Some(NodeKind::Command(spec)) => {
                spec.destroy.as_ref().map(|run| build(&world, spec, run, &attempt.upstream))
            }
            _ => recorded.and_then(run_of).map(|run| bare(&world, &run, &parts.settings)),
        };
        return match command {
            None => Ended { outcome: Outcome::Succeeded, output: None, files: Vec::new() },
            Some(Err(failure)) => failed(failure),
            Some(Ok(command)) => tokio::task::spawn_blocking(move || attempt.run_destroy(command))
                .await
                .unwrap_or_else(|error| failed(Failure::permanent(format!("run the destroy command: {error}")))),
        };
    }
    let bound = world.graph.find(&attempt.id).and_then(|index| world.bound.node(index).task.clone());
    let task = match bound {
        Some(task) => Ok(task),
        None => registry.make(&parts.plugin, &attempt.id, &parts.aside["with"]),
    };
    match task {
        Ok(task) => {
            let recorder = Box::new(Unrecorded { task: attempt.id.clone(), events: events.clone() });
            attempt.destroy(task, recorder).await
        }
        Err(message) => failed(
            Failure::permanent(format!("destroy it: {message}"))
                .with_hint("run the version of the program that made it"),
        ),
    }
}

fn run_of(recorded: &Value) -> Option<Run> {
    match recorded {
        Value::String(script) => Some(Run::Shell(script.as_str().into())),
        Value::Array(words) => {
            Some(Run::Argv(words.iter().map(|word| word.as_str().map(Into::into)).collect::<Option<_>>()?))
        }
        _ => None,
    }
}

/// Writes records one batch at a time.
struct Ledger {
    append: Option<Append>,
    broken: Option<AppendError>,
}

impl Ledger {
    /// Makes `records` durable and folds them in; false if that failed.
    async fn write(&mut self, checkpoint: &mut Checkpoint, records: Vec<Record>) -> bool {
        let payload = match serde_json::to_vec(&records) {
            Ok(payload) => payload,
            Err(error) => return self.fail(AppendError(Box::new(error))),
        };
        let Some(mut append) = self.append.take() else { return false };
        let written = tokio::task::spawn_blocking(move || {
            let result = append(&payload);
            (append, result)
        });
        let result = match written.await {
            Ok((append, result)) => {
                self.append = Some(append);
                result
            }
            Err(error) => Err(AppendError(Box::new(error))),
        };
        if let Err(error) = result {
            return self.fail(error);
        }
        for record in records {
            if let Err(error) = checkpoint.apply(record) {
                return self.fail(AppendError(Box::new(error)));
            }
        }
        true
    }

    fn fail(&mut self, error: AppendError) -> bool {
        self.broken.get_or_insert(error);
        false
    }
}

/// Steps of a destroy are shown but not recorded: what is gone is found out by looking.
struct Unrecorded {
    task: TaskId,
    events: EventSink,
}

#[async_trait]
impl Recorder for Unrecorded {
    fn started(&self, step: &str) {
        self.events.send(EventKind::StepStarted { task: self.task.clone(), step: step.to_owned() });
    }

    fn kept(&self, step: &str) {
        self.passed(step);
    }

    fn passed(&self, step: &str) {
        let event = EventKind::StepFinished { task: self.task.clone(), step: step.to_owned(), kept: false };
        self.events.send(event);
    }

    async fn finished(&self, step: StepRecord) -> Result<(), Failure> {
        self.passed(&step.name);
        Ok(())
    }
}
