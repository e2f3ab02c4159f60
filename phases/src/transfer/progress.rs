//! How a transfer shows how far it has come: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};

use super::Progress;

/// How often a line is written.
const EVERY: Duration = Duration::from_secs(5);

/// The progress of a verb: on stderr.
pub fn on_stderr() -> Box<dyn Progress> {
    use std::io::Write as _;
    if std::io::stderr().is_terminal() {
        return Box::new(Bar(ProgressBar::hidden()));
    }
    Box::new(Lines::new(|line: &str| {
        // When stderr is gone there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "{line}");
    }))
}

/// A bar on a terminal.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn begin(&self, what: &'static str, files: usize, bytes: u64) {
        let style = "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            self.0.set_style(style);
        }
        self.0.reset();
        self.0.set_prefix(format!("{what} {files} file{}", if files == 1 { "" } else { "s" }));
        self.0.set_length(bytes);
        self.0.set_draw_target(indicatif::ProgressDrawTarget::stderr());
    }

    fn sent(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn file(&self) {}

    fn note(&self, text: &str) {
        self.0.suspend(|| {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "{text}");
        });
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A line now and then.
pub struct Lines<W> {
    write: W,
    state: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    what: &'static str,
    begin: Option<Instant>,
    told: Option<Instant>,
    files: (usize, usize),
    bytes: (u64, u64),
}

impl<W: Fn(&str) + Send + Sync> Lines<W> {
    /// Lines that are given to `write`.
    pub fn new(write: W) -> Self {
        Self { write, state: Mutex::default() }
    }

    fn count(&self, change: impl FnOnce(&mut Counted)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let now = Instant::now();
        if state.told.is_some_and(|told| now.duration_since(told) < EVERY) {
            return;
        }
        state.told = Some(now);
        let line = state.line(now);
        drop(state);
        (self.write)(&line);
    }
}

impl Counted {
    fn line(&self, now: Instant) -> String {
        let seconds = self.begin.map_or(0.0, |begin| now.duration_since(begin).as_secs_f64());
        let (done, all) = self.bytes;
        let rate = if seconds > 0.0 { (done as f64 / seconds) as u64 } else { 0 };
        let (done, all, rate) = (ByteSize(done), ByteSize(all), ByteSize(rate));
        format!("{}: {} of {} files, {done} of {all}, {rate}/s", self.what, self.files.0, self.files.1)
    }
}

impl<W: Fn(&str) + Send + Sync> Progress for Lines<W> {
    fn begin(&self, what: &'static str, files: usize, bytes: u64) {
        let now = Instant::now();
        let fresh = Counted { what, begin: Some(now), told: Some(now), files: (0, files), bytes: (0, bytes) };
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        let s = if files == 1 { "" } else { "s" };
        (self.write)(&format!("{what}: {files} file{s}, {}", ByteSize(bytes)));
    }

    fn sent(&self, bytes: u64) {
        self.count(|state| state.bytes.0 += bytes);
    }

    fn file(&self) {
        self.count(|state| state.files.0 += 1);
    }

    fn note(&self, text: &str) {
        (self.write)(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_at_the_beginning_and_then_seldom() {
        let told = Mutex::new(Vec::new());
        let lines = Lines::new(|line: &str| told.lock().unwrap().push(line.to_owned()));
        lines.begin("send", 2, 3 << 20);
        for _ in 0..3 {
            lines.sent(1 << 20);
        }
        lines.file();
        lines.note("left out a pipe");
        assert_eq!(*told.lock().unwrap(), ["send: 2 files, 3.0 MiB", "left out a pipe"]);
    }

    #[test]
    fn a_line_tells_how_much_and_how_fast() {
        let begin = Instant::now();
        let counted =
            Counted { what: "send", begin: Some(begin), told: None, files: (1, 2), bytes: (2 << 20, 3 << 20) };
        let line = counted.line(begin + Duration::from_secs(2));
        assert_eq!(line, "send: 1 of 2 files, 2.0 MiB of 3.0 MiB, 1.0 MiB/s");
    }
}
