//! `logs`, `watch` and `report`: looking at runs, past and present.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{Global, LogsArgs, ReportArgs};
use super::error::{CliError, exit};
use super::execute::{make_reporter, run_folder};
use super::main::say;
use super::session::Session;
use super::status::now_of;
use crate::checkpoint::{Checkpoint, Status};
use crate::event::{Event, EventKind};
use crate::report::{LogTail, RunHistory, html};
use crate::run::events::now;

/// How often a followed file is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

pub(super) fn logs(session: &Session, args: &LogsArgs) -> Result<u8, CliError> {
    let (mut checkpoint, mut driven) = session.observe()?;
    let id = session.task_id(&checkpoint, &args.id)?;
    let attempt_of = |checkpoint: &Checkpoint| args.attempt.or(Some(checkpoint.tasks.get(&id)?.attempt));
    while args.follow && attempt_of(&checkpoint).is_none() && driven {
        // Its turn may still come.
        std::thread::sleep(INTERVAL);
        (checkpoint, driven) = session.observe()?;
    }
    let Some(attempt) = attempt_of(&checkpoint) else {
        say(format!("{id} has not run yet"));
        return Ok(exit::OK);
    };
    let path = session.world.log_path(&id, attempt);
    let mut written = copy(&path, 0)?;
    let mut goes_on = args.follow;
    while goes_on && written != Copied::Closed {
        std::thread::sleep(INTERVAL);
        let (checkpoint, driven) = session.observe()?;
        let state = checkpoint.tasks.get(&id);
        let this_attempt = state.is_some_and(|state| state.attempt == attempt);
        // What it wrote before it ended is copied after its end was seen.
        goes_on = now_of(state, driven) == Status::Running && this_attempt;
        let position = if let Copied::UpTo(position) = written { position } else { 0 };
        written = copy(&path, position)?;
    }
    if written == Copied::Nothing {
        say(format!("attempt {attempt} of {id} wrote nothing"));
    }
    Ok(exit::OK)
}

/// How far a file was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copied {
    /// There is no file.
    Nothing,
    /// Up to this byte.
    UpTo(u64),
    /// Nobody reads any more.
    Closed,
}

/// Copies a file from `position` to stdout.
fn copy(path: &Path, position: u64) -> Result<Copied, CliError> {
    let failed = |error| CliError::caused(exit::FAILED, format!("read {}", path.display()), &error);
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Copied::Nothing),
        Err(error) => return Err(failed(error)),
    };
    file.seek(SeekFrom::Start(position)).map_err(failed)?;
    let mut stdout = std::io::stdout().lock();
    match std::io::copy(&mut file, &mut stdout).and_then(|copied| stdout.flush().map(|()| copied)) {
        Ok(copied) => Ok(Copied::UpTo(position + copied)),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Copied::Closed),
        Err(error) => Err(failed(error)),
    }
}

pub(super) fn watch(session: &Session, global: &Global) -> Result<u8, CliError> {
    let Some(run) = session.read()?.run else {
        say("nothing to watch: nothing was run here yet");
        return Ok(exit::OK);
    };
    let number = run.started.run;
    let mut reporter = make_reporter(global.output, &session.world.redactor);
    let mut follower = Follower::new(run_folder(&session.state, number).join("events.jsonl"));
    loop {
        let mut ended = None;
        for event in follower.poll()? {
            if let EventKind::RunFinished { exit_code, .. } = event.kind {
                ended = Some(exit_code);
            }
            reporter.event(&event);
        }
        reporter.tick(now());
        if reporter.is_silent() {
            return Ok(exit::OK);
        }
        if let Some(code) = ended {
            reporter.finish();
            return Ok(code);
        }
        let (checkpoint, driven) = session.observe()?;
        let goes_on = driven && checkpoint.run.is_some_and(|run| run.started.run == number);
        if !goes_on && follower.is_quiet() {
            reporter.finish();
            say(format!("run {number} ended without saying goodbye; go on with it by `taskrun resume`"));
            return Ok(exit::FAILED);
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Reads the events of a run as they are written.
struct Follower {
    path: PathBuf,
    position: u64,
    rest: String,
    quiet: u32,
}

impl Follower {
    fn new(path: PathBuf) -> Self {
        Self { path, position: 0, rest: String::new(), quiet: 0 }
    }

    /// Whether nothing came for several looks.
    fn is_quiet(&self) -> bool {
        self.quiet > 3
    }

    fn poll(&mut self) -> Result<Vec<Event>, CliError> {
        let failed = |error| CliError::caused(exit::FAILED, format!("read {}", self.path.display()), &error);
        let mut file = match std::fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.quiet += 1;
                return Ok(Vec::new());
            }
            Err(error) => return Err(failed(error)),
        };
        file.seek(SeekFrom::Start(self.position)).map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        self.position += bytes.len() as u64;
        self.quiet = if bytes.is_empty() { self.quiet + 1 } else { 0 };
        self.rest.push_str(&String::from_utf8_lossy(&bytes));
        let Some(end) = self.rest.rfind('\n') else { return Ok(Vec::new()) };
        let whole: String = self.rest.drain(..=end).collect();
        // Kinds of events that this version does not know are passed over.
        Ok(whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}

pub(super) fn report(session: &Session, args: &ReportArgs) -> Result<u8, CliError> {
    let checkpoint = session.read()?;
    let last = checkpoint.run.as_ref().map(|run| run.started.run);
    let Some(run) = args.run.or(last) else {
        return Err(CliError::usage("there is no run to report on").with_hint("start one with `taskrun run`"));
    };
    let file = run_folder(&session.state, run).join("events.jsonl");
    let failed =
        |error| CliError::caused(exit::USAGE, format!("read the events of run {run}: {}", file.display()), &error);
    let events: Vec<Event> = BufReader::new(std::fs::File::open(&file).map_err(failed)?)
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str(&line).ok())
        .collect();
    let logs = log_tails(session, &events);
    let page = html(&[RunHistory { events, logs }], &jiff::tz::TimeZone::system());
    let page = session.world.redactor.redact_str(&page);
    let out = args.out.clone().unwrap_or_else(|| session.state.join("report.html"));
    std::fs::write(&out, page.as_bytes())
        .map_err(|error| CliError::caused(exit::FAILED, format!("write {}", out.display()), &error))?;
    super::main::print(&format!("{}\n", out.display()))
}

/// The ends of the logs of all attempts of a run.
fn log_tails(session: &Session, events: &[Event]) -> Vec<LogTail> {
    let attempts = events.iter().filter_map(|event| match &event.kind {
        EventKind::TaskStarted { task, attempt, .. } => Some((task, *attempt)),
        _ => None,
    });
    // An attempt that wrote nothing has no log.
    attempts
        .filter_map(|(task, attempt)| LogTail::read(task.clone(), attempt, &session.world.log_path(task, attempt)).ok())
        .collect()
}
