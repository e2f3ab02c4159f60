//! The loop: it owns all state of a run, and workers only send it messages.
//!
//! A record is acted upon only when it is durable: an attempt is launched after its start, dependents are released after
//! its end. What follows a record is kept beside it as a [`Then`] and done when the journal thread says so. Nothing in
//! here blocks, and nothing in here returns early with work under way.

mod begin;
mod finish;
mod launch;
mod persist;
mod stop;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::events::EventSink;
use super::journaler::{Append, AppendError, Journaler};
use super::message::{Message, Outbox};
use super::scheduler::Scheduler;
use super::state::{Phase, RunState, Settlement};
use begin::Question;

use crate::checkpoint::{Checkpoint, Record};
use crate::event::Counts;
use crate::graph::NodeIndex;
use crate::outcome::Outcome;
use crate::plan::inspect::Inspection;
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
    in_question: Vec<Question>,
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
            in_question: Vec::new(),
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
        self.send_to_be_judged();
        while !self.halted
            && let Some(task) = self.scheduler.pop()
        {
            self.start(NodeIndex::new(task));
        }
        self.flush();
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Judged(judged) => judged.into_iter().for_each(|(index, judged)| self.judged(index, judged)),
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
