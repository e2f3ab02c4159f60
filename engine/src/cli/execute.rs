//! What `run` and `destroy` share: the journal's frame around a run, the events and who shows them, the signals.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::args::{Global, Output};
use super::error::{CliError, MEND_DISK, exit};
use super::request::Request;
use super::session::{Session, Writing};
use super::show;
use super::signals::Signals;
use crate::checkpoint::{Checkpoint, Record};
use crate::event::{EventKind, Verb};
use crate::journal::{JournalError, Writer};
use crate::process::{Cancel, Level};
use crate::redact::Redactor;
use crate::report::{Kind, Reporter, Size, Streams, Unicode, reporter};
use crate::run::events::{EventSink, EventStream, now};
use crate::run::{Append, AppendError, Summary};

/// A journal shorter than this is not worth compacting.
const COMPACT_ABOVE: u64 = 256 * 1024;

/// A run under way.
pub(super) struct Execution {
    pub(super) checkpoint: Checkpoint,
    pub(super) events: EventSink,
    pub(super) cancel: Cancel,
    writer: Arc<Mutex<Writer>>,
    signals: Signals,
    shown: JoinHandle<()>,
    run: u64,
    started: std::time::Instant,
}

impl Execution {
    /// Makes the start of the run durable and begins to show its events.
    pub(super) fn begin(
        session: &Session,
        writing: Writing,
        global: &Global,
        verb: Verb,
        request: &Request,
    ) -> Result<Self, CliError> {
        let Writing { mut writer, mut checkpoint, notices } = writing;
        let run = checkpoint.run.as_ref().map_or(0, |run| run.started.run) + 1;
        let folder = run_folder(&session.state, run);
        for folder in [&folder, &session.state.join("tmp")] {
            std::fs::create_dir_all(folder).map_err(|error| {
                CliError::caused(exit::STATE, format!("make {}", folder.display()), &error).with_hint(MEND_DISK)
            })?;
        }
        let unusable = |error: &dyn std::error::Error| CliError::caused(exit::STATE, "begin the run", error);
        let started = request.started(run, verb).map_err(|error| unusable(&error))?;
        let record = Record::RunStarted(started);
        let payload = serde_json::to_vec(&[&record]).map_err(|error| unusable(&error))?;
        writer.append(&payload).map_err(|error| super::session::journal_error(&error))?;
        checkpoint.apply(record).map_err(|error| unusable(&error))?;

        let cancel = Cancel::new();
        let signals = Signals::listen(cancel.clone())?;
        let (events, stream) = EventSink::new(run);
        let file = folder.join("events.jsonl");
        let reporter = make_reporter(global.output, &session.world.redactor);
        let redactor = session.world.redactor.clone();
        let shown = std::thread::Builder::new()
            .name("report".to_owned())
            .spawn(move || show_events(&stream, &file, &redactor, reporter))
            .map_err(|error| CliError::caused(exit::FAILED, "start the reporter", &error))?;
        for text in notices {
            let text = session.world.redactor.redact_str(&text).into_owned();
            events.send(EventKind::Notice { task: None, text });
        }
        let (writer, started) = (Arc::new(Mutex::new(writer)), std::time::Instant::now());
        Ok(Self { checkpoint, events, cancel, writer, signals, shown, run, started })
    }

    /// Makes records durable for the driver.
    pub(super) fn append(&self) -> Append {
        let writer = Arc::clone(&self.writer);
        Box::new(move |payload| {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.append(payload).map(|_| ()).map_err(|error| AppendError(Box::new(error)))
        })
    }

    /// Makes the end of the run durable, tells it, and compacts the journal. Returns the exit code.
    pub(super) fn end(mut self, summary: Summary, strict: bool) -> Result<u8, CliError> {
        let code = match (&summary.broken, summary.stopped) {
            (Some(_), _) => exit::STATE,
            (None, Level::None) if show::is_success(&summary.counts, strict) => exit::OK,
            (None, Level::None) => exit::FAILED,
            (None, _) => self.signals.exit_code(),
        };
        let mut broken = summary.broken.map(|error| CliError::caused(exit::STATE, "write the journal", &error));
        if broken.is_none() {
            let record = Record::RunFinished { run: self.run, at: now(), exit_code: code };
            broken = self.close_journal(record).err().map(|error| super::session::journal_error(&error));
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let code = broken.as_ref().map_or(code, |error| error.code);
        self.events.send(EventKind::RunFinished { counts: summary.counts, seconds, exit_code: code });
        if summary.stopped >= Level::Kill {
            // Tasks that were not waited for may hold the event stream open: leave without it.
            std::thread::sleep(Duration::from_millis(200));
            return Ok(code);
        }
        drop(self.events);
        // The reporter ends when the last sender is gone.
        let _ = self.shown.join();
        match broken {
            None => Ok(code),
            Some(error) => Err(error.with_hint(MEND_DISK)),
        }
    }

    fn close_journal(&mut self, end: Record) -> Result<(), JournalError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let payload = serde_json::to_vec(&[&end]).unwrap_or_default();
        writer.append(&payload)?;
        // It was begun above, so its end can follow.
        let _ = self.checkpoint.apply(end);
        if writer.size() > COMPACT_ABOVE {
            let lengths = self.checkpoint.payloads().map(|payload| Ok(payload?.len() as u64));
            if lengths.sum::<serde_json::Result<u64>>().is_ok_and(|snapshot| snapshot < writer.size() / 2) {
                let snapshot = self.checkpoint.payloads();
                writer.compact(snapshot.map(|payload| payload.expect("it could be written a moment ago")))?;
            }
        }
        Ok(())
    }
}

/// Where the events of a run are kept.
pub(super) fn run_folder(state: &Path, run: u64) -> PathBuf {
    state.join("runs").join(run.to_string())
}

/// How long events that come one upon the other are gathered before they are shown: no eye sees the difference.
const PACE: Duration = Duration::from_millis(10);

/// Shows and keeps events until all senders are gone.
fn show_events(stream: &EventStream, file: &Path, redactor: &Redactor, mut reporter: Box<dyn Reporter>) {
    let mut kept = match std::fs::File::create(file) {
        Ok(file) => Some(BufWriter::new(file)),
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "the events cannot be kept");
            None
        }
    };
    let mut pending = 0;
    let mut shown = Instant::now();
    loop {
        // While events keep coming they are shown and written in batches.
        let timeout = if pending > 0 { Duration::ZERO } else { Duration::from_millis(100) };
        match stream.next(timeout) {
            Ok(Some(event)) => {
                keep(&mut kept, redactor, &event);
                reporter.event(&event);
                pending += 1;
                if pending < 1000 {
                    continue;
                }
            }
            Ok(None) => {}
            Err(crate::run::events::Closed) => break,
        }
        reporter.tick(now());
        if let Some(kept) = &mut kept {
            // A full disk is told by the journal, which matters more.
            let _ = kept.flush();
        }
        if pending > 0 && shown.elapsed() < PACE {
            std::thread::sleep(PACE);
        }
        (pending, shown) = (0, Instant::now());
    }
    if let Some(mut kept) = kept {
        let _ = kept.flush();
    }
    reporter.finish();
}

fn keep(kept: &mut Option<BufWriter<std::fs::File>>, redactor: &Redactor, event: &crate::event::Event) {
    let Some(file) = kept else { return };
    let Ok(line) = serde_json::to_string(event) else { return };
    let line = redactor.redact_str(&line);
    if file.write_all(line.as_bytes()).and_then(|()| file.write_all(b"\n")).is_err() {
        // Progress that cannot be kept is no reason to stop a run; the journal has what counts.
        *kept = None;
    }
}

/// The reporter that fits the terminal and the wish of the user.
pub(super) fn make_reporter(output: Output, redactor: &Redactor) -> Box<dyn Reporter> {
    let terminal = console::Term::stderr();
    let kind = match output {
        Output::Json => Kind::Json,
        Output::Plain => Kind::Plain,
        Output::Live => Kind::Live,
        Output::Auto if terminal.is_term() && std::env::var_os("TERM").is_none_or(|term| term != "dumb") => Kind::Live,
        Output::Auto => Kind::Plain,
    };
    let size = move || {
        let (rows, columns) = terminal.size_checked().unwrap_or((24, 80));
        Size { columns: usize::from(columns), rows: usize::from(rows) }
    };
    let streams = Streams {
        out: Box::new(Redacting { to: std::io::stdout(), redactor: redactor.clone() }),
        err: Box::new(Redacting { to: std::io::stderr(), redactor: redactor.clone() }),
        size: Box::new(size),
        color: show::colored(),
        unicode: unicode(),
        zone: jiff::tz::TimeZone::system(),
    };
    reporter(kind, streams)
}

/// The last redactor before a terminal: what comes here is redacted already, each piece of it whole.
struct Redacting<W> {
    to: W,
    redactor: Redactor,
}

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.to.write_all(self.redactor.redact_str(text).as_bytes())?,
            Err(_) => self.to.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

/// What the locale says that a terminal can show.
fn unicode() -> Unicode {
    let locale =
        ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    let utf8 = locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    });
    if utf8 { Unicode::Yes } else { Unicode::No }
}
