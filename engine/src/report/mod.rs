//! Reporters: what a person or a program sees of a run, folded from its [events](crate::event).
//!
//! *Live* draws a block of running tasks on a terminal, *plain* writes one line per event for pipes and CI, *json*
//! passes the events on, and [`html()`] makes one page of runs that are over. All but *json* look at the events through
//! one fold, [`Progress`].
//!
//! Nothing here prints by itself: reporters write to the [`Streams`] that they are given. Whatever tasks wrote is
//! stripped of escape sequences and control characters first (`text.rs`), so that no task can drive the terminal.

mod closing;
mod fold;
mod html;
mod json;
mod line;
mod live;
mod plain;
mod sink;
mod symbols;
mod text;

#[cfg(test)]
mod testing;

use std::io::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::event::Event;
pub use fold::{Activity, Ended, Progress, State, Tally, Task};
pub use html::{LogTail, RunHistory, html};
pub use live::{Frame, render_block};
pub use symbols::Unicode;

/// Follows a run.
///
/// One thread calls it, never the loop that drives the run, because its methods may wait for a slow terminal. After a
/// write failed, as to a closed pipe, a reporter goes silent: that is no error of the run.
pub trait Reporter: Send {
    /// Takes in the next event. What it leads to may be written only by the next [`Reporter::tick`].
    fn event(&mut self, event: &Event);

    /// Brings the display up to date and flushes it. Called after each batch of events, and about ten times a second
    /// while none come.
    fn tick(&mut self, now: Timestamp);

    /// Whether it has gone silent, because nobody reads any more.
    fn is_silent(&self) -> bool;

    /// Ends the display, with a summary if the events told of a run. Called once, after the last event.
    fn finish(&mut self);
}

/// The forms of reporting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A block that is redrawn in place; `err` must be a terminal.
    Live,
    /// A line per event, on `err`.
    Plain,
    /// A JSON object per event, on `out`.
    Json,
}

/// Where a reporter writes, and what that place can show.
pub struct Streams {
    /// Takes results: the lines of [`Kind::Json`].
    pub out: Box<dyn Write + Send>,
    /// Takes everything else.
    pub err: Box<dyn Write + Send>,
    /// Tells the size of the terminal behind `err`; asked before each drawing.
    pub size: Box<dyn Fn() -> Size + Send>,
    /// Whether `err` may be coloured.
    pub color: bool,
    /// Whether `err` shows more than ASCII.
    pub unicode: Unicode,
    /// The time zone in which times of day are told.
    pub zone: TimeZone,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Characters in a row.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
}

/// A reporter of the given kind.
pub fn reporter(kind: Kind, streams: Streams) -> Box<dyn Reporter> {
    match kind {
        Kind::Live => Box::new(live::Live::new(streams)),
        Kind::Plain => Box::new(plain::Plain::new(streams)),
        Kind::Json => Box::new(json::Json::new(streams.out)),
    }
}
