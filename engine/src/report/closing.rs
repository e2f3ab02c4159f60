//! What stands at the end of a run: the failures, what they held up, what went well all the same, and the counts.

use std::collections::BTreeMap;

use super::fold::{Ended, Progress, State, Task};
use super::line::{Ink, Line};
use super::symbols::Symbols;
use super::text;
use crate::event::{Counts, Verb};
use crate::outcome::Failure;
use crate::plan::Reason;

/// Failures that are shown in full; of more, only the ids.
const SHOWN_FAILURES: usize = 20;
/// Ids that are listed one by one.
const SHOWN_IDS: usize = 12;
/// Lines that are shown of a failed command's output.
const SHOWN_TAIL: usize = 20;

/// The lines at the end of a run; none if no run began.
pub(crate) fn closing(progress: &Progress, symbols: &Symbols) -> Vec<Line> {
    if progress.started().is_none() {
        return Vec::new();
    }
    let mut lines = Vec::new();
    let failed: Vec<_> = progress
        .tasks()
        .iter()
        .filter_map(|task| match &task.state {
            State::Failed { error } => Some((task, error)),
            _ => None,
        })
        .collect();
    for (task, error) in failed.iter().take(SHOWN_FAILURES) {
        lines.push(Line::new());
        failure(&mut lines, task, error, symbols);
    }
    if failed.len() > SHOWN_FAILURES {
        let ids = failed[SHOWN_FAILURES..].iter().map(|(task, _)| *task);
        lines.push(Line::new());
        lines.push(Line::new().with(Ink::Red, "also failed: ").plain(list(ids)));
    }
    let blocked = blocked(progress);
    if !failed.is_empty() || !blocked.is_empty() {
        lines.push(Line::new());
        lines.extend(blocked);
        let fine = progress.tasks().iter().filter(|task| task.state == State::Succeeded);
        if fine.clone().next().is_some() {
            lines.push(Line::new().with(Ink::Green, done(progress.verb())).plain(": ").plain(list(fine)));
        }
    }
    lines.extend(degraded(progress));
    lines.push(summary(progress));
    lines
}

/// What failed, where, the command with its last lines, where the rest is, and what to try.
fn failure(lines: &mut Vec<Line>, task: &Task, error: &Failure, symbols: &Symbols) {
    let field = |name: &str| Line::new().with(Ink::Dim, format!("  {name:<9}"));
    let title = task.title.as_deref().map(|title| format!(" {title}")).unwrap_or_default();
    lines
        .push(Line::new().with(Ink::Red, format!("{} {}", symbols.failed, task.id)).plain(format!("{title}: {error}")));
    if let Some(step) = &error.step {
        lines.push(field("step").plain(step));
    }
    if let Some(command) = &error.command {
        lines.push(field("command").plain(&command.line).with(Ink::Dim, format!("  ({})", command.ended)));
        let tail: Vec<_> = command.tail.lines().collect();
        for line in &tail[tail.len().saturating_sub(SHOWN_TAIL)..] {
            let line = text::last_overwrite(line);
            lines.push(Line::new().with(Ink::Dim, format!("  {} ", symbols.bar)).plain(line));
        }
    }
    match error.command.as_ref().and_then(|command| command.log.as_ref()) {
        Some(log) => lines.push(field("log").plain(log.display().to_string())),
        None => lines.push(field("log").plain(format!("taskrun logs {}", task.id))),
    }
    if let Some(hint) = &error.hint {
        for (at, line) in hint.lines().enumerate() {
            lines.push(field(if at == 0 { "hint" } else { "" }).with(Ink::Cyan, line));
        }
    }
}

/// Who is blocked, by the task that began it.
fn blocked(progress: &Progress) -> Vec<Line> {
    let mut by_cause: BTreeMap<String, Vec<&Task>> = BTreeMap::new();
    for task in progress.tasks() {
        if let State::Blocked { reason } = &task.state {
            by_cause.entry(cause(progress, reason)).or_default().push(task);
        }
    }
    let line = |(cause, tasks): (String, Vec<&Task>)| {
        Line::new().with(Ink::Yellow, format!("blocked by {cause}: ")).plain(list(tasks.into_iter()))
    };
    by_cause.into_iter().map(line).collect()
}

/// The task at the beginning of a chain of blocked ones, or the reason if it is no task.
fn cause(progress: &Progress, reason: &Reason) -> String {
    let mut reason = reason;
    // A chain is no longer than there are tasks; the bound guards against events that tell of a circle.
    for _ in 0..progress.tasks().len() {
        let Reason::NeedFailed { need } = reason else { return reason.to_string() };
        match progress.task(need).map(|task| &task.state) {
            Some(State::Blocked { reason: further @ Reason::NeedFailed { .. } }) => reason = further,
            _ => return need.to_string(),
        }
    }
    reason.to_string()
}

fn degraded(progress: &Progress) -> Vec<Line> {
    let mut lines = Vec::new();
    for task in progress.tasks() {
        let State::Degraded { missing } = &task.state else { continue };
        for part in missing.iter().take(SHOWN_IDS) {
            lines.push(Line::new().with(Ink::Yellow, format!("degraded {}: ", task.id)).plain(part));
        }
        if lines.len() > SHOWN_FAILURES {
            break;
        }
    }
    lines
}

/// `18 tasks: 7 succeeded, 11 kept in 2m 13s`.
fn summary(progress: &Progress) -> Line {
    let (counts, ended) = match progress.ended() {
        Some(Ended { counts, seconds, .. }) => (counts, format!("in {}", text::seconds(seconds))),
        None => (progress.tally().ended, "so far; the end of the run was not told".to_owned()),
    };
    let total = progress.tally().total();
    let parts = counts_in_words(&counts, progress.verb());
    let mut line = Line::new().with(Ink::Bold, text::count(total, "task", "tasks")).plain(": ");
    if parts.is_empty() {
        line = line.plain("nothing was done");
    }
    for (at, (ink, part)) in parts.into_iter().enumerate() {
        line = line.plain(if at > 0 { ", " } else { "" }).with(ink, part);
    }
    line.plain("  ").with(Ink::Dim, ended)
}

/// The counts that are not 0, the good ones first.
pub(crate) fn counts_in_words(counts: &Counts, verb: Verb) -> Vec<(Ink, String)> {
    let Counts { succeeded, degraded, kept, skipped, failed, blocked, cancelled } = *counts;
    [
        (Ink::Green, succeeded, done(verb)),
        (Ink::Yellow, degraded, "degraded"),
        (Ink::Plain, kept, "kept"),
        (Ink::Plain, skipped, "skipped"),
        (Ink::Red, failed, "failed"),
        (Ink::Yellow, blocked, "blocked"),
        (Ink::Yellow, cancelled, "cancelled"),
    ]
    .into_iter()
    .filter(|(_, count, _)| *count > 0)
    .map(|(ink, count, word)| (ink, format!("{count} {word}")))
    .collect()
}

/// What a task did that succeeded.
pub(crate) fn done(verb: Verb) -> &'static str {
    match verb {
        Verb::Run => "succeeded",
        Verb::Destroy => "destroyed",
    }
}

/// Ids in a row, the first of them if there are many.
pub(crate) fn list<'a>(tasks: impl Iterator<Item = &'a Task>) -> String {
    let ids: Vec<_> = tasks.map(|task| task.id.as_str()).collect();
    match ids.len().saturating_sub(SHOWN_IDS) {
        0 => ids.join(", "),
        more => format!("{} and {more} more", ids[..SHOWN_IDS].join(", ")),
    }
}
