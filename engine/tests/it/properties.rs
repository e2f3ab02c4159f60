//! What holds on every graph: random ones of up to 200 tasks with failures, retries, pools and cancellation.

use std::collections::HashMap;

use proptest::prelude::*;
use taskrun_engine::plan::Action;
use taskrun_engine::process::{Cancel, Level};
use taskrun_engine::run::{Options, Scheduler};

use crate::stand::{Edge, Stand};

#[derive(Debug, Clone)]
struct Case {
    /// The needs of each task, all of lower number.
    needs: Vec<Vec<usize>>,
    /// Of each task: how many attempts fail, and whether transiently.
    failures: Vec<Option<(u32, bool)>>,
    pooled: Vec<bool>,
    jobs: u32,
    keep_going: bool,
    stop_after: Option<u64>,
}

fn case() -> impl Strategy<Value = Case> {
    (1..200_usize).prop_flat_map(|count| {
        let needs = (0..count)
            .map(|task| {
                proptest::collection::btree_set(0..task.max(1), 0..4)
                    .prop_map(move |needs| needs.into_iter().filter(|need| *need < task).collect::<Vec<_>>())
            })
            .collect::<Vec<_>>();
        let failure = proptest::option::weighted(0.1, (1..4_u32, any::<bool>()));
        (
            needs,
            proptest::collection::vec(failure, count),
            proptest::collection::vec(any::<bool>(), count),
            1..6_u32,
            any::<bool>(),
            proptest::option::weighted(0.3, 0..20_u64),
        )
            .prop_map(|(needs, failures, pooled, jobs, keep_going, stop_after)| Case {
                needs,
                failures,
                pooled,
                jobs,
                keep_going,
                stop_after,
            })
    })
}

const RETRIES: u32 = 2;

fn yaml(case: &Case) -> String {
    let mut out = String::from("version: 1\npools: {disk: 2}\ntasks:\n");
    for (task, needs) in case.needs.iter().enumerate() {
        let needs = needs.iter().map(|need| format!("t{need}")).collect::<Vec<_>>().join(", ");
        let pool = if case.pooled[task] { ", pool: disk" } else { "" };
        out.push_str(&format!(
            "  t{task}: {{uses: counting, needs: [{needs}], retries: {{count: {RETRIES}, backoff: 1ms, jitter: 0}}{pool}}}\n"
        ));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn every_run_keeps_its_promises(case in case()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(check(case))?;
    }
}

async fn check(case: Case) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let mut stand = Stand::new(folder.path(), &yaml(&case));
    for (task, failure) in case.failures.iter().enumerate() {
        if let Some(failure) = failure {
            stand.script.lock().unwrap().failures.insert(format!("t{task}"), *failure);
        }
    }
    let (_, planned) = stand.plan().await;
    let cancel = Cancel::new();
    if let Some(after) = case.stop_after {
        let cancel = cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(after)).await;
            cancel.raise(Level::Asked);
        });
    }
    let options = Options { jobs: case.jobs, keep_going: case.keep_going, disruptive: false };
    let summary = stand.run_with(options.clone(), None, cancel).await;
    let counts = summary.counts;
    let settled = counts.succeeded
        + counts.degraded
        + counts.kept
        + counts.skipped
        + counts.failed
        + counts.blocked
        + counts.cancelled;
    prop_assert_eq!(settled, case.needs.len(), "every task ends: {:?}", counts);

    let (order, most) = {
        let script = stand.script.lock().unwrap();
        (script.order.clone(), script.most)
    };
    prop_assert!(most <= case.jobs as usize, "at most {} run at once, not {}", case.jobs, most);
    let number = |id: &str| id[1..].parse::<usize>().unwrap();
    let (mut in_pool, mut ended): (usize, HashMap<usize, bool>) = (0, HashMap::new());
    for (id, edge) in &order {
        let task = number(id);
        if *edge == Edge::Begin {
            for need in &case.needs[task] {
                prop_assert!(ended.contains_key(need), "t{} began before t{} ended", task, need);
            }
            in_pool += usize::from(case.pooled[task]);
            prop_assert!(in_pool <= 2, "the pool is exceeded");
        } else {
            in_pool -= usize::from(case.pooled[task]);
            ended.insert(task, true);
        }
    }
    let attempts = |task: usize| order.iter().filter(|(id, edge)| number(id) == task && *edge == Edge::Begin).count();
    for (task, failure) in case.failures.iter().enumerate() {
        let most = match failure {
            Some((times, true)) => 1 + (*times).min(RETRIES) as usize,
            _ => 1,
        };
        prop_assert!(attempts(task) <= most, "t{} was tried {} times", task, attempts(task));
    }
    // A dry run says what the run does: what was to run ran, unless something else kept it from running.
    for (index, decision) in planned.iter() {
        prop_assert_eq!(decision.action, Action::Run, "nothing was there before");
        let ran = attempts(index.index()) > 0;
        let undisturbed = case.failures.iter().all(Option::is_none) && case.stop_after.is_none();
        prop_assert!(ran || !undisturbed);
    }
    // Once nothing fails any more, another run finishes the job, and then there is nothing to do.
    stand.script.lock().unwrap().failures.clear();
    stand.restart();
    let done: Vec<usize> =
        (0..case.needs.len()).filter(|task| stand.status(&format!("t{task}")).is_success()).collect();
    let before = stand.effects();
    let summary = stand.run_with(options, None, Cancel::new()).await;
    prop_assert_eq!(summary.counts.succeeded + summary.counts.kept, case.needs.len());
    for task in done {
        let name = format!("t{task}/second");
        prop_assert_eq!(
            before.get(&name).copied(),
            stand.effects().get(&name).copied(),
            "t{} was done and ran again",
            task
        );
    }
    let (_, plan) = stand.plan().await;
    prop_assert!(!plan.has_work());
    Ok(())
}

/// Numbers that look random and are the same each time (Knuth's MMIX generator).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound.max(1)
    }

    /// Over two decades, evenly on a logarithmic scale.
    fn weight(&mut self) -> f64 {
        100.0_f64.powf(self.below(10_000) as f64 / 10_000.0)
    }
}

/// Needs of one of three families: layered, fork-join, random order.
fn family(kind: usize, count: usize, chance: &mut Chance) -> Vec<Vec<usize>> {
    let width = 4 + chance.below(12);
    (0..count)
        .map(|task| match kind {
            0 => (0..2).filter(|_| task >= width).map(|_| (task / width - 1) * width + chance.below(width)).collect(),
            1 => match task % (width + 1) {
                0 if task == 0 => vec![],
                0 => (task - width..task).collect(),
                at => vec![task - at],
            },
            _ => (0..chance.below(3)).filter(|_| task > 0).map(|_| chance.below(task)).collect(),
        })
        .collect()
}

#[test]
fn the_makespan_is_close_to_what_no_schedule_can_beat() {
    let mut chance = Chance(42);
    let ratios: Vec<f64> = (0..100)
        .map(|round| {
            let count = 60 + chance.below(140);
            let needs = family(round % 3, count, &mut chance);
            let weights: Vec<f64> = (0..count).map(|_| chance.weight()).collect();
            let slots = 2 + chance.below(15);
            makespan(&needs, &weights, slots) / bound(&needs, &weights, slots)
        })
        .collect();
    let average = ratios.iter().sum::<f64>() / ratios.len() as f64;
    let worst = ratios.iter().copied().fold(0.0, f64::max);
    assert!(average <= 1.05, "{average} times the lower bound on average, {worst} at worst");
}

fn remaining(needs: &[Vec<usize>], weights: &[f64]) -> Vec<f64> {
    let mut remaining = weights.to_vec();
    for task in (0..needs.len()).rev() {
        for need in &needs[task] {
            remaining[*need] = remaining[*need].max(weights[*need] + remaining[task]);
        }
    }
    remaining
}

fn bound(needs: &[Vec<usize>], weights: &[f64], slots: usize) -> f64 {
    let longest = remaining(needs, weights).into_iter().fold(0.0, f64::max);
    longest.max(weights.iter().sum::<f64>() / slots as f64)
}

/// Runs the scheduler on a virtual clock.
fn makespan(needs: &[Vec<usize>], weights: &[f64], slots: usize) -> f64 {
    let priorities = remaining(needs, weights);
    let mut unmet: Vec<usize> =
        needs.iter().map(|needs| needs.iter().collect::<std::collections::HashSet<_>>().len()).collect();
    let mut scheduler = Scheduler::new(u32::try_from(slots).unwrap(), &[]);
    (0..needs.len()).filter(|task| unmet[*task] == 0).for_each(|task| scheduler.push(task, priorities[task], &[]));
    let (mut clock, mut running): (f64, Vec<(f64, usize)>) = (0.0, Vec::new());
    loop {
        while let Some(task) = scheduler.pop() {
            running.push((clock + weights[task], task));
        }
        let Some(next) = running.iter().map(|(end, _)| *end).min_by(f64::total_cmp) else { return clock };
        clock = next;
        let (ended, rest): (Vec<_>, Vec<_>) = running.into_iter().partition(|(end, _)| *end <= clock);
        running = rest;
        for (_, task) in ended {
            scheduler.release(&[]);
            for dependent in (task + 1)..needs.len() {
                if needs[dependent].contains(&task) {
                    unmet[dependent] -= 1;
                    if unmet[dependent] == 0 {
                        scheduler.push(dependent, priorities[dependent], &[]);
                    }
                }
            }
        }
    }
}
