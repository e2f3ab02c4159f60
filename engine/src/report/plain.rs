//! A line per event, for pipes and CI.

use std::collections::HashMap;

use jiff::Timestamp;

use super::closing::{self, closing};
use super::fold::{Progress, State};
use super::line::{Ink, Line};
use super::sink::Sink;
use super::symbols::Symbols;
use super::text::{self, Lines};
use super::{Reporter, Streams};
use crate::TaskId;
use crate::event::{Event, EventKind, Verb};
use crate::outcome::Outcome;
use crate::plan::{Action, Decision};

/// In larger runs the tasks that do not run are only counted.
pub(crate) const MANY_TASKS: usize = 2000;

pub(crate) struct Plain {
    err: Sink,
    color: bool,
    symbols: &'static Symbols,
    progress: Progress,
    /// Output that waits for its line end.
    partial: HashMap<TaskId, Lines>,
}

impl Plain {
    pub(crate) fn new(streams: Streams) -> Self {
        Self {
            err: Sink::new(streams.err),
            color: streams.color,
            symbols: Symbols::of(streams.unicode),
            progress: Progress::new(),
            partial: HashMap::new(),
        }
    }

    /// Writes a line with the time since the run began before it.
    fn line(&mut self, at: Timestamp, line: impl FnOnce(Line) -> Line) {
        let elapsed = self.progress.started().map_or(0.0, |started| text::elapsed(started, at));
        let line = line(Line::new().with(Ink::Dim, format!("{elapsed:>7.1}s  ")));
        self.err.line(&line.paint(self.color));
    }

    fn task_line(&mut self, at: Timestamp, task: &TaskId, ink: Ink, what: &str) {
        self.line(at, |line| line.with(Ink::Bold, task).plain(" ").with(ink, what));
    }

    fn output(&mut self, at: Timestamp, task: &TaskId, piece: &str) {
        let mut lines = self.partial.remove(task).unwrap_or_default();
        lines.push(piece, |line| self.output_line(at, task, line));
        self.partial.insert(task.clone(), lines);
    }

    /// Writes what a task left without a line end.
    fn end_output(&mut self, at: Timestamp, task: &TaskId) {
        if let Some(mut lines) = self.partial.remove(task) {
            lines.finish(|line| self.output_line(at, task, line));
        }
    }

    fn output_line(&mut self, at: Timestamp, task: &TaskId, text: &str) {
        self.line(at, |line| line.with(Ink::Bold, task).with(Ink::Dim, " | ").plain(text));
    }

    fn begin(&mut self, event: &Event, verb: Verb, environment: &str) {
        let tally = self.progress.tally();
        let what = match verb {
            Verb::Run => "to run",
            Verb::Destroy => "to destroy",
        };
        let mut head = format!(
            "run {} of environment {environment}: {}, {} at a time: {} {what}",
            event.run,
            text::count(tally.total(), "task", "tasks"),
            self.progress.jobs(),
            tally.waiting,
        );
        for (_, part) in closing::counts_in_words(&tally.ended, verb) {
            head.push_str(", ");
            head.push_str(&part);
        }
        self.line(event.at, |line| line.with(Ink::Bold, head));
        let decided: Vec<_> = self
            .progress
            .tasks()
            .iter()
            .filter(|task| task.state != State::Waiting)
            .map(|task| (task.id.clone(), task.decision.clone()))
            .collect();
        for (task, decision) in decided {
            self.decided(event.at, &task, &decision);
        }
    }

    fn decided(&mut self, at: Timestamp, task: &TaskId, decision: &Decision) {
        if self.progress.tally().total() > MANY_TASKS {
            return;
        }
        let (ink, what) = match decision.action {
            // That it runs is told when it starts.
            Action::Run | Action::DecideAfter => return,
            Action::Keep => (Ink::Plain, "kept"),
            Action::Skip => (Ink::Plain, "skipped"),
            Action::Blocked => (Ink::Yellow, "blocked"),
        };
        self.task_line(at, task, ink, &format!("{what} ({})", decision.reason));
    }

    fn finished(&mut self, at: Timestamp, task: &TaskId, outcome: &Outcome, seconds: f64) {
        let took = text::seconds(seconds);
        let (ink, what) = match outcome {
            Outcome::Succeeded => (Ink::Green, format!("{} in {took}", closing::done(self.progress.verb()))),
            Outcome::Degraded { missing } => (Ink::Yellow, format!("degraded after {took}: {}", missing.join("; "))),
            Outcome::Skipped { reason } => (Ink::Plain, format!("skipped ({reason})")),
            Outcome::Failed { error } => (Ink::Red, format!("failed after {took}: {error}")),
            Outcome::Cancelled => (Ink::Yellow, "cancelled".to_owned()),
        };
        self.task_line(at, task, ink, &what);
    }
}

impl Reporter for Plain {
    fn event(&mut self, event: &Event) {
        self.progress.apply(event);
        let at = event.at;
        match &event.kind {
            EventKind::RunStarted { verb, environment, .. } => self.begin(event, *verb, environment),
            EventKind::TaskDecided { task, decision } => {
                self.decided(at, task, decision);
            }
            EventKind::TaskStarted { task, attempt, reason } => {
                let attempt = if *attempt > 1 { format!("attempt {attempt}, ") } else { String::new() };
                self.task_line(at, task, Ink::Cyan, &format!("started ({attempt}{reason})"));
            }
            EventKind::StepStarted { task, step } => {
                let into = self.symbols.into;
                self.task_line(at, task, Ink::Plain, &format!("{into} {step}"));
            }
            EventKind::StepFinished { task, step, kept: true } => {
                let into = self.symbols.into;
                self.task_line(at, task, Ink::Plain, &format!("{into} {step} (done by an earlier attempt)"));
            }
            EventKind::StepFinished { .. } => {}
            EventKind::Output { task, text } => self.output(at, task, text),
            EventKind::TaskRetrying { task, attempt, error, delay } => {
                self.end_output(at, task);
                let again = text::seconds(*delay);
                let what = format!("attempt {attempt} failed, the next one is in {again}: {error}");
                self.task_line(at, task, Ink::Yellow, &what);
            }
            EventKind::TaskFinished { task, outcome, seconds, .. } => {
                self.end_output(at, task);
                self.finished(at, task, outcome, *seconds);
            }
            EventKind::Stopping { level, waiting_for } => {
                let what = stopping(*level, waiting_for);
                self.line(at, |line| line.with(Ink::Yellow, what));
            }
            EventKind::Notice { task: Some(task), text } => {
                self.task_line(at, task, Ink::Yellow, &format!("note: {text}"))
            }
            EventKind::Notice { task: None, text } => {
                self.line(at, |line| line.with(Ink::Yellow, "note: ").plain(text))
            }
            EventKind::RunFinished { .. } => {}
        }
    }

    fn tick(&mut self, _now: Timestamp) {
        self.err.flush();
    }

    fn is_silent(&self) -> bool {
        self.err.is_silent()
    }

    fn finish(&mut self) {
        let mut unfinished: Vec<_> = self.partial.keys().cloned().collect();
        unfinished.sort();
        for task in unfinished {
            self.end_output(self.progress.now(), &task);
        }
        for line in closing(&self.progress, self.symbols) {
            self.err.line(&line.paint(self.color));
        }
        self.err.flush();
    }
}

/// What a run that was asked to stop waits for.
pub(crate) fn stopping(level: u8, waiting_for: &[TaskId]) -> String {
    let mut tasks: Vec<_> = waiting_for.iter().take(3).map(TaskId::as_str).collect();
    let more = format!("{} more", waiting_for.len().saturating_sub(3));
    if waiting_for.len() > 3 {
        tasks.push(&more);
    }
    match (level, tasks.is_empty()) {
        (..=1, true) => "stopping".to_owned(),
        (..=1, false) => format!("stopping: waiting for a safe point of {}", tasks.join(", ")),
        (2, true) => "stopping: ending all processes".to_owned(),
        (2, false) => format!("stopping: ending the processes of {}", tasks.join(", ")),
        (3.., _) => "leaving at once; the next resume looks after what is left".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Reason;
    use crate::report::Kind;
    use crate::report::testing::{self, Script};
    use proptest::prelude::*;

    #[test]
    fn transcript() {
        let (out, err) = testing::report(Kind::Plain, &testing::story());
        assert_eq!(out, "");
        testing::snapshots().bind(|| insta::assert_snapshot!("report_plain", err));
    }

    #[test]
    fn kept_tasks_of_a_large_run_are_counted_only() {
        let ids: Vec<_> = (0..=MANY_TASKS).map(|n| format!("t{n}")).collect();
        let graph: Vec<(&str, &[&str])> = ids.iter().map(|id| (id.as_str(), &[] as &[&str])).collect();
        let mut script = Script::new(&graph);
        for id in &ids[1..] {
            script = script.planning(id, Action::Keep, Reason::UpToDate);
        }
        let (_, err) = testing::report(Kind::Plain, &[script.begin()]);
        assert_eq!(err.lines().count(), 2, "{err}");
        assert!(err.contains("2001 tasks, 2 at a time: 1 to run, 2000 kept"), "{err}");
    }

    proptest! {
        #[test]
        fn whatever_comes_no_control_character_is_written(events in testing::any_events()) {
            let (_, err) = testing::report(Kind::Plain, &events);
            prop_assert!(!err.contains(|c: char| c.is_control() && c != '\n'), "{err:?}");
        }
    }
}
