//! Judging all tasks of a run, each after those that it needs, probes side by side.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::checkpoint::Checkpoint;
use crate::graph::{NodeIndex, Selected};
use crate::outcome::Failure;
use crate::plan::decide::{Asked, Need, Standing};
use crate::plan::files::Once;
use crate::plan::inspect::{Brief, inspect};
use crate::plan::judge::{Case, judge, judge_at_once};
use crate::plan::{Action, Decision, Reason};
use crate::process::Cancel;
use crate::world::World;

/// What a run will do.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The decision on each task by its index; nothing for tasks that are not part of the run.
    pub decisions: Vec<Option<Decision>>,
}

/// What the user asked for, task by task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whether a task is part of the run, by its index.
    pub wanted: Vec<bool>,
    /// What was said of it, by its index.
    pub asked: Vec<Asked>,
}

impl From<Selected> for Wanted {
    fn from(selected: Selected) -> Self {
        let asked = selected.forced.iter().zip(&selected.skipped).map(|flags| match flags {
            (_, true) => Asked::Skip,
            (true, false) => Asked::Force,
            (false, false) => Asked::Nothing,
        });
        Self { asked: asked.collect(), wanted: selected.wanted }
    }
}

impl Plan {
    /// The tasks of the run in the order of the graph, with their decisions.
    pub fn iter(&self) -> impl Iterator<Item = (NodeIndex, &Decision)> {
        let decided = self.decisions.iter().enumerate();
        decided.filter_map(|(index, decision)| Some((NodeIndex::new(index), decision.as_ref()?)))
    }

    /// Whether a run of this plan would do anything.
    pub fn has_work(&self) -> bool {
        self.iter().any(|(_, decision)| matches!(decision.action, Action::Run | Action::DecideAfter))
    }
}

/// Makes the plan. Reads files and asks probes; changes nothing.
///
/// # Errors
/// A file that a task reads cannot be read.
pub async fn plan(
    world: &Arc<World>,
    checkpoint: &Checkpoint,
    wanted: &Wanted,
    cancel: &Cancel,
) -> Result<Plan, PlanError> {
    Planner::new(world, checkpoint, wanted, cancel).run().await
}

/// A plan could not be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("plan {task}")]
pub struct PlanError {
    /// The task that could not be judged.
    pub task: crate::TaskId,
    /// Why.
    pub source: Box<Failure>,
}

struct Planner<'a> {
    world: &'a Arc<World>,
    checkpoint: &'a Checkpoint,
    wanted: &'a Wanted,
    cancel: &'a Cancel,
    files: Once,
    decisions: Vec<Option<Decision>>,
    unmet: Vec<u32>,
    /// Whether the task, or one below it, is still to run.
    unsettled: Vec<bool>,
    ready: VecDeque<NodeIndex>,
    asking: JoinSet<(NodeIndex, Option<Decision>)>,
}

impl<'a> Planner<'a> {
    fn new(world: &'a Arc<World>, checkpoint: &'a Checkpoint, wanted: &'a Wanted, cancel: &'a Cancel) -> Self {
        let graph = &world.graph;
        let is_in = |index: NodeIndex| wanted.wanted[index.index()];
        let unmet_needs = |index| u32::try_from(graph.needs(index).filter(|(need, _)| is_in(*need)).count());
        let unmet: Vec<u32> = graph.indices().map(|index| unmet_needs(index).unwrap_or(u32::MAX)).collect();
        let ready = graph.indices().filter(|index| is_in(*index) && unmet[index.index()] == 0).collect();
        let (decisions, unsettled) = (vec![None; graph.len()], vec![false; graph.len()]);
        Self {
            world,
            checkpoint,
            wanted,
            cancel,
            files: Once::default(),
            decisions,
            unmet,
            unsettled,
            ready,
            asking: JoinSet::new(),
        }
    }

    async fn run(mut self) -> Result<Plan, PlanError> {
        loop {
            while let Some(index) = self.ready.pop_front() {
                let case = self.case(index)?;
                match judge_at_once(self.world, &case) {
                    Some(decision) => self.decided(index, decision),
                    None => {
                        let (world, cancel) = (Arc::clone(self.world), self.cancel.clone());
                        self.asking.spawn(async move { (index, judge(&world, &case, &cancel).await) });
                    }
                }
            }
            match self.asking.join_next().await {
                Some(Ok((index, decision))) => self.decided(index, decision),
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                None => return Ok(Plan { decisions: self.decisions }),
            }
        }
    }

    fn case(&self, index: NodeIndex) -> Result<Case, PlanError> {
        let graph = &self.world.graph;
        let skipped = |need: NodeIndex| matches!(&self.decisions[need.index()], Some(d) if d.action == Action::Skip);
        let brief = brief(self.world, self.checkpoint, index, skipped);
        let inspection = inspect(self.world, &self.files, &brief, &|task| self.unsettled[task.index()])
            .map_err(|failure| PlanError { task: graph[index].id.clone(), source: Box::new(failure) })?;
        let needs = graph.needs(index).map(|(need, how)| Need {
            id: graph[need].id.clone(),
            standing: self.standing(need),
            when_skipped: how.when_skipped,
        });
        Ok(Case { brief, asked: self.wanted.asked[index.index()], needs: needs.collect(), inspection })
    }

    fn standing(&self, need: NodeIndex) -> Standing {
        match &self.decisions[need.index()] {
            Some(decision) => match decision.action {
                Action::Skip => Standing::Skipped,
                Action::Blocked => Standing::Failed,
                Action::Run | Action::Keep | Action::DecideAfter if self.unsettled[need.index()] => Standing::Unsettled,
                Action::Run | Action::Keep | Action::DecideAfter => Standing::Settled,
            },
            None => outside(self.world, self.checkpoint, need),
        }
    }

    fn decided(&mut self, index: NodeIndex, decision: Option<Decision>) {
        let graph = &self.world.graph;
        let needs_unsettled = graph.needs(index).any(|(need, _)| self.unsettled[need.index()]);
        let decision = decision
            .unwrap_or_else(|| Decision::new(Action::DecideAfter, Reason::After { tasks: self.awaited(index) }));
        self.unsettled[index.index()] = match decision.action {
            Action::Run | Action::DecideAfter => true,
            Action::Keep => needs_unsettled,
            Action::Skip | Action::Blocked => false,
        };
        self.decisions[index.index()] = Some(decision);
        for (dependent, _) in graph.dependents(index) {
            let unmet = &mut self.unmet[dependent.index()];
            *unmet = unmet.saturating_sub(1);
            if *unmet == 0 && self.wanted.wanted[dependent.index()] {
                self.ready.push_back(dependent);
            }
        }
    }

    /// The nearest tasks below `index` that are still to run or to be decided.
    fn awaited(&self, index: NodeIndex) -> Vec<crate::TaskId> {
        let graph = &self.world.graph;
        let (mut found, mut seen) = (Vec::new(), std::collections::HashSet::new());
        let mut open: Vec<NodeIndex> = graph.needs(index).map(|(need, _)| need).collect();
        while let Some(need) = open.pop() {
            if !self.unsettled[need.index()] || !seen.insert(need) {
                continue;
            }
            match self.decisions[need.index()].as_ref().map(|decision| decision.action) {
                Some(Action::Keep) => open.extend(graph.needs(need).map(|(need, _)| need)),
                _ => found.push(graph[need].id.clone()),
            }
        }
        found.sort();
        found
    }
}

/// What is to be known of a task before it is judged. What a task gave before it was `skipped` is there no more.
pub(crate) fn brief(
    world: &World,
    checkpoint: &Checkpoint,
    index: NodeIndex,
    skipped: impl Fn(NodeIndex) -> bool,
) -> Brief {
    let state = |index: NodeIndex| checkpoint.tasks.get(&world.graph[index].id).cloned();
    let gives = |index: NodeIndex| {
        state(index).filter(|state| state.status != crate::checkpoint::Status::Skipped && !skipped(index))
    };
    let reads = world.bound.node(index).reads.iter().map(|&read| (read, gives(read))).collect();
    Brief { index, state: state(index), reads }
}

/// The standing of a needed task that is not part of the run.
pub(crate) fn outside(world: &World, checkpoint: &Checkpoint, need: NodeIndex) -> Standing {
    let state = checkpoint.tasks.get(&world.graph[need].id);
    match state {
        Some(state) if state.status == crate::checkpoint::Status::Skipped => Standing::Skipped,
        Some(state) if state.done.is_some() => Standing::Settled,
        _ => Standing::Failed,
    }
}
