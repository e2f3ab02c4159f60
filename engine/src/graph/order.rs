//! The order of a graph: what comes before what, and the cycles that forbid one.

use std::collections::VecDeque;

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

/// All nodes, each after its predecessors: first those without any, then those that these leave ready, and so on;
/// nothing if there is a cycle.
pub(super) fn topological<N, E>(graph: &DiGraph<N, E, u32>) -> Option<Vec<NodeIndex>> {
    let mut missing = vec![0u32; graph.node_count()];
    graph.raw_edges().iter().for_each(|edge| missing[edge.target().index()] += 1);
    let mut order = Vec::with_capacity(graph.node_count());
    order.extend(graph.node_indices().filter(|node| missing[node.index()] == 0));
    let mut done = 0;
    while let Some(node) = order.get(done).copied() {
        done += 1;
        for next in graph.neighbors(node) {
            missing[next.index()] -= 1;
            if missing[next.index()] == 0 {
                order.push(next);
            }
        }
    }
    (order.len() == graph.node_count()).then_some(order)
}

/// One cycle for each knot of the graph (a strongly connected component), each as its nodes along the edges,
/// beginning at the lowest number; ordered by that number.
///
/// The cycle is the shortest of its knot, unless the knot is so big that looking for it would take long.
pub(super) fn cycles<N, E>(graph: &DiGraph<N, E, u32>) -> Vec<Vec<NodeIndex>> {
    let mut knot_of = vec![0; graph.node_count()];
    let knots = kosaraju_scc(graph);
    for (number, knot) in knots.iter().enumerate() {
        for node in knot {
            knot_of[node.index()] = number;
        }
    }
    let mut cycles: Vec<_> = knots
        .into_iter()
        .filter(|knot| knot.len() > 1 || graph.contains_edge(knot[0], knot[0]))
        .map(|knot| shortest_cycle(graph, knot, &knot_of))
        .collect();
    cycles.sort();
    cycles
}

/// How many nodes a search for a shortest cycle may look at.
const SEARCH_BUDGET: usize = 1_000_000;

fn shortest_cycle<N, E>(graph: &DiGraph<N, E, u32>, mut knot: Vec<NodeIndex>, knot_of: &[usize]) -> Vec<NodeIndex> {
    knot.sort();
    let starts = (SEARCH_BUDGET / knot.len()).max(1);
    let mut search = Search { graph, knot_of, came_from: vec![None; knot_of.len()] };
    let found = knot.iter().take(starts).filter_map(|start| search.back_to(*start)).min_by_key(Vec::len);
    let mut cycle = found.unwrap_or_default();
    if let Some(lowest) = (0..cycle.len()).min_by_key(|at| cycle[*at]) {
        cycle.rotate_left(lowest);
    }
    cycle
}

struct Search<'a, N, E> {
    graph: &'a DiGraph<N, E, u32>,
    knot_of: &'a [usize],
    came_from: Vec<Option<NodeIndex>>,
}

impl<N, E> Search<'_, N, E> {
    /// The shortest way from `start` back to it, inside of its knot.
    fn back_to(&mut self, start: NodeIndex) -> Option<Vec<NodeIndex>> {
        let mut seen = vec![start];
        let mut open = VecDeque::from([start]);
        let mut found = None;
        'search: while let Some(node) = open.pop_front() {
            for next in self.graph.neighbors(node) {
                if next == start {
                    found = Some(node);
                    break 'search;
                }
                let inside = self.knot_of[next.index()] == self.knot_of[start.index()];
                if inside && self.came_from[next.index()].is_none() {
                    self.came_from[next.index()] = Some(node);
                    seen.push(next);
                    open.push_back(next);
                }
            }
        }
        let mut way: Vec<_> = std::iter::successors(found, |node| self.came_from[node.index()]).collect();
        way.reverse();
        for node in seen {
            self.came_from[node.index()] = None;
        }
        found.map(|_| way)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn digraphs() -> impl Strategy<Value = DiGraph<(), (), u32>> {
        (1..8u32, prop::collection::vec((0..8u32, 0..8u32), 0..14)).prop_map(|(size, edges)| {
            let mut graph = DiGraph::default();
            (0..size).for_each(|_| _ = graph.add_node(()));
            graph.extend_with_edges(edges.into_iter().map(|(a, b)| (a % size, b % size)));
            graph
        })
    }

    /// How many edges lead from each node to each other at least, by relaxing until nothing changes.
    fn distances(graph: &DiGraph<(), (), u32>) -> Vec<Vec<Option<usize>>> {
        let size = graph.node_count();
        let direct = |a, b| graph.contains_edge(NodeIndex::new(a), NodeIndex::new(b)).then_some(1);
        let mut far: Vec<Vec<_>> = (0..size).map(|a| (0..size).map(|b| direct(a, b)).collect()).collect();
        for via in 0..size {
            for a in 0..size {
                for b in 0..size {
                    if let (Some(there), Some(on)) = (far[a][via], far[via][b]) {
                        far[a][b] = Some(far[a][b].map_or(there + on, |known: usize| known.min(there + on)));
                    }
                }
            }
        }
        far
    }

    proptest! {
        #[test]
        fn there_is_an_order_or_a_cycle(graph in digraphs()) {
            let cycles = cycles(&graph);
            match topological(&graph) {
                Some(order) => {
                    prop_assert!(cycles.is_empty());
                    let position = |node| order.iter().position(|other| *other == node).unwrap();
                    prop_assert_eq!(order.len(), graph.node_count());
                    for edge in graph.edge_indices() {
                        let (from, to) = graph.edge_endpoints(edge).unwrap();
                        prop_assert!(position(from) < position(to));
                    }
                }
                None => prop_assert!(!cycles.is_empty()),
            }
        }

        #[test]
        fn each_knot_has_one_shortest_cycle(graph in digraphs()) {
            let far = distances(&graph);
            let cyclic = |a: usize| far[a][a].is_some();
            let knot = |a: usize| (0..far.len()).filter(|b| far[a][*b].is_some() && far[*b][a].is_some()).collect();
            let knots: BTreeSet<Vec<usize>> = (0..far.len()).filter(|a| cyclic(*a)).map(knot).collect();
            let cycles = cycles(&graph);
            let mut of_cycles: Vec<Vec<usize>> = cycles.iter().map(|cycle| knot(cycle[0].index())).collect();
            of_cycles.sort();
            prop_assert_eq!(of_cycles, knots.into_iter().collect::<Vec<_>>());
            for cycle in cycles {
                let next = cycle.iter().cycle().skip(1);
                prop_assert!(cycle.iter().zip(next).all(|(a, b)| graph.contains_edge(*a, *b)));
                let members: Vec<usize> = knot(cycle[0].index());
                prop_assert_eq!(Some(cycle.len()), members.iter().filter_map(|a| far[*a][*a]).min());
                prop_assert_eq!(Some(&cycle[0]), cycle.iter().min());
            }
        }
    }

    #[test]
    fn a_long_chain_and_a_great_ring_are_no_trouble() {
        let size = 100_000u32;
        let mut graph = DiGraph::<(), (), u32>::default();
        graph.extend_with_edges((1..size).map(|to| (to - 1, to)));
        assert_eq!(topological(&graph).map(|order| order.len()), Some(size as usize));
        graph.extend_with_edges([(size - 1, 0)]);
        assert_eq!(cycles(&graph).iter().map(Vec::len).collect::<Vec<_>>(), [size as usize]);
    }
}
