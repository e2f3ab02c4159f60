//! The block at the bottom of the terminal: a line per running task, and the counts.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::report::fold::{Progress, State, Task};
use crate::report::line::{Ink, Line};
use crate::report::symbols::{Symbols, Unicode};
use crate::report::{Size, text};

/// Circumstances under which the block is drawn.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The room for the block; no line is wider, and there are no more lines than rows, but one at least.
    pub size: Size,
    /// The time for which it is drawn.
    pub now: Timestamp,
    /// When the run is predicted to end ([`Progress::predict`]).
    pub ready: Option<Timestamp>,
    /// Whether more than ASCII can be shown.
    pub unicode: Unicode,
    /// The time zone of times of day.
    pub zone: TimeZone,
}

/// Terminals narrower than this show no output of tasks.
const NARROW: usize = 60;

/// The block, uncoloured.
pub fn render_block(progress: &Progress, frame: &Frame) -> Vec<String> {
    block(progress, frame).iter().map(Line::text).collect()
}

pub(super) fn block(progress: &Progress, frame: &Frame) -> Vec<Line> {
    let symbols = Symbols::of(frame.unicode);
    let mut foot = stopping(progress);
    foot.push(counts(progress, frame, symbols));
    let room = frame.size.rows.saturating_sub(foot.len());
    let mut lines = tasks(progress, frame, symbols, room);
    lines.extend(foot);
    let surplus = lines.len().saturating_sub(frame.size.rows.max(1));
    lines.drain(..surplus);
    lines.into_iter().map(|line| line.cut(frame.size.columns, symbols.ellipsis)).collect()
}

/// The columns of a task's line, besides the spinner and the id.
struct Row<'a> {
    task: &'a Task,
    time: (Ink, String),
    title: Cow<'a, str>,
    step: Option<(Ink, Cow<'a, str>)>,
    tail: Cow<'a, str>,
}

fn tasks(progress: &Progress, frame: &Frame, symbols: &Symbols, room: usize) -> Vec<Line> {
    let columns = frame.size.columns;
    let active = progress.active().len();
    let shown = if active > room { room.saturating_sub(1) } else { active };
    let rows: Vec<_> = progress.active().take(shown).map(|task| row(task, frame)).collect();
    let widest = |width: fn(&Row<'_>) -> usize| rows.iter().map(width).max().unwrap_or(0);
    let id = widest(|row| text::width(row.task.id.as_str())).min(columns / 2);
    let time = widest(|row| text::width(&row.time.1));
    let before_label = 1 + 1 + id + 2 + time + 2;
    let room = columns.saturating_sub(before_label);
    let labels = rows.iter().map(|row| row.label(usize::MAX, symbols).width()).max().unwrap_or(0);
    let mut lines: Vec<_> = rows
        .iter()
        .map(|row| {
            let line = spinner(&row.task.state, frame, symbols)
                .plain(" ")
                .with(Ink::Bold, text::cut(row.task.id.as_str(), id, symbols.ellipsis))
                .pad(before_label - 2 - text::width(&row.time.1))
                .with(row.time.0, &row.time.1);
            if columns < NARROW || row.tail.is_empty() {
                return line.plain("  ").append(row.label(room, symbols)).trim_end();
            }
            // Labels take what they need, but leave half of the room for output.
            let label = labels.min(room / 2);
            let line = line.plain("  ").append(row.label(label, symbols)).pad(before_label + label);
            line.with(Ink::Dim, format!(" {} {}", symbols.bar, row.tail))
        })
        .collect();
    if active > shown && room > 0 {
        lines.push(Line::new().with(Ink::Dim, format!("  +{} more running", active - shown)));
    }
    lines
}

fn row<'a>(task: &'a Task, frame: &Frame) -> Row<'a> {
    let title = text::clean(task.title.as_deref().unwrap_or_default());
    match &task.state {
        State::Running(activity) => {
            let elapsed = text::whole_seconds(text::elapsed(activity.since, frame.now));
            let step = activity.step().map(|step| (Ink::Cyan, text::clean(step)));
            let tail = match text::clean(activity.tail()) {
                Cow::Borrowed(tail) => Cow::Borrowed(tail.trim_end()),
                Cow::Owned(tail) => Cow::Owned(tail.trim_end().to_owned()),
            };
            Row { task, time: (Ink::Plain, elapsed), title, step, tail }
        }
        State::Retrying { until, error, .. } => {
            let wait = text::elapsed(frame.now, *until).ceil();
            let time = (Ink::Yellow, format!("in {}", text::whole_seconds(wait)));
            let step = (Ink::Yellow, Cow::Owned(text::clean(&format!("again after: {error}")).into_owned()));
            Row { task, time, title, step: Some(step), tail: Cow::Borrowed("") }
        }
        _ => Row { task, time: (Ink::Plain, String::new()), title, step: None, tail: Cow::Borrowed("") },
    }
}

impl Row<'_> {
    /// Title and step within `columns`; the title gives way first.
    fn label(&self, columns: usize, symbols: &Symbols) -> Line {
        const SHORTEST_TITLE: usize = 8;
        let Some((ink, step)) = &self.step else {
            return Line::new().plain(&self.title).cut(columns, symbols.ellipsis);
        };
        let step = Line::new().with(*ink, step);
        let between = Line::new().with(Ink::Dim, format!(" {} ", symbols.into));
        let room = columns.saturating_sub(between.width() + step.width());
        if self.title.is_empty() || room < SHORTEST_TITLE.min(text::width(&self.title)) {
            return step.cut(columns, symbols.ellipsis);
        }
        Line::new().plain(text::cut(&self.title, room, symbols.ellipsis)).append(between).append(step)
    }
}

fn spinner(state: &State, frame: &Frame, symbols: &Symbols) -> Line {
    if let State::Retrying { .. } = state {
        return Line::new().with(Ink::Yellow, symbols.retrying);
    }
    let tenth = usize::try_from(frame.now.as_millisecond().max(0) / 100).unwrap_or_default();
    Line::new().with(Ink::Cyan, symbols.spinner[tenth % symbols.spinner.len()])
}

/// What a run that was asked to stop waits for, and what the next Ctrl-C does.
fn stopping(progress: &Progress) -> Vec<Line> {
    let (what, next) = match progress.stopping() {
        0 => return Vec::new(),
        1 => ("waiting for a safe point of", "Ctrl-C again ends their processes"),
        2 => ("ending the processes of", "Ctrl-C again leaves at once"),
        _ => ("leaving, without waiting for", ""),
    };
    let ids: Vec<_> = progress.active().map(|task| task.id.as_str()).collect();
    let what = if ids.is_empty() { "stopping".to_owned() } else { format!("stopping: {what} {}", ids.join(", ")) };
    let mut lines = vec![Line::new().with(Ink::Yellow, what)];
    if !next.is_empty() && !ids.is_empty() {
        lines.push(Line::new().with(Ink::Yellow, next));
    }
    lines
}

/// `3 done · 2 running · 11 waiting · 0 failed   about 1m 20s left (ready 14:32:10)`, in the longest form that fits.
fn counts(progress: &Progress, frame: &Frame, symbols: &Symbols) -> Line {
    let tally = progress.tally();
    let failed = if tally.ended.failed > 0 { Ink::Red } else { Ink::Plain };
    let all = [
        (Ink::Green, tally.done(), "done", true),
        (Ink::Cyan, tally.running, "running", true),
        (Ink::Yellow, tally.retrying, "retrying", false),
        (Ink::Plain, tally.waiting, "waiting", true),
        (failed, tally.ended.failed, "failed", true),
        (Ink::Yellow, tally.ended.blocked, "blocked", false),
        (Ink::Yellow, tally.ended.cancelled, "cancelled", false),
    ];
    let join = |zeros: bool| {
        let told = all.iter().filter(|(_, count, _, always)| *count > 0 || (zeros && *always));
        told.enumerate().fold(Line::new(), |line, (at, (ink, count, word, _))| {
            let line = if at > 0 { line.with(Ink::Dim, symbols.dot) } else { line };
            line.with(*ink, format!("{count} {word}"))
        })
    };
    let short = Line::new().with(Ink::Green, format!("{}/{} done", tally.done(), tally.total()));
    let short = if tally.ended.failed > 0 {
        short.with(Ink::Dim, symbols.dot).with(Ink::Red, format!("{} failed", tally.ended.failed))
    } else {
        short
    };
    let (left, ready) = match frame.ready {
        None => (String::new(), String::new()),
        Some(ready) => {
            let left = text::whole_seconds(text::elapsed(frame.now, ready));
            let time = ready.to_zoned_datetime(frame.zone.clone()).strftime("%H:%M:%S").to_string();
            (left, time)
        }
    };
    let with = |line: Line, text: String| if left.is_empty() { line } else { line.with(Ink::Dim, text) };
    let forms = [
        with(join(true), format!("   about {left} left (ready {ready})")),
        with(join(true), format!("   about {left} left")),
        with(join(false), format!("   {left} left")),
        with(short.clone(), format!("   {left} left")),
    ];
    forms.into_iter().find(|form| form.width() <= frame.size.columns).unwrap_or(short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, EventKind};
    use crate::report::testing::{self, Script};
    use proptest::prelude::*;

    fn frame(progress: &Progress, columns: usize, rows: usize) -> Frame {
        Frame {
            size: Size { columns, rows },
            now: progress.now(),
            ready: progress.predict(progress.now()),
            unicode: Unicode::Yes,
            zone: TimeZone::UTC,
        }
    }

    fn folded(events: &[Event]) -> Progress {
        let mut progress = Progress::new();
        events.iter().for_each(|event| progress.apply(event));
        progress
    }

    #[test]
    fn the_block_at_several_widths() {
        let story = testing::story();
        let retrying = story.iter().position(|event| matches!(event.kind, EventKind::TaskRetrying { .. })).unwrap();
        let mut script = Script::new(&[("CLOUD-3.2", &[]), ("CLOUD-3.10", &[]), ("next", &["CLOUD-3.2"])])
            .titled(&["PostgreSQL, the relational database of the platform", "Object store 漢字"])
            .expecting(&[60.0, 30.0, 20.0]);
        let mut busy =
            vec![script.begin(), script.started("CLOUD-3.2"), script.step("CLOUD-3.2", "create the cluster")];
        script.wait(12.3);
        busy.extend([
            script.started("CLOUD-3.10"),
            script.output("CLOUD-3.10", "ready\nAPI: http://127.0.0.1:9000 \u{1b}[1mhere"),
        ]);
        busy.push(
            script.output("CLOUD-3.2", "creating directory /var/lib/taskrun/local/postgres/data/base/1 ... ok\n"),
        );
        let waiting_for = vec![testing::id("CLOUD-3.2"), testing::id("CLOUD-3.10")];
        let stopping = [busy.clone(), vec![script.event(EventKind::Stopping { level: 1, waiting_for })]].concat();
        let mut drawn = String::new();
        for (name, events) in [("busy", &busy[..]), ("retrying", &story[..=retrying]), ("stopping", &stopping[..])] {
            let progress = folded(events);
            for columns in [40, 80, 200] {
                drawn += &format!(
                    "-- {name}, {columns} columns\n{}\n",
                    render_block(&progress, &frame(&progress, columns, 24)).join("\n")
                );
            }
            let ascii = Frame { unicode: Unicode::No, ..frame(&progress, 80, 24) };
            drawn += &format!("-- {name}, ASCII\n{}\n", render_block(&progress, &ascii).join("\n"));
        }
        testing::snapshots().bind(|| insta::assert_snapshot!("report_live_block", drawn));
    }

    #[test]
    fn few_rows_hold_the_counts_first() {
        let mut script = Script::new(&[("a", &[]), ("b", &[]), ("c", &[]), ("d", &[])]);
        let mut events = vec![script.begin()];
        events.extend(["a", "b", "c", "d"].map(|id| script.started(id)));
        let progress = folded(&events);
        let drawn = |rows| render_block(&progress, &frame(&progress, 60, rows)).join("\n");
        insta::assert_snapshot!([0, 1, 2, 3, 5].map(drawn).join("\n--\n"), @r"
        0 done · 4 running · 0 waiting · 0 failed
        --
        0 done · 4 running · 0 waiting · 0 failed
        --
          +4 more running
        0 done · 4 running · 0 waiting · 0 failed
        --
        ⠋ a  0s
          +3 more running
        0 done · 4 running · 0 waiting · 0 failed
        --
        ⠋ a  0s
        ⠋ b  0s
        ⠋ c  0s
        ⠋ d  0s
        0 done · 4 running · 0 waiting · 0 failed
        ");
    }

    proptest! {
        #[test]
        fn whatever_comes_the_block_stays_within_its_size(
            events in testing::any_events(), columns in 0_usize..220, rows in 0_usize..12,
        ) {
            let mut progress = Progress::new();
            for event in &events {
                progress.apply(event);
                let lines = render_block(&progress, &frame(&progress, columns, rows));
                prop_assert!(!lines.is_empty() && lines.len() <= rows.max(1));
                for line in lines {
                    prop_assert!(text::width(&line) <= columns, "{line:?}");
                    prop_assert!(!line.contains(char::is_control), "{line:?}");
                }
            }
        }
    }
}
