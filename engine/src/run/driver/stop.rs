//! Stopping: no new attempts, and word of what is waited for.

use super::Driver;
use crate::event::EventKind;
use crate::process::Level;
use crate::run::state::{Phase, Settlement};

impl Driver {
    pub(super) fn stop(&mut self, level: Level) {
        if level <= self.stopped {
            return;
        }
        self.stopped = level;
        self.halt();
        let running = self.world.graph.indices().filter(|index| self.is_running(*index));
        let waiting_for = running.map(|index| self.world.graph[index].id.clone()).collect();
        self.events.send(EventKind::Stopping { level: level as u8, waiting_for });
    }

    /// Nothing new is started: all tasks that have not begun are settled.
    pub(super) fn halt(&mut self) {
        if std::mem::replace(&mut self.halted, true) {
            return;
        }
        self.scheduler.drain();
        for i in 0..self.world.graph.len() {
            let index = self.world.graph.topological()[i];
            let waits = matches!(
                self.state.phase(index.index()),
                Phase::Waiting { .. } | Phase::Deciding | Phase::Ready | Phase::Backoff
            );
            if !self.wanted.wanted[index.index()] || !waits {
                continue;
            }
            let failed = |phase| matches!(phase, Phase::Settled(Settlement::Failed | Settlement::Blocked));
            let mut needs = self.world.graph.needs(index);
            let blocked = needs.any(|(need, _)| failed(self.state.phase(need.index())));
            drop(needs);
            let backing_off = self.state.phase(index.index()) == Phase::Backoff;
            let settlement = match (backing_off, blocked) {
                (true, _) => Settlement::Failed,
                (false, true) => Settlement::Blocked,
                (false, false) => Settlement::Cancelled,
            };
            self.settle(index, settlement);
        }
        self.to_judge.clear();
    }
}
