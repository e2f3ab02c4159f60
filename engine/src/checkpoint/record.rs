//! What the journal's frames hold: each frame is a JSON array of [`Record`]s that became durable together.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::TaskState;
use crate::TaskId;
use crate::event::Verb;
use crate::fingerprint::Digest;
use crate::outcome::Outcome;
use crate::plan::Reason;
use crate::process::{Cookie, ProcessId};

/// One durable fact. The state of all tasks is the fold of these, see [`Checkpoint::apply`](super::Checkpoint::apply).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Record {
    /// A run began.
    RunStarted(RunStarted),
    /// An attempt is about to begin; durable before any process of it exists.
    Starting(Starting),
    /// The attempt's process exists.
    Spawned {
        /// The task.
        task: TaskId,
        /// Its process.
        process: ProcessId,
    },
    /// The running attempt went into a step. Nothing waits for this record; it tells where an attempt was interrupted.
    StepStarted {
        /// The task.
        task: TaskId,
        /// The step's name.
        step: String,
    },
    /// A step of the running attempt is done.
    Step {
        /// The task.
        task: TaskId,
        /// The step.
        step: StepRecord,
    },
    /// The attempt ended; of a success, its outputs were checked before.
    Finished(Finished),
    /// The task was left out of the run, with a reason to show.
    Skipped {
        /// The task.
        task: TaskId,
        /// When.
        at: Timestamp,
        /// Why.
        reason: Reason,
    },
    /// What the task made is gone from the machine.
    Destroyed {
        /// The task.
        task: TaskId,
    },
    /// The run ended in good order.
    RunFinished {
        /// The run.
        run: u64,
        /// When.
        at: Timestamp,
        /// The exit code of the program.
        exit_code: u8,
    },
    /// The whole state of one task: what a compacted journal begins with.
    Task {
        /// The task.
        task: TaskId,
        /// Its state.
        state: Arc<TaskState>,
    },
}

/// The head of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunStarted {
    /// The number of the run in this state folder, from 1.
    pub run: u64,
    /// When it began.
    pub at: Timestamp,
    /// What it does.
    pub verb: Verb,
    /// What was asked for, for `resume` to ask again.
    pub request: Box<RawValue>,
    /// The program that runs it.
    pub driver: ProcessId,
}

/// The head of an attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Starting {
    /// The task.
    pub task: TaskId,
    /// When.
    pub at: Timestamp,
    /// Whether it brings the task up or takes it away.
    pub verb: Verb,
    /// Counts the attempts at this task, from 1.
    pub attempt: u32,
    /// Stands in the environment of every process of this attempt.
    pub cookie: Cookie,
    /// Why it runs.
    pub reason: Reason,
    /// The key that it runs under.
    pub key: Digest,
    /// What the key was made of, a [`KeyParts`](crate::fingerprint::KeyParts).
    pub parts: Box<RawValue>,
}

/// The end of an attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finished {
    /// The task.
    pub task: TaskId,
    /// When.
    pub at: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// What it gives to its dependents; only of a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputRecord>,
    /// The files that it read and wrote, as they were at its end.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub files: Box<[FileStamp]>,
    /// How long the attempt took, in seconds.
    pub seconds: f64,
}

/// An output with the version of its type.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputRecord {
    /// The version of the output's type.
    pub schema: u32,
    /// The output.
    pub value: Box<RawValue>,
}

/// A step that was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRecord {
    /// Its name, unique within the task.
    pub name: String,
    /// The key of the task when it was done.
    pub key: Digest,
    /// What it gave.
    pub output: Box<RawValue>,
}

/// A file and how to recognise that it was not touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileStamp {
    /// Its path, as in the graph, relative to the graph's folder.
    pub path: Box<str>,
    /// Whether the task read it or made it.
    pub role: FileRole,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last written, in nanoseconds since 1970.
    pub mtime: i64,
    /// Its inode.
    pub inode: u64,
    /// The digest of its contents.
    pub digest: Digest,
}

/// What a file is to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileRole {
    /// It is read.
    Input,
    /// It is made.
    Output,
}
