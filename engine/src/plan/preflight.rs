//! What is missing on the machine, asked of all tasks at once before anything starts.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::TaskId;
use crate::checkpoint::Checkpoint;
use crate::plan::files::Afresh;
use crate::plan::inspect::inspect;
use crate::plan::planner::brief;
use crate::plan::{Action, Footprints, Plan};
use crate::process::Cancel;
use crate::task::Problem;
use crate::world::World;

/// How long a task may take to check the machine.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The problems of all tasks that may run, by task.
pub async fn preflight(world: &Arc<World>, checkpoint: &Checkpoint, plan: &Plan) -> Vec<(TaskId, Problem)> {
    let mut asking = JoinSet::new();
    for (index, decision) in plan.iter() {
        let id = world.graph[index].id.clone();
        let Some(task) = world.bound.node(index).task.clone() else { continue };
        if !matches!(decision.action, Action::Run | Action::DecideAfter) {
            continue;
        }
        let upstream = match inspect(world, &Afresh, &brief(world, checkpoint, index, |_| false), &|_| false) {
            Ok(inspection) => inspection.upstream,
            Err(failure) => {
                asking.spawn(async move { vec![(id, Problem { message: failure.to_string(), hint: failure.hint })] });
                continue;
            }
        };
        let view = world.view(&id, &upstream, &Cancel::new());
        asking.spawn(async move {
            let problems = match tokio::time::timeout(TIMEOUT, task.check(&view)).await {
                Ok(problems) => problems,
                Err(_) => vec![Problem { message: format!("its check gave no answer within {TIMEOUT:?}"), hint: None }],
            };
            problems.into_iter().map(|problem| (id.clone(), problem)).collect()
        });
    }
    let mut problems: Vec<(TaskId, Problem)> = asking.join_all().await.into_iter().flatten().collect();
    problems.extend(Footprints::of(world, checkpoint, plan).too_large_for(&world.dirs.state));
    problems.sort_by(|a, b| a.0.cmp(&b.0));
    problems.dedup_by(|a, b| a.1 == b.1);
    problems
}
