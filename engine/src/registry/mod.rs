//! The plugins of a program, and their meeting with a graph.
//!
//! A [`Registry`] is made for one platform and one configuration. [`Registry::bind`] makes a task for each node of a
//! graph that names a plugin, and checks the flow of data: each output that a task reads has exactly one producer among
//! the task's ancestors.

mod erased;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

pub(crate) use erased::{DynTask, ErasedMade};

use crate::TaskId;
use crate::graph::{self, Finding, Graph, GraphErrors, NodeIndex, NodeKind, Part, ProblemKind};
use crate::task::{Read, Task};

/// The plugins that a program has.
#[derive(Default)]
pub struct Registry {
    plugins: BTreeMap<&'static str, Make>,
}

type Make = Box<dyn Fn(&Instance<'_>) -> Result<Arc<dyn DynTask>, String> + Send + Sync>;

/// A node that a plugin is made for.
#[derive(Debug, Clone, Copy)]
pub struct Instance<'a> {
    /// The node's id.
    pub id: &'a TaskId,
    /// Its `with:` parameters; null where there are none.
    pub with: &'a Value,
}

/// The tasks of a graph's nodes.
pub struct Bound {
    nodes: Vec<BoundNode>,
}

#[derive(Default)]
pub(crate) struct BoundNode {
    /// The task; nothing for a plain command.
    pub(crate) task: Option<Arc<dyn DynTask>>,
    /// The nodes whose outputs it reads.
    pub(crate) reads: Vec<NodeIndex>,
}

impl Registry {
    /// A registry without plugins: a graph of plain commands needs none.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the plugin `name`. `make` makes its task for a node, or says what is wrong with the node's parameters.
    pub fn add<T: Task>(
        &mut self,
        name: &'static str,
        make: impl Fn(&Instance<'_>) -> Result<T, String> + Send + Sync + 'static,
    ) {
        let make: Make = Box::new(move |instance| Ok(Arc::new(make(instance)?)));
        self.plugins.insert(name, make);
    }

    /// The names of the plugins, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.plugins.keys().copied()
    }

    /// Whether there is a plugin called `name`.
    pub fn has(&self, name: &str) -> bool {
        self.plugins.contains_key(name)
    }

    /// Makes the task of one node, or says why not.
    pub(crate) fn make(&self, plugin: &str, id: &TaskId, with: &Value) -> Result<Arc<dyn DynTask>, String> {
        let make = self.plugins.get(plugin).ok_or_else(|| format!("no plugin is called `{plugin}`"))?;
        make(&Instance { id, with })
    }

    /// Makes the tasks of all nodes of `graph` and checks the flow of data between them.
    ///
    /// # Errors
    /// All nodes with unknown plugins or wrong parameters, and if there are none, all that read outputs which no or
    /// several ancestors make.
    pub fn bind(&self, graph: &Graph) -> Result<Bound, GraphErrors> {
        let mut findings = Vec::new();
        let mut nodes: Vec<BoundNode> = Vec::with_capacity(graph.len());
        for index in graph.indices() {
            let mut bound = BoundNode::default();
            if let NodeKind::Plugin { uses, with } = &graph[index].kind {
                match self.instance(uses, &graph[index].id, with) {
                    Ok(task) => bound.task = Some(task),
                    Err((part, problem)) => findings.push(Finding { task: index, part, problem }),
                }
            }
            nodes.push(bound);
        }
        if findings.is_empty() {
            findings.extend(join_reads(graph, &mut nodes));
        }
        if findings.is_empty() { Ok(Bound { nodes }) } else { Err(graph.errors(findings)) }
    }

    fn instance(&self, plugin: &str, id: &TaskId, with: &Value) -> Result<Arc<dyn DynTask>, (Part, ProblemKind)> {
        if !self.has(plugin) {
            let nearest = graph::nearest(plugin, self.names()).map(str::to_owned);
            let problem = ProblemKind::UnknownPlugin { name: plugin.into(), nearest, is_id: plugin == id.as_str() };
            return Err((Part::Uses, problem));
        }
        self.make(plugin, id, with).map_err(|why| (Part::With, ProblemKind::Parameters { id: id.clone(), why }))
    }
}

impl Bound {
    pub(crate) fn node(&self, index: NodeIndex) -> &BoundNode {
        &self.nodes[index.index()]
    }
}

/// Finds the producer of each output that a node reads.
fn join_reads(graph: &Graph, nodes: &mut [BoundNode]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for index in graph.indices() {
        let mut reads = Vec::new();
        match (&graph[index].kind, &nodes[index.index()].task) {
            (NodeKind::Command(command), _) => reads.extend(command.reads().filter_map(|id| graph.find(id))),
            (_, None) => {}
            (_, Some(task)) => {
                let wanted = task.reads();
                if wanted.is_empty() {
                    continue;
                }
                let mut ancestors = graph.with_ancestors([index]);
                ancestors[index.index()] = false;
                for read in wanted {
                    match producer(graph, nodes, index, &ancestors, &read) {
                        Ok(found) => reads.push(found),
                        Err(problem) => findings.push(Finding { task: index, part: Part::Needs, problem }),
                    }
                }
            }
        }
        reads.sort_unstable();
        reads.dedup();
        nodes[index.index()].reads = reads;
    }
    findings
}

fn producer(
    graph: &Graph,
    nodes: &[BoundNode],
    reader: NodeIndex,
    ancestors: &[bool],
    read: &Read,
) -> Result<NodeIndex, ProblemKind> {
    let makes = |index: &NodeIndex| {
        nodes[index.index()].task.as_ref().is_some_and(|task| task.output_kind() == read.kind)
            && read.from.as_ref().is_none_or(|from| *from == graph[*index].id)
    };
    let found: Vec<NodeIndex> = graph.indices().filter(|index| ancestors[index.index()] && makes(index)).collect();
    let id = |index: NodeIndex| graph[index].id.clone();
    let kind = read.kind.to_owned();
    match found[..] {
        [one] => Ok(one),
        [] => {
            let elsewhere = graph.indices().find(makes).map(id);
            Err(ProblemKind::OutputMissing { id: id(reader), kind, elsewhere })
        }
        _ => Err(ProblemKind::OutputAmbiguous { id: id(reader), kind, makers: found.into_iter().map(id).collect() }),
    }
}
