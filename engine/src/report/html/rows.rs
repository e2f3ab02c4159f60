//! What the template shows of each task.

use std::collections::BTreeMap;

use serde::Serialize;

use super::LogTail;
use super::critical::{self, Link};
use super::history::History;
use super::names::{Name, Names};
use super::page::{Clock, Outcome};
use crate::plan::{Action, Decision};
use crate::report::fold::{State, Task};
use crate::report::text::{self, clean};

/// Failures of which all is shown.
const SHOWN_FAILURES: usize = 100;
/// Tasks of the critical path that are listed.
const SHOWN_LINKS: usize = 200;
/// Ids that are listed one by one.
const SHOWN_IDS: usize = 12;

#[derive(Serialize)]
pub(super) struct FailureCard {
    name: Name,
    message: String,
    step: Option<String>,
    command: Option<String>,
    ended: Option<String>,
    tail: Option<String>,
    log: Option<String>,
    hint: Option<String>,
}

#[derive(Serialize)]
pub(super) struct PathRow {
    name: Name,
    waited: Option<String>,
    took: String,
    /// Of the whole run, in percent.
    share: f64,
}

#[derive(Serialize)]
pub(super) struct PlanRow {
    action: &'static str,
    outcome: Outcome,
    as_planned: bool,
    count: usize,
    ids: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct TaskRow {
    anchor: usize,
    name: Name,
    action: &'static str,
    reason: String,
    /// What was decided where the plan had put it off.
    then: Option<String>,
    outcome: Outcome,
    detail: Option<String>,
    attempts: usize,
    began: Measure,
    took: Measure,
    expected: Measure,
    /// Whether it took much longer than expected.
    is_slow: bool,
    slack: Measure,
    critical: bool,
    needs: Vec<Name>,
}

/// A number as it is shown, and as the column is sorted by it; -1 where there is none.
#[derive(Serialize)]
struct Measure {
    text: String,
    sort: f64,
}

#[derive(Serialize)]
pub(super) struct Log {
    id: String,
    attempt: u32,
    path: String,
    size: String,
    /// How much of it is shown, if not all.
    shown: Option<String>,
    text: String,
}

impl FailureCard {
    pub(super) fn all(history: &History, names: &Names<'_>) -> Vec<Self> {
        let tasks = history.progress.tasks().iter().enumerate();
        tasks.filter_map(|(at, task)| Self::new(names.of(at), task)).take(SHOWN_FAILURES).collect()
    }

    fn new(name: Name, task: &Task) -> Option<Self> {
        let State::Failed { error } = &task.state else { return None };
        let command = error.command.as_ref();
        let line = |text: &String| clean(text).into_owned();
        Some(Self {
            name,
            message: clean(&error.to_string()).into_owned(),
            step: error.step.as_ref().map(line),
            command: command.map(|command| line(&command.line)),
            ended: command.map(|command| line(&command.ended)),
            tail: command.map(|command| lines(&command.tail)).filter(|tail| !tail.is_empty()),
            log: command.and_then(|command| command.log.as_ref()).map(|log| log.display().to_string()),
            hint: error.hint.as_ref().map(|hint| lines(hint)),
        })
    }
}

impl PathRow {
    /// The rows that are shown, and how many are not.
    pub(super) fn all(history: &History, path: &[Link], names: &Names<'_>) -> (Vec<Self>, usize) {
        let mut durations: Vec<f64> = path.iter().map(|link| link.span.seconds()).collect();
        durations.sort_by(f64::total_cmp);
        let hidden = path.len().saturating_sub(SHOWN_LINKS);
        let shortest = durations.get(hidden).copied().unwrap_or_default();
        let long = path.iter().filter(|link| link.span.seconds() >= shortest);
        (long.take(SHOWN_LINKS).map(|link| Self::new(history, link, names)).collect(), hidden)
    }

    fn new(history: &History, link: &Link, names: &Names<'_>) -> Self {
        const NOTICEABLE_SECONDS: f64 = 0.1;
        Self {
            name: names.of(link.task),
            waited: (link.waited >= NOTICEABLE_SECONDS).then(|| text::seconds(link.waited)),
            took: text::seconds(link.span.seconds()),
            share: (link.span.seconds() / history.end.max(1e-9) * 1000.0).round() / 10.0,
        }
    }
}

impl PlanRow {
    pub(super) fn all(history: &History) -> Vec<Self> {
        let mut groups: BTreeMap<(bool, Action, Outcome), Vec<&Task>> = BTreeMap::new();
        for (task, told) in history.progress.tasks().iter().zip(&history.tasks) {
            let outcome = Outcome::of(&task.state);
            let group = (is_as_planned(told.planned.action, outcome), told.planned.action, outcome);
            groups.entry(group).or_default().push(task);
        }
        let row = |((as_planned, action, outcome), tasks): ((bool, Action, Outcome), Vec<&Task>)| Self {
            action: action.as_str(),
            outcome,
            as_planned,
            count: tasks.len(),
            ids: tasks.iter().take(SHOWN_IDS).map(|task| task.id.to_string()).collect(),
        };
        groups.into_iter().map(row).collect()
    }
}

fn is_as_planned(action: Action, outcome: Outcome) -> bool {
    match action {
        Action::Run => matches!(outcome, Outcome::Succeeded | Outcome::Degraded),
        Action::Keep => outcome == Outcome::Kept,
        Action::DecideAfter => matches!(outcome, Outcome::Succeeded | Outcome::Degraded | Outcome::Kept),
        Action::Skip => outcome == Outcome::Skipped,
        Action::Blocked => outcome == Outcome::Blocked,
    }
}

impl TaskRow {
    /// The rows that are shown, in the order of the graph.
    pub(super) fn all(history: &History, names: &Names<'_>, clock: &Clock<'_>) -> Vec<Self> {
        let slack = critical::slack(history);
        let shown = (0..slack.len()).filter(|&at| names.is_shown(at));
        shown.map(|at| Self::new(history, at, slack[at], names, clock)).collect()
    }

    fn new(history: &History, at: usize, slack: Option<f64>, names: &Names<'_>, clock: &Clock<'_>) -> Self {
        let (task, told) = (&history.progress.tasks()[at], &history.tasks[at]);
        let span = told.span();
        let took = span.map(|span| span.seconds());
        Self {
            anchor: at,
            name: names.of(at),
            action: told.planned.action.as_str(),
            reason: clean(&told.planned.reason.to_string()).into_owned(),
            then: then(&told.planned, &task.decision),
            outcome: Outcome::of(&task.state),
            detail: detail(&task.state),
            attempts: told.attempts.len(),
            began: span.map_or(Measure::NONE, |span| Measure { text: clock.time(span.begin), sort: span.begin }),
            took: Measure::seconds(took),
            expected: Measure::seconds(task.expected),
            is_slow: took.zip(task.expected).is_some_and(|(took, expected)| took > 1.5 * expected + 1.0),
            slack: Measure::seconds(slack),
            critical: names.is_critical(at),
            needs: task.needs.iter().map(|&need| names.of(need)).collect(),
        }
    }
}

/// What was decided in the course of the run, unless the outcome says it already.
fn then(planned: &Decision, decided: &Decision) -> Option<String> {
    let is_news = planned.action == Action::DecideAfter || decided.action == Action::Run;
    (is_news && planned != decided).then(|| clean(&format!("{}: {}", decided.action, decided.reason)).into_owned())
}

fn detail(state: &State) -> Option<String> {
    let detail = match state {
        State::Degraded { missing } => missing.join("; "),
        State::Skipped { reason } => reason.clone(),
        State::Failed { error } | State::Retrying { error, .. } => error.to_string(),
        State::Blocked { reason } => reason.to_string(),
        _ => return None,
    };
    Some(clean(&detail).into_owned())
}

impl Measure {
    const NONE: Self = Self { text: String::new(), sort: -1.0 };

    fn seconds(seconds: Option<f64>) -> Self {
        seconds.map_or(Self::NONE, |seconds| Self { text: text::seconds(seconds), sort: seconds })
    }
}

impl Log {
    pub(super) fn new(log: &LogTail, most: usize) -> Self {
        let from = log.text.ceil_char_boundary(log.text.len().saturating_sub(most));
        let shown = &log.text[from..];
        Self {
            id: log.task.to_string(),
            attempt: log.attempt,
            path: log.path.display().to_string(),
            size: bytes(log.size),
            shown: (log.size > shown.len() as u64).then(|| bytes(shown.len() as u64)),
            text: lines(shown),
        }
    }
}

/// Lines as a terminal would show them, without what would drive it.
fn lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| clean(text::last_overwrite(line)).into_owned()).collect();
    lines.join("\n")
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
