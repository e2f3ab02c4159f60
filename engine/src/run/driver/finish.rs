//! From running to settled.

use std::time::Duration;

use super::{Driver, Prepared, Then};
use crate::checkpoint::{Finished, Record};
use crate::event::EventKind;
use crate::graph::NodeIndex;
use crate::outcome::Outcome;
use crate::run::attempt::Ended;
use crate::run::events::now;
use crate::run::message::Message;
use crate::run::retry;
use crate::run::state::{Phase, Settlement};

impl Driver {
    pub(super) fn ended(&mut self, index: NodeIndex, ended: Ended) {
        if self.is_running(index) {
            self.finish(index, ended);
        }
    }

    /// An attempt is over: its end is to be made durable.
    pub(super) fn finish(&mut self, index: NodeIndex, ended: Ended) {
        let Ended { outcome, output, files } = ended;
        let node = &self.world.graph[index];
        let Some(prepared) = self.prepared.get_mut(&index) else { return };
        self.scheduler.release(&node.pools);
        let settlement = match &outcome {
            Outcome::Succeeded => Settlement::Succeeded,
            Outcome::Degraded { .. } => Settlement::Degraded,
            Outcome::Skipped { .. } => Settlement::Skipped,
            Outcome::Failed { .. } => Settlement::Failed,
            Outcome::Cancelled => Settlement::Cancelled,
        };
        self.state.set(index.index(), Phase::Ending(settlement));
        prepared.cancel = None;
        prepared.seconds = prepared.started.elapsed().as_secs_f64();
        let mut then = Then::Settle(index, settlement);
        if let (Outcome::Failed { error }, Some(retries), false) = (&outcome, &node.retries, self.halted)
            && error.is_transient()
            && prepared.retries < retries.count
        {
            prepared.retries += 1;
            let delay = retry::delay(retries, prepared.retries, rand::random());
            let (task, attempt, error) = (node.id.clone(), prepared.attempt, (**error).clone());
            self.events.send(EventKind::TaskRetrying { task, attempt, error, delay: delay.as_secs_f64() });
            then = Then::Backoff(index, delay);
        }
        prepared.outcome = Some(outcome.clone());
        let (task, seconds) = (node.id.clone(), prepared.seconds);
        let finished = Finished { task, at: now(), outcome, output, files: files.into(), seconds };
        self.persist(Record::Finished(finished), then);
    }

    pub(super) fn settle(&mut self, index: NodeIndex, settlement: Settlement) {
        if let Some(Prepared { attempt, outcome: Some(outcome), seconds, .. }) = self.prepared.remove(&index) {
            let task = self.world.graph[index].id.clone();
            self.events.send(EventKind::TaskFinished { task, attempt, outcome, seconds });
        }
        self.state.set(index.index(), Phase::Settled(settlement));
        for (dependent, _) in self.world.graph.dependents(index) {
            if self.wanted.wanted[dependent.index()] && self.state.need_settled(dependent.index()) {
                self.to_judge.push(dependent);
            }
        }
        if settlement == Settlement::Failed && !self.options.keep_going {
            self.halt();
        }
    }

    pub(super) fn back_off(&mut self, index: NodeIndex, delay: Duration) {
        if self.halted {
            return self.settle(index, Settlement::Failed);
        }
        self.state.set(index.index(), Phase::Backoff);
        let outbox = self.outbox.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = outbox.send(Message::Retry(index));
        });
    }
}
