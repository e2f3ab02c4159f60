//! When the run will be done, by playing through what remains.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use jiff::{SignedDuration, Timestamp};

use super::{Progress, State, Task};

/// Simulated time, in milliseconds from now; whole numbers, so that it can be ordered.
type Millis = u64;

impl Progress {
    /// When the run will be done: what remains is played through with the durations of earlier runs, the longest
    /// remaining path first, as the scheduler does it. A task that never ran is taken to be as long as the median of the
    /// others, and one that overran to need a tenth more. Nothing if no duration is known or the run was told to stop.
    ///
    /// It takes time in proportion to the number of tasks that remain.
    pub fn predict(&self, now: Timestamp) -> Option<Timestamp> {
        if self.stopping > 0 || self.ended.is_some() {
            return None;
        }
        let remaining = self.simulate(now, self.median_duration()?);
        now.checked_add(SignedDuration::from_millis(i64::try_from(remaining).ok()?)).ok()
    }

    fn median_duration(&self) -> Option<f64> {
        let mut known: Vec<f64> = self
            .tasks
            .iter()
            .filter_map(|task| task.expected.or(task.seconds.filter(|_| task.state == State::Succeeded)))
            .collect();
        let middle = known.len() / 2;
        if known.is_empty() { None } else { Some(*known.select_nth_unstable_by(middle, f64::total_cmp).1) }
    }

    fn simulate(&self, now: Timestamp, median: f64) -> Millis {
        let left: Vec<Option<Millis>> = self.tasks.iter().map(|task| time_left(task, now, median)).collect();
        let mut paths = vec![0; self.tasks.len()];
        let mut unmet = vec![0; self.tasks.len()];
        for &at in self.order.iter().rev() {
            let Some(own) = left[at] else { continue };
            let behind = self.dependents[at].iter().map(|&dependent| paths[dependent]).max();
            paths[at] = own + behind.unwrap_or(0);
            unmet[at] = self.tasks[at].needs.iter().filter(|&&need| left[need].is_some()).count();
        }
        let mut running: BinaryHeap<Reverse<(Millis, usize)>> =
            self.active.iter().map(|&at| Reverse((left[at].unwrap_or(0), at))).collect();
        let mut ready: BinaryHeap<(Millis, usize)> = self
            .order
            .iter()
            .filter(|&&at| self.tasks[at].state == State::Waiting && unmet[at] == 0)
            .map(|&at| (paths[at], at))
            .collect();
        let mut clock = 0;
        loop {
            while running.len() < self.jobs() {
                let Some((_, at)) = ready.pop() else { break };
                running.push(Reverse((clock + left[at].unwrap_or(0), at)));
            }
            let Some(Reverse((end, done))) = running.pop() else { return clock };
            clock = clock.max(end);
            for &dependent in &self.dependents[done] {
                if left[dependent].is_none() || self.tasks[dependent].state != State::Waiting {
                    continue;
                }
                // A dependent off `order` is on a cycle and never becomes ready.
                unmet[dependent] = unmet[dependent].saturating_sub(1);
                if unmet[dependent] == 0 && paths[dependent] > 0 {
                    ready.push((paths[dependent], dependent));
                }
            }
        }
    }
}

/// How long the task will still take; nothing if it is done with.
fn time_left(task: &Task, now: Timestamp, median: f64) -> Option<Millis> {
    let whole = task.expected.unwrap_or(median);
    let seconds = match &task.state {
        State::Waiting => whole,
        State::Running(activity) => {
            let elapsed = crate::report::text::elapsed(activity.since, now);
            (whole - elapsed).max(elapsed / 10.0)
        }
        State::Retrying { until, .. } => whole + crate::report::text::elapsed(now, *until),
        _ => return None,
    };
    const MAX_SECONDS: f64 = 1e9;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped just before")]
    let millis = (seconds.clamp(0.001, MAX_SECONDS) * 1000.0) as Millis;
    Some(millis)
}

/// The tasks in an order in which each comes after its needs, and the tasks that need each.
pub(super) fn order(tasks: &[Task]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut dependents = vec![Vec::new(); tasks.len()];
    let mut unmet: Vec<usize> = tasks.iter().map(|task| task.needs.len()).collect();
    for (at, task) in tasks.iter().enumerate() {
        for &need in &task.needs {
            dependents[need].push(at);
        }
    }
    let mut order: Vec<usize> = (0..tasks.len()).filter(|&at| unmet[at] == 0).collect();
    let mut next = 0;
    while let Some(&at) = order.get(next) {
        next += 1;
        for &dependent in &dependents[at] {
            unmet[dependent] -= 1;
            if unmet[dependent] == 0 {
                order.push(dependent);
            }
        }
    }
    (order, dependents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::Script;

    fn seconds_left(script: &mut Script, events: impl FnOnce(&mut Script) -> Vec<crate::event::Event>) -> Option<f64> {
        let mut progress = Progress::new();
        progress.apply(&script.begin());
        for event in events(script) {
            progress.apply(&event);
        }
        progress.predict(progress.now()).map(|at| crate::report::text::elapsed(progress.now(), at))
    }

    #[test]
    fn a_chain_takes_the_sum_and_a_wide_graph_the_work_by_the_jobs() {
        let chain = &mut Script::new(&[("a", &[]), ("b", &["a"]), ("c", &["b"])]).expecting(&[1.0, 2.0, 3.0]);
        assert_eq!(seconds_left(chain, |_| vec![]), Some(6.0));
        let wide = &mut Script::new(&[("a", &[]), ("b", &[]), ("c", &[]), ("d", &[])]).expecting(&[2.0; 4]);
        assert_eq!(seconds_left(wide, |_| vec![]), Some(4.0), "two at a time");
    }

    #[test]
    fn what_ran_already_is_taken_off_and_an_overrun_adds_a_tenth() {
        let script = || Script::new(&[("a", &[]), ("b", &["a"])]).expecting(&[10.0, 5.0]);
        let after = |seconds| {
            seconds_left(&mut script(), |script| {
                let started = script.started("a");
                script.wait(seconds);
                vec![started, script.output("a", "x")]
            })
        };
        assert_eq!(after(4.0), Some(11.0));
        assert_eq!(after(20.0), Some(7.0));
    }

    #[test]
    fn unknown_durations_are_the_median_and_nothing_known_predicts_nothing() {
        let graph: &[(&str, &[&str])] = &[("a", &[]), ("b", &["a"]), ("c", &["b"])];
        assert_eq!(seconds_left(&mut Script::new(graph), |_| vec![]), None);
        assert_eq!(seconds_left(&mut Script::new(graph).expecting(&[4.0]), |_| vec![]), Some(12.0));
    }
}
