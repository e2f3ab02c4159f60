//! From drafts to a graph: names are resolved, and what does not fit together is noted.

use std::collections::{HashMap, HashSet};

use petgraph::graph::{DiGraph, NodeIndex};

use super::diagnose::{Problems, excerpt};
use super::draft::{Draft, Drafts};
use super::flow;
use super::model::{Claim, Edge, Graph, Need, Node, NodeKind, Parts, Place, Pool, WhenSkipped};
use super::order;
use super::problem::ProblemKind;

/// Resolves and checks `drafts`; the graph, if nothing was wrong in them or before.
pub(super) fn check(mut drafts: Drafts, parts: Parts, problems: &mut Problems) -> Option<Graph> {
    if drafts.tasks.is_empty() && problems.is_empty() {
        problems.add(None, ProblemKind::NoTasks);
    }
    let pools = pools(&drafts, problems);
    drop_duplicates(&mut drafts, problems);
    let ids: HashMap<&str, NodeIndex> =
        drafts.tasks.iter().enumerate().map(|(at, draft)| (draft.id.as_str(), NodeIndex::new(at))).collect();
    let mut checker = Checker { drafts: &drafts, ids: &ids, pools: &pools, problems };
    let mut edges = Vec::new();
    (0..).zip(&drafts.tasks).for_each(|(to, draft)| checker.needs(to, draft, &mut edges));
    let claims: Vec<_> = drafts.tasks.iter().map(|draft| checker.claims(draft)).collect();

    let mut shape = DiGraph::<(), (), u32>::with_capacity(drafts.tasks.len(), edges.len());
    drafts.tasks.iter().for_each(|_| _ = shape.add_node(()));
    shape.extend_with_edges(edges.iter().map(|edge| (edge.from, edge.to)));
    match order::topological(&shape) {
        Some(topological) => flow::check(&drafts.tasks, &ids, &shape, &topological, drafts.incomplete, problems),
        None => cycles(&drafts, &shape, problems),
    }
    if !problems.is_empty() {
        return None;
    }
    let places: Vec<u32> = drafts.tasks.iter().map(|draft| narrow(problems.line(draft.at))).collect();
    let nodes = drafts.tasks.into_iter().zip(claims).zip(places).map(|((draft, pools), line)| node(draft, pools, line));
    Graph::assemble(nodes, &edges, Parts { pools, ..parts })
}

/// Numbers of tasks, pools and lines are far below 2³²: the size of the files bounds them.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn node(draft: Draft, pools: Box<[Claim]>, line: u32) -> Node {
    let kind = match draft.command {
        Some(command) => NodeKind::Command(Box::new(command.spec)),
        None => NodeKind::Plugin {
            uses: draft.uses.map_or_else(|| draft.id.as_str().into(), |it| it.value),
            with: draft.with,
        },
    };
    Node {
        id: draft.id,
        title: draft.title,
        kind,
        pools,
        retries: draft.retries,
        timeout: draft.timeout,
        place: Place { file: draft.at.file, line },
    }
}

fn pools(drafts: &Drafts, problems: &mut Problems) -> Vec<Pool> {
    let mut first = HashMap::new();
    let mut pools = Vec::new();
    for draft in &drafts.pools {
        let (name, capacity) = &draft.value;
        if let Some(first) = first.insert(name, draft.at) {
            let first = problems.place(first);
            problems.add(draft.at, ProblemKind::DuplicatePool { name: excerpt(name), first });
        }
        pools.push(Pool { name: name.clone(), capacity: *capacity });
    }
    let limit = usize::from(u16::MAX);
    if pools.len() > limit {
        problems.add(None, ProblemKind::TooMany { what: "pools", limit });
    }
    pools
}

fn drop_duplicates(drafts: &mut Drafts, problems: &mut Problems) {
    let mut first = HashMap::with_capacity(drafts.tasks.len());
    drafts.tasks.retain(|draft| {
        let known = *first.entry(draft.id.clone()).or_insert(draft.at);
        if known != draft.at {
            let first = problems.place(known);
            problems.add(draft.at, ProblemKind::DuplicateTask { id: draft.id.clone(), first });
        }
        known == draft.at
    });
}

struct Checker<'a> {
    drafts: &'a Drafts,
    ids: &'a HashMap<&'a str, NodeIndex>,
    pools: &'a [Pool],
    problems: &'a mut Problems,
}

impl Checker<'_> {
    fn needs(&mut self, to: u32, draft: &Draft, edges: &mut Vec<Edge>) {
        let mut seen = HashSet::new();
        let skips: HashMap<&str, WhenSkipped> =
            draft.when_skipped.some.iter().map(|(need, when)| (&*need.value, *when)).collect();
        for need in &draft.needs {
            let name = &*need.value;
            let Some((known, index)) = self.ids.get_key_value(name) else {
                if !self.drafts.incomplete && !self.problems.enough() {
                    let nearest = self.problems.nearest(name, self.ids.keys().copied());
                    self.problems.add(need.at, ProblemKind::UnknownTask { id: excerpt(name), nearest });
                }
                continue;
            };
            if *known == draft.id.as_str() {
                self.problems.add(need.at, ProblemKind::SelfNeed { id: draft.id.clone() });
            } else if !seen.insert(name) {
                let id = self.drafts.tasks[index.index()].id.clone();
                self.problems.add(need.at, ProblemKind::DuplicateNeed { id });
            } else {
                let when_skipped = skips.get(name).copied().unwrap_or(draft.when_skipped.all);
                edges.push(Edge { from: narrow(index.index()), to, need: Need { when_skipped } });
            }
        }
        for (need, _) in &draft.when_skipped.some {
            if !draft.needs.iter().any(|declared| declared.value == need.value) {
                self.problems.add(need.at, ProblemKind::NotANeed { id: excerpt(&need.value) });
            }
        }
    }

    fn claims(&mut self, draft: &Draft) -> Box<[Claim]> {
        let mut claims = Vec::with_capacity(draft.claims.len());
        for (name, amount) in &draft.claims {
            let found = self.pools.iter().enumerate().find(|(_, pool)| pool.name == name.value);
            let Some((index, pool)) = found else {
                let nearest = self.problems.nearest(&name.value, self.pools.iter().map(|pool| &*pool.name));
                self.problems.add(name.at, ProblemKind::UnknownPool { name: excerpt(&name.value), nearest });
                continue;
            };
            if *amount > pool.capacity {
                let (pool, capacity) = (pool.name.to_string(), pool.capacity);
                self.problems.add(name.at, ProblemKind::OverCapacity { pool, amount: *amount, capacity });
            }
            claims.push(Claim { pool: u16::try_from(index).unwrap_or(u16::MAX), amount: *amount });
        }
        claims.into()
    }
}

/// Notes each cycle where its first task says what it needs.
fn cycles(drafts: &Drafts, shape: &DiGraph<(), (), u32>, problems: &mut Problems) {
    for mut cycle in order::cycles(shape) {
        // Edges lead from a need to its dependent; people read "A needs B".
        cycle[1..].reverse();
        let draft = |at: usize| &drafts.tasks[cycle[at % cycle.len()].index()];
        let next = &draft(1).id;
        let at = draft(0).needs.iter().find(|need| *need.value == *next.as_str()).map_or(draft(0).at, |need| need.at);
        let cycle = (0..cycle.len()).map(|at| draft(at).id.clone()).collect();
        problems.add(at, ProblemKind::Cycle { cycle });
    }
}
