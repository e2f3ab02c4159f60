//! Where each task of a run is: a state machine in which every transition goes through [`RunState::set`].
//!
//! ```text
//! Waiting ─► Deciding ─► Ready ─► Starting ─► Running ─► Ending ─► Settled
//!    │           │         ▲  │                  │  │                 ▲
//!    │           │         │  └── (stopped) ─────│──│─────────────────┤
//!    │           │         └────── Backoff ◄─────┘  │                 │
//!    └───────────┴──────────────────────────────────┴─────────────────┘
//! ```
//!
//! `Starting` and `Ending` end when the journal has made the attempt's start and end durable.

use crate::event::Counts;

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Some of its needs are not settled.
    Waiting {
        /// How many.
        unmet: u32,
    },
    /// Its needs are settled, and what to do with it is being found out.
    Deciding,
    /// It shall run and waits for a slot.
    Ready,
    /// It has a slot; its start is on the way to the disk.
    Starting,
    /// It runs.
    Running,
    /// It failed with a transient error and waits for its next attempt.
    Backoff,
    /// It ended; its end is on the way to the disk.
    Ending(Settlement),
    /// It is over for this run.
    Settled(Settlement),
}

/// How a task ended in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Settlement {
    /// It ran and succeeded.
    Succeeded,
    /// It ran and works but for named parts.
    Degraded,
    /// It stood already.
    Kept,
    /// It was left out.
    Skipped,
    /// It ran and failed.
    Failed,
    /// It was not started because of something else.
    Blocked,
    /// It was stopped, or never started, because the run was interrupted.
    Cancelled,
}

impl Settlement {
    /// Whether dependents may build upon it.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Succeeded | Self::Degraded | Self::Kept)
    }
}

/// Where all tasks of a run are.
#[derive(Debug)]
pub struct RunState {
    phases: Vec<Phase>,
    active: usize,
    open: usize,
    counts: Counts,
}

impl RunState {
    /// A run in which task `i` waits for `unmet[i]` needs. Tasks that are not part of the run have none and are never
    /// touched: `open` counts those that are.
    pub fn new(unmet: Vec<u32>, open: usize) -> Self {
        let phases = unmet.into_iter().map(|unmet| Phase::Waiting { unmet }).collect();
        Self { phases, active: 0, open, counts: Counts::default() }
    }

    /// Where `task` is.
    pub fn phase(&self, task: usize) -> Phase {
        self.phases[task]
    }

    /// The number of tasks whose attempt is under way, journal writes included.
    pub fn active(&self) -> usize {
        self.active
    }

    /// The number of tasks that are not settled.
    pub fn open(&self) -> usize {
        self.open
    }

    /// How many tasks are settled how.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Notes that one more need of `task` is settled; whether it was the last one.
    pub fn need_settled(&mut self, task: usize) -> bool {
        match self.phases[task] {
            Phase::Waiting { unmet } => {
                let unmet = unmet.saturating_sub(1);
                self.phases[task] = Phase::Waiting { unmet };
                unmet == 0
            }
            _ => false,
        }
    }

    /// Moves `task` on.
    ///
    /// # Panics
    /// When no such transition exists: a defect of the driver, which must not reach the journal.
    pub fn set(&mut self, task: usize, to: Phase) {
        use Phase::{Backoff, Deciding, Ending, Ready, Running, Settled, Starting, Waiting};
        let from = self.phases[task];
        let legal = match (from, to) {
            (Waiting { unmet: 0 }, Deciding) => true,
            (Waiting { .. } | Deciding | Ready | Backoff, Settled(to)) => {
                !matches!(to, Settlement::Succeeded | Settlement::Degraded)
            }
            (Deciding | Backoff, Ready) | (Ready, Starting) | (Starting, Running) => true,
            (Starting, Ending(Settlement::Cancelled)) | (Running, Ending(_)) => true,
            // A transient failure: its end is durable before the task waits for its next attempt.
            (Ending(Settlement::Failed), Backoff) => true,
            (Ending(ended), Settled(settled)) => ended == settled,
            _ => false,
        };
        assert!(legal, "no transition from {from:?} to {to:?}");
        self.active -= usize::from(is_active(from));
        self.active += usize::from(is_active(to));
        if let Settled(settlement) = to {
            self.open -= 1;
            *count(&mut self.counts, settlement) += 1;
        }
        self.phases[task] = to;
    }
}

fn is_active(phase: Phase) -> bool {
    matches!(phase, Phase::Starting | Phase::Running | Phase::Ending(_))
}

fn count(counts: &mut Counts, settlement: Settlement) -> &mut usize {
    match settlement {
        Settlement::Succeeded => &mut counts.succeeded,
        Settlement::Degraded => &mut counts.degraded,
        Settlement::Kept => &mut counts.kept,
        Settlement::Skipped => &mut counts.skipped,
        Settlement::Failed => &mut counts.failed,
        Settlement::Blocked => &mut counts.blocked,
        Settlement::Cancelled => &mut counts.cancelled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_goes_its_way_and_is_counted() {
        let mut state = RunState::new(vec![0, 1], 2);
        let way =
            [Phase::Deciding, Phase::Ready, Phase::Starting, Phase::Running, Phase::Ending(Settlement::Succeeded)];
        way.into_iter().for_each(|phase| state.set(0, phase));
        assert_eq!((state.active(), state.open()), (1, 2));
        state.set(0, Phase::Settled(Settlement::Succeeded));
        assert!(state.need_settled(1));
        state.set(1, Phase::Settled(Settlement::Cancelled));
        assert_eq!((state.active(), state.open()), (0, 0));
        assert_eq!(state.counts(), Counts { succeeded: 1, cancelled: 1, ..Counts::default() });
    }

    #[test]
    #[should_panic(expected = "no transition")]
    fn a_task_cannot_run_before_its_start_is_durable() {
        let mut state = RunState::new(vec![0], 1);
        state.set(0, Phase::Deciding);
        state.set(0, Phase::Running);
    }

    #[test]
    #[should_panic(expected = "no transition")]
    fn a_success_cannot_be_declared_without_a_run() {
        RunState::new(vec![0], 1).set(0, Phase::Settled(Settlement::Succeeded));
    }
}
