//! The plugins of a program, and their meeting with a graph.
//!
//! A [`Registry`] is made for one platform and one configuration. [`Registry::bind`] makes a task for each node of a
//! graph that names a plugin, and checks the flow of data: each output that a task reads has exactly one producer among
//! the task's ancestors.

mod erased;
mod parameters;
mod reads;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

pub(crate) use erased::{DynTask, ErasedMade};
pub use parameters::{BadParameters, NoParameters};

use crate::TaskId;
use crate::graph::{self, Finding, Graph, GraphErrors, Node, NodeIndex, NodeKind, Part, ProblemKind};
use crate::task::{Output, Task};

/// The plugins that a program has.
#[derive(Default)]
pub struct Registry {
    plugins: BTreeMap<&'static str, Plugin>,
}

struct Plugin {
    make: Make,
    /// The kind of what its tasks make.
    output: &'static str,
}

type Make = Box<dyn Fn(&Instance<'_>) -> Result<Arc<dyn DynTask>, BadParameters> + Send + Sync>;

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
        make: impl Fn(&Instance<'_>) -> Result<T, BadParameters> + Send + Sync + 'static,
    ) {
        let make: Make = Box::new(move |instance| Ok(Arc::new(make(instance)?)));
        self.plugins.insert(name, Plugin { make, output: T::Output::KIND });
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
    pub(crate) fn make(&self, plugin: &str, id: &TaskId, with: &Value) -> Result<Arc<dyn DynTask>, BadParameters> {
        let plugin = self.plugins.get(plugin).ok_or_else(|| format!("no plugin is called `{plugin}`"))?;
        (plugin.make)(&Instance { id, with })
    }

    /// Makes the tasks of all nodes of `graph` and checks the flow of data between them.
    ///
    /// # Errors
    /// All nodes with unknown plugins, wrong parameters, or outputs to read that no or several ancestors make.
    pub fn bind(&self, graph: &Graph) -> Result<Bound, GraphErrors> {
        let mut findings = Vec::new();
        let mut nodes = Vec::with_capacity(graph.len());
        for index in graph.indices() {
            let mut bound = BoundNode::default();
            if let NodeKind::Plugin { uses, with } = &graph[index].kind {
                let id = &graph[index].id;
                match self.plugins.get(&**uses).map(|plugin| (plugin.make)(&Instance { id, with })) {
                    Some(Ok(task)) => bound.task = Some(task),
                    Some(Err(BadParameters(faults))) => {
                        findings.extend(faults.into_iter().map(|fault| fault.finding(index, id, uses)));
                    }
                    None => findings.push(self.unknown(index, id, uses)),
                }
            }
            nodes.push(bound);
        }
        findings.extend(reads::join(self, graph, &mut nodes));
        if findings.is_empty() { Ok(Bound { nodes }) } else { Err(graph.errors(findings)) }
    }

    fn unknown(&self, task: NodeIndex, id: &TaskId, plugin: &str) -> Finding {
        let nearest = graph::nearest(plugin, self.names()).map(str::to_owned);
        let problem = ProblemKind::UnknownPlugin { name: plugin.into(), nearest, is_id: plugin == id.as_str() };
        Finding { task, part: Part::Uses, problem }
    }

    /// The kind of what a node makes; nothing for commands and unknown plugins.
    fn output(&self, node: &Node) -> Option<&'static str> {
        match &node.kind {
            NodeKind::Plugin { uses, .. } => self.plugins.get(&**uses).map(|plugin| plugin.output),
            NodeKind::Command(_) => None,
        }
    }
}

impl Bound {
    pub(crate) fn node(&self, index: NodeIndex) -> &BoundNode {
        &self.nodes[index.index()]
    }
}
