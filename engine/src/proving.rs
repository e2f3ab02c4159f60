//! Proving again: whether what tasks made still stands, asked of what exists and not of the journal.
//!
//! A run makes the proofs of a task once, after its `apply`, and later asks its probe. Here all of it is asked of all
//! tasks, at once where they do not depend on each other, and nothing is changed or mended. A task that does not stand,
//! or whose upstream does not, is asked only what costs nothing, and failures are put down to what fell first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::TaskId;
use crate::checkpoint::{Checkpoint, Status, TaskState};
use crate::graph::NodeIndex;
use crate::outcome::Failure;
use crate::plan::Reason;
use crate::plan::files::Afresh;
use crate::plan::inspect::inspect;
use crate::plan::judge::look;
use crate::plan::planner::brief;
use crate::process::{Cancel, Level};
use crate::registry::ErasedMade;
use crate::run::attempt::bounded;
use crate::task::{Probe, ProofClass};
use crate::world::{Upstream, World};

/// How long a proof may take at the most, and if its task has no time-out.
const PROOF_TIMEOUT: Duration = Duration::from_secs(900);

/// The name of the check that is a task's probe.
const STANDS: &str = "what it made is there";

/// The name of the check that nothing of a task is missing.
const COMPLETE: &str = "nothing of it is missing";

/// A check that was made, or was left out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Check {
    /// The task whose work was looked at.
    pub task: TaskId,
    /// What holds if it passes: the name of a proof, mostly.
    pub name: String,
    /// What came of it.
    pub verdict: Verdict,
    /// How long it took.
    pub seconds: f64,
}

/// What came of a check.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not.
    Failed(Failure),
    /// There is nothing to look at, for this reason.
    Skipped(String),
    /// Nothing can be said, since the work of this task does not stand.
    Blocked(TaskId),
}

/// Checks what `tasks` made, whatever order they come in, and tells each check to `tell` once it is made. Disruptive
/// proofs are made only if they are asked for. Raising `cancel` leaves out what has not begun.
pub async fn prove(
    world: &Arc<World>,
    checkpoint: &Checkpoint,
    tasks: &[NodeIndex],
    disruptive: bool,
    cancel: &Cancel,
    mut tell: impl FnMut(&Check),
) -> Vec<Check> {
    let graph = &world.graph;
    let places = std::thread::available_parallelism().map_or(1, usize::from);
    let places = Arc::new(Semaphore::new(places));
    let mut waits_for: Vec<usize> = graph.indices().map(|index| graph.needs(index).count()).collect();
    let mut ready: Vec<NodeIndex> = graph.indices().filter(|index| waits_for[index.index()] == 0).collect();
    // By task, the one upstream, or itself, that does not stand.
    let mut fallen: BTreeMap<NodeIndex, TaskId> = BTreeMap::new();
    let (mut asking, mut checks) = (JoinSet::new(), Vec::new());
    loop {
        while let Some(index) = ready.pop() {
            let above = graph.needs(index).find_map(|(need, _)| fallen.get(&need).cloned());
            let case = tasks.contains(&index).then(|| Case::new(world, checkpoint, index, above.clone(), cancel));
            let (places, cancel) = (Arc::clone(&places), cancel.clone());
            asking.spawn(async move {
                let Some(case) = case else { return (index, above, Vec::new()) };
                // It is never closed.
                let _place = places.acquire_owned().await;
                let checks = if cancel.level() < Level::Asked { case.checks(disruptive).await } else { Vec::new() };
                let failed = checks.iter().any(|check| matches!(check.verdict, Verdict::Failed(_)));
                (index, if failed { Some(case.id) } else { above }, checks)
            });
        }
        let Some(joined) = asking.join_next().await else { return checks };
        // Proofs run in tasks of their own, whose panics become failures.
        let Ok((index, falls, found)) = joined else { continue };
        fallen.extend(falls.map(|by| (index, by)));
        for check in found {
            tell(&check);
            checks.push(check);
        }
        for (dependent, _) in graph.dependents(index) {
            waits_for[dependent.index()] -= 1;
            if waits_for[dependent.index()] == 0 {
                ready.push(dependent);
            }
        }
    }
}

/// A task to be checked.
struct Case {
    world: Arc<World>,
    id: TaskId,
    index: NodeIndex,
    state: Option<Arc<TaskState>>,
    /// The outputs that it reads, and how a file that it made is not as it was left.
    inspected: Result<(Upstream, Option<Reason>), Failure>,
    above: Option<TaskId>,
    cancel: Cancel,
}

impl Case {
    fn new(
        world: &Arc<World>,
        checkpoint: &Checkpoint,
        index: NodeIndex,
        above: Option<TaskId>,
        cancel: &Cancel,
    ) -> Self {
        let brief = brief(world, checkpoint, index, |_| false);
        let inspected = inspect(world, &Afresh, &brief, &|_| false).map(|found| (found.upstream, found.damage));
        let (world, id) = (Arc::clone(world), world.graph[index].id.clone());
        Self { world, id, index, state: brief.state, inspected, above, cancel: cancel.clone() }
    }

    async fn checks(&self, disruptive: bool) -> Vec<Check> {
        let skipped = |why: String| vec![self.check(STANDS, Duration::ZERO, Verdict::Skipped(why))];
        let Some(state) = &self.state else { return skipped("it never ran".to_owned()) };
        if state.status == Status::Skipped {
            return skipped(state.reason.to_string());
        }
        let Some(done) = &state.done else { return skipped("it never succeeded".to_owned()) };
        let (upstream, damage) = match &self.inspected {
            Ok((upstream, damage)) => (upstream, damage.as_ref()),
            Err(failure) => return vec![self.check(STANDS, Duration::ZERO, self.failed(failure.clone()))],
        };
        let asked = Instant::now();
        let stands = match damage {
            Some(damage) => self.failed(told(Probe::Missing(damage.to_string()))),
            None => match look(&self.world, self.index, Some(state), upstream, &self.cancel).await {
                Probe::Holds => Verdict::Passed,
                other => self.failed(told(other)),
            },
        };
        let fallen = self.above.clone().or_else(|| match stands {
            Verdict::Failed(_) => Some(self.id.clone()),
            _ => None,
        });
        let mut checks = vec![self.check(STANDS, asked.elapsed(), stands)];
        let lacking =
            done.missing.iter().map(|lack| self.check(COMPLETE, Duration::ZERO, Verdict::Skipped(lack.clone())));
        checks.extend(lacking);
        let (Some(task), Some(made)) = (&self.world.bound.node(self.index).task, ErasedMade::of(done)) else {
            return checks;
        };
        for proof in task.proofs() {
            if proof.class == ProofClass::Disruptive && !disruptive || self.cancel.level() >= Level::Asked {
                continue;
            }
            if let (Some(fallen), true) = (&fallen, proof.class > ProofClass::Quick) {
                checks.push(self.check(&proof.name, Duration::ZERO, Verdict::Blocked(fallen.clone())));
                continue;
            }
            let own = self.cancel.child();
            let view = self.world.view(&self.id, upstream, &own);
            let (task, name, output) = (Arc::clone(task), proof.name.clone(), made.output.clone());
            let timeout = self.world.graph[self.index].timeout.map_or(PROOF_TIMEOUT, |own| own.min(PROOF_TIMEOUT));
            let asked = Instant::now();
            let proved = bounded(Some(timeout), own, async move { task.prove(&name, &view, &output).await }).await;
            let verdict = proved.map_or_else(|failure| self.failed(failure), |()| Verdict::Passed);
            checks.push(self.check(&proof.name, asked.elapsed(), verdict));
        }
        checks
    }

    /// A failure, or what it is put down to.
    fn failed(&self, mut failure: Failure) -> Verdict {
        if let Some(above) = &self.above {
            return Verdict::Blocked(above.clone());
        }
        failure.map_texts(|text| *text = self.world.redactor.redact_str(text).into_owned());
        Verdict::Failed(failure)
    }

    fn check(&self, name: &str, took: Duration, verdict: Verdict) -> Check {
        Check { task: self.id.clone(), name: name.to_owned(), verdict, seconds: took.as_secs_f64() }
    }
}

/// What a probe found, as a failure with its remedy.
fn told(probe: Probe) -> Failure {
    let resume = |message: String| Failure::transient(message).with_hint("mend it: taskrun resume");
    match probe {
        Probe::Holds => resume("see what it found".to_owned()),
        Probe::Stopped(found) | Probe::Missing(found) => resume(format!("find what it made: {found}")),
        Probe::Drifted(fields) => {
            let fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
            resume(format!("find it as it was made: {}", fields.join("; ")))
        }
        Probe::DataLost(found) => Failure::permanent(format!("find its data: {found}"))
            .with_hint("restore it, or make it anew, empty: taskrun run --accept-data-loss"),
        Probe::CannotTell(why) => Failure::permanent(format!("look at what it made: {why}")),
    }
}
