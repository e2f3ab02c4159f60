//! Graphs for the tests of this module.

use proptest::prelude::*;

use super::Graph;

/// The graph with these `tasks`, given as a YAML mapping.
pub(super) fn graph(tasks: &str) -> Graph {
    Graph::from_yaml("graph.yaml", &format!("version: 1\ntasks: {tasks}")).unwrap()
}

/// Graphs of plugins of up to `size` tasks, of any shape.
pub(super) fn shapes(size: usize) -> impl Strategy<Value = Graph> {
    let edges = prop::collection::hash_set((0..size, 0..size), 0..2 * size);
    (1..=size, edges, Just(()).prop_perturb(|(), mut random| random.next_u64())).prop_map(|(size, edges, seed)| {
        let mut names: Vec<usize> = (0..size).collect();
        names.sort_by_key(|name| (*name as u64 + 1).wrapping_mul(seed | 1));
        let needs = |task: usize| {
            let needs = edges.iter().filter(|(need, by)| *by == task && need < by).map(|(need, _)| format!("t{need}"));
            needs.collect::<Vec<_>>().join(", ")
        };
        let tasks: Vec<_> = names.iter().map(|task| format!("t{task}: {{needs: [{}]}}", needs(*task))).collect();
        graph(&format!("{{{}}}", tasks.join(", ")))
    })
}

/// Compares `text` with the snapshot `name`; they lie together at the top of the repository.
#[track_caller]
pub(super) fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../snapshots/engine"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}
