//! What a task does, and how many tasks do it.

use jiff::Timestamp;

use crate::TaskId;
use crate::event::Counts;
use crate::outcome::Failure;
use crate::plan::{Decision, Reason};
use crate::report::text;

/// A task of a run.
#[derive(Debug)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Its title, or nothing where it has none.
    pub title: Option<String>,
    /// The tasks that it needs, as indices into [`super::Progress::tasks`].
    pub needs: Vec<usize>,
    /// How long its last success took, in seconds, if it is known.
    pub expected: Option<f64>,
    /// How long the attempt took that ended, in seconds.
    pub seconds: Option<f64>,
    /// What was decided about it, and why.
    pub decision: Decision,
    /// What it does now.
    pub state: State,
}

/// What a task does now, or how it ended.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It will run, or be decided about.
    Waiting,
    /// An attempt is under way.
    Running(Box<Activity>),
    /// An attempt failed, and there will be another one.
    Retrying {
        /// The attempt that failed.
        attempt: u32,
        /// When the next one begins.
        until: Timestamp,
        /// Why it failed.
        error: Box<Failure>,
    },
    /// Its work stood already.
    Kept,
    /// It ran and succeeded.
    Succeeded,
    /// It ran, and works but for named parts.
    Degraded {
        /// What does not work.
        missing: Vec<String>,
    },
    /// It was left out.
    Skipped {
        /// Why.
        reason: String,
    },
    /// It ran and failed.
    Failed {
        /// Why.
        error: Box<Failure>,
    },
    /// It was not started because of something else.
    Blocked {
        /// Because of what.
        reason: Reason,
    },
    /// It was stopped, or never started, because the run was interrupted.
    Cancelled,
}

/// An attempt under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Activity {
    /// Counts the attempts at the task, from 1.
    pub attempt: u32,
    /// When it began.
    pub since: Timestamp,
    steps: Vec<String>,
    last_line: String,
    partial_line: String,
}

/// How many tasks do what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Not started, and not decided against.
    pub waiting: usize,
    /// An attempt is under way.
    pub running: usize,
    /// Between two attempts.
    pub retrying: usize,
    /// Came to an end.
    pub ended: Counts,
}

impl State {
    /// Whether the task runs or waits for another attempt.
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Running(_) | Self::Retrying { .. })
    }

    /// The word for it in tables.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running(_) => "running",
            Self::Retrying { .. } => "retrying",
            Self::Kept => "kept",
            Self::Succeeded => "succeeded",
            Self::Degraded { .. } => "degraded",
            Self::Skipped { .. } => "skipped",
            Self::Failed { .. } => "failed",
            Self::Blocked { .. } => "blocked",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Tally {
    /// All tasks.
    pub fn total(&self) -> usize {
        let Counts { succeeded, degraded, kept, skipped, failed, blocked, cancelled } = self.ended;
        let ended = succeeded + degraded + kept + skipped + failed + blocked + cancelled;
        self.waiting + self.running + self.retrying + ended
    }

    /// Those that came to an end with which nothing is wrong.
    pub fn done(&self) -> usize {
        self.ended.succeeded + self.ended.degraded + self.ended.kept + self.ended.skipped
    }

    /// The count in which a task of that state is counted.
    pub(super) fn of(&mut self, state: &State) -> &mut usize {
        match state {
            State::Waiting => &mut self.waiting,
            State::Running(_) => &mut self.running,
            State::Retrying { .. } => &mut self.retrying,
            State::Kept => &mut self.ended.kept,
            State::Succeeded => &mut self.ended.succeeded,
            State::Degraded { .. } => &mut self.ended.degraded,
            State::Skipped { .. } => &mut self.ended.skipped,
            State::Failed { .. } => &mut self.ended.failed,
            State::Blocked { .. } => &mut self.ended.blocked,
            State::Cancelled => &mut self.ended.cancelled,
        }
    }
}

impl Task {
    pub(super) fn with_activity(&mut self, change: impl FnOnce(&mut Activity)) {
        if let State::Running(activity) = &mut self.state {
            change(activity);
        }
    }
}

impl Activity {
    /// What is kept of a line; no terminal shows more of it.
    const MAX_LINE: usize = 1024;

    pub(super) fn new(attempt: u32, since: Timestamp) -> Self {
        Self { attempt, since, steps: Vec::new(), last_line: String::new(), partial_line: String::new() }
    }

    /// The step that was begun last of those that are under way.
    pub fn step(&self) -> Option<&str> {
        self.steps.last().map(String::as_str)
    }

    /// The last line of its output that shows something, as it was written. It may hold anything, escape sequences too.
    pub fn tail(&self) -> &str {
        let partial = text::last_overwrite(&self.partial_line);
        if partial.trim().is_empty() { &self.last_line } else { partial }
    }

    pub(super) fn start_step(&mut self, step: &str) {
        self.steps.push(step.to_owned());
    }

    pub(super) fn finish_step(&mut self, step: &str) {
        if let Some(at) = self.steps.iter().rposition(|under_way| under_way == step) {
            self.steps.remove(at);
        }
    }

    /// Looks at the last lines of `text` only, for a task may write much more than anyone will see.
    pub(super) fn write(&mut self, text: &str) {
        match text.rsplit_once('\n') {
            None => self.extend_partial(text),
            Some((lines, partial)) => {
                match lines.rsplit_once('\n') {
                    None => self.extend_partial(lines),
                    Some((_, last)) => {
                        self.partial_line.clear();
                        self.extend_partial(last);
                    }
                }
                let whole = text::last_overwrite(&self.partial_line);
                if !whole.trim().is_empty() {
                    self.last_line = whole.to_owned();
                }
                self.partial_line.clear();
                self.extend_partial(partial);
            }
        }
    }

    fn extend_partial(&mut self, text: &str) {
        // A progress bar overwrites itself with carriage returns; only its last state matters.
        if let Some(at) = text.rfind('\r').filter(|at| at + 1 < text.len()) {
            self.partial_line.clear();
            self.partial_line.push_str(&text[at..]);
        } else {
            self.partial_line.push_str(text);
        }
        if self.partial_line.len() > Self::MAX_LINE {
            self.partial_line.truncate(self.partial_line.floor_char_boundary(Self::MAX_LINE));
        }
    }
}
