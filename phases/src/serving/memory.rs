//! What the controller remembers of a model between two looks. Losing it costs nothing but a later decision.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::autoscaler::Autoscaler;

/// The pauses between attempts to start replicas that fail while others serve.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is remembered of a model.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) autoscaler: Autoscaler,
    pub(super) replicas: HashMap<String, ReplicaMemory>,
    pub(super) desired: Option<u32>,
    pub(super) scaled_up: u64,
    pub(super) scaled_down: u64,
    pub(super) cold_start_s: Option<f64>,
    failures: u32,
    pause_until: Option<Instant>,
}

/// What is remembered of a replica.
#[derive(Debug, Default)]
pub(super) struct ReplicaMemory {
    pub(super) pid: Option<u32>,
    /// How often it has ended and was started again since it last answered.
    pub(super) restarts: u32,
    pub(super) was_ready: bool,
    /// Since when it has not answered, if it did before.
    pub(super) unready_since: Option<Instant>,
    pub(super) drained_since: Option<Instant>,
}

impl Memory {
    /// Whether a pause after failures is over.
    pub(super) fn may_start(&self, now: Instant) -> bool {
        self.pause_until.is_none_or(|until| now >= until)
    }

    /// A replica failed while others serve: the next one is started after a pause, which doubles each time.
    pub(super) fn failed(&mut self, now: Instant) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(8)).min(LONGEST_PAUSE);
        self.failures += 1;
        self.pause_until = Some(now + pause);
    }

    /// A replica answers for the first time.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.pause_until = None;
    }

    /// Notes how many replicas are wanted now.
    pub(super) fn wants(&mut self, desired: u32) {
        match self.desired.replace(desired) {
            Some(before) if desired > before => self.scaled_up += 1,
            Some(before) if desired < before => self.scaled_down += 1,
            _ => {}
        }
    }
}

impl ReplicaMemory {
    /// Notes the process of this look.
    pub(super) fn sees(&mut self, pid: Option<u32>) {
        if let (Some(last), Some(pid)) = (self.pid, pid)
            && last != pid
        {
            self.restarts += 1;
        }
        self.pid = pid.or(self.pid);
    }

    /// Notes that it answers; whether for the first time.
    pub(super) fn answers(&mut self) -> bool {
        self.restarts = 0;
        self.unready_since = None;
        !std::mem::replace(&mut self.was_ready, true)
    }
}
