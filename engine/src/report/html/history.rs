//! The fold of a run that is over: when each task's attempts and steps began and ended.

use jiff::Timestamp;

use crate::event::{Event, EventKind};
use crate::outcome::Failure;
use crate::plan::Decision;
use crate::report::fold::Progress;
use crate::report::text;

/// A run that is over. Times are seconds since it began.
pub(super) struct History {
    pub(super) progress: Progress,
    /// What was planned for each task and what it did, in the order of [`Progress::tasks`].
    pub(super) tasks: Vec<TaskHistory>,
    pub(super) notices: Vec<String>,
    /// When the last event happened.
    pub(super) end: f64,
}

pub(super) struct TaskHistory {
    pub(super) planned: Decision,
    /// Whether it was decided about in the course of the run, after its needs had ended.
    pub(super) is_decided_later: bool,
    pub(super) attempts: Vec<Attempt>,
}

pub(super) struct Attempt {
    pub(super) number: u32,
    pub(super) span: Span,
    /// The transient error with which it ended, if another attempt was to follow.
    pub(super) retried: Option<Failure>,
    pub(super) steps: Vec<Step>,
    is_open: bool,
}

pub(super) struct Step {
    pub(super) name: String,
    pub(super) span: Span,
    /// Whether an earlier attempt had done it.
    pub(super) kept: bool,
    is_open: bool,
}

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub(super) begin: f64,
    pub(super) end: f64,
}

impl Span {
    pub(super) fn seconds(self) -> f64 {
        self.end - self.begin
    }
}

impl History {
    /// Nothing if the run has no first event.
    pub(super) fn of(events: &[Event]) -> Option<Self> {
        let mut progress = Progress::new();
        let mut tasks: Vec<TaskHistory> = Vec::new();
        let mut notices = Vec::new();
        for event in events {
            progress.apply(event);
            match &event.kind {
                EventKind::RunStarted { tasks: planned, .. } => {
                    tasks = planned.iter().map(|task| TaskHistory::new(&task.decision)).collect();
                }
                EventKind::Notice { task: None, text } => notices.push(text.clone()),
                EventKind::Notice { task: Some(task), text } => notices.push(format!("{task}: {text}")),
                _ => {}
            }
            let Some(at) = event.task().and_then(|task| progress.position(task)) else { continue };
            tasks[at].apply(event, progress.started()?);
        }
        let end = text::elapsed(progress.started()?, progress.now());
        for attempt in tasks.iter_mut().flat_map(|task| &mut task.attempts) {
            attempt.close(end);
        }
        Some(Self { progress, tasks, notices, end })
    }
}

impl TaskHistory {
    fn new(planned: &Decision) -> Self {
        Self { planned: planned.clone(), is_decided_later: false, attempts: Vec::new() }
    }

    /// From the beginning of the first attempt to the end of the last one; nothing if the task did not run.
    pub(super) fn span(&self) -> Option<Span> {
        let (first, last) = (self.attempts.first()?, self.attempts.last()?);
        Some(Span { begin: first.span.begin, end: last.span.end })
    }

    fn apply(&mut self, event: &Event, started: Timestamp) {
        let now = text::elapsed(started, event.at);
        let span = Span { begin: now, end: now };
        if let EventKind::TaskStarted { attempt: number, .. } = event.kind {
            self.attempts.push(Attempt { number, span, retried: None, steps: Vec::new(), is_open: true });
            return;
        }
        self.is_decided_later |= matches!(event.kind, EventKind::TaskDecided { .. });
        let Some(attempt) = self.attempts.last_mut().filter(|attempt| attempt.is_open) else { return };
        match &event.kind {
            EventKind::StepStarted { step, .. } => {
                attempt.steps.push(Step { name: step.clone(), span, kept: false, is_open: true });
            }
            EventKind::StepFinished { step, kept, .. } => {
                let open = attempt.steps.iter_mut().rev().find(|open| open.is_open && open.name == *step);
                match open {
                    Some(open) => {
                        open.close(now);
                        open.kept = *kept;
                    }
                    None => attempt.steps.push(Step { name: step.clone(), span, kept: *kept, is_open: false }),
                }
            }
            EventKind::TaskRetrying { error, .. } => {
                attempt.close(now);
                attempt.retried = Some(error.clone());
            }
            EventKind::TaskFinished { .. } => attempt.close(now),
            _ => {}
        }
    }
}

impl Attempt {
    fn close(&mut self, now: f64) {
        if std::mem::take(&mut self.is_open) {
            self.span.end = now;
            self.steps.iter_mut().for_each(|step| step.close(now));
        }
    }
}

impl Step {
    fn close(&mut self, now: f64) {
        if std::mem::take(&mut self.is_open) {
            self.span.end = now;
        }
    }
}
