//! The report: one page, without network, of what happened and why it took as long as it did.
//!
//! The page is rendered here as a whole; its script only sorts, filters and shows details on hover. Every text of a task
//! is escaped by the template engine, and a content security policy keeps anything from running but our own script.

mod critical;
mod history;
mod names;
mod page;
mod rows;
mod timeline;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};

use crate::TaskId;
use crate::event::Event;
use crate::fingerprint::Digest;
use page::Page;

const TEMPLATE: &str = include_str!("../../../assets/report/report.html");
const STYLE: &str = include_str!("../../../assets/report/report.css");
const SCRIPT: &str = include_str!("../../../assets/report/report.js");

/// The events of a run, and what its tasks wrote.
#[derive(Debug, Clone, Default)]
pub struct RunHistory {
    /// All events of the run; if it was killed the last ones may be missing.
    pub events: Vec<Event>,
    /// The ends of the logs of its tasks, in the order in which they are shown.
    pub logs: Vec<LogTail>,
}

/// The end of the log of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogTail {
    /// The task.
    pub task: TaskId,
    /// Counts the attempts at the task, from 1.
    pub attempt: u32,
    /// Where the whole log is.
    pub path: PathBuf,
    /// The size of the whole log, in bytes.
    pub size: u64,
    /// The end of it, redacted.
    pub text: String,
}

impl RunHistory {
    /// The run's number, 0 if there are no events.
    pub fn number(&self) -> u64 {
        self.events.first().map_or(0, |event| event.run)
    }
}

impl LogTail {
    /// The most that is shown of a log, in bytes.
    pub const MAX: usize = 64 * 1024;

    /// Reads the end of a log.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(task: TaskId, attempt: u32, path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(Self::MAX as u64)))?;
        let mut bytes = Vec::new();
        file.take(Self::MAX as u64).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Self { task, attempt, path: path.to_owned(), size, text })
    }
}

/// The report of these runs, the latest of which is given last, with times of day in `zone`.
///
/// It shows at most 2,000 tasks of a run, and of each log at most [`LogTail::MAX`] bytes, less where there are many.
pub fn html(runs: &[RunHistory], zone: &TimeZone) -> String {
    let page = Serde(Page::new(runs, zone));
    // Made of times that no task could know beforehand, so that no text of a task can pass for our script.
    let times = runs.iter().flat_map(|run| &run.events).flat_map(|event| event.at.as_nanosecond().to_le_bytes());
    let nonce = Digest::of(&times.collect::<Vec<_>>()).to_string();
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("these settings are compatible"));
    let (style, script) = (Value::from_safe_string(STYLE.to_owned()), Value::from_safe_string(SCRIPT.to_owned()));
    environment
        .render_str(TEMPLATE, context! { page, nonce, style, script, version => env!("CARGO_PKG_VERSION") })
        .expect("the template is our own, and all that it names is there")
}
