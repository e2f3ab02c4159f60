//! The log of an attempt: one file, made when the first byte comes.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::events::EventSink;
use crate::TaskId;
use crate::event::EventKind;
use crate::process::OutputSink;

/// Where the output of an attempt goes: into its log and, piece by piece, into the events. Clones share the file.
///
/// What is written must be redacted already; commands do that with their own [`Redactor`](crate::redact::Redactor).
#[derive(Clone)]
pub struct AttemptLog(Arc<Shared>);

struct Shared {
    task: TaskId,
    path: PathBuf,
    events: Option<EventSink>,
    file: Mutex<Opened>,
}

enum Opened {
    NotYet,
    File(File),
    /// The log could not be written; said once.
    Failed,
}

impl AttemptLog {
    /// A log at `path`; its folder is made as well.
    pub fn new(task: TaskId, path: PathBuf, events: Option<EventSink>) -> Self {
        Self(Arc::new(Shared { task, path, events, file: Mutex::new(Opened::NotYet) }))
    }

    /// Where the log is, or will be once something is written.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Appends `bytes` and tells who watches.
    pub fn write(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut opened = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Opened::NotYet = *opened {
            *opened = open(&self.0.path).map_or_else(|error| self.fail(&error), Opened::File);
        }
        if let Opened::File(file) = &mut *opened
            && let Err(error) = file.write_all(bytes)
        {
            *opened = self.fail(&error);
        }
        drop(opened);
        if let Some(events) = &self.0.events {
            let text = String::from_utf8_lossy(bytes).into_owned();
            events.send(EventKind::Output { task: self.0.task.clone(), text });
        }
    }

    /// A log that cannot be written is no reason to stop the task: its output is still shown.
    fn fail(&self, error: &std::io::Error) -> Opened {
        tracing::warn!(task = %self.0.task, path = %self.0.path.display(), %error, "the log cannot be written");
        Opened::Failed
    }
}

impl OutputSink for AttemptLog {
    fn chunk(&mut self, bytes: &[u8]) {
        self.write(bytes);
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    match OpenOptions::new().append(true).create(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            OpenOptions::new().append(true).create(true).open(path)
        }
        other => other,
    }
}
