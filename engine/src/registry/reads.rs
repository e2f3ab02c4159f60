//! The flow of data: each output that a task reads has exactly one producer among the task's ancestors.

use super::{BoundNode, Registry};
use crate::TaskId;
use crate::graph::{self, Finding, Graph, NodeIndex, NodeKind, Part, ProblemKind};
use crate::task::Read;

/// Finds the producer of each output that a node reads, and what is wrong with the others.
pub(super) fn join(registry: &Registry, graph: &Graph, nodes: &mut [BoundNode]) -> Vec<Finding> {
    let flow = Flow { registry, graph, kinds: graph.indices().map(|index| registry.output(&graph[index])).collect() };
    let mut findings = Vec::new();
    for index in graph.indices() {
        let node = &mut nodes[index.index()];
        match (&graph[index].kind, &node.task) {
            (NodeKind::Command(command), _) => node.reads.extend(command.reads().filter_map(|id| graph.find(id))),
            (NodeKind::Plugin { .. }, None) => {}
            (NodeKind::Plugin { .. }, Some(task)) => {
                let reads = task.reads();
                if reads.is_empty() {
                    continue;
                }
                let mut ancestors = graph.with_ancestors([index]);
                ancestors[index.index()] = false;
                for read in reads {
                    // A task that is read by name is named by a parameter.
                    let part = if read.from.is_some() { Part::With } else { Part::Needs };
                    match flow.producer(index, &ancestors, &read) {
                        Ok(found) => node.reads.extend(found),
                        Err(problem) => findings.push(Finding { task: index, part, problem }),
                    }
                }
            }
        }
        node.reads.sort_unstable();
        node.reads.dedup();
    }
    findings
}

/// What the nodes of a graph give to each other.
struct Flow<'a> {
    registry: &'a Registry,
    graph: &'a Graph,
    /// The kind of each node's output; nothing for commands and unknown plugins.
    kinds: Vec<Option<&'static str>>,
}

impl Flow<'_> {
    /// The one ancestor of `reader` that makes what it reads; nothing where an unknown plugin may be the one.
    fn producer(&self, reader: NodeIndex, ancestors: &[bool], read: &Read) -> Result<Option<NodeIndex>, ProblemKind> {
        if let Some(from) = &read.from {
            return self.named(reader, ancestors, read.kind, from);
        }
        let makers = || self.graph.indices().filter(|index| self.kinds[index.index()] == Some(read.kind));
        let found: Vec<NodeIndex> = makers().filter(|index| ancestors[index.index()]).collect();
        let (id, kind) = (self.id(reader), read.kind.to_owned());
        match found[..] {
            [one] => Ok(Some(one)),
            [] if self.graph.indices().any(|index| ancestors[index.index()] && self.is_unknown(index)) => Ok(None),
            [] => {
                // Who needs the reader cannot be needed by it.
                let later = self.graph.with_descendants([reader]);
                let makers = makers().filter(|index| !later[index.index()]).map(|index| self.id(index)).collect();
                let plugins = self.registry.plugins.iter().filter(|(_, plugin)| plugin.output == read.kind);
                Err(ProblemKind::OutputMissing { id, kind, makers, plugins: plugins.map(|(name, _)| *name).collect() })
            }
            _ => {
                let makers = found.iter().map(|index| self.id(*index)).collect();
                Err(ProblemKind::OutputAmbiguous { id, kind, makers })
            }
        }
    }

    /// The task called `from`, if `reader` can read an output of this kind from it.
    fn named(
        &self,
        reader: NodeIndex,
        ancestors: &[bool],
        kind: &'static str,
        from: &TaskId,
    ) -> Result<Option<NodeIndex>, ProblemKind> {
        let Some(index) = self.graph.find(from) else {
            let ids = self.graph.indices().map(|index| self.graph[index].id.as_str());
            let nearest = graph::nearest(from.as_str(), ids).map(str::to_owned);
            return Err(ProblemKind::UnknownTask { id: from.to_string(), nearest });
        };
        let id = self.id(reader);
        if index == reader {
            Err(ProblemKind::OwnOutput { id })
        } else if !ancestors[index.index()] {
            Err(ProblemKind::OutputOfNoAncestor { from: from.clone(), reader: id })
        } else if self.is_unknown(index) {
            Ok(None)
        } else if self.kinds[index.index()] != Some(kind) {
            Err(ProblemKind::OutputOfOtherKind { id, from: from.clone(), kind: kind.to_owned() })
        } else {
            Ok(Some(index))
        }
    }

    fn is_unknown(&self, index: NodeIndex) -> bool {
        matches!(self.graph[index].kind, NodeKind::Plugin { .. }) && self.kinds[index.index()].is_none()
    }

    fn id(&self, index: NodeIndex) -> TaskId {
        self.graph[index].id.clone()
    }
}
