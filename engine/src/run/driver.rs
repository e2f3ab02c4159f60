//! The loop: it owns all state of a run, and workers only send it messages.
//!
//! A record is acted upon only when it is durable: an attempt is launched after its start, dependents are released after
//! its end. What follows a record is kept beside it as a [`Then`] and done when the journal thread says so. Nothing in
//! here blocks, and nothing in here returns early with work under way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::attempt::{Attempt, Ended};
use super::events::{EventSink, now};
use super::journaler::{Append, AppendError, Journaler};
use super::log::AttemptLog;
use super::message::{Message, Outbox, Steps};
use super::retry;
use super::scheduler::Scheduler;
use super::state::{Phase, RunState, Settlement};
use crate::checkpoint::{Checkpoint, Finished, Record, Starting};
use crate::event::{Counts, EventKind, Verb};
use crate::graph::{NodeIndex, NodeKind};
use crate::outcome::{Failure, Outcome};
use crate::plan::decide::{Need, Standing, needs_forbid};
use crate::plan::inspect::{Inspection, aside, inspect};
use crate::plan::judge::{Case, judge};
use crate::plan::planner::{brief, outside};
use crate::plan::{Action, Decision, Plan, Reason, Wanted};
use crate::process::{Cancel, Cookie, Level};
use crate::world::World;

/// How a run is driven.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many tasks may run at once.
    pub jobs: u32,
    /// Whether tasks that do not depend on a failed one go on.
    pub keep_going: bool,
    /// Whether disruptive proofs are made also where others depend on the task.
    pub disruptive: bool,
}

/// What a run came to.
#[derive(Debug)]
pub struct Summary {
    /// How many tasks ended how.
    pub counts: Counts,
    /// How urgently the run was asked to stop, if it was.
    pub stopped: Level,
    /// Why the journal could not be written, if so.
    pub broken: Option<AppendError>,
}

/// All that a run needs.
pub struct Run {
    /// What it is done in.
    pub world: Arc<World>,
    /// What the journal says, the start of this run included.
    pub checkpoint: Checkpoint,
    /// Which tasks, and what the user said of each.
    pub wanted: Wanted,
    /// What is to be done with each.
    pub plan: Plan,
    /// How it is driven.
    pub options: Options,
    /// Makes records durable.
    pub append: Append,
    /// Tells what happens.
    pub events: EventSink,
    /// Stops it.
    pub cancel: Cancel,
}

/// Brings the tasks of a plan up, and returns the checkpoint as the journal has it.
pub async fn drive(run: Run) -> (Checkpoint, Summary) {
    let (outbox, inbox) = mpsc::unbounded_channel();
    let (mut driver, append) = Driver::new(run, outbox);
    driver.listen(append);
    driver.run(inbox).await
}

/// What to do once a record is durable.
enum Then {
    Nothing,
    Launch(NodeIndex),
    Settle(NodeIndex, Settlement),
    Backoff(NodeIndex, Duration),
    Acknowledge(oneshot::Sender<()>),
}

/// What is known of a task between its judgement and its end.
struct Prepared {
    inspection: Box<Inspection>,
    reason: Reason,
    attempt: u32,
    cookie: Cookie,
    cancel: Option<Cancel>,
    started: tokio::time::Instant,
    retries: u32,
    outcome: Option<Outcome>,
    seconds: f64,
}

struct Driver {
    world: Arc<World>,
    checkpoint: Checkpoint,
    wanted: Wanted,
    plan: Vec<Option<Decision>>,
    options: Options,
    events: EventSink,
    cancel: Cancel,
    outbox: Outbox,
    state: RunState,
    scheduler: Scheduler,
    priorities: Vec<f64>,
    prepared: HashMap<NodeIndex, Prepared>,
    journaler: Option<Journaler>,
    /// What is to be made durable next.
    next: Vec<(Record, Then)>,
    /// What is being made durable.
    writing: Option<Vec<(Record, Then)>>,
    to_judge: Vec<NodeIndex>,
    /// No new attempts: a task failed, or the run is being stopped.
    halted: bool,
    stopped: Level,
    broken: Option<AppendError>,
}

impl Driver {
    fn new(run: Run, outbox: Outbox) -> (Self, Append) {
        let Run { world, checkpoint, wanted, plan, options, append, events, cancel } = run;
        let graph = &world.graph;
        let is_in = |index: NodeIndex| wanted.wanted[index.index()];
        let unmet = |index| match is_in(index) {
            true => u32::try_from(graph.needs(index).filter(|(need, _)| is_in(*need)).count()).unwrap_or(u32::MAX),
            false => u32::MAX,
        };
        let unmet: Vec<u32> = graph.indices().map(unmet).collect();
        let to_judge = graph.indices().filter(|index| unmet[index.index()] == 0).collect();
        let open = wanted.wanted.iter().filter(|wanted| **wanted).count();
        let capacities: Vec<u32> = graph.pools().iter().map(|pool| pool.capacity).collect();
        let priorities = priorities(&world, &checkpoint, &plan);
        let driver = Self {
            state: RunState::new(unmet, open),
            scheduler: Scheduler::new(options.jobs.max(1), &capacities),
            priorities,
            prepared: HashMap::new(),
            journaler: None,
            next: Vec::new(),
            writing: None,
            to_judge,
            halted: false,
            stopped: Level::None,
            broken: None,
            plan: plan.decisions,
            world,
            checkpoint,
            wanted,
            options,
            events,
            cancel,
            outbox,
        };
        (driver, append)
    }

    /// Starts the journal thread and listens to the cancel token.
    fn listen(&mut self, append: Append) {
        let outbox = self.outbox.clone();
        let durable = move |result| {
            // The loop is gone only when the user left at once.
            let _ = outbox.send(Message::Durable(result));
        };
        match Journaler::start(append, durable) {
            Ok(journaler) => self.journaler = Some(journaler),
            Err(error) => self.broke(AppendError(Box::new(error))),
        }
        let outbox = self.outbox.clone();
        self.cancel.subscribe(move |level| {
            let _ = outbox.send(Message::Stop(level));
        });
    }

    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) -> (Checkpoint, Summary) {
        let mut messages = Vec::new();
        loop {
            self.advance();
            let idle = self.state.open() == 0 && self.next.is_empty() && self.writing.is_none();
            if idle || self.stopped >= Level::Kill || (self.broken.is_some() && self.state.active() == 0) {
                break;
            }
            // Some worker holds the other end as long as something is under way, and so do we: this cannot end early.
            inbox.recv_many(&mut messages, 4096).await;
            for message in messages.drain(..) {
                self.receive(message);
            }
        }
        let summary = Summary { counts: self.state.counts(), stopped: self.stopped, broken: self.broken.take() };
        (self.checkpoint, summary)
    }

    /// Everything that can be done without waiting.
    fn advance(&mut self) {
        while let Some(index) = self.to_judge.pop() {
            self.consider(index);
        }
        while !self.halted
            && let Some(task) = self.scheduler.pop()
        {
            self.start(NodeIndex::new(task));
        }
        self.flush();
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Judged(index, judged) => self.judged(index, judged),
            Message::StepStarted(index, step) => {
                if self.is_running(index) {
                    let task = self.world.graph[index].id.clone();
                    self.persist(Record::StepStarted { task, step }, Then::Nothing);
                }
            }
            Message::StepDone(index, step, acknowledge) => {
                if self.is_running(index) {
                    let task = self.world.graph[index].id.clone();
                    self.persist(Record::Step { task, step: *step }, Then::Acknowledge(acknowledge));
                }
            }
            Message::Ended(index, ended) => self.ended(index, *ended),
            Message::Durable(Ok(())) => self.durable(),
            Message::Durable(Err(error)) => self.broke(error),
            Message::Retry(index) => {
                if self.state.phase(index.index()) == Phase::Backoff {
                    self.make_ready(index);
                }
            }
            Message::Stop(level) => self.stop(level),
        }
    }

    fn is_running(&self, index: NodeIndex) -> bool {
        self.state.phase(index.index()) == Phase::Running
    }

    // --- From waiting to ready ---

    /// All needs of a task are settled: what is to be done with it?
    fn consider(&mut self, index: NodeIndex) {
        if !matches!(self.state.phase(index.index()), Phase::Waiting { .. }) {
            return;
        }
        self.state.set(index.index(), Phase::Deciding);
        let needs = self.needs(index);
        if let Some(decision) = needs_forbid(&needs) {
            return self.leave_out(index, decision);
        }
        match &self.plan[index.index()] {
            Some(planned) if planned.action == Action::Keep => self.settle(index, Settlement::Kept),
            Some(planned) if matches!(planned.action, Action::Skip | Action::Blocked) => {
                let decision = planned.clone();
                self.leave_out(index, decision);
            }
            planned => {
                let run = planned.as_ref().filter(|planned| planned.action == Action::Run).cloned();
                self.send_to_be_judged(index, needs, run);
            }
        }
    }

    /// Has a worker look at the task's files and, unless `planned` says already what to do, judge it.
    fn send_to_be_judged(&self, index: NodeIndex, needs: Vec<Need>, planned: Option<Decision>) {
        let brief = brief(&self.world, &self.checkpoint, index);
        let asked = self.wanted.asked[index.index()];
        let (world, outbox, cancel) = (Arc::clone(&self.world), self.outbox.clone(), self.cancel.clone());
        tokio::spawn(async move {
            let looked = tokio::task::spawn_blocking({
                let world = Arc::clone(&world);
                move || inspect(&world, &brief, &|_| false).map(|inspection| Case { brief, asked, needs, inspection })
            });
            let judged = match looked.await {
                Ok(Ok(case)) => {
                    let decision = match planned {
                        Some(decision) => Some(decision),
                        None => judge(&world, &case, &cancel).await,
                    };
                    match decision {
                        Some(decision) => Ok((decision, Box::new(case.inspection))),
                        None => Err(Failure::permanent("decide: every task that it needs has settled")),
                    }
                }
                Ok(Err(failure)) => Err(failure),
                Err(error) => Err(Failure::permanent(format!("look at the task: {error}"))),
            };
            // The loop is gone only when the user left at once.
            let _ = outbox.send(Message::Judged(index, judged));
        });
    }

    fn judged(&mut self, index: NodeIndex, judged: Result<(Decision, Box<Inspection>), Failure>) {
        if self.state.phase(index.index()) != Phase::Deciding {
            return;
        }
        let (decision, inspection) = match judged {
            Ok(judged) => judged,
            Err(failure) => {
                let task = self.world.graph[index].id.clone();
                let outcome = Outcome::from(failure);
                self.events.send(EventKind::TaskFinished { task, attempt: 0, outcome, seconds: 0.0 });
                return self.settle(index, Settlement::Failed);
            }
        };
        let planned = self.plan[index.index()].as_ref();
        if planned != Some(&decision) {
            let task = self.world.graph[index].id.clone();
            self.events.send(EventKind::TaskDecided { task, decision: decision.clone() });
        }
        match decision.action {
            Action::Keep => self.settle(index, Settlement::Kept),
            Action::Skip | Action::Blocked | Action::DecideAfter => self.leave_out(index, decision),
            Action::Run => {
                let prepared = Prepared {
                    inspection,
                    reason: decision.reason,
                    attempt: 0,
                    cookie: Cookie::random(),
                    cancel: None,
                    started: tokio::time::Instant::now(),
                    retries: 0,
                    outcome: None,
                    seconds: 0.0,
                };
                self.prepared.insert(index, prepared);
                self.make_ready(index);
            }
        }
    }

    fn leave_out(&mut self, index: NodeIndex, decision: Decision) {
        let task = self.world.graph[index].id.clone();
        if self.plan[index.index()].as_ref() != Some(&decision) {
            self.events.send(EventKind::TaskDecided { task: task.clone(), decision: decision.clone() });
        }
        if decision.action == Action::Skip {
            self.persist(Record::Skipped { task, at: now(), reason: decision.reason }, Then::Nothing);
            self.settle(index, Settlement::Skipped);
        } else {
            self.settle(index, Settlement::Blocked);
        }
    }

    fn make_ready(&mut self, index: NodeIndex) {
        self.state.set(index.index(), Phase::Ready);
        let claims = &self.world.graph[index].pools;
        self.scheduler.push(index.index(), self.priorities[index.index()], claims);
    }

    fn needs(&self, index: NodeIndex) -> Vec<Need> {
        let graph = &self.world.graph;
        let need = |(need, how): (NodeIndex, crate::graph::Need)| Need {
            id: graph[need].id.clone(),
            standing: self.standing(need),
            when_skipped: how.when_skipped,
        };
        graph.needs(index).map(need).collect()
    }

    fn standing(&self, need: NodeIndex) -> Standing {
        if !self.wanted.wanted[need.index()] {
            return outside(&self.world, &self.checkpoint, need);
        }
        match self.state.phase(need.index()) {
            Phase::Settled(settlement) if settlement.is_success() => Standing::Settled,
            Phase::Settled(Settlement::Skipped) => Standing::Skipped,
            Phase::Settled(_) => Standing::Failed,
            _ => Standing::Unsettled,
        }
    }

    // --- From ready to running ---

    fn start(&mut self, index: NodeIndex) {
        let id = self.world.graph[index].id.clone();
        let Some(prepared) = self.prepared.get_mut(&index) else { return };
        self.state.set(index.index(), Phase::Starting);
        prepared.attempt = self.checkpoint.tasks.get(&id).map_or(0, |state| state.attempt) + 1;
        prepared.cookie = Cookie::random();
        let parts = &mut prepared.inspection.parts;
        parts.aside = aside(&self.world, index);
        let key = prepared.inspection.key.unwrap_or_else(|| parts.key(&id));
        let parts = match serde_json::value::to_raw_value(parts) {
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
    fn launch(&mut self, index: NodeIndex) {
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
            key: prepared.inspection.key.unwrap_or_else(|| prepared.inspection.parts.key(&task)),
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

    // --- From running to settled ---

    fn ended(&mut self, index: NodeIndex, ended: Ended) {
        if self.is_running(index) {
            self.finish(index, ended);
        }
    }

    /// An attempt is over: its end is to be made durable.
    fn finish(&mut self, index: NodeIndex, ended: Ended) {
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
        let finished = Finished { task, at: now(), outcome, output, files, seconds };
        self.persist(Record::Finished(finished), then);
    }

    fn settle(&mut self, index: NodeIndex, settlement: Settlement) {
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

    fn back_off(&mut self, index: NodeIndex, delay: Duration) {
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

    // --- The journal ---

    fn persist(&mut self, record: Record, then: Then) {
        if self.broken.is_some() {
            return self.without_journal(then);
        }
        self.next.push((record, then));
    }

    /// Hands the next batch to the journal thread if that is free.
    fn flush(&mut self) {
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

    fn durable(&mut self) {
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
    fn broke(&mut self, error: AppendError) {
        self.broken.get_or_insert(error);
        self.cancel.raise(Level::End);
        self.halt();
        let lost = self.writing.take().into_iter().flatten().chain(std::mem::take(&mut self.next));
        for (_, then) in lost.collect::<Vec<_>>() {
            self.without_journal(then);
        }
    }

    /// Winds a task up whose record never became durable: for the journal, it is interrupted.
    fn without_journal(&mut self, then: Then) {
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

    // --- Stopping ---

    fn stop(&mut self, level: Level) {
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
    fn halt(&mut self) {
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

/// For each task the length of the longest path that begins with it, in seconds as far as durations are known.
fn priorities(world: &World, checkpoint: &Checkpoint, plan: &Plan) -> Vec<f64> {
    let graph = &world.graph;
    let known = |index: NodeIndex| Some(checkpoint.tasks.get(&graph[index].id)?.done.as_ref()?.seconds);
    let mut durations: Vec<f64> = graph.indices().filter_map(known).collect();
    durations.sort_by(f64::total_cmp);
    let usual = durations.get(durations.len() / 2).copied().unwrap_or(1.0);
    let mut remaining = vec![0.0_f64; graph.len()];
    for &index in graph.topological().iter().rev() {
        let runs = |decision: &Decision| matches!(decision.action, Action::Run | Action::DecideAfter);
        let own = match plan.decisions[index.index()].as_ref().is_some_and(runs) {
            true => known(index).unwrap_or(usual),
            false => 0.0,
        };
        let longest = graph.dependents(index).map(|(task, _)| remaining[task.index()]).fold(0.0, f64::max);
        remaining[index.index()] = own + longest;
    }
    remaining
}
