//! The timeline: a row per task that ran, a bar per attempt, its steps within.

use serde::Serialize;

use super::critical;
use super::history::{Attempt, History, Span};
use super::names::{Name, Names};
use super::page::{Clock, Outcome};
use crate::report::text;

#[derive(Serialize)]
pub(super) struct Timeline {
    ticks: Vec<Tick>,
    rows: Vec<Row>,
    /// Tasks that ran and are not shown.
    hidden: usize,
}

#[derive(Serialize)]
struct Tick {
    left: f64,
    label: String,
}

#[derive(Serialize)]
struct Row {
    name: Name,
    outcome: Outcome,
    critical: bool,
    took: String,
    /// From when it could have begun to when it began.
    queued: Option<Place>,
    bars: Vec<Bar>,
}

#[derive(Serialize)]
struct Bar {
    place: Place,
    outcome: Outcome,
    tip: String,
    steps: Vec<StepBar>,
    /// The wait for the next attempt.
    pause: Option<Place>,
}

#[derive(Serialize)]
struct StepBar {
    place: Place,
    tip: String,
}

/// Where something lies, in percent of what it lies within.
#[derive(Serialize)]
struct Place {
    left: f64,
    width: f64,
}

impl Place {
    fn of(span: Span, within: Span) -> Self {
        let percent = |seconds: f64| (seconds / within.seconds().max(1e-9) * 1e5).round().clamp(0.0, 1e5) / 1e3;
        Self { left: percent(span.begin - within.begin), width: percent(span.seconds()) }
    }
}

impl Timeline {
    pub(super) fn new(history: &History, names: &Names<'_>, clock: &Clock<'_>) -> Self {
        let whole = Span { begin: 0.0, end: history.end.max(0.001) };
        let ran = || history.tasks.iter().enumerate().filter_map(|(at, task)| Some((at, task.span()?)));
        let mut shown: Vec<_> = ran().filter(|(at, _)| names.is_shown(*at)).collect();
        let hidden = ran().count() - shown.len();
        shown.sort_by(|(i, a), (j, b)| a.begin.total_cmp(&b.begin).then(i.cmp(j)));
        let ready = critical::ready(history);
        let rows = shown.into_iter().map(|(at, span)| {
            let queued = Span { begin: ready[at].0, end: span.begin };
            let task = &history.progress.tasks()[at];
            Row {
                name: names.of(at),
                outcome: Outcome::of(&task.state),
                critical: names.is_critical(at),
                took: text::seconds(span.seconds()),
                queued: (queued.seconds() > whole.seconds() / 500.0).then(|| Place::of(queued, whole)),
                bars: bars(history, at, whole, clock),
            }
        });
        Self { rows: rows.collect(), ticks: ticks(whole.end), hidden }
    }
}

fn bars(history: &History, at: usize, whole: Span, clock: &Clock<'_>) -> Vec<Bar> {
    let attempts = &history.tasks[at].attempts;
    let bar = |(nth, attempt): (usize, &Attempt)| {
        let next = attempts.get(nth + 1);
        let steps = attempt.steps.iter().filter(|step| step.span.seconds() > 0.0).map(|step| StepBar {
            place: Place::of(step.span, attempt.span),
            tip: format!("{}  {}", step.name, text::seconds(step.span.seconds())),
        });
        let is_last = next.is_none() && attempt.retried.is_none();
        Bar {
            place: Place::of(attempt.span, whole),
            outcome: if is_last { Outcome::of(&history.progress.tasks()[at].state) } else { Outcome::Failed },
            tip: tip(history, at, attempt, clock),
            steps: steps.collect(),
            pause: next.map(|next| Place::of(Span { begin: attempt.span.end, end: next.span.begin }, whole)),
        }
    };
    attempts.iter().enumerate().map(bar).collect()
}

/// What hovering over an attempt tells.
fn tip(history: &History, at: usize, attempt: &Attempt, clock: &Clock<'_>) -> String {
    let task = &history.progress.tasks()[at];
    let mut lines = vec![match &task.title {
        Some(title) => format!("{} {title}", task.id),
        None => task.id.to_string(),
    }];
    let outcome = Outcome::of(&task.state);
    let ended = match &attempt.retried {
        Some(error) => format!("failed, tried again: {error}"),
        None => format!(
            "{}{}",
            outcome.as_str(),
            task.expected.map_or(String::new(), |expected| format!(", expected {}", text::seconds(expected)))
        ),
    };
    lines.push(format!("attempt {}: {ended}", attempt.number));
    lines.push(format!(
        "{} – {}, {}",
        clock.time(attempt.span.begin),
        clock.time(attempt.span.end),
        text::seconds(attempt.span.seconds())
    ));
    for step in &attempt.steps {
        let took = if step.kept { "done before".to_owned() } else { text::seconds(step.span.seconds()) };
        lines.push(format!("› {}  {took}", step.name));
    }
    lines.push(format!("because: {}", task.decision.reason));
    lines.join("\n")
}

/// About eight round times from 0 to `end`.
fn ticks(end: f64) -> Vec<Tick> {
    const STEPS: [f64; 19] = [
        0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0,
        14400.0, 43200.0,
    ];
    let step = STEPS.into_iter().find(|step| end / step <= 9.0).unwrap_or_else(|| (end / 8.0).ceil());
    let label = |time: f64| if step < 1.0 { format!("{time:.1}s") } else { text::whole_seconds(time) };
    (0..10)
        .map(|n| f64::from(n) * step)
        .take_while(|time| *time <= end)
        .map(|time| Tick { left: (time / end * 1e5).round() / 1e3, label: label(time) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let labels = |end| ticks(end).into_iter().map(|tick| tick.label).collect::<Vec<_>>().join(" ");
        assert_eq!(labels(0.4), "0.0s 0.1s 0.2s 0.3s 0.4s");
        assert_eq!(labels(127.0), "0s 15s 30s 45s 1m 00s 1m 15s 1m 30s 1m 45s 2m 00s");
        assert_eq!(ticks(1e7).len(), 9);
    }
}
