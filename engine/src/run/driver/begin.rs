//! From waiting to running: what is to be done with a task whose needs are settled.

use std::sync::Arc;

use super::{Driver, Prepared, Then};
use crate::checkpoint::Record;
use crate::event::EventKind;
use crate::graph::NodeIndex;
use crate::outcome::{Failure, Outcome};
use crate::plan::decide::{Asked, Need, Standing, needs_forbid};
use crate::plan::files::Afresh;
use crate::plan::inspect::{Brief, inspect};
use crate::plan::judge::{Case, judge, judge_at_once};
use crate::plan::planner::{brief, outside};
use crate::plan::{Action, Decision};
use crate::process::{Cancel, Cookie};
use crate::run::events::now;
use crate::run::message::{Judged, Message, Outbox};
use crate::run::state::{Phase, Settlement};
use crate::world::World;

impl Driver {
    /// All needs of a task are settled: what is to be done with it?
    pub(super) fn consider(&mut self, index: NodeIndex) {
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
                let planned = planned.as_ref().filter(|planned| planned.action == Action::Run).cloned();
                // The record of a skip may still be under way.
                let skipped = |need: NodeIndex| self.state.phase(need.index()) == Phase::Settled(Settlement::Skipped);
                let brief = brief(&self.world, &self.checkpoint, index, skipped);
                let asked = self.wanted.asked[index.index()];
                self.in_question.push(Question { brief, asked, needs, planned });
            }
        }
    }

    /// Has workers look at the files of the tasks in question and judge them, many at a time: to wake a worker for each
    /// would be dearer than the look.
    pub(super) fn send_to_be_judged(&mut self) {
        const MOST_TOGETHER: usize = 64;
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let together = self.in_question.len().div_ceil(workers).clamp(1, MOST_TOGETHER);
        let mut questions = std::mem::take(&mut self.in_question).into_iter();
        while questions.len() > 0 {
            let questions: Vec<Question> = questions.by_ref().take(together).collect();
            let (world, outbox, cancel) = (Arc::clone(&self.world), self.outbox.clone(), self.cancel.clone());
            tokio::task::spawn_blocking(move || {
                let judged = questions.into_iter().filter_map(|question| question.answer(&world, &outbox, &cancel));
                // The loop is gone only when the user left at once.
                let _ = outbox.send(Message::Judged(judged.collect()));
            });
        }
    }

    pub(super) fn judged(&mut self, index: NodeIndex, judged: Result<Judged, Failure>) {
        if self.state.phase(index.index()) != Phase::Deciding {
            return;
        }
        let Judged { decision, inspection } = match judged {
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

    pub(super) fn leave_out(&mut self, index: NodeIndex, decision: Decision) {
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

    pub(super) fn make_ready(&mut self, index: NodeIndex) {
        self.state.set(index.index(), Phase::Ready);
        let claims = &self.world.graph[index].pools;
        self.scheduler.push(index.index(), self.priorities[index.index()], claims);
    }

    pub(super) fn needs(&self, index: NodeIndex) -> Vec<Need> {
        let graph = &self.world.graph;
        let need = |(need, how): (NodeIndex, crate::graph::Need)| Need {
            id: graph[need].id.clone(),
            standing: self.standing(need),
            when_skipped: how.when_skipped,
        };
        graph.needs(index).map(need).collect()
    }

    pub(super) fn standing(&self, need: NodeIndex) -> Standing {
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
}

/// A task to be looked at and, unless `planned` says already what to do, to be judged.
pub(super) struct Question {
    brief: Brief,
    asked: Asked,
    needs: Vec<Need>,
    planned: Option<Decision>,
}

impl Question {
    /// The judgement; nothing if it hinges on somebody who has to be asked, and is sent when it comes.
    fn answer(
        self,
        world: &Arc<World>,
        outbox: &Outbox,
        cancel: &Cancel,
    ) -> Option<(NodeIndex, Result<Judged, Failure>)> {
        let Self { brief, asked, needs, planned } = self;
        let index = brief.index;
        let case = match inspect(world, &Afresh, &brief, &|_| false) {
            Ok(inspection) => Case { brief, asked, needs, inspection },
            Err(failure) => return Some((index, Err(failure))),
        };
        let decision = match planned {
            Some(decision) => Some(Some(decision)),
            None => judge_at_once(world, &case),
        };
        if let Some(decision) = decision {
            return Some((index, judged(case, decision)));
        }
        let (world, outbox, cancel) = (Arc::clone(world), outbox.clone(), cancel.clone());
        tokio::spawn(async move {
            let decision = judge(&world, &case, &cancel).await;
            let _ = outbox.send(Message::Judged(vec![(index, judged(case, decision))]));
        });
        None
    }
}

fn judged(case: Case, decision: Option<Decision>) -> Result<Judged, Failure> {
    let decision = decision.ok_or_else(|| Failure::permanent("decide: every task that it needs has settled"))?;
    Ok(Judged { decision, inspection: Box::new(case.inspection) })
}
