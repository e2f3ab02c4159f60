//! The state of all tasks: a fold over the records of the journal.
//!
//! [`Checkpoint::apply`] is the only function that changes a state, and it rejects what cannot follow. Since the journal
//! is the truth, a checkpoint has no other form on disk: a compacted journal begins with one [`Record::Task`] for each
//! task instead of the history that led there.

mod record;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use record::{FileRole, FileStamp, Finished, OutputRecord, Record, RunStarted, Starting, StepRecord};

use crate::TaskId;
use crate::event::Verb;
use crate::fingerprint::Digest;
use crate::outcome::{Failure, Outcome};
use crate::plan::Reason;
use crate::process::{Cookie, ProcessId};

/// What the journal says of the runs and the tasks.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// The tasks that ever ran or were skipped here, and were not destroyed since.
    pub tasks: HashMap<TaskId, Arc<TaskState>>,
    /// The last run.
    pub run: Option<Run>,
}

/// The last run.
#[derive(Debug, Clone)]
pub struct Run {
    /// How it began.
    pub started: RunStarted,
    /// When and with which exit code it ended; nothing if it runs still or was killed.
    pub finished: Option<(Timestamp, u8)>,
}

/// What is known of a task.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskState {
    /// What happened last.
    pub status: Status,
    /// Since when that holds.
    pub since: Timestamp,
    /// The number of attempts so far.
    pub attempt: u32,
    /// Why it ran or was skipped.
    pub reason: Reason,
    /// Its last success; it stands as far as the journal can know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<Box<Done>>,
    /// The attempt without an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<Box<InFlight>>,
    /// What attempts that did not succeed were made of, the newest last: there may be traces of them on the machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traces: Vec<Trace>,
    /// The steps that unsuccessful attempts have done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepRecord>,
    /// The error of the last attempt, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<Failure>>,
}

/// What happened last to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing yet.
    Pending,
    /// An attempt runs.
    Running,
    /// It succeeded.
    Succeeded,
    /// It succeeded but for named parts.
    Degraded,
    /// It was left out.
    Skipped,
    /// The last attempt failed.
    Failed,
    /// The last attempt was stopped by the user.
    Cancelled,
    /// The program ended during the last attempt.
    Interrupted,
}

/// A success.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// The key that it ran under.
    pub key: Digest,
    /// What the key was made of.
    pub parts: Box<RawValue>,
    /// What it gives to its dependents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputRecord>,
    /// The files that it read and wrote.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub files: Box<[FileStamp]>,
    /// What does not work, of a degraded success.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// An attempt without an end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InFlight {
    /// Whether it brings the task up or takes it away.
    pub verb: Verb,
    /// Stands in the environment of its processes.
    pub cookie: Cookie,
    /// Its process, if it got that far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessId>,
    /// The step that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// What it was made of.
    pub trace: Trace,
    /// Whether the program that ran it is gone.
    pub abandoned: bool,
}

/// What an attempt was made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// The key that it ran under.
    pub key: Digest,
    /// What the key was made of.
    pub parts: Box<RawValue>,
}

/// A record that cannot follow what came before it: the journal was not written by this program, or by a defect in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} cannot follow: {why}")]
pub struct IllegalTransition {
    /// The record.
    pub what: String,
    /// What it contradicts.
    pub why: &'static str,
}

impl Status {
    /// Whether the task stands.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Succeeded | Self::Degraded)
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Degraded => "degraded",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl TaskState {
    fn new(at: Timestamp, reason: Reason) -> Self {
        Self {
            status: Status::Pending,
            since: at,
            attempt: 0,
            reason,
            done: None,
            in_flight: None,
            traces: Vec::new(),
            steps: Vec::new(),
            error: None,
        }
    }

    /// Whether something of the task may be on the machine.
    pub fn may_exist(&self) -> bool {
        self.done.is_some() || self.in_flight.is_some() || !self.traces.is_empty()
    }

    /// Everything that attempts were made of and that may have left something, the oldest first.
    pub fn made_with(&self) -> Vec<Trace> {
        let done = self.done.iter().map(|done| Trace { key: done.key, parts: done.parts.clone() });
        let in_flight = self.in_flight.iter().map(|attempt| attempt.trace.clone());
        let mut all: Vec<Trace> = Vec::new();
        for trace in done.chain(self.traces.iter().cloned()).chain(in_flight) {
            all.retain(|known| known.key != trace.key);
            all.push(trace);
        }
        all
    }
}

impl Checkpoint {
    /// Folds one record in.
    ///
    /// # Errors
    /// The record contradicts what came before; the checkpoint is unchanged then.
    pub fn apply(&mut self, record: Record) -> Result<(), IllegalTransition> {
        match record {
            Record::RunStarted(started) => {
                if self.run.as_ref().is_some_and(|last| last.started.run >= started.run) {
                    return illegal(
                        format!("the start of run {}", started.run),
                        "an equal or later run stands before it",
                    );
                }
                for task in self.tasks.values_mut().filter(|task| task.in_flight.is_some()) {
                    let task = Arc::make_mut(task);
                    task.status = Status::Interrupted;
                    task.in_flight.iter_mut().for_each(|attempt| attempt.abandoned = true);
                }
                self.run = Some(Run { started, finished: None });
            }
            Record::Starting(starting) => self.start(starting)?,
            Record::Spawned { task, process } => {
                let state = self.running(&task, "a process")?;
                state.in_flight.iter_mut().for_each(|attempt| attempt.process = Some(process));
            }
            Record::StepStarted { task, step } => {
                let state = self.running(&task, "a step")?;
                state.in_flight.iter_mut().for_each(|attempt| attempt.step = Some(step.clone()));
            }
            Record::Step { task, step } => {
                let state = self.running(&task, "a step")?;
                state.in_flight.iter_mut().for_each(|attempt| attempt.step = None);
                state.steps.retain(|known| known.name != step.name);
                state.steps.push(step);
            }
            Record::Finished(finished) => self.finish(finished)?,
            Record::Skipped { task, at, reason } => {
                let state = self.entry(task, at, &reason);
                if state.in_flight.as_ref().is_some_and(|attempt| !attempt.abandoned) {
                    return illegal("a skip".into(), "an attempt is under way");
                }
                (state.status, state.since, state.reason) = (Status::Skipped, at, reason);
            }
            Record::Destroyed { task } => {
                self.tasks.remove(&task);
            }
            Record::RunFinished { run, at, exit_code } => match &mut self.run {
                Some(last) if last.started.run == run && last.finished.is_none() => {
                    last.finished = Some((at, exit_code))
                }
                _ => return illegal(format!("the end of run {run}"), "no such run is under way"),
            },
            Record::Task { task, state } => {
                self.tasks.insert(task, state);
            }
        }
        Ok(())
    }

    /// The payloads of the frames that a compacted journal holds: folded into an empty checkpoint, they give this one.
    pub fn payloads(&self) -> impl Iterator<Item = serde_json::Result<Vec<u8>>> {
        /// So that a reader never has to hold much more than one task's state besides what it keeps.
        const TOGETHER: usize = 1000;
        let mut records = self.records();
        std::iter::from_fn(move || {
            let together: Vec<Record> = records.by_ref().take(TOGETHER).collect();
            (!together.is_empty()).then(|| serde_json::to_vec(&together))
        })
    }

    fn records(&self) -> impl Iterator<Item = Record> {
        let run = self.run.as_ref();
        let start = run.map(|run| Record::RunStarted(run.started.clone()));
        let finished = run.and_then(|run| Some((run.started.run, run.finished?)));
        let end = finished.map(|(run, (at, exit_code))| Record::RunFinished { run, at, exit_code });
        let mut tasks: Vec<_> = self.tasks.iter().collect();
        tasks.sort_unstable_by_key(|(task, _)| *task);
        let task =
            |(task, state): (&TaskId, &Arc<TaskState>)| Record::Task { task: task.clone(), state: state.clone() };
        // The start of a run marks attempts as abandoned; put before the tasks, it leaves them as they are.
        start.into_iter().chain(end).chain(tasks.into_iter().map(task))
    }

    fn start(&mut self, starting: Starting) -> Result<(), IllegalTransition> {
        let Starting { task, at, verb, attempt, cookie, reason, key, parts } = starting;
        let state = self.entry(task, at, &reason);
        if state.in_flight.as_ref().is_some_and(|attempt| !attempt.abandoned) {
            return illegal("the start of an attempt".into(), "another attempt is under way");
        }
        if let Some(lost) = state.in_flight.take() {
            remember(&mut state.traces, lost.trace);
        }
        (state.status, state.since, state.attempt, state.reason) = (Status::Running, at, attempt, reason);
        state.error = None;
        let trace = Trace { key, parts };
        state.in_flight = Some(Box::new(InFlight { verb, cookie, process: None, step: None, trace, abandoned: false }));
        Ok(())
    }

    fn finish(&mut self, finished: Finished) -> Result<(), IllegalTransition> {
        let Finished { task, at, outcome, output, files, seconds } = finished;
        let state = self.running(&task, "an end")?;
        let Some(InFlight { trace, .. }) = state.in_flight.take().map(|attempt| *attempt) else {
            return Ok(());
        };
        state.since = at;
        let missing = match outcome {
            Outcome::Succeeded => Vec::new(),
            Outcome::Degraded { missing } => missing,
            Outcome::Skipped { reason } => {
                state.status = Status::Skipped;
                state.reason = Reason::NotApplicable { reason };
                remember(&mut state.traces, trace);
                return Ok(());
            }
            Outcome::Failed { error } => {
                state.status = Status::Failed;
                state.error = Some(error);
                remember(&mut state.traces, trace);
                return Ok(());
            }
            Outcome::Cancelled => {
                state.status = Status::Cancelled;
                remember(&mut state.traces, trace);
                return Ok(());
            }
        };
        state.status = if missing.is_empty() { Status::Succeeded } else { Status::Degraded };
        state.traces.clear();
        state.steps.clear();
        let Trace { key, parts } = trace;
        state.done = Some(Box::new(Done { key, parts, output, files, missing, seconds }));
        Ok(())
    }

    fn entry(&mut self, task: TaskId, at: Timestamp, reason: &Reason) -> &mut TaskState {
        Arc::make_mut(self.tasks.entry(task).or_insert_with(|| Arc::new(TaskState::new(at, reason.clone()))))
    }

    /// The task, of which an attempt must be under way.
    fn running(&mut self, task: &TaskId, what: &str) -> Result<&mut TaskState, IllegalTransition> {
        self.tasks
            .get_mut(task)
            .filter(|state| state.in_flight.as_ref().is_some_and(|attempt| !attempt.abandoned))
            .map(Arc::make_mut)
            .ok_or_else(|| IllegalTransition { what: format!("{what} of {task}"), why: "no attempt is under way" })
    }
}

fn illegal<T>(what: String, why: &'static str) -> Result<T, IllegalTransition> {
    Err(IllegalTransition { what, why })
}

/// Adds a trace, once a key.
fn remember(traces: &mut Vec<Trace>, trace: Trace) {
    traces.retain(|known| known.key != trace.key);
    traces.push(trace);
}
