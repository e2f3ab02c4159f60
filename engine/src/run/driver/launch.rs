//! From ready to running.

use std::sync::Arc;

use super::{Driver, Then};
use crate::checkpoint::{Record, Starting};
use crate::event::{EventKind, Verb};
use crate::graph::{NodeIndex, NodeKind};
use crate::outcome::Outcome;
use crate::plan::inspect::aside;
use crate::process::Cookie;
use crate::run::attempt::{Attempt, Ended};
use crate::run::events::now;
use crate::run::journaler::AppendError;
use crate::run::log::AttemptLog;
use crate::run::message::{Message, Steps};
use crate::run::state::Phase;

impl Driver {
    pub(super) fn start(&mut self, index: NodeIndex) {
        let id = self.world.graph[index].id.clone();
        let Some(prepared) = self.prepared.get_mut(&index) else { return };
        self.state.set(index.index(), Phase::Starting);
        prepared.attempt = self.checkpoint.tasks.get(&id).map_or(0, |state| state.attempt) + 1;
        prepared.cookie = Cookie::random();
        let mut parts = prepared.inspection.whole_parts(&self.world, index);
        parts.aside = aside(&self.world, index);
        let key = prepared.inspection.key.unwrap_or_else(|| parts.key(&id));
        let parts = match serde_json::value::to_raw_value(&parts) {
            Ok(parts) => parts,
            Err(error) => return self.broke(AppendError(Box::new(error))),
        };
        let starting = Starting {
            task: id,
            at: now(),
            verb: Verb::Run,
            attempt: prepared.attempt,
            cookie: prepared.cookie,
            reason: prepared.reason.clone(),
            key,
            parts,
        };
        self.persist(Record::Starting(starting), Then::Launch(index));
    }

    /// The start of an attempt is durable.
    pub(super) fn launch(&mut self, index: NodeIndex) {
        if self.halted {
            // Asked to stop in between: it ends before it began.
            return self.finish(index, Ended { outcome: Outcome::Cancelled, output: None, files: Vec::new() });
        }
        let node = &self.world.graph[index];
        let state = self.checkpoint.tasks.get(&node.id).cloned();
        let nobody_depends = || {
            self.world.graph.dependents(index).all(|(dependent, _)| {
                let state = self.checkpoint.tasks.get(&self.world.graph[dependent].id);
                state.is_none_or(|state| !state.may_exist())
            })
        };
        let first = state.as_ref().is_none_or(|state| state.done.is_none());
        let disruptive = self.options.disruptive || (first && nobody_depends());
        let Some(prepared) = self.prepared.get_mut(&index) else { return };
        self.state.set(index.index(), Phase::Running);
        let (task, number) = (node.id.clone(), prepared.attempt);
        let reason = prepared.reason.clone();
        self.events.send(EventKind::TaskStarted { task: task.clone(), attempt: number, reason });
        prepared.started = tokio::time::Instant::now();
        let cancel = self.cancel.child();
        prepared.cancel = Some(cancel.clone());
        let log = AttemptLog::new(task.clone(), self.world.log_path(&task, number), Some(self.events.clone()));
        let attempt = Attempt {
            world: Arc::clone(&self.world),
            id: task.clone(),
            number,
            timeout: node.timeout,
            cookie: prepared.cookie,
            key: prepared
                .inspection
                .key
                .unwrap_or_else(|| prepared.inspection.whole_parts(&self.world, index).key(&task)),
            upstream: Arc::clone(&prepared.inspection.upstream),
            inputs: std::mem::take(&mut prepared.inspection.inputs),
            state,
            disruptive,
            cancel,
            log,
        };
        let outbox = self.outbox.clone();
        let steps = Box::new(Steps { index, task, outbox: outbox.clone(), events: self.events.clone() });
        match self.world.bound.node(index).task.clone() {
            Some(task) => {
                tokio::spawn(async move {
                    let ended = attempt.apply(task, steps).await;
                    let _ = outbox.send(Message::Ended(index, Box::new(ended)));
                });
            }
            None => {
                tokio::task::spawn_blocking(move || {
                    let node = &attempt.world.graph[index];
                    if let NodeKind::Command(spec) = &node.kind {
                        let ended = attempt.run(spec, node.retries.is_some());
                        let _ = outbox.send(Message::Ended(index, Box::new(ended)));
                    }
                });
            }
        }
    }
}
