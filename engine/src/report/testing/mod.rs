//! Runs made up for the tests of this module.

mod any;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{Kind, Progress, Size, Streams, Unicode, reporter};
use crate::TaskId;
use crate::event::{Event, EventKind, PlannedTask, VERSION, Verb};
use crate::outcome::{FailedCommand, Failure, Outcome};
use crate::plan::{Action, Decision, Reason};
pub(crate) use any::any_events;

pub(crate) fn id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

/// Writes the events of a run, two tasks at a time, from 14:30:00 UTC on.
pub(crate) struct Script {
    tasks: Vec<PlannedTask>,
    now: Timestamp,
    seq: u64,
    pub(crate) run: u64,
}

impl Script {
    /// A run of tasks that never ran, with their needs.
    pub(crate) fn new(graph: &[(&str, &[&str])]) -> Self {
        let planned = |(task, needs): &(&str, &[&str])| PlannedTask {
            id: id(task),
            title: None,
            needs: needs.iter().map(|need| id(need)).collect(),
            decision: Decision::new(Action::Run, Reason::NeverRun),
            expected_seconds: None,
        };
        Self {
            tasks: graph.iter().map(planned).collect(),
            now: "2026-03-01T14:30:00Z".parse().unwrap(),
            seq: 0,
            run: 1,
        }
    }

    /// Gives the first tasks durations.
    pub(crate) fn expecting(mut self, seconds: &[f64]) -> Self {
        for (task, seconds) in self.tasks.iter_mut().zip(seconds) {
            task.expected_seconds = Some(*seconds);
        }
        self
    }

    /// Gives the first tasks titles.
    pub(crate) fn titled(mut self, titles: &[&str]) -> Self {
        for (task, title) in self.tasks.iter_mut().zip(titles) {
            task.title = Some((*title).to_owned());
        }
        self
    }

    /// Changes what the plan says of a task.
    pub(crate) fn planning(mut self, task: &str, action: Action, reason: Reason) -> Self {
        let planned = self.tasks.iter_mut().find(|planned| planned.id == id(task)).unwrap();
        planned.decision = Decision::new(action, reason);
        self
    }

    pub(crate) fn wait(&mut self, seconds: f64) {
        self.now = self.now.checked_add(SignedDuration::from_secs_f64(seconds)).unwrap();
    }

    pub(crate) fn event(&mut self, kind: EventKind) -> Event {
        self.seq += 1;
        Event { version: VERSION, seq: self.seq, at: self.now, run: self.run, kind }
    }

    pub(crate) fn begin(&mut self) -> Event {
        let tasks = self.tasks.clone();
        self.event(EventKind::RunStarted { verb: Verb::Run, environment: "local".into(), jobs: 2, tasks })
    }

    pub(crate) fn started(&mut self, task: &str) -> Event {
        self.event(EventKind::TaskStarted { task: id(task), attempt: 1, reason: Reason::NeverRun })
    }

    pub(crate) fn step(&mut self, task: &str, step: &str) -> Event {
        self.event(EventKind::StepStarted { task: id(task), step: step.into() })
    }

    pub(crate) fn output(&mut self, task: &str, text: &str) -> Event {
        self.event(EventKind::Output { task: id(task), text: text.into() })
    }

    pub(crate) fn succeeded(&mut self, task: &str, seconds: f64) -> Event {
        self.ended(task, Outcome::Succeeded, seconds)
    }

    pub(crate) fn ended(&mut self, task: &str, outcome: Outcome, seconds: f64) -> Event {
        self.event(EventKind::TaskFinished { task: id(task), attempt: 1, outcome, seconds })
    }

    pub(crate) fn blocked(&mut self, task: &str, need: &str) -> Event {
        let decision = Decision::new(Action::Blocked, Reason::NeedFailed { need: id(need) });
        self.event(EventKind::TaskDecided { task: id(task), decision })
    }

    /// The last event; it counts what `events` came to.
    pub(crate) fn end(&mut self, events: &[Event], exit_code: u8) -> Event {
        let mut progress = Progress::new();
        events.iter().for_each(|event| progress.apply(event));
        let seconds = super::text::elapsed(progress.started().unwrap(), self.now);
        self.event(EventKind::RunFinished { counts: progress.tally().ended, seconds, exit_code })
    }
}

/// A run in which about everything happens that can happen.
pub(crate) fn story() -> Vec<Event> {
    let mut script = Script::new(&[
        ("CLOUD-0.1", &[]),
        ("CLOUD-1.1", &["CLOUD-0.1"]),
        ("CLOUD-3.1", &["CLOUD-1.1"]),
        ("CLOUD-3.2", &["CLOUD-1.1"]),
        ("CLOUD-3.3", &["CLOUD-3.1", "CLOUD-3.2"]),
        ("CLOUD-4.1", &["CLOUD-1.1"]),
        ("CLOUD-5.1", &["CLOUD-3.3"]),
        ("CLOUD-6.1", &["CLOUD-5.1"]),
        ("CLOUD-7.1", &["CLOUD-3.1"]),
        ("hello", &[]),
    ])
    .titled(&["Machine", "Runtime", "Object store", "PostgreSQL", "MLflow", "GPU", "Tracking", "Serving", "Monitoring"])
    .expecting(&[2.0, 30.0, 9.0, 12.0, 20.0])
    .planning("CLOUD-0.1", Action::Keep, Reason::UpToDate)
    .planning("CLOUD-7.1", Action::DecideAfter, Reason::After { tasks: vec![id("CLOUD-3.1")] });
    let mut events = vec![script.begin(), script.started("CLOUD-1.1"), script.started("hello")];
    events.push(script.output("hello", "hello\nwor"));
    events.push(
        script.output("hello", "ld\n\u{1b}[31mred\u{1b}[0m \u{1b}]0;owned\u{7}and \u{1b}[2J<img onerror=alert(1)>"),
    );
    script.wait(0.4);
    events.push(script.succeeded("hello", 0.4));
    events.push(script.step("CLOUD-1.1", "install packages"));
    events.push(script.output("CLOUD-1.1", " 10%\r 60%\r100%\n"));
    script.wait(20.0);
    events.push(script.event(EventKind::StepFinished {
        task: id("CLOUD-1.1"),
        step: "install packages".into(),
        kept: false,
    }));
    script.wait(1.1);
    events.push(script.succeeded("CLOUD-1.1", 21.5));
    events.push(script.event(EventKind::TaskDecided {
        task: id("CLOUD-4.1"),
        decision: Decision::new(Action::Skip, Reason::NotApplicable { reason: "no NVIDIA GPU was found".into() }),
    }));
    events.extend([
        script.started("CLOUD-3.1"),
        script.started("CLOUD-3.2"),
        script.step("CLOUD-3.2", "start the server"),
    ]);
    script.wait(3.0);
    let error = Failure::transient("connect").in_step("start the server");
    let retrying = EventKind::TaskRetrying { task: id("CLOUD-3.2"), attempt: 1, error, delay: 4.0 };
    events.push(script.event(retrying));
    script.wait(4.0);
    let mut again = script.started("CLOUD-3.2");
    if let EventKind::TaskStarted { attempt, .. } = &mut again.kind {
        *attempt = 2;
    }
    events.extend([again, script.step("CLOUD-3.2", "start the server")]);
    events.push(script.output("CLOUD-3.1", "API: http://127.0.0.1:9000\n"));
    script.wait(1.5);
    let missing = vec!["the console does not answer; open port 9001".to_owned()];
    events.push(script.ended("CLOUD-3.1", Outcome::Degraded { missing }, 8.5));
    events.push(script.event(EventKind::TaskDecided {
        task: id("CLOUD-7.1"),
        decision: Decision::new(Action::Keep, Reason::UpToDate),
    }));
    let text = "the disk is 92 % full".into();
    events.push(script.event(EventKind::Notice { task: None, text }));
    script.wait(2.0);
    let failure = Failure::caused(
        crate::outcome::Persistence::Permanent,
        "start the server",
        &io::Error::other("it ended at once"),
    );
    let failure = failure
        .in_step("start the server")
        .with_hint("free port 5432, or run with --reassign-ports")
        .with_command(FailedCommand {
            line: "pg_ctl start -D data".into(),
            ended: "exit code 1".into(),
            tail: "LOG:  starting PostgreSQL 17\nFATAL:  could not bind: \u{1b}[1maddress in use\u{1b}[0m\n".into(),
            log: Some("logs/CLOUD-3.2/2.log".into()),
        });
    let mut failed = script.ended("CLOUD-3.2", failure.into(), 3.5);
    if let EventKind::TaskFinished { attempt, .. } = &mut failed.kind {
        *attempt = 2;
    }
    events.push(failed);
    events.push(script.blocked("CLOUD-3.3", "CLOUD-3.2"));
    events.push(script.blocked("CLOUD-5.1", "CLOUD-3.3"));
    events.push(script.blocked("CLOUD-6.1", "CLOUD-5.1"));
    script.wait(0.1);
    let end = script.end(&events, 1);
    events.push(end);
    events
}

/// What the reporter of that kind writes to `out` and to `err` when it is told `events`.
pub(crate) fn report(kind: Kind, events: &[Event]) -> (String, String) {
    let (out, err) = (Buffer::default(), Buffer::default());
    let mut reporter = reporter(kind, streams(&out, &err));
    for event in events {
        reporter.event(event);
        reporter.tick(event.at);
    }
    reporter.finish();
    (out.text(), err.text())
}

/// Streams that write to buffers, of 80 columns and 24 rows.
pub(crate) fn streams(out: &Buffer, err: &Buffer) -> Streams {
    Streams {
        out: Box::new(out.clone()),
        err: Box::new(err.clone()),
        size: Box::new(|| Size { columns: 80, rows: 24 }),
        color: false,
        unicode: Unicode::Yes,
        zone: TimeZone::UTC,
    }
}

/// Keeps what is written.
#[derive(Clone, Default)]
pub(crate) struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a terminal of endless rows shows once `written` was written to it; knows what [`super::live`] writes.
pub(crate) fn screen(written: &str) -> String {
    let mut rows: Vec<String> = vec![String::new()];
    let mut at = 0;
    let mut rest = written;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\r' => {}
            '\n' => {
                at += 1;
                rows.resize(rows.len().max(at + 1), String::new());
            }
            '\x1b' => {
                let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                match (&rest[1..end], &rest[end..=end]) {
                    (up, "A") => at -= up.parse::<usize>().unwrap(),
                    ("", "J") => {
                        rows.truncate(at);
                        rows.push(String::new());
                    }
                    ("", "K") | ("?2026", _) => {}
                    other => panic!("{other:?}"),
                }
                rest = &rest[end + 1..];
            }
            _ => {
                // Lines are written from their beginning.
                let end = rest.find(['\x1b', '\n']).unwrap();
                rows[at] = format!("{c}{}", &rest[..end]);
                rest = &rest[end..];
            }
        }
    }
    rows.join("\n")
}

/// Snapshot settings: all snapshots of the repository stand in one folder.
pub(crate) fn snapshots() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}
