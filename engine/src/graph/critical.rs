//! The critical path: what the duration of the whole depends on.

use super::{Graph, NodeIndex};

/// How long it takes from the start of each task to the end of the last one that depends on it, with slots for all;
/// in the unit of `duration`, which must not be negative.
pub fn remaining(graph: &Graph, duration: impl Fn(NodeIndex) -> f64) -> Vec<f64> {
    let mut remaining = vec![0.0; graph.len()];
    for task in graph.topological().iter().rev() {
        let after = graph.dependents(*task).map(|(dependent, _)| remaining[dependent.index()]);
        remaining[task.index()] = duration(*task) + after.fold(0.0, f64::max);
    }
    remaining
}

/// A path through the graph that takes longest, from a task without needs to one without dependents; of several such
/// the one through the tasks declared first.
pub fn critical_path(graph: &Graph, duration: impl Fn(NodeIndex) -> f64) -> Vec<NodeIndex> {
    let remaining = remaining(graph, duration);
    let first_longest = |best: Option<NodeIndex>, task: NodeIndex| match best {
        Some(best) if remaining[best.index()] >= remaining[task.index()] => Some(best),
        _ => Some(task),
    };
    let start = graph.indices().filter(|task| graph.needs(*task).next().is_none()).fold(None, first_longest);
    let next = |task: &NodeIndex| graph.dependents(*task).map(|(dependent, _)| dependent).fold(None, first_longest);
    std::iter::successors(start, next).collect()
}

/// By how much each task may be late without the whole taking longer: 0 on the critical path.
pub fn slack(graph: &Graph, duration: impl Fn(NodeIndex) -> f64) -> Vec<f64> {
    let remaining = remaining(graph, &duration);
    let whole = remaining.iter().copied().fold(0.0, f64::max);
    let mut earliest = vec![0.0_f64; graph.len()];
    for task in graph.topological() {
        let end = earliest[task.index()] + duration(*task);
        for (dependent, _) in graph.dependents(*task) {
            earliest[dependent.index()] = earliest[dependent.index()].max(end);
        }
    }
    // Sums of the same numbers in another order may differ in their last bits.
    earliest.iter().zip(&remaining).map(|(start, rest)| (whole - start - rest).max(0.0)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{graph, shapes};
    use super::*;

    /// The longest way from `task` on, by trying them all.
    fn longest(graph: &Graph, weights: &[u32], task: NodeIndex) -> u32 {
        let after = graph.dependents(task).map(|(dependent, _)| longest(graph, weights, dependent));
        weights[task.index()] + after.max().unwrap_or(0)
    }

    #[test]
    fn equal_paths_go_through_what_is_declared_first() {
        let graph = graph("{a: {}, b: {needs: a}, c: {needs: a}, d: {needs: [c, b]}}");
        let path: Vec<_> = critical_path(&graph, |_| 1.0).into_iter().map(|task| graph[task].id.to_string()).collect();
        assert_eq!(path, ["a", "b", "d"]);
        assert_eq!(slack(&graph, |_| 1.0), [0.0; 4]);
    }

    proptest! {
        #[test]
        fn agrees_with_trying_all_paths(graph in shapes(12), weights in prop::collection::vec(0u32..50, 12)) {
            let duration = |task: NodeIndex| f64::from(weights[task.index()]);
            let remaining = remaining(&graph, duration);
            for task in graph.indices() {
                prop_assert_eq!(remaining[task.index()], f64::from(longest(&graph, &weights, task)));
            }
            let whole = remaining.iter().copied().fold(0.0, f64::max);
            let path = critical_path(&graph, duration);
            prop_assert_eq!(path.iter().map(|task| duration(*task)).sum::<f64>(), whole);
            prop_assert!(path.windows(2).all(|pair| graph.needs(pair[1]).any(|(need, _)| need == pair[0])));

            let slack = slack(&graph, duration);
            prop_assert!(path.iter().all(|task| slack[task.index()] == 0.0));
            for task in graph.indices() {
                let late = |other| duration(other) + if other == task { slack[task.index()] } else { 0.0 };
                prop_assert_eq!(super::remaining(&graph, late).iter().copied().fold(0.0, f64::max), whole);
            }
        }
    }
}
