//! From waiting to running: what is to be done with a task whose needs are settled.

use super::*;

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
                let run = planned.as_ref().filter(|planned| planned.action == Action::Run).cloned();
                self.send_to_be_judged(index, needs, run);
            }
        }
    }

    /// Has a worker look at the task's files and, unless `planned` says already what to do, judge it.
    pub(super) fn send_to_be_judged(&self, index: NodeIndex, needs: Vec<Need>, planned: Option<Decision>) {
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

    pub(super) fn judged(&mut self, index: NodeIndex, judged: Result<(Decision, Box<Inspection>), Failure>) {
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
