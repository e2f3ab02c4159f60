//! The fold of a run's events: what each task does right now, and how many do what.

mod predict;
mod state;

use std::collections::HashMap;

use jiff::Timestamp;

use crate::TaskId;
use crate::event::{Counts, Event, EventKind, PlannedTask, Verb};
use crate::outcome::Outcome;
use crate::plan::{Action, Decision};
pub use state::{Activity, State, Tally, Task};

/// A run as far as its events have told it.
///
/// Events of tasks that the run's first event did not list are ignored, as is whatever comes before that event.
#[derive(Debug, Default)]
pub struct Progress {
    run: Option<Run>,
    now: Timestamp,
    tasks: Vec<Task>,
    index: HashMap<TaskId, usize>,
    /// The tasks in an order in which each comes after its needs, for predictions; without those on a cycle.
    order: Vec<usize>,
    /// The tasks that need each task.
    dependents: Vec<Vec<usize>>,
    /// The tasks that run or wait for another attempt, the longest first.
    active: Vec<usize>,
    tally: Tally,
    stopping: u8,
    ended: Option<Ended>,
}

/// What the first event of a run says of the whole.
#[derive(Debug)]
struct Run {
    number: u64,
    started: Timestamp,
    verb: Verb,
    environment: String,
    jobs: usize,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ended {
    /// How many tasks ended how, as the run itself counted them.
    pub counts: Counts,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The exit code of the program.
    pub exit_code: u8,
}

impl Progress {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next event.
    pub fn apply(&mut self, event: &Event) {
        self.now = self.now.max(event.at);
        match &event.kind {
            EventKind::RunStarted { verb, environment, jobs, tasks } => {
                let run = Run {
                    number: event.run,
                    started: event.at,
                    verb: *verb,
                    environment: environment.clone(),
                    jobs: (*jobs).max(1) as usize,
                };
                *self = Self { run: Some(run), now: event.at, ..Self::planned(tasks) };
            }
            EventKind::Stopping { level, .. } => self.stopping = self.stopping.max(*level),
            EventKind::RunFinished { counts, seconds, exit_code } => {
                self.ended = Some(Ended { counts: *counts, seconds: *seconds, exit_code: *exit_code });
            }
            kind => {
                if let Some(&at) = event.task().and_then(|task| self.index.get(task)) {
                    self.apply_to_task(at, event.at, kind);
                }
            }
        }
    }

    fn planned(tasks: &[PlannedTask]) -> Self {
        let index: HashMap<_, _> = tasks.iter().enumerate().map(|(at, task)| (task.id.clone(), at)).collect();
        let tasks: Vec<_> = tasks
            .iter()
            .map(|task| Task {
                id: task.id.clone(),
                title: task.title.clone(),
                needs: task.needs.iter().filter_map(|need| index.get(need).copied()).collect(),
                expected: task.expected_seconds.filter(|seconds| seconds.is_finite()),
                seconds: None,
                state: state_of(&task.decision),
                decision: task.decision.clone(),
            })
            .collect();
        let mut tally = Tally::default();
        for task in &tasks {
            *tally.of(&task.state) += 1;
        }
        let (order, dependents) = predict::order(&tasks);
        Self { tasks, index, order, dependents, tally, ..Self::default() }
    }

    fn apply_to_task(&mut self, at: usize, when: Timestamp, kind: &EventKind) {
        let task = &mut self.tasks[at];
        match kind {
            EventKind::TaskDecided { decision, .. } => {
                task.decision = decision.clone();
                self.set(at, state_of(decision));
            }
            EventKind::TaskStarted { attempt, reason, .. } => {
                task.decision = Decision::new(Action::Run, reason.clone());
                self.set(at, State::Running(Box::new(Activity::new(*attempt, when))));
            }
            EventKind::TaskRetrying { attempt, error, delay, .. } => {
                let delay = jiff::SignedDuration::try_from_secs_f64(*delay).unwrap_or_default();
                let until = when.checked_add(delay).unwrap_or(when);
                self.set(at, State::Retrying { attempt: *attempt, until, error: Box::new(error.clone()) });
            }
            EventKind::TaskFinished { outcome, seconds, .. } => {
                task.seconds = Some(*seconds);
                self.set(at, state_after(outcome));
            }
            EventKind::StepStarted { step, .. } => task.with_activity(|activity| activity.start_step(step)),
            EventKind::StepFinished { step, .. } => task.with_activity(|activity| activity.finish_step(step)),
            EventKind::Output { text, .. } => task.with_activity(|activity| activity.write(text)),
            EventKind::RunStarted { .. }
            | EventKind::Stopping { .. }
            | EventKind::Notice { .. }
            | EventKind::RunFinished { .. } => {}
        }
    }

    /// The one place where a task changes its state.
    fn set(&mut self, at: usize, state: State) {
        let before = std::mem::replace(&mut self.tasks[at].state, state);
        let after = &self.tasks[at].state;
        *self.tally.of(&before) -= 1;
        *self.tally.of(after) += 1;
        match (before.is_active(), after.is_active()) {
            (false, true) => self.active.push(at),
            (true, false) => self.active.retain(|&active| active != at),
            _ => {}
        }
    }

    /// The task of that id.
    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.index.get(id).map(|&at| &self.tasks[at])
    }

    /// Where the task stands in [`Progress::tasks`].
    pub(crate) fn position(&self, id: &TaskId) -> Option<usize> {
        self.index.get(id).copied()
    }

    /// The positions of all tasks, each behind those of its needs; without those on a cycle.
    pub(crate) fn order(&self) -> &[usize] {
        &self.order
    }

    /// The positions of the tasks that need the task at `at`.
    pub(crate) fn dependents(&self, at: usize) -> &[usize] {
        &self.dependents[at]
    }

    /// All tasks, in the order of the graph.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The tasks that run or wait for another attempt, the longest first.
    pub fn active(&self) -> impl ExactSizeIterator<Item = &Task> {
        self.active.iter().map(|&at| &self.tasks[at])
    }

    /// How many tasks do what.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// When the run began.
    pub fn started(&self) -> Option<Timestamp> {
        self.run.as_ref().map(|run| run.started)
    }

    /// When the last event happened.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The run's number, 0 before it began.
    pub fn number(&self) -> u64 {
        self.run.as_ref().map_or(0, |run| run.number)
    }

    /// Whether the run brings tasks up or takes them away.
    pub fn verb(&self) -> Verb {
        self.run.as_ref().map_or(Verb::Run, |run| run.verb)
    }

    /// The environment's name.
    pub fn environment(&self) -> &str {
        self.run.as_ref().map_or("", |run| &run.environment)
    }

    /// The number of tasks that may run at once.
    pub fn jobs(&self) -> usize {
        self.run.as_ref().map_or(1, |run| run.jobs)
    }

    /// How urgently the run was asked to stop; 0 if it was not.
    pub fn stopping(&self) -> u8 {
        self.stopping
    }

    /// How the run ended, if it did.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }
}

fn state_of(decision: &Decision) -> State {
    match decision.action {
        Action::Run | Action::DecideAfter => State::Waiting,
        Action::Keep => State::Kept,
        Action::Skip => State::Skipped { reason: decision.reason.to_string() },
        Action::Blocked => State::Blocked { reason: decision.reason.clone() },
    }
}

fn state_after(outcome: &Outcome) -> State {
    match outcome {
        Outcome::Succeeded => State::Succeeded,
        Outcome::Degraded { missing } => State::Degraded { missing: missing.clone() },
        Outcome::Skipped { reason } => State::Skipped { reason: reason.clone() },
        Outcome::Failed { error } => State::Failed { error: error.clone() },
        Outcome::Cancelled => State::Cancelled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{self, Script};
    use proptest::prelude::*;

    #[test]
    fn a_task_goes_through_its_states() {
        let mut script = Script::new(&[("a", &[]), ("b", &["a"])]);
        let mut progress = Progress::new();
        let step = |progress: &mut Progress, event: Event| progress.apply(&event);
        step(&mut progress, script.begin());
        assert_eq!(progress.tally(), Tally { waiting: 2, ..Tally::default() });
        step(&mut progress, script.started("a"));
        step(&mut progress, script.step("a", "dig"));
        step(&mut progress, script.output("a", "one\ntw"));
        step(&mut progress, script.output("a", "o"));
        let task = progress.active().next().unwrap();
        let State::Running(activity) = &task.state else { panic!("{task:?}") };
        assert_eq!((activity.step(), activity.tail()), (Some("dig"), "two"));
        step(&mut progress, script.succeeded("a", 2.0));
        assert_eq!(progress.active().len(), 0);
        assert_eq!(progress.task(&testing::id("a")).unwrap().seconds, Some(2.0));
        assert_eq!(progress.tally().ended.succeeded, 1);
    }

    proptest! {
        #[test]
        fn the_counts_add_up_whatever_comes(events in testing::any_events()) {
            let mut progress = Progress::new();
            for event in &events {
                progress.apply(event);
                prop_assert_eq!(progress.tally().total(), progress.tasks().len());
                let tally = progress.tally();
                prop_assert_eq!(tally.running + tally.retrying, progress.active().len());
                let _ = progress.predict(event.at);
            }
        }
    }
}
