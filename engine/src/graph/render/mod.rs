//! A graph as a picture or as data.
//!
//! Tasks of one phase are drawn together. What happened to a task is told by colour, by a mark and in words, so that
//! it is also told in grey print and to people who do not see the difference between red and green.

mod dot;
mod json;
mod mermaid;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};

use super::{Graph, NodeIndex};
use crate::TaskId;

pub use dot::dot;
pub use json::json;
pub use mermaid::mermaid;

/// What a picture shows besides tasks and needs.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    /// The state of each task, by its index; empty where nothing is known, and no state is shown.
    pub states: Vec<NodeState>,
    /// The critical path, as [`critical_path`](super::critical::critical_path) gives it; empty to mark none.
    pub critical: Vec<NodeIndex>,
    /// Whether each task is shown, by its index; empty to show all.
    pub shown: Vec<bool>,
}

/// What happened to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Chooses colour and mark.
    pub class: Class,
    /// What a person reads, such as `failed after 3 attempts`.
    pub label: String,
}

/// The states that look different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// It waits.
    Pending,
    /// It runs.
    Running,
    /// It is done.
    Succeeded,
    /// It was left out.
    Skipped,
    /// It is done but for a part.
    Degraded,
    /// It failed.
    Failed,
    /// A person stopped it.
    Cancelled,
    /// The program ended in its midst.
    Interrupted,
}

impl Class {
    /// All classes, from the first thing that can happen to the last.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Running,
        Self::Succeeded,
        Self::Skipped,
        Self::Degraded,
        Self::Failed,
        Self::Cancelled,
        Self::Interrupted,
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Skipped => "skipped",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }

    /// The sign for it, one column wide.
    pub fn mark(self) -> char {
        match self {
            Self::Pending => '·',
            Self::Running => '►',
            Self::Succeeded => '√',
            Self::Skipped => '»',
            Self::Degraded => '±',
            Self::Failed => '×',
            Self::Cancelled => '■',
            Self::Interrupted => '¦',
        }
    }

    fn look(self) -> Look {
        // After Okabe and Ito; the fills also differ in lightness, and each text stands out from its fill.
        let (fill, border, text, dashed) = match self {
            Self::Pending => ("#ffffff", "#767676", "#333333", false),
            Self::Running => ("#56b4e9", "#004d7a", "#000000", false),
            Self::Succeeded => ("#c8ebdd", "#00694b", "#000000", false),
            Self::Skipped => ("#eeeeee", "#767676", "#444444", true),
            Self::Degraded => ("#f0e442", "#6b6300", "#000000", false),
            Self::Failed => ("#a33c00", "#5c2200", "#ffffff", false),
            Self::Cancelled => ("#999999", "#333333", "#000000", true),
            Self::Interrupted => ("#e69f00", "#6b4a00", "#000000", true),
        };
        Look { fill, border, text, dashed }
    }
}

/// How a task of a class is drawn.
struct Look {
    fill: &'static str,
    border: &'static str,
    text: &'static str,
    dashed: bool,
}

/// The colour of the critical path.
const CRITICAL: &str = "#b3005e";

/// A graph with an overlay, prepared for drawing.
struct Drawing<'a> {
    graph: &'a Graph,
    overlay: &'a Overlay,
    on_path: HashSet<NodeIndex>,
    path_edges: HashSet<(NodeIndex, NodeIndex)>,
}

impl<'a> Drawing<'a> {
    fn new(graph: &'a Graph, overlay: &'a Overlay) -> Self {
        let on_path = overlay.critical.iter().copied().collect();
        let path_edges = overlay.critical.windows(2).map(|pair| (pair[0], pair[1])).collect();
        Self { graph, overlay, on_path, path_edges }
    }

    fn shows(&self, task: NodeIndex) -> bool {
        self.overlay.shown.get(task.index()).copied().unwrap_or(true)
    }

    fn state(&self, task: NodeIndex) -> Option<&'a NodeState> {
        self.overlay.states.get(task.index())
    }

    fn look(&self, task: NodeIndex) -> Look {
        self.state(task).map_or(Class::Pending, |state| state.class).look()
    }

    /// The tasks that are shown, by phase; phases and the tasks in them in their natural order.
    fn phases(&self) -> Vec<(Option<TaskId>, Vec<NodeIndex>)> {
        let mut phases: BTreeMap<Option<TaskId>, Vec<NodeIndex>> = BTreeMap::new();
        for task in self.graph.indices().filter(|task| self.shows(*task)) {
            // What stands before a dot of an id is itself an id.
            let phase = self.graph[task].id.phase().and_then(|phase| TaskId::new(phase).ok());
            phases.entry(phase).or_default().push(task);
        }
        phases.values_mut().for_each(|tasks| tasks.sort_by(|a, b| self.graph[*a].id.cmp(&self.graph[*b].id)));
        phases.into_iter().collect()
    }

    /// The needs between tasks that are shown, in the order of the dependents' declaration.
    fn edges(&self) -> impl Iterator<Item = Edge> + '_ {
        self.graph.indices().filter(|task| self.shows(*task)).flat_map(move |to| {
            let needs = self.graph.needs(to).filter(|(from, _)| self.shows(*from));
            needs.map(move |(from, need)| {
                let optional = need.when_skipped == super::WhenSkipped::Run;
                Edge { from, to, optional, critical: self.path_edges.contains(&(from, to)) }
            })
        })
    }

    /// The lines of a task's label: mark and id, then the title.
    fn label(&self, task: NodeIndex) -> Vec<String> {
        let node = &self.graph[task];
        let id = match self.state(task) {
            Some(state) => format!("{} {}", state.class.mark(), node.id),
            None => node.id.to_string(),
        };
        let title = node.title.as_deref().map(wrapped).unwrap_or_default();
        std::iter::once(id).chain(title).collect()
    }

    /// The classes that the shown tasks have.
    fn classes(&self) -> Vec<Class> {
        let tasks = self.graph.indices().filter(|task| self.shows(*task));
        let present: HashSet<Class> = tasks.filter_map(|task| self.state(task)).map(|state| state.class).collect();
        Class::ALL.into_iter().filter(|class| present.contains(class)).collect()
    }
}

/// A need between two tasks that are shown.
struct Edge {
    from: NodeIndex,
    to: NodeIndex,
    /// Whether the dependent can do without.
    optional: bool,
    critical: bool,
}

/// `text` in lines of about 28 characters.
fn wrapped(text: &str) -> Vec<String> {
    const WIDTH: usize = 28;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
