//! The judgement of one task.

use super::{Action, Decision, Reason};
use crate::TaskId;
use crate::checkpoint::{Status, TaskState};
use crate::fingerprint::{Change, Digest};
use crate::graph::WhenSkipped;
use crate::task::Probe;

/// All that [`decide`] may know of a task.
pub struct Facts<'a> {
    /// What the user said of it.
    pub asked: Asked,
    /// The tasks that it needs.
    pub needs: &'a [Need],
    /// What the journal says of it.
    pub state: Option<&'a TaskState>,
    /// Whether it applies to this machine, or why not.
    pub relevant: &'a Result<(), String>,
    /// Whether what decides what it does is as it was.
    pub key: Key<'a>,
    /// A file that it made and that is not as it was left.
    pub damage: Option<&'a Reason>,
    /// What is known of its work.
    pub probe: &'a Probed,
    /// Whether the user agreed to make lost data anew.
    pub accept_data_loss: bool,
}

/// What the user said of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Nothing in particular.
    Nothing,
    /// To run it in any case.
    Force,
    /// To leave it out.
    Skip,
}

/// A task that the judged one needs.
#[derive(Debug, Clone)]
pub struct Need {
    /// Its id.
    pub id: TaskId,
    /// What becomes of it.
    pub standing: Standing,
    /// Whether the judged task can do without it.
    pub when_skipped: WhenSkipped,
}

/// What becomes of a needed task in this run, as far as it is known when its dependent is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It stands, and nothing below it will be touched any more.
    Settled,
    /// It, or something below it, is still to run.
    Unsettled,
    /// It is left out.
    Skipped,
    /// It failed, was cancelled or is blocked.
    Failed,
}

/// Whether a task's key is the one of its last success.
pub enum Key<'a> {
    /// Everything in it is known.
    Known {
        /// The key.
        key: Digest,
        /// Explains the difference to the last success; called only if there is one.
        changes: &'a dyn Fn() -> Vec<Change>,
    },
    /// An output that it reads, or a file, is still to be made.
    Unknown {
        /// The differences in the parts that are known.
        changes: &'a dyn Fn() -> Vec<Change>,
    },
}

/// What is known of a task's work.
#[derive(Debug, Clone, PartialEq)]
pub enum Probed {
    /// The task has no probe: its files and its key tell all.
    NoProbe,
    /// The probe was not made yet.
    NotYet,
    /// The probe's answer.
    Answer(Probe),
}

/// What [`decide`] comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The decision.
    Decided(Decision),
    /// It depends on what the probe says: make it and ask again.
    AskProbe,
    /// It depends on tasks that are still to run: the [`Standing::Unsettled`] ones among the needs.
    After,
}

/// Judges a task.
pub fn decide(facts: &Facts<'_>) -> Verdict {
    use Verdict::Decided;
    let stands = facts.state.is_some_and(|state| state.done.is_some());
    if facts.asked == Asked::Skip {
        // What stands already may be built upon; it is only not looked at.
        let action = if stands { Action::Keep } else { Action::Skip };
        return Decided(Decision::new(action, Reason::SkippedByUser));
    }
    if let Some(decision) = needs_forbid(facts.needs) {
        return Decided(decision);
    }
    if let Err(reason) = facts.relevant {
        let reason = Reason::NotApplicable { reason: reason.clone() };
        return Decided(Decision::new(Action::Skip, reason));
    }
    let run = |reason| Decided(Decision::new(Action::Run, reason));
    if facts.asked == Asked::Force {
        return run(Reason::Forced);
    }
    let Some(state) = facts.state else { return run(Reason::NeverRun) };
    if let Some(reason) = unfinished(state) {
        return run(reason);
    }
    let Some(done) = &state.done else { return run(Reason::NeverRun) };
    let unsettled = facts.needs.iter().any(|need| need.standing == Standing::Unsettled);
    match &facts.key {
        Key::Known { key, changes } if *key != done.key => return run(Reason::Changed { changes: changes() }),
        Key::Known { .. } => {}
        Key::Unknown { changes } => {
            let changes = changes();
            return if changes.is_empty() { Verdict::After } else { run(Reason::Changed { changes }) };
        }
    }
    if let Some(damage) = facts.damage {
        return run(damage.clone());
    }
    match facts.probe {
        Probed::NoProbe => Decided(Decision::new(Action::Keep, Reason::UpToDate)),
        // What it stands on may be repaired first; seen before that, it would look broken.
        _ if unsettled => Verdict::After,
        Probed::NotYet => Verdict::AskProbe,
        Probed::Answer(answer) => Decided(heed(answer, facts.accept_data_loss)),
    }
}

/// A need that keeps the task from running, if one does.
pub(crate) fn needs_forbid(needs: &[Need]) -> Option<Decision> {
    let failed = needs.iter().find(|need| need.standing == Standing::Failed);
    if let Some(need) = failed {
        return Some(Decision::new(Action::Blocked, Reason::NeedFailed { need: need.id.clone() }));
    }
    let missed =
        needs.iter().find(|need| need.standing == Standing::Skipped && need.when_skipped == WhenSkipped::Skip)?;
    Some(Decision::new(Action::Skip, Reason::NeedSkipped { need: missed.id.clone() }))
}

/// Why the last attempt calls for another one, if it does.
fn unfinished(state: &TaskState) -> Option<Reason> {
    match state.status {
        Status::Running | Status::Interrupted => {
            Some(Reason::Interrupted { step: state.in_flight.as_ref().and_then(|attempt| attempt.step.clone()) })
        }
        Status::Failed => {
            let message = state.error.as_ref().map(ToString::to_string).unwrap_or_default();
            Some(Reason::FailedBefore { message })
        }
        Status::Cancelled => Some(Reason::CancelledBefore),
        Status::Pending | Status::Skipped | Status::Succeeded | Status::Degraded => None,
    }
}

fn heed(answer: &Probe, accept_data_loss: bool) -> Decision {
    let run = |reason| Decision::new(Action::Run, reason);
    match answer {
        Probe::Holds => Decision::new(Action::Keep, Reason::UpToDate),
        Probe::Stopped(found) => run(Reason::Stopped { found: found.clone() }),
        Probe::Drifted(fields) => run(Reason::Drifted { fields: fields.clone() }),
        Probe::Missing(found) => run(Reason::Missing { found: found.clone() }),
        Probe::DataLost(found) => {
            let action = if accept_data_loss { Action::Run } else { Action::Blocked };
            Decision::new(action, Reason::DataLost { found: found.clone() })
        }
        Probe::CannotTell(cause) => Decision::new(Action::Blocked, Reason::CannotTell { cause: cause.clone() }),
    }
}
