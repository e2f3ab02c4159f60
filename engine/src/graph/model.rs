//! What a graph is made of, and how to walk it.

use std::collections::HashMap;
use std::ops::Index;
use std::path::{Path, PathBuf};
use std::time::Duration;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{EdgeRef, IntoNodeReferences};
use serde::{Deserialize, Serialize};

use crate::{TaskId, fingerprint};

/// An acyclic graph of tasks, checked: what it holds is consistent.
///
/// Nodes are numbered in the order of their declaration; edges lead from a need to its dependent.
#[derive(Debug, Clone)]
pub struct Graph {
    tasks: DiGraph<Node, Need, u32>,
    ids: HashMap<TaskId, NodeIndex>,
    topological: Vec<NodeIndex>,
    pools: Vec<Pool>,
    files: Vec<PathBuf>,
    digest: Digest,
}

/// The BLAKE3 hash of the files that a graph was read from, their names included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

/// A resource that tasks share, such as a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// What `pool:` of a task calls it.
    pub name: Box<str>,
    /// How much of it the running tasks may hold together; at least 1.
    pub capacity: u32,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// What the task is called.
    pub id: TaskId,
    /// One line for people.
    pub title: Option<Box<str>>,
    /// What the task does.
    pub kind: NodeKind,
    /// What it holds while it runs.
    pub pools: Box<[Claim]>,
    /// How often it is tried again after a transient failure; the engine's default when absent.
    pub retries: Option<Box<Retries>>,
    /// How long one attempt may take; without limit when absent.
    pub timeout: Option<Duration>,
    /// Where it is declared.
    pub place: Place,
}

/// An amount of a pool that a task holds while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The index of the pool in [`Graph::pools`].
    pub pool: u16,
    /// How much; at least 1, at most the pool's capacity.
    pub amount: u32,
}

/// Where a task is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The index of the file in [`Graph::files`].
    pub file: u16,
    /// The line, from 1.
    pub line: u32,
}

/// What a task does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum NodeKind {
    /// Code of the program.
    Plugin {
        /// The plugin's name: the task's id unless `uses:` says otherwise.
        uses: Box<str>,
        /// Parameters for it, an object; `null` without any.
        #[serde(with = "as_json_text")]
        with: serde_json::Value,
    },
    /// A command.
    Command(Box<CommandSpec>),
}

/// A task that is a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// What is run.
    pub run: Run,
    /// Environment variables in the order of their declaration, on top of the inherited ones.
    pub env: Box<[(Box<str>, EnvValue)]>,
    /// The folder it runs in, from the folder of the main graph file; that folder itself when absent.
    pub dir: Option<PathBuf>,
    /// Paths and globs, from `dir`, of the files that it reads.
    pub inputs: Box<[Box<str>]>,
    /// Paths and globs, from `dir`, of the files that it makes.
    pub outputs: Box<[Box<str>]>,
    /// Succeeds if what the task makes is there and right.
    pub probe: Option<Run>,
    /// Takes away what the task makes.
    pub destroy: Option<Run>,
    /// The exit codes after which trying again may help.
    pub transient_exit_codes: Box<[i32]>,
    /// The digest of all of the above that decides what it does.
    pub(crate) settings_digest: fingerprint::Digest,
}

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Run {
    /// A script for `sh -c`.
    Shell(Box<str>),
    /// A program and its arguments; at least the program.
    Argv(Box<[Box<str>]>),
}

/// What an environment variable is set to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnvValue {
    /// This text.
    Literal(Box<str>),
    /// What an ancestor gave out.
    From {
        /// The ancestor.
        from: TaskId,
        /// The dotted path into its output; the whole output as JSON when absent.
        field: Option<Box<str>>,
    },
    /// A secret.
    Secret {
        /// Its name.
        secret: Box<str>,
    },
}

/// That a task needs another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Need {
    /// What becomes of the dependent if the needed task is skipped.
    pub when_skipped: WhenSkipped,
}

/// What becomes of a task when one that it needs is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum WhenSkipped {
    /// It is skipped too.
    #[default]
    Skip,
    /// It runs: it can do without.
    Run,
}

/// How a task is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Retries {
    /// How often after the first attempt.
    pub count: u32,
    /// How long to wait before the first retry; doubled for each further one.
    pub backoff: Duration,
    /// What no wait exceeds.
    pub max_delay: Duration,
    /// The part of a wait that is left to chance: 0 none, 1 all of it.
    pub jitter: f64,
}

impl CommandSpec {
    /// The tasks whose outputs the command reads through its environment.
    pub fn reads(&self) -> impl Iterator<Item = &TaskId> {
        self.env.iter().filter_map(|(_, value)| match value {
            EnvValue::From { from, .. } => Some(from),
            EnvValue::Literal(_) | EnvValue::Secret { .. } => None,
        })
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self { count: 0, backoff: Duration::from_secs(1), max_delay: Duration::from_secs(60), jitter: 0.2 }
    }
}

impl Graph {
    /// Puts a graph together from parts that were checked.
    ///
    /// `edges` are in the order of their declaration. Gives nothing if there is a cycle.
    pub(super) fn assemble(nodes: impl ExactSizeIterator<Item = Node>, edges: &[Edge], parts: Parts) -> Option<Self> {
        let mut tasks = DiGraph::with_capacity(nodes.len(), edges.len());
        nodes.for_each(|node| _ = tasks.add_node(node));
        // petgraph walks the edges of a node from the last added to the first: added backwards, they come out in
        // the order of declaration, for needs and for dependents alike.
        for edge in edges.iter().rev() {
            tasks.add_edge(edge.from.into(), edge.to.into(), edge.need);
        }
        let ids = tasks.node_references().map(|(task, node)| (node.id.clone(), task)).collect();
        let topological = super::order::topological(&tasks)?;
        let Parts { pools, files, digest } = parts;
        Some(Self { tasks, ids, topological, pools, files, digest })
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.tasks.node_count()
    }

    /// Whether there is no task at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The task called `id`.
    pub fn find(&self, id: &TaskId) -> Option<NodeIndex> {
        self.ids.get(id).copied()
    }

    /// All tasks in the order of their declaration.
    pub fn indices(&self) -> impl DoubleEndedIterator<Item = NodeIndex> + ExactSizeIterator + use<> {
        self.tasks.node_indices()
    }

    /// All tasks, each after those that it needs; the same for the same graph.
    pub fn topological(&self) -> &[NodeIndex] {
        &self.topological
    }

    /// What `task` needs, in the order of declaration.
    pub fn needs(&self, task: NodeIndex) -> impl Iterator<Item = (NodeIndex, Need)> + '_ {
        self.tasks.edges_directed(task, Direction::Incoming).map(|edge| (edge.source(), *edge.weight()))
    }

    /// What needs `task`, in the order of declaration.
    pub fn dependents(&self, task: NodeIndex) -> impl Iterator<Item = (NodeIndex, Need)> + '_ {
        self.tasks.edges_directed(task, Direction::Outgoing).map(|edge| (edge.target(), *edge.weight()))
    }

    /// `tasks` and everything that they need, directly or not; one flag per task.
    pub fn with_ancestors(&self, tasks: impl IntoIterator<Item = NodeIndex>) -> Vec<bool> {
        self.closure(tasks, Direction::Incoming)
    }

    /// `tasks` and everything that needs them, directly or not; one flag per task.
    pub fn with_descendants(&self, tasks: impl IntoIterator<Item = NodeIndex>) -> Vec<bool> {
        self.closure(tasks, Direction::Outgoing)
    }

    fn closure(&self, tasks: impl IntoIterator<Item = NodeIndex>, direction: Direction) -> Vec<bool> {
        let mut inside = vec![false; self.len()];
        let mut open: Vec<NodeIndex> = tasks.into_iter().collect();
        while let Some(task) = open.pop() {
            if !std::mem::replace(&mut inside[task.index()], true) {
                open.extend(self.tasks.neighbors_directed(task, direction));
            }
        }
        inside
    }

    /// The pools, in the order of their declaration.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// The files that the graph was read from, the main one first.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The folder of the main file; the commands' folders are relative to it.
    pub fn folder(&self) -> &Path {
        self.files.first().and_then(|file| file.parent()).unwrap_or(Path::new(""))
    }

    /// A hash over all of the files' bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// That the task `to` needs the task `from`, both by their index.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Edge {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) need: Need,
}

/// What [`Graph::assemble`] takes besides tasks and needs.
pub(super) struct Parts {
    pub(super) pools: Vec<Pool>,
    pub(super) files: Vec<PathBuf>,
    pub(super) digest: Digest,
}

impl Index<NodeIndex> for Graph {
    type Output = Node;

    fn index(&self, task: NodeIndex) -> &Node {
        &self.tasks[task]
    }
}

/// Two graphs are equal if their tasks, needs and pools are; where they were read from does not matter.
impl PartialEq for Graph {
    fn eq(&self, other: &Self) -> bool {
        let alike = |task: NodeIndex| {
            let (a, b) = (&self[task], &other[task]);
            let place = a.place;
            *a == Node { place, ..b.clone() } && self.needs(task).eq(other.needs(task))
        };
        self.len() == other.len() && self.pools == other.pools && self.indices().all(alike)
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A JSON value inside of a format that does not describe itself.
mod as_json_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
    use serde_json::Value;

    pub(super) fn serialize<S: Serializer>(value: &Value, serializer: S) -> Result<S::Ok, S::Error> {
        let text = (!value.is_null()).then(|| serde_json::to_string(value)).transpose();
        text.map_err(ser::Error::custom)?.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        let text = Option::<&str>::deserialize(deserializer)?;
        text.map_or(Ok(Value::Null), |text| serde_json::from_str(text).map_err(de::Error::custom))
    }
}
