//! For terminals: what ended scrolls by, what runs is drawn in place below.
//!
//! The cursor is never hidden and stands at the beginning of the line below the block, so that a terminal is in order
//! whenever the program dies. A drawing is one write: back to the block's first line, the lines that scroll by, the new
//! block, and what is left of the old one erased.

mod block;

use std::io::Write;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::closing::closing;
use super::fold::{Progress, State};
use super::line::{Ink, Line};
use super::plain::MANY_TASKS;
use super::sink::Sink;
use super::symbols::{Symbols, Unicode};
use super::{Reporter, Size, Streams, text};
use crate::TaskId;
use crate::event::{Event, EventKind};
use crate::outcome::Outcome;
use crate::plan::Action;
use block::block;
pub use block::{Frame, render_block};

/// The time between two drawings.
const PERIOD: SignedDuration = SignedDuration::from_millis(95);

pub(crate) struct Live {
    err: Sink,
    size: Box<dyn Fn() -> Size + Send>,
    color: bool,
    unicode: Unicode,
    zone: TimeZone,
    progress: Progress,
    /// Lines that ended and were not drawn yet.
    scrolling: Vec<Line>,
    /// The widths of the lines of the block as it stands on the terminal.
    drawn: Vec<usize>,
    drawn_at: Option<Timestamp>,
    prediction: Prediction,
}

/// The predicted end, renewed at most once a second, and less often where predicting takes long.
#[derive(Default)]
struct Prediction {
    ready: Option<Timestamp>,
    renew_at: Option<Instant>,
}

impl Live {
    pub(crate) fn new(streams: Streams) -> Self {
        Self {
            err: Sink::new(streams.err),
            size: streams.size,
            color: streams.color,
            unicode: streams.unicode,
            zone: streams.zone,
            progress: Progress::new(),
            scrolling: Vec::new(),
            drawn: Vec::new(),
            drawn_at: None,
            prediction: Prediction::default(),
        }
    }

    fn draw(&mut self, now: Timestamp) {
        if self.drawn_at.is_some_and(|last| now.duration_since(last).abs() < PERIOD) {
            return;
        }
        self.drawn_at = Some(now);
        let size = (self.size)();
        let is_shown = self.progress.started().is_some() && self.progress.ended().is_none();
        let lines = if is_shown {
            let ready = self.prediction.ready(&self.progress, now);
            // The last column stays free, for some terminals wrap as soon as it is filled; so does the last row, where
            // the cursor stands.
            let room = Size { columns: size.columns.saturating_sub(1), rows: size.rows.saturating_sub(1) };
            block(&self.progress, &Frame { size: room, now, ready, unicode: self.unicode, zone: self.zone.clone() })
        } else {
            Vec::new()
        };
        self.put(size.columns, lines);
    }

    /// Puts the lines that scroll by and the block in the place of the old block.
    fn put(&mut self, columns: usize, block: Vec<Line>) {
        const BEGIN: &str = "\x1b[?2026h";
        const END: &str = "\x1b[?2026l";
        let mut drawing = String::from(BEGIN);
        drawing.push('\r');
        let above = rows(&self.drawn, columns);
        if above > 0 {
            drawing += &format!("\x1b[{above}A");
        }
        // Lines that scroll by may wrap, so what was there is erased before them.
        drawing += if self.scrolling.is_empty() { "" } else { "\x1b[J" };
        for line in self.scrolling.drain(..).chain(block.iter().cloned()) {
            // Erased before it is written: behind a line that fills its row, the last character would go.
            drawing += "\x1b[K";
            drawing += &line.paint(self.color);
            drawing.push('\n');
        }
        drawing += "\x1b[J";
        drawing += END;
        self.drawn = block.iter().map(Line::width).collect();
        self.err.with(|err| err.write_all(drawing.as_bytes()));
        self.err.flush();
    }

    fn scroll(&mut self, sign: (Ink, &str), task: &TaskId, rest: impl FnOnce(Line) -> Line) {
        let line = Line::new().with(sign.0, sign.1).plain(" ").with(Ink::Bold, task);
        let line = match self.progress.task(task).and_then(|task| task.title.as_deref()) {
            Some(title) => line.plain(format!(" {title}")),
            None => line,
        };
        self.scrolling.push(rest(line.plain("  ")));
    }

    /// Tells what is clear before anything ran.
    fn begin(&mut self) {
        let decided: Vec<_> = self
            .progress
            .tasks()
            .iter()
            .filter(|task| task.state != State::Waiting)
            .map(|task| (task.id.clone(), task.decision.action))
            .collect();
        for (task, action) in decided {
            self.decided(&task, action);
        }
    }

    fn decided(&mut self, task: &TaskId, action: Action) {
        let symbols = Symbols::of(self.unicode);
        let (sign, what) = match action {
            Action::Run | Action::DecideAfter => return,
            _ if self.is_large() => return,
            Action::Keep => ((Ink::Dim, symbols.kept), "kept"),
            Action::Skip => ((Ink::Dim, symbols.skipped), "skipped"),
            Action::Blocked => ((Ink::Yellow, symbols.blocked), "blocked"),
        };
        let reason = self.progress.task(task).map(|task| task.decision.reason.to_string()).unwrap_or_default();
        self.scroll(sign, task, |line| line.with(Ink::Dim, format!("{what}: {reason}")));
    }

    fn finished(&mut self, task: &TaskId, outcome: &Outcome, seconds: f64) {
        let symbols = Symbols::of(self.unicode);
        let took = text::seconds(seconds);
        match outcome {
            Outcome::Succeeded if self.is_large() => {}
            Outcome::Succeeded => {
                self.scroll((Ink::Green, symbols.succeeded), task, |line| line.with(Ink::Dim, took));
            }
            Outcome::Degraded { missing } => self.scroll((Ink::Yellow, symbols.degraded), task, |line| {
                line.with(Ink::Dim, took).with(Ink::Yellow, format!("  degraded: {}", missing.join("; ")))
            }),
            Outcome::Skipped { reason } => {
                self.scroll((Ink::Dim, symbols.skipped), task, |line| line.with(Ink::Dim, format!("skipped: {reason}")))
            }
            Outcome::Failed { error } => self.scroll((Ink::Red, symbols.failed), task, |line| {
                line.with(Ink::Dim, took).with(Ink::Red, format!("  {error}"))
            }),
            Outcome::Cancelled => {
                self.scroll((Ink::Yellow, symbols.cancelled), task, |line| line.with(Ink::Yellow, "cancelled"))
            }
        }
    }

    /// Whether single tasks with which nothing is wrong are too many to be told one by one.
    fn is_large(&self) -> bool {
        self.progress.tally().total() > MANY_TASKS
    }
}

impl Reporter for Live {
    fn event(&mut self, event: &Event) {
        self.progress.apply(event);
        let symbols = Symbols::of(self.unicode);
        match &event.kind {
            EventKind::RunStarted { .. } => self.begin(),
            EventKind::TaskDecided { task, decision } => self.decided(task, decision.action),
            EventKind::TaskRetrying { task, attempt, error, delay } => {
                let what = format!("attempt {attempt} failed: {error}; again in {}", text::seconds(*delay));
                self.scroll((Ink::Yellow, symbols.retrying), task, |line| line.with(Ink::Yellow, what));
            }
            EventKind::TaskFinished { task, outcome, seconds, .. } => self.finished(task, outcome, *seconds),
            EventKind::Notice { task, text } => {
                let line = Line::new().with(Ink::Yellow, symbols.notice).plain(" ");
                let line = if let Some(task) = task { line.with(Ink::Bold, task).plain("  ") } else { line };
                self.scrolling.push(line.plain(text));
            }
            EventKind::TaskStarted { .. }
            | EventKind::StepStarted { .. }
            | EventKind::StepFinished { .. }
            | EventKind::Output { .. }
            | EventKind::Stopping { .. }
            | EventKind::RunFinished { .. } => {}
        }
        // A flood of events must not keep the display still.
        self.draw(event.at);
    }

    fn tick(&mut self, now: Timestamp) {
        self.draw(now);
    }

    fn is_silent(&self) -> bool {
        self.err.is_silent()
    }

    fn finish(&mut self) {
        self.scrolling.extend(closing(&self.progress, Symbols::of(self.unicode)));
        self.put((self.size)().columns, Vec::new());
    }
}

/// The rows that lines of these widths take in a terminal of `columns`: after the terminal was made narrower, most
/// terminals have wrapped them.
fn rows(widths: &[usize], columns: usize) -> usize {
    widths.iter().map(|width| width.div_ceil(columns.max(1)).max(1)).sum()
}

impl Prediction {
    fn ready(&mut self, progress: &Progress, now: Timestamp) -> Option<Timestamp> {
        let begun = Instant::now();
        if self.renew_at.is_none_or(|at| at <= begun) || progress.stopping() > 0 {
            self.ready = progress.predict(now);
            self.renew_at = Some(begun + Duration::from_secs(1).max(begun.elapsed() * 50));
        }
        self.ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{self, Buffer};
    use crate::report::{Kind, reporter};
    use proptest::prelude::*;

    #[test]
    fn what_is_left_on_the_terminal() {
        let (out, err) = testing::report(Kind::Live, &testing::story());
        assert_eq!(out, "");
        let screen = testing::screen(&err);
        testing::snapshots().bind(|| insta::assert_snapshot!("report_live", screen));
    }

    #[test]
    fn drawings_are_at_least_a_tenth_of_a_second_apart() {
        let err = Buffer::default();
        let mut live = reporter(Kind::Live, testing::streams(&Buffer::default(), &err));
        let begin = &testing::story()[0];
        live.event(begin);
        let drawings = |err: &Buffer| err.text().matches("\x1b[?2026h").count();
        for millis in [10, 50, 90, 100, 150, 210] {
            live.tick(begin.at + SignedDuration::from_millis(millis));
        }
        assert_eq!(drawings(&err), 3);
    }

    #[test]
    fn a_block_that_was_wrapped_is_erased_as_a_whole() {
        assert_eq!(rows(&[0, 10, 40, 41, 80], 40), 7);
        assert_eq!(rows(&[3], 0), 3);
    }

    proptest! {
        #[test]
        fn whatever_comes_the_terminal_is_left_with_whole_lines(events in testing::any_events()) {
            let (_, err) = testing::report(Kind::Live, &events);
            let ours = ["\x1b[?2026h", "\x1b[?2026l", "\x1b[J", "\x1b[K"].iter().fold(err, |text, ours| text.replace(ours, ""));
            let mut rest = ours.as_str();
            while let Some(at) = rest.find('\x1b') {
                let up = rest[at..].split_once('A').map(|(up, _)| up).unwrap_or_default();
                let digits = up.strip_prefix("\x1b[").unwrap_or_default();
                prop_assert!(!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()), "{up:?}");
                rest = &rest[at + up.len() + 1..];
            }
        }
    }
}
