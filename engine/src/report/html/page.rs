//! What the template shows of a run as a whole.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::critical;
use super::history::History;
use super::names::Names;
use super::rows::{FailureCard, Log, PathRow, PlanRow, TaskRow};
use super::timeline::Timeline;
use super::{LogTail, RunHistory};
use crate::event::Verb;
use crate::report::fold::{Ended, Progress, State};
use crate::report::text;

/// Of larger runs only the tasks that took longest, and those that failed, are shown.
pub(super) const SHOWN_TASKS: usize = 2000;
/// What all logs of a page may take together, in bytes.
const ALL_LOGS: usize = 16 * 1024 * 1024;

#[derive(Serialize)]
pub(super) struct Page {
    /// The latest first.
    runs: Vec<Run>,
}

#[derive(Serialize)]
struct Run {
    number: u64,
    environment: String,
    ended: &'static str,
    /// The outcome whose colour stands for the whole run.
    outcome: Outcome,
    began: String,
    took: String,
    jobs: usize,
    exit_code: Option<u8>,
    total: usize,
    tallies: Vec<Counted>,
    notices: Vec<String>,
    failures: Vec<FailureCard>,
    /// Failures without a card.
    failures_hidden: usize,
    timeline: Timeline,
    path: Vec<PathRow>,
    path_hidden: usize,
    path_worked: String,
    path_waited: String,
    /// Whether the chain waited longer than it worked.
    path_mostly_waited: bool,
    plan: Vec<PlanRow>,
    tasks: Vec<TaskRow>,
    hidden: usize,
    logs: Vec<Log>,
}

#[derive(Serialize)]
struct Counted {
    outcome: Outcome,
    count: usize,
    /// Of all tasks, in percent.
    share: f64,
}

/// How something ended, as the style sheet knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Failed,
    Blocked,
    Cancelled,
    /// It ran when the events end.
    Unfinished,
    /// It had not started when the events end.
    Waiting,
    Degraded,
    Succeeded,
    Kept,
    Skipped,
}

/// Tells times of day of a run.
pub(super) struct Clock<'a> {
    started: Timestamp,
    zone: &'a TimeZone,
}

impl Clock<'_> {
    /// The time of day so many seconds after the run began.
    pub(super) fn time(&self, seconds: f64) -> String {
        let since = SignedDuration::try_from_secs_f64(seconds).unwrap_or_default();
        self.format(self.started.checked_add(since).unwrap_or(self.started), "%H:%M:%S")
    }

    fn format(&self, at: Timestamp, format: &str) -> String {
        at.to_zoned_datetime(self.zone.clone()).strftime(format).to_string()
    }
}

impl Outcome {
    pub(super) const ALL: [Self; 9] = [
        Self::Failed,
        Self::Blocked,
        Self::Cancelled,
        Self::Unfinished,
        Self::Waiting,
        Self::Degraded,
        Self::Succeeded,
        Self::Kept,
        Self::Skipped,
    ];

    pub(super) fn of(state: &State) -> Self {
        match state {
            State::Waiting => Self::Waiting,
            State::Running(_) | State::Retrying { .. } => Self::Unfinished,
            State::Kept => Self::Kept,
            State::Succeeded => Self::Succeeded,
            State::Degraded { .. } => Self::Degraded,
            State::Skipped { .. } => Self::Skipped,
            State::Failed { .. } => Self::Failed,
            State::Blocked { .. } => Self::Blocked,
            State::Cancelled => Self::Cancelled,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Blocked => "blocked",
            Self::Cancelled => "cancelled",
            Self::Unfinished => "unfinished",
            Self::Waiting => "waiting",
            Self::Degraded => "degraded",
            Self::Succeeded => "succeeded",
            Self::Kept => "kept",
            Self::Skipped => "skipped",
        }
    }
}

impl Page {
    pub(super) fn new(runs: &[RunHistory], zone: &TimeZone) -> Self {
        let logs: usize = runs.iter().map(|run| run.logs.len()).sum();
        let log_size = (ALL_LOGS / logs.max(1)).min(LogTail::MAX);
        Self { runs: runs.iter().rev().filter_map(|run| Run::new(run, zone, log_size)).collect() }
    }
}

impl Run {
    /// Nothing if the run has no first event.
    fn new(run: &RunHistory, zone: &TimeZone, log_size: usize) -> Option<Self> {
        let history = History::of(&run.events)?;
        let progress = &history.progress;
        let clock = Clock { started: progress.started()?, zone };
        let path = critical::path(&history);
        let names = Names::new(&history, &path);
        let tasks = TaskRow::all(&history, &names, &clock);
        let (path_rows, path_hidden) = PathRow::all(&history, &path, &names);
        let worked: f64 = path.iter().map(|link| link.span.seconds()).sum();
        let waited: f64 = path.iter().map(|link| link.waited).sum();
        let total = progress.tasks().len();
        let (ended, outcome) = ended(progress);
        let failures = FailureCard::all(&history, &names);
        Some(Self {
            number: progress.number(),
            environment: progress.environment().to_owned(),
            ended,
            outcome,
            began: clock.format(clock.started, "%Y-%m-%d %H:%M:%S %Z"),
            took: text::seconds(history.end),
            jobs: progress.jobs(),
            exit_code: progress.ended().map(|ended| ended.exit_code),
            total,
            tallies: tallies(progress),
            notices: history.notices.iter().map(|notice| text::clean(notice).into_owned()).collect(),
            failures_hidden: progress.tally().ended.failed - failures.len(),
            failures,
            timeline: Timeline::new(&history, &names, &clock),
            path_worked: text::seconds(worked),
            path_waited: text::seconds(waited),
            path_mostly_waited: waited > worked,
            path: path_rows,
            path_hidden,
            plan: PlanRow::all(&history),
            hidden: total - tasks.len(),
            tasks,
            logs: run.logs.iter().map(|log| Log::new(log, log_size)).collect(),
        })
    }
}

fn ended(progress: &Progress) -> (&'static str, Outcome) {
    let is_destroy = progress.verb() == Verb::Destroy;
    match progress.ended() {
        None => ("has no recorded end: it still runs, or was killed", Outcome::Unfinished),
        Some(Ended { counts, .. }) if counts.failed > 0 => ("failed", Outcome::Failed),
        Some(Ended { counts, .. }) if counts.cancelled > 0 => ("was interrupted", Outcome::Cancelled),
        Some(Ended { exit_code: 1.., .. }) => ("failed", Outcome::Failed),
        Some(_) if is_destroy => ("destroyed what it should", Outcome::Succeeded),
        Some(Ended { counts, .. }) if counts.degraded > 0 => ("succeeded, but for some parts", Outcome::Degraded),
        Some(_) => ("succeeded", Outcome::Succeeded),
    }
}

fn tallies(progress: &Progress) -> Vec<Counted> {
    let tasks = progress.tasks();
    let count = |outcome| {
        let count = tasks.iter().filter(|task| Outcome::of(&task.state) == outcome).count();
        Counted { outcome, count, share: 100.0 * count as f64 / tasks.len().max(1) as f64 }
    };
    Outcome::ALL.map(count).into_iter().filter(|counted| counted.count > 0).collect()
}
