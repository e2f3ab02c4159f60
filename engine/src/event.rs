//! What happens in a run, as one typed, versioned stream. Everything that a person sees is a fold over it.
//!
//! The driver sends events in order; a run's events are kept in `events.jsonl` of the run's folder, one JSON object a
//! line, and `--output json` prints the same lines. Events are for people and programs that watch; what a resume needs
//! stands in the [journal](crate::journal) alone. All texts are redacted before they become part of an event.
//!
//! Fields are only ever added within a [`VERSION`]; readers ignore fields and kinds that they do not know.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::TaskId;
use crate::outcome::{Failure, Outcome};
use crate::plan::{Decision, Reason};

/// The version of the event format.
pub const VERSION: u32 = 1;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The version of the format, [`VERSION`].
    pub version: u32,
    /// Counts the events of a run, from 1, without gaps.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The run's number in its state folder, from 1.
    pub run: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A run began; the first event of each run.
    RunStarted {
        /// Whether it brings tasks up or takes them away.
        verb: Verb,
        /// The environment's name, from the config.
        environment: String,
        /// The number of tasks that may run at once.
        jobs: u32,
        /// The tasks of the run in the order of the graph, with what the plan says of each.
        tasks: Vec<PlannedTask>,
    },
    /// A task whose decision was put off was decided.
    TaskDecided {
        /// The task.
        task: TaskId,
        /// What is done with it now.
        decision: Decision,
    },
    /// An attempt at a task began.
    TaskStarted {
        /// The task.
        task: TaskId,
        /// Counts the attempts at the task in this state folder, from 1.
        attempt: u32,
        /// Why it runs.
        reason: Reason,
    },
    /// A task went into a step.
    StepStarted {
        /// The task.
        task: TaskId,
        /// The step's name.
        step: String,
    },
    /// A step was done.
    StepFinished {
        /// The task.
        task: TaskId,
        /// The step's name.
        step: String,
        /// Whether it was left out because an earlier attempt had done it.
        #[serde(default)]
        kept: bool,
    },
    /// A task or its command wrote something.
    Output {
        /// The task.
        task: TaskId,
        /// What it wrote, in pieces that need not end at a line end.
        text: String,
    },
    /// An attempt failed with a transient error, and there will be another one.
    TaskRetrying {
        /// The task.
        task: TaskId,
        /// The attempt that failed.
        attempt: u32,
        /// Why.
        error: Failure,
        /// When the next attempt starts, in seconds from now.
        delay: f64,
    },
    /// A task ended; the last event of each task that was started.
    TaskFinished {
        /// The task.
        task: TaskId,
        /// The attempt that ended; 0 if none was started.
        attempt: u32,
        /// How.
        #[serde(flatten)]
        outcome: Outcome,
        /// How long the attempt took, in seconds.
        seconds: f64,
    },
    /// The run was asked to stop.
    Stopping {
        /// How urgently: 1 waits for safe points, 2 ends the processes, 3 leaves at once.
        level: u8,
        /// The tasks that it waits for.
        waiting_for: Vec<TaskId>,
    },
    /// Something that the user should know.
    Notice {
        /// The task that it is about, if any.
        task: Option<TaskId>,
        /// The text.
        text: String,
    },
    /// The run ended; the last event of each run.
    RunFinished {
        /// How many tasks ended how.
        counts: Counts,
        /// How long the run took, in seconds.
        seconds: f64,
        /// The exit code of the program.
        exit_code: u8,
    },
}

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Brings tasks to their described state.
    Run,
    /// Takes away what tasks made.
    Destroy,
}

/// A task as the plan has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedTask {
    /// The task.
    pub id: TaskId,
    /// Its title, or nothing where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The tasks that it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<TaskId>,
    /// What will be done with it, and why.
    pub decision: Decision,
    /// How long its last success took, in seconds, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_seconds: Option<f64>,
}

/// How many tasks of a run ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Ran and succeeded.
    pub succeeded: usize,
    /// Ran, and works but for named parts.
    pub degraded: usize,
    /// Stood already; nothing was done.
    pub kept: usize,
    /// Left out, with a reason.
    pub skipped: usize,
    /// Ran and failed.
    pub failed: usize,
    /// Not started because of something else.
    pub blocked: usize,
    /// Stopped or never started because the run was interrupted.
    pub cancelled: usize,
}

impl Event {
    /// The task that the event is about, if it is about one.
    pub fn task(&self) -> Option<&TaskId> {
        match &self.kind {
            EventKind::TaskDecided { task, .. }
            | EventKind::TaskStarted { task, .. }
            | EventKind::StepStarted { task, .. }
            | EventKind::StepFinished { task, .. }
            | EventKind::Output { task, .. }
            | EventKind::TaskRetrying { task, .. }
            | EventKind::TaskFinished { task, .. } => Some(task),
            EventKind::Notice { task, .. } => task.as_ref(),
            EventKind::RunStarted { .. } | EventKind::Stopping { .. } | EventKind::RunFinished { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Action;

    #[test]
    fn an_event_is_one_flat_object_and_survives_it() {
        let event = Event {
            version: VERSION,
            seq: 7,
            at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            run: 1,
            kind: EventKind::TaskFinished {
                task: TaskId::new("CLOUD-3.2").unwrap(),
                attempt: 2,
                outcome: Failure::transient("connect").into(),
                seconds: 1.5,
            },
        };
        let json = serde_json::to_value(&event).unwrap();
        insta::assert_json_snapshot!(json, @r#"
        {
          "at": "2026-01-02T03:04:05.678Z",
          "attempt": 2,
          "error": {
            "message": "connect",
            "persistence": "transient"
          },
          "event": "task_finished",
          "outcome": "failed",
          "run": 1,
          "seconds": 1.5,
          "seq": 7,
          "task": "CLOUD-3.2",
          "version": 1
        }
        "#);
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
    }

    #[test]
    fn a_decision_keeps_its_reason() {
        let decision = Decision::new(Action::Run, Reason::Interrupted { step: Some("create bucket".into()) });
        let json = serde_json::to_string(&decision).unwrap();
        assert_eq!(json, r#"{"action":"run","reason":{"why":"interrupted","step":"create bucket"}}"#);
    }
}
