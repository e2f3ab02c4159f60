//! The journal: what became ready together is made durable together, and only then acted upon.

use super::{Driver, Then};
use crate::checkpoint::Record;
use crate::process::Level;
use crate::run::journaler::AppendError;
use crate::run::state::{Phase, Settlement};

impl Driver {
    pub(super) fn persist(&mut self, record: Record, then: Then) {
        if self.broken.is_some() {
            return self.without_journal(then);
        }
        self.next.push((record, then));
    }

    /// Hands the next batch to the journal thread if that is free.
    pub(super) fn flush(&mut self) {
        if self.writing.is_some() || self.next.is_empty() || self.broken.is_some() {
            return;
        }
        let batch = std::mem::take(&mut self.next);
        let mut payload = Vec::with_capacity(batch.len() * 256);
        payload.push(b'[');
        for (i, (record, _)) in batch.iter().enumerate() {
            if i > 0 {
                payload.push(b',');
            }
            if let Err(error) = serde_json::to_writer(&mut payload, record) {
                self.next = batch;
                return self.broke(AppendError(Box::new(error)));
            }
        }
        payload.push(b']');
        self.writing = Some(batch);
        if let Some(journaler) = &self.journaler {
            journaler.write(payload);
        }
    }

    pub(super) fn durable(&mut self) {
        for (record, then) in self.writing.take().unwrap_or_default() {
            if let Err(error) = self.checkpoint.apply(record) {
                self.broke(AppendError(Box::new(error)));
                self.without_journal(then);
                continue;
            }
            match then {
                Then::Nothing => {}
                Then::Launch(index) => self.launch(index),
                Then::Settle(index, settlement) => self.settle(index, settlement),
                Then::Backoff(index, delay) => self.back_off(index, delay),
                Then::Acknowledge(acknowledge) => {
                    // The step's task may have been dropped after it did not heed its time-out.
                    let _ = acknowledge.send(());
                }
            }
        }
    }

    /// The journal cannot be written: nothing more is started, and what runs is ended.
    pub(super) fn broke(&mut self, error: AppendError) {
        self.broken.get_or_insert(error);
        self.cancel.raise(Level::End);
        self.halt();
        let lost = self.writing.take().into_iter().flatten().chain(std::mem::take(&mut self.next));
        for (_, then) in lost.collect::<Vec<_>>() {
            self.without_journal(then);
        }
    }

    /// Winds a task up whose record never became durable: for the journal, it is interrupted.
    pub(super) fn without_journal(&mut self, then: Then) {
        match then {
            Then::Launch(index) => {
                self.state.set(index.index(), Phase::Ending(Settlement::Cancelled));
                self.state.set(index.index(), Phase::Settled(Settlement::Cancelled));
            }
            Then::Settle(index, _) | Then::Backoff(index, _) => {
                if let Phase::Ending(ended) = self.state.phase(index.index()) {
                    self.state.set(index.index(), Phase::Settled(ended));
                }
            }
            Then::Nothing | Then::Acknowledge(_) => {}
        }
    }
}
