//! The words of a plan: an action and its reason.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::TaskId;
use crate::fingerprint::{Change, Part};

/// What a run does with a task, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// What is done.
    pub action: Action,
    /// Why.
    pub reason: Reason,
}

/// What a run does with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The task runs.
    Run,
    /// What it made earlier still stands; nothing is done.
    Keep,
    /// It cannot be known before other tasks have run; the same planner decides then.
    DecideAfter,
    /// Nothing is done, and dependents that cannot do without are skipped as well.
    Skip,
    /// Nothing can be done until something else is put right.
    Blocked,
}

/// Why a task is run or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case", deny_unknown_fields)]
pub enum Reason {
    /// It has never run here.
    NeverRun,
    /// The user asked for it by `--force` or `--from`.
    Forced,
    /// Something that decides what it does is not as it was at its last success.
    Changed {
        /// The differences, field by field.
        changes: Vec<Change>,
    },
    /// The program ended while the task ran.
    Interrupted {
        /// The step that was under way, if the task names steps.
        step: Option<String>,
    },
    /// The last attempt failed.
    FailedBefore {
        /// Its error.
        message: String,
    },
    /// The last attempt was cancelled by the user.
    CancelledBefore,
    /// What it made is there and does not run, as after a reboot.
    Stopped {
        /// What the probe saw.
        found: String,
    },
    /// What it made is there and differs from what was recorded.
    Drifted {
        /// The differences that the probe saw.
        fields: Vec<Drift>,
    },
    /// What it made is gone.
    Missing {
        /// What the probe did not find.
        found: String,
    },
    /// Data that it kept is gone; making it anew needs `--accept-data-loss`.
    DataLost {
        /// What the probe did not find.
        found: String,
    },
    /// The probe could not see whether its work still stands.
    CannotTell {
        /// Why not.
        cause: String,
    },
    /// What it made still stands, or nothing that it depends on changed.
    UpToDate,
    /// It is known once these tasks have run.
    After {
        /// The tasks whose outcome decides.
        tasks: Vec<TaskId>,
    },
    /// The user asked to leave it out, by `--skip`.
    SkippedByUser,
    /// It does not apply to this machine.
    NotApplicable {
        /// Why not.
        reason: String,
    },
    /// A task that it needs was skipped, and it cannot do without.
    NeedSkipped {
        /// That task.
        need: TaskId,
    },
    /// A task that it needs failed, was cancelled or is blocked.
    NeedFailed {
        /// That task.
        need: TaskId,
    },
}

/// One field in which the world differs from the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drift {
    /// What differs, such as `max_connections` or `bucket models`.
    pub field: String,
    /// What was recorded or asked for.
    pub expected: Value,
    /// What is there.
    pub found: Value,
}

impl Drift {
    /// A difference in `field`.
    pub fn new(field: impl Into<String>, expected: impl Into<Value>, found: impl Into<Value>) -> Self {
        Self { field: field.into(), expected: expected.into(), found: found.into() }
    }
}

impl Decision {
    /// Puts the two together.
    pub fn new(action: Action, reason: Reason) -> Self {
        Self { action, reason }
    }
}

impl Action {
    /// The word for it in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Keep => "keep",
            Self::DecideAfter => "decide after",
            Self::Skip => "skip",
            Self::Blocked => "blocked",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The reason in one line.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRun => f.write_str("never run"),
            Self::Forced => f.write_str("asked for"),
            Self::Changed { changes } => join(f, changes),
            Self::Interrupted { step: None } => f.write_str("interrupted"),
            Self::Interrupted { step: Some(step) } => write!(f, "interrupted in step `{step}`"),
            Self::FailedBefore { message } => write!(f, "failed before: {}", first_line(message)),
            Self::CancelledBefore => f.write_str("cancelled before"),
            Self::Stopped { found } => write!(f, "stopped: {found}"),
            Self::Drifted { fields } => join(f, fields),
            Self::Missing { found } => write!(f, "gone: {found}"),
            Self::DataLost { found } => write!(f, "data is gone: {found}; --accept-data-loss makes it anew, empty"),
            Self::CannotTell { cause } => write!(f, "cannot tell whether it holds: {cause}"),
            Self::UpToDate => f.write_str("up to date"),
            Self::After { tasks } => {
                f.write_str("known after ")?;
                const SHOWN: usize = 3;
                for (i, task) in tasks.iter().take(SHOWN).enumerate() {
                    write!(f, "{}{task}", if i == 0 { "" } else { ", " })?;
                }
                match tasks.len().saturating_sub(SHOWN) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::SkippedByUser => f.write_str("left out by --skip"),
            Self::NotApplicable { reason } => f.write_str(reason),
            Self::NeedSkipped { need } => write!(f, "{need} is skipped"),
            Self::NeedFailed { need } => write!(f, "{need} did not succeed"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.part {
            Part::Plugin if self.field.is_empty() => f.write_str("plugin")?,
            Part::Plugin => f.write_str("plugin version")?,
            Part::Settings if self.field.is_empty() => f.write_str("settings")?,
            Part::Settings => write!(f, "{}", self.field)?,
            Part::Read(id) if self.field.is_empty() => write!(f, "output of {id}")?,
            Part::Read(id) => write!(f, "{} of {id}", self.field)?,
            Part::Secret => write!(f, "secret {}", self.field)?,
            Part::Input => return write!(f, "input file {} {}", self.field, happened(self)),
            Part::Asset => return write!(f, "built-in file {} {}", self.field, happened(self)),
        }
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, ": {} -> {}", Short(from), Short(to)),
            (None, Some(to)) => write!(f, ": now {}", Short(to)),
            (Some(from), None) => write!(f, ": no longer {}", Short(from)),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, not {}", self.field, Short(&self.found), Short(&self.expected))
    }
}

fn happened(change: &Change) -> &'static str {
    let there = |value: &Option<Value>| value.as_ref().is_some_and(|v| !v.is_null());
    match (there(&change.from), there(&change.to)) {
        (true, true) => "changed",
        (false, _) => "is new",
        (true, false) => "is gone",
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The first difference, and how many more there are.
fn join(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    match items {
        [] => f.write_str("changed"),
        [one] => write!(f, "{one}"),
        [one, rest @ ..] => write!(f, "{one} (and {} more)", rest.len()),
    }
}

/// A JSON value in one line of bearable length.
struct Short<'a>(&'a Value);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDTH: usize = 60;
        let text = match self.0 {
            Value::String(text) if !text.is_empty() && !text.contains(char::is_control) => text.clone(),
            other => other.to_string(),
        };
        match text.char_indices().nth(WIDTH) {
            None => f.write_str(&text),
            Some((at, _)) => write!(f, "{}…", &text[..at]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reasons_read_as_a_person_would_say_them() {
        let id = |text| TaskId::new(text).unwrap();
        let change = |part, field: &str, from, to| Change { part, field: field.into(), from, to };
        let told = [
            Reason::NeverRun,
            Reason::Changed { changes: vec![change(Part::Settings, "port", Some(json!(5432)), Some(json!(5433)))] },
            Reason::Changed {
                changes: vec![
                    change(Part::Read(id("CLOUD-3.1")), "endpoint", Some(json!("a")), Some(json!("b"))),
                    change(Part::Secret, "mlflow-db", Some(json!(1)), Some(json!(2))),
                ],
            },
            Reason::Changed { changes: vec![change(Part::Input, "a.c", Some(json!("ab")), Some(json!("cd")))] },
            Reason::Interrupted { step: Some("create bucket".into()) },
            Reason::Drifted { fields: vec![Drift::new("max_connections", 100, 50)] },
            Reason::DataLost { found: "the data folder is empty".into() },
            Reason::After { tasks: ["a", "b", "c", "d", "e"].map(id).to_vec() },
        ]
        .map(|reason| reason.to_string());
        insta::assert_snapshot!(told.join("\n"), @r"
        never run
        port: 5432 -> 5433
        endpoint of CLOUD-3.1: a -> b (and 1 more)
        input file a.c changed
        interrupted in step `create bucket`
        max_connections is 50, not 100
        data is gone: the data folder is empty; --accept-data-loss makes it anew, empty
        known after a, b, c and 2 more
        ");
    }
}
