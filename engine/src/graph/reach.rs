//! Whether nodes are reachable from others, for many pairs at once.

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

/// Is `to` a descendant of `from`?
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    pub(super) from: NodeIndex,
    pub(super) to: NodeIndex,
}

/// The answers to `queries`, in their order.
///
/// Direct edges are answered at once. For the others, one sweep over the topological order carries a bit for each of
/// 64 origins, so that even a query per node of a large graph takes a second and not an hour.
pub(super) fn reachable<N, E>(graph: &DiGraph<N, E, u32>, topological: &[NodeIndex], queries: &[Query]) -> Vec<bool> {
    let mut answers = direct(graph, queries);
    let mut open: Vec<usize> = (0..queries.len()).filter(|at| !answers[*at]).collect();
    if open.is_empty() {
        return answers;
    }
    let mut position = vec![0; graph.node_count()];
    for (at, node) in topological.iter().enumerate() {
        position[node.index()] = at;
    }
    open.sort_by_key(|at| position[queries[*at].from.index()]);
    let same_origin = open.chunk_by(|a, b| queries[*a].from == queries[*b].from);
    let same_origin: Vec<&[usize]> = same_origin.collect();
    let mut bits = vec![0u64; graph.node_count()];
    for batch in same_origin.chunks(64) {
        let members = || batch.iter().enumerate().flat_map(|(bit, same)| same.iter().map(move |at| (bit, *at)));
        let first = position[queries[batch[0][0]].from.index()];
        let last = members().map(|(_, at)| position[queries[at].to.index()]).max().unwrap_or(first);
        for (bit, same) in batch.iter().enumerate() {
            bits[queries[same[0]].from.index()] |= 1 << bit;
        }
        let swept = topological.get(first..=last).unwrap_or_default();
        for node in swept {
            let carried = bits[node.index()];
            if carried != 0 {
                graph.neighbors(*node).for_each(|next| bits[next.index()] |= carried);
            }
        }
        for (bit, at) in members() {
            answers[at] = queries[at].from != queries[at].to && bits[queries[at].to.index()] & (1 << bit) != 0;
        }
        bits.fill(0);
    }
    answers
}

/// Which queries one edge answers; the needs of each node are looked at once, however many queries ask for it.
fn direct<N, E>(graph: &DiGraph<N, E, u32>, queries: &[Query]) -> Vec<bool> {
    let mut answers = vec![false; queries.len()];
    let mut by_target: Vec<usize> = (0..queries.len()).collect();
    by_target.sort_by_key(|at| queries[*at].to);
    let mut needed_by = vec![NodeIndex::end(); graph.node_count()];
    for same_target in by_target.chunk_by(|a, b| queries[*a].to == queries[*b].to) {
        let target = queries[same_target[0]].to;
        graph.neighbors_directed(target, Direction::Incoming).for_each(|need| needed_by[need.index()] = target);
        for at in same_target {
            answers[*at] = needed_by[queries[*at].from.index()] == target;
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use petgraph::algo::has_path_connecting;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_search(
            size in 2..150usize,
            edges in prop::collection::vec((0..150usize, 0..150usize), 0..300),
            queries in prop::collection::vec((0..150usize, 0..150usize), 0..200),
        ) {
            let node = |at: usize| NodeIndex::new(at % size);
            let mut graph = DiGraph::<(), (), u32>::default();
            (0..size).for_each(|_| _ = graph.add_node(()));
            for (a, b) in edges.into_iter().map(|(a, b)| (node(a), node(b))).filter(|(a, b)| a != b) {
                graph.add_edge(a.min(b), a.max(b), ());
            }
            let queries: Vec<_> = queries.into_iter().map(|(a, b)| Query { from: node(a), to: node(b) }).collect();
            let topological = super::super::order::topological(&graph).unwrap();
            let answers = reachable(&graph, &topological, &queries);
            for (query, answer) in queries.iter().zip(answers) {
                let searched = query.from != query.to && has_path_connecting(&graph, query.from, query.to, None);
                prop_assert_eq!(answer, searched, "{:?}", query);
            }
        }
    }
}
